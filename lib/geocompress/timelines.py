"""Drawings of trainings: one run in time, and the amplifications of many; rows in, matplotlib artists out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from geocompress.checks import Real
from geocompress.figures import COLOURS, scaling
from geocompress.fits import fit_amplification, fit_power_law


def training_periods(axes: Sequence[Axes] | np.ndarray, series: pd.DataFrame, t_star: Real, t_lambda_max: Real) -> None:
    """One training on three stacked axes: λ, margins, and test error against time, the three periods shaded.

    `series` has the columns of `experiments.Recording.series`; the compressing period lasts until `t_star`, the
    fitting one until `t_lambda_max`, the over-fitting one to the end.
    """
    moving = series[series["t"] > 0]
    t = moving["t"]
    axes[0].plot(t, moving["amplification"], color=COLOURS["blue"])
    axes[0].set(ylabel="amplification $\\lambda$", yscale="log")
    axes[1].fill_between(t, moving["m10"], moving["m90"], color=COLOURS["sky"], alpha=0.4, label="8 points in 10")
    axes[1].plot(t, moving["m50"], color=COLOURS["blue"], label="median")
    axes[1].axhline(1, color="0.4", linestyle="--", label="margin 1")
    axes[1].set(ylabel="margin $yF$", yscale="symlog")
    axes[1].legend(loc="upper left")
    unfitted = axes[1].twinx()
    unfitted.plot(t, moving["unfitted"], color=COLOURS["vermilion"])
    unfitted.set_ylabel("unfitted points", color=COLOURS["vermilion"])
    unfitted.grid(visible=False)
    axes[2].plot(t, moving["test_error"], color=COLOURS["black"])
    axes[2].set(ylabel="test error", yscale="log", xlabel="mean-field time $t$")
    borders = [t.min(), t_star, t_lambda_max, t.max()]
    names = ("compressing", "fitting", "over-fitting")
    for ax in axes:
        ax.set(xscale="log", xlim=(borders[0], borders[-1]))
        ax.axvspan(borders[1], borders[2], color="0.92", zorder=0)
    for left, right, name in zip(borders, borders[1:], names, strict=False):
        axes[0].text(np.sqrt(left * right), 1.02, name, transform=axes[0].get_xaxis_transform(), ha="center")


def amplification_scaling(ax: Axes, rows: pd.DataFrame, label: str, *, filled: bool = True, shift: Real = 1.0) -> Axes:
    """λ(t*) and the largest λ against p, averaged as in `exponents.fit_amplification`, with 95 % intervals.

    `rows` has the columns p, lambda_star and lambda_max; `shift` moves the points sideways, so that two sources show.
    """
    for column, marker, colour, name in (
        ("lambda_star", "o", "blue", "$\\lambda(t^*)$"),
        ("lambda_max", "^", "vermilion", "$\\max_t\\lambda$"),
    ):
        fit = fit_amplification(rows.p, rows[column])  # only its means are drawn
        bars = np.stack([fit.mean_error - fit.mean_low, fit.mean_high - fit.mean_error])
        style = {"color": COLOURS[colour], "mfc": COLOURS[colour] if filled else "white", "capsize": 3}
        ax.errorbar(shift * fit.p, fit.mean_error, bars, fmt=marker, label=f"{name}, {label}", **style)
    ax.set(xscale="log", yscale="log", xlabel="number of training points $p$", ylabel="amplification $\\lambda$")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    return ax


def convergence(axes: np.ndarray, rows: pd.DataFrame, usual: Mapping[str, Real]) -> None:
    """Test error (upper row) and λ(t*) (lower row) against each setting in `usual`, the others at their usual value.

    `axes` has shape (2, len(usual)); `rows` has the columns test_error, lambda_star and those of `usual`. Dots are
    means over replicas with 95 % intervals; a vertical line marks the usual value.

    Raises:
        ValueError: a setting of which the rows have fewer than two values.
    """
    words = {"width": "width $h$", "alpha": "$\\alpha$", "margin_tol": "margin tolerance"}
    for column, pair in zip(usual, axes.T, strict=True):
        others = [name for name in usual if name != column]
        part = rows[np.logical_and.reduce([rows[name] == usual[name] for name in others])]
        for ax, measure, average in zip(
            pair, ("test_error", "lambda_star"), (fit_power_law, fit_amplification), strict=True
        ):
            means = average(part[column], part[measure])
            scaling(ax, means.p, means.mean_error, means.mean_low, means.mean_high)
            ax.axvline(usual[column], color="0.7", linewidth=1, zorder=0)
            ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_locator=NullLocator())
        pair[1].set_xlabel(words.get(column, column))
    axes[0, 0].set_ylabel("test error $\\varepsilon$")
    axes[1, 0].set_ylabel("$\\lambda(t^*)$")


def amplification_in_time(ax: Axes, series: pd.DataFrame, t_star: Real, *, label: str, unit: Real = 1.0) -> Axes:
    """λ/unit against time, with a dot at t*; `series` has the columns t and amplification."""
    moving = series[series["t"] > 0]
    (line,) = ax.plot(moving["t"], moving["amplification"] / unit, label=label)
    at_star = np.interp(t_star, moving["t"], moving["amplification"]) / unit
    ax.plot(t_star, at_star, "o", color=line.get_color())
    ax.set(xscale="log", yscale="log", xlabel="mean-field time $t$")
    return ax
