"""Drawing only: arrays and rows come in, matplotlib artists go out; whatever is computed is computed elsewhere.

Every function takes the `Axes` to draw on and returns it. Data are dots with error bars, predictions are dashed lines
without them, so that the two are never taken for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from geocompress.checks import Real

# Okabe and Ito's eight colours, told apart with any colour vision; black first for what is measured
COLOURS = {
    "black": "#000000",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
}
BESIDE = 0.8  # inches of a panel's width that labels and margins take
DIGIT = 0.085  # inches of a digit of a tick label
REGIME_COLOURS = {"feature": COLOURS["blue"], "lazy": COLOURS["vermilion"], "kernel": COLOURS["green"]}
LABEL_COLOURS = {-1: COLOURS["orange"], 1: COLOURS["sky"]}


def use_style() -> None:
    """Set the look of all figures that follow: 6.5 in wide, type of 10 points or more, colours for any vision."""
    mpl.rcParams.update(mpl.rcParamsDefault | {"backend": mpl.rcParams["backend"]})
    mpl.rcParams.update(
        {
            "figure.figsize": (6.5, 3.8),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.prop_cycle": mpl.cycler(color=list(COLOURS.values())[:-1]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.labelsize": 12,
            "axes.titlesize": 12,
            "font.size": 11,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "legend.fontsize": 10,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "text.usetex": False,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
        }
    )


def scaling(
    ax: Axes,
    x: ArrayLike,
    y: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    *,
    label: str | None = None,
    colour: str | None = None,
    marker: str = "o",
    fit: Callable[[np.ndarray], np.ndarray] | None = None,
    fit_label: str | None = None,
) -> Axes:
    """Measured y against x in log-log scale; bars reach from `low` to `high`, `fit` is drawn as a thin full line.

    `x`, `y`, `low`, `high`: shape (k,), `low` ≤ y ≤ `high`; `fit` maps x to y.

    Raises:
        ValueError: if lengths differ, only one end of the bars is given, or a bar does not hold its point.
    """
    x, y, bars = _points(x, y, low, high)
    (marks, *_) = ax.errorbar(x, y, bars, fmt=marker, color=colour, capsize=3, label=label)
    ax.set(xscale="log", yscale="log")
    if fit is not None:
        grid = np.geomspace(x.min(), x.max(), 50)
        ax.plot(grid, fit(grid), color=marks.get_color(), linewidth=1, label=fit_label)
    plain_powers(ax, x)
    return ax


def guide(
    ax: Axes, x: ArrayLike, exponent: Real, through: tuple[Real, Real], *, label: str, colour: str = "0.4"
) -> Line2D:
    """Predicted power law y ∝ x^exponent as a dashed line over the span of x, through one point beside the data."""
    x = np.asarray(x, dtype=np.float64)
    grid = np.geomspace(x.min(), x.max(), 50)
    (line,) = ax.plot(grid, through[1] * (grid / through[0]) ** exponent, "--", color=colour, label=label)
    return line


def learning_curve(
    ax: Axes,
    p: ArrayLike,
    error: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    *,
    label: str | None = None,
    colour: str | None = None,
    marker: str = "o",
    fit: Callable[[np.ndarray], np.ndarray] | None = None,
    fit_label: str | None = None,
    prediction: Real | None = None,
) -> Axes:
    """Test error against the number of points; the predicted ε ~ p^{−prediction} is drawn beside it, below the data.

    The arguments are those of `scaling`, `fit` included; `prediction` is an exponent β, not a curve: its height means
    nothing.

    Raises:
        ValueError: as `scaling`.
    """
    scaling(ax, p, error, low, high, label=label, colour=colour, marker=marker, fit=fit, fit_label=fit_label)
    colour = ax.lines[-1].get_color() if colour is None else colour
    if prediction is not None:
        p, error = np.asarray(p, dtype=np.float64), np.asarray(error, dtype=np.float64)
        drop = 0.6 * np.min(error / (error[0] * (p / p[0]) ** -prediction))
        guide(ax, p, -prediction, (p[0], drop * error[0]), label=f"predicted slope −{prediction:.3f}", colour=colour)
    ax.set(xlabel="number of training points $p$", ylabel="test error $\\varepsilon$")
    return ax


def points_in_plane(ax: Axes, x: ArrayLike, y: ArrayLike, *, edges: Sequence[float] = (), size: float = 14) -> Axes:
    """Points in the plane of x_∥ (first) and one x_⊥ (second column), coloured and shaped by label; edges as lines.

    `x`: (p, ≥ 2), `y`: (p,) in {−1, +1}; `edges`: values of the first coordinate.

    Raises:
        ValueError: if x is not (p, ≥ 2) or y not (p,).
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] < 2 or y.shape != x.shape[:1]:
        raise ValueError(f"expected x (p, ≥ 2) and y (p,), got {x.shape} and {y.shape}")
    for label, marker in ((-1, "s"), (1, "o")):
        of_label = x[y == label]
        colour = LABEL_COLOURS[label]
        outline = {"edgecolor": "0.2", "linewidth": 0.4, "label": f"$y={label:+d}$"}
        ax.scatter(*of_label[:, :2].T, s=size, marker=marker, color=colour, **outline)
    for edge in edges:
        ax.axvline(edge, color="0.2", linewidth=1)
    ax.set(xlabel="$x_1$ (the label depends on it)", ylabel="$x_2$ (it does not)", aspect="equal")
    return ax


def plain_powers(ax: Axes, x: ArrayLike) -> None:
    """Label a logarithmic x-axis by the measured values themselves (64, 128, …) when there are few of them.

    Where the panel has no room for all, every second, third, … is labelled, the largest always.
    """
    values = np.unique(np.asarray(x, dtype=np.float64))
    if len(values) > 10:
        return
    step, place = 1, ax.get_subplotspec()
    if len(values) > 2:
        columns = place.get_gridspec().ncols if place else 1
        wide = ax.figure.get_figwidth() / columns - BESIDE
        pitch = wide * np.median(np.diff(np.log(values))) / np.log(values[-1] / values[0])
        step = max(1, math.ceil(DIGIT * (len(f"{values[-1]:g}") + 0.5) / pitch))
    chosen = values[::-step][::-1]
    ax.set_xticks(chosen, [f"{value:g}" for value in chosen])
    ax.xaxis.set_minor_locator(NullLocator())


def _points(
    x: ArrayLike, y: ArrayLike, low: ArrayLike | None, high: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"expected x and y of one length ≥ 1, got shapes {x.shape} and {y.shape}")
    if (low is None) != (high is None):
        raise ValueError("expected both ends of the error bars, low and high, or none; got one")
    if low is None:
        return x, y, None
    bars = np.stack([y - np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64) - y])
    if (bars < -1e-12 * np.abs(y)).any():
        raise ValueError("expected low ≤ y ≤ high at every point; low and high are ends of the bar, not its lengths")
    return x, y, np.maximum(bars, 0)
