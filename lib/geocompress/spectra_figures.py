"""Drawings of a tangent kernel in motion: its eigenfunctions, its spectrum in time, what its machines make of it.

Arrays and the tables of `ntk_experiments` come in, matplotlib artists go out; nothing is computed but units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import ArrayLike

from geocompress.checks import Real
from geocompress.figures import COLOURS

SIGNED = mpl.colormaps["RdBu_r"].resampled(25)  # few colours: contours can be followed, and the picture is light
ALIGNMENTS = {
    "alignment": ("whole kernel", "black", "-"),
    "alignment_readout": ("readout part", "orange", "--"),
    "alignment_hidden": ("hidden part", "blue", ":"),
}


def eigenfunctions(
    axes: np.ndarray,
    axis: Float[np.ndarray, " g"],
    pictures: Mapping[str, np.ndarray],
    edges: Sequence[float] = (),
) -> None:
    """The first eigenfunctions over the plane (x_1, one x_⊥): a row for each moment, a column for each rank.

    Each picture is in units of its own largest modulus, blue below zero and red above. Rows are named by the keys.

    Args:
        axes: shape (moments, ranks shown).
        axis: coordinates along both sides of the pictures.
        pictures: by name of the moment, shape (g, g, k), x_1 along axis 1, as in `ntk_experiments.Spectra`.
        edges: values of x_1 where the label flips, drawn as lines.

    Raises:
        ValueError: axes that are not one row a moment, or more columns than ranks.
    """
    axes = np.atleast_2d(axes)
    ranks = min((picture.shape[2] for picture in pictures.values()), default=0)
    if len(axes) != len(pictures) or axes.shape[1] > ranks:
        raise ValueError(
            f"axes: expected {len(pictures)} rows of at most {ranks}, one for each moment, got shape {axes.shape}"
        )
    for row, (name, picture) in zip(axes, pictures.items(), strict=True):
        for r, ax in enumerate(row):
            shown = picture[:, :, r] / np.abs(picture[:, :, r]).max()
            ax.pcolormesh(axis, axis, shown, cmap=SIGNED, vmin=-1, vmax=1, shading="nearest", rasterized=True)
            for edge in edges:
                ax.axvline(edge, color="0.1", linewidth=0.8)
            ax.grid(visible=False)
            ax.set(aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
            ax.label_outer()
        row[0].set_ylabel(f"{name}\n$x_\\perp$")
    for r, (top, bottom) in enumerate(zip(axes[0], axes[-1], strict=True)):
        top.set_title(f"$\\varphi_{{{r + 1}}}$")
        bottom.set_xlabel("$x_1$")


def alignment_in_time(ax: Axes, series: pd.DataFrame, t_star: Real | None = None) -> Axes:
    """Centred alignment with the label of the kernel and of its two parts, against time; a grey line at t*.

    `series` is that of `ntk_experiments.Spectra`.
    """
    moving = series[series["t"] > 0]
    for column, (label, colour, line) in ALIGNMENTS.items():
        ax.plot(moving["t"], moving[column], line, color=COLOURS[colour], label=label)
    ax.set(ylim=(0, None), ylabel="alignment with $y$")
    return _timed(ax, moving, t_star)


def readout_share_in_time(ax: Axes, series: pd.DataFrame, t_star: Real | None = None) -> Axes:
    """The two parts of the trace of the kernel, stacked to one, against time; a grey line at t*."""
    moving = series[series["t"] > 0]
    ax.stackplot(
        moving["t"],
        moving["readout_share"],
        1 - moving["readout_share"],
        labels=["readout $\\beta$", "hidden layer $\\omega, b$"],
        colors=[COLOURS["orange"], COLOURS["sky"]],
        alpha=0.6,
    )
    ax.set(ylim=(0, 1), ylabel="share of tr $\\Theta$")
    return _timed(ax, moving, t_star)


def by_rank_in_time(
    ax: Axes,
    times: ArrayLike,
    values: Float[np.ndarray, "n k"],
    t_star: Real | None = None,
    *,
    largest: Real,
) -> QuadMesh:
    """One row for each eigenvector, one column for each time after t = 0, dark where the value is `largest`.

    Returns:
        The mesh, for a colour bar.

    Raises:
        ValueError: fewer than two times after t = 0, or a number of times that is not that of the values.
    """
    times = np.asarray(times, dtype=np.float64)
    if len(times) != len(values) or (times > 0).sum() < 2:
        raise ValueError(f"times: expected one for each of {len(values)} and two above 0, got {times}")
    moving = times > 0
    logs = np.log(times[moving])
    between = (logs[1:] + logs[:-1]) / 2
    borders = np.exp(np.concatenate([logs[:1], between, logs[-1:]]))
    ranks = np.arange(values.shape[1] + 1) + 0.5
    mesh = ax.pcolormesh(borders, ranks, values[moving].T, cmap="Blues", vmin=0, vmax=largest, rasterized=True)
    ax.grid(visible=False)
    ax.set(xscale="log", xlim=borders[[0, -1]], ylim=ranks[[-1, 0]], ylabel="eigenvector $r$")
    ax.set_yticks([1, *range(5, values.shape[1] + 1, 5)])
    if t_star is not None:
        ax.axvline(t_star, color="0.4", linewidth=1)
    return mesh


def machines_in_time(ax: Axes, run: pd.DataFrame, t_star: Real | None = None) -> Axes:
    """Test errors of the net at time t and of the machine on its kernel frozen at time t; a grey line at t*.

    `run` has the columns t, net and machine.
    """
    moving = run[run["t"] > 0]
    ax.plot(moving["t"], moving["net"], "-o", color=COLOURS["blue"], label="the net at time $t$")
    ax.plot(
        moving["t"], moving["machine"], "-s", color=COLOURS["orange"], mfc="none", label="machine, NTK frozen at $t$"
    )
    ax.set(yscale="log", ylabel="test error $\\varepsilon$")
    return _timed(ax, moving, t_star)


def against_one(ax: Axes, ylabel: str) -> Axes:
    """Finish a drawing of ratios against p: a dashed line at 1, plain numbers at the ticks."""
    ax.axhline(1, color="0.4", linestyle="--", zorder=0)
    ax.yaxis.set(
        major_locator=LogLocator(subs=(1, 1.5, 2, 3, 5, 7)), major_formatter="{x:g}", minor_locator=NullLocator()
    )
    ax.set(xlabel="number of training points $p$", ylabel=ylabel)
    return ax


def _timed(ax: Axes, moving: pd.DataFrame, t_star: Real | None) -> Axes:
    ax.set(xscale="log", xlim=(moving["t"].min(), moving["t"].max()), xlabel="mean-field time $t$")
    if t_star is not None:
        ax.axvline(t_star, color="0.4", linewidth=1)
    return ax
