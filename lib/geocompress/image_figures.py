"""Drawings of the chapter on images: strips along eigenvectors, the burst, what layers feel, the way from α to α.

Rows of `image_experiments` and arrays come in, matplotlib artists go out; nothing is computed but means over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import ArrayLike

from geocompress import comparisons, curves, figures, image_claims, spectra_figures
from geocompress.checks import Whole, integer
from geocompress.input_gradients import GradientCovariance
from geocompress.states import State

SPREAD = 1.15  # factor between the dots of the first and the last method
LOOKS = {"init": ("before training", "vermilion", "v"), "final": ("after training", "green", "^")}


def strip(ax: Axes, images: Float[np.ndarray, "n c s s"], values: ArrayLike, y: ArrayLike, count: Whole = 14) -> Axes:
    """Some images side by side, from the smallest value to the largest at equal steps of rank; below each its label.

    Images of several channels are shown by their mean over channels, in grey, dark where the pixel is above the mean
    image.

    Args:
        ax: where to draw.
        images: the images.
        values: what to sort by, such as the components of an eigenvector, shape (n,).
        y: labels −1 or +1, shape (n,).
        count: how many images to show.

    Raises:
        ValueError: lengths that differ, or fewer images than are to be shown.
    """
    images, values, y = np.asarray(images), np.asarray(values), np.asarray(y)
    count = integer(count, "count")
    if images.ndim != 4 or not len(images) == len(values) == len(y) >= count:
        raise ValueError(
            f"strip: expected at least {count} images (n, c, s, s) with a value and a label each, got {images.shape}, "
            f"{len(values)} values and {len(y)} labels"
        )
    chosen = np.argsort(values, kind="stable")[np.linspace(0, len(values) - 1, count).round().astype(int)]
    shown, size = images[chosen].mean(1), images.shape[-1]
    ax.imshow(np.concatenate(list(shown), axis=1), cmap="Greys", interpolation="nearest", aspect="equal")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set(yticks=[])
    ax.set_xticks((np.arange(count) + 0.5) * size - 0.5, ["+" if label > 0 else "−" for label in y[chosen]])
    ax.tick_params(length=0, pad=1)
    for text, label in zip(ax.get_xticklabels(), y[chosen], strict=True):
        text.set(fontweight="bold", color=figures.COLOURS["blue" if label > 0 else "vermilion"])
    return ax


def burst(path: Sequence[State]) -> int:
    """Number of the last state before any margin has left (−1, 1): where the net begins to move fast.

    Raises:
        ValueError: a path on which no margin ever does, or which begins so.
    """
    far = [bool((state.margins.abs() >= 1).any()) for state in path]
    if not any(far) or far[0]:
        raise ValueError("burst: expected a path from small margins to a margin of 1, got none such")
    return far.index(True) - 1


def awakening(ax: Axes, path: Sequence[State]) -> Axes:
    """Largest |margin| against mean-field time, from the first step to the end, with a line at margin 1."""
    t, largest = zip(*((state.t, float(state.margins.abs().max())) for state in path if state.t > 0), strict=True)
    ax.plot(t, largest, "-o", color=figures.COLOURS["blue"], markersize=4)
    ax.axhline(1, color="0.4", linestyle="--", linewidth=1)
    ax.set(yscale="log", xlabel="mean-field time $t$", ylabel="largest $|y F|$")
    return ax


def after_burst(axes: np.ndarray, path: Sequence[State]) -> None:
    """Loss, and margins with the median and the span of eight in ten of each label, against log time from the burst."""
    start = path[burst(path)].t
    later = [state for state in path if state.t > start]
    t = np.array([state.t - start for state in later])
    axes[0].plot(t, [state.loss for state in later], "-o", color=figures.COLOURS["black"], markersize=4)
    axes[0].set(yscale="log", ylabel="loss $L$")
    margins = np.stack([state.margins.double().cpu().numpy() for state in later])
    low, middle, high = np.quantile(margins, (0.1, 0.5, 0.9), axis=1)
    axes[1].fill_between(t, low, high, color=figures.COLOURS["sky"], alpha=0.5, label="eight images in ten")
    axes[1].plot(t, middle, "-o", color=figures.COLOURS["blue"], markersize=4, label="median")
    axes[1].plot(t, margins.min(1), ":", color=figures.COLOURS["vermilion"], label="smallest")
    axes[1].axhline(1, color="0.4", linestyle="--", linewidth=1)
    axes[1].set(ylabel="margins $y F$")
    for ax in axes:
        ax.set(xscale="log", xlabel="time since the burst, $t - t_b$")


def by_rank(ax: Axes, values: Mapping[str, ArrayLike], ylabel: str) -> Axes:
    """Bars by rank of eigenvector, before and after training side by side; means over runs, bars two standard errors.

    Args:
        ax: where to draw.
        values: for "init" and "final", one line a run, shape (n, k); one run has no error bars.
        ylabel: what they are.
    """
    for place, (moment, (label, colour, _)) in zip((-0.2, 0.2), LOOKS.items(), strict=True):
        runs = np.atleast_2d(np.asarray(list(values[moment]), dtype=np.float64))
        ranks, bars = np.arange(1, runs.shape[1] + 1), _two_errors(runs)
        look = {"color": figures.COLOURS[colour], "edgecolor": "0.2", "linewidth": 0.5}
        ax.bar(ranks + place, runs.mean(0), 0.4, yerr=bars, label=label, error_kw={"linewidth": 1}, **look)
        if moment == "final":
            for patch in ax.patches[len(ranks) :]:
                patch.set_hatch("///")
    ax.set(xlabel="rank $r$ of the eigenvector", ylabel=ylabel, xticks=ranks, ylim=(0, None))
    return ax


def layers(ax: Axes, stability: Mapping[str, ArrayLike]) -> Axes:
    """Relative stability of every layer, before and after training: means over runs, bars two standard errors.

    `stability` has "init" and "final", each one line a run, shape (n, layers), in the order an image meets the layers;
    the dashed line at one says that a deformation changes the layer as much as noise of its size.
    """
    for moment, (label, colour, marker) in LOOKS.items():
        runs = np.atleast_2d(np.asarray(list(stability[moment]), dtype=np.float64))
        number, look = np.arange(1, runs.shape[1] + 1), {"color": figures.COLOURS[colour], "label": label}
        ax.errorbar(number, runs.mean(0), _two_errors(runs), fmt=f"-{marker}", capsize=2, linewidth=1, **look)
    ax.axhline(1, color="0.4", linestyle="--", linewidth=1, zorder=0)
    ax.set(yscale="log", xlabel="layer $k$", ylabel="relative stability $R_k$")
    _plain(ax, number[::2])
    return ax


def learning(axes: np.ndarray, every: pd.DataFrame, methods: Sequence[str] = image_claims.METHODS) -> None:
    """Learning curves with a guide of slope −1/2 below them, and beside them the errors of machines over the net's.

    A single p is drawn without fits. Dots of one p stand side by side, since some of the methods err alike.

    Args:
        axes: two.
        every: rows of `image_experiments.by_method` of one α and inertia.
        methods: which to show, the net first.
    """
    left, right = axes
    if every.p.nunique() > 1:
        curves.draw_errors(left, every, methods, spread=SPREAD)
    net = every[every.method == methods[0]]
    means = net.groupby("p").test_error.mean()
    through = (means.index[0], 0.6 * float((means * (means.index / means.index[0]) ** 0.5).min()))
    figures.guide(left, means.index, -0.5, through, label="slope −1/2")
    for name in methods[1:]:
        ratio, look = comparisons.paired_ratio(every[every.method == name], net), curves.STYLES[name]
        place = curves.apart(methods, SPREAD)[name] * ratio.p
        bars = np.stack([ratio.ratio - ratio.low, ratio.high - ratio.ratio])
        marks = {"color": look.colour, "mfc": look.colour if look.filled else "none", "capsize": 3}
        right.errorbar(place, ratio.ratio, bars, fmt=f"-{look.marker}", linewidth=1, **marks)
    right.set(xscale="log", yscale="log")
    spectra_figures.against_one(right, "error, machine / net")
    for ax in axes:
        _plain(ax, net.p.unique(), rotation=60)


def alike(column: np.ndarray, rows: pd.DataFrame, every: pd.DataFrame) -> None:
    """Label projections and information at the largest p, learning curves below: for images as for the stripe.

    Args:
        column: three axes, from above.
        rows: of `image_experiments.train_images` or `ntk_experiments.train_frozen`, of one curve.
        every: the same by method.
    """
    last = rows[rows.p == rows.p.max()]
    for ax, name, label in zip(
        column, ("projections", "information"), ("label projection", "information (nats)"), strict=False
    ):
        by_rank(ax, {moment: last[f"{name}_{moment}"] for moment in LOOKS}, label)
    column[1].axhline(np.log(2), color="0.4", linestyle="--", linewidth=1)
    if every.p.nunique() > 1:
        curves.draw_errors(column[2], every, image_claims.CLAIMED, spread=SPREAD)
        _plain(column[2], every.p.unique(), rotation=60)


def directions(axes: np.ndarray, felt: GradientCovariance, shape: Sequence[int]) -> None:
    """The leading directions of an input-gradient covariance as pictures, each with its share of the trace.

    Args:
        axes: one for each direction, at most as many as there are.
        felt: the covariance.
        shape: of an image, (c, s, s); channels are summed.
    """
    for ax, vector, value in zip(axes, felt.vectors, felt.values, strict=False):
        picture = vector.reshape(*shape).sum(0)
        reach = np.abs(picture).max()
        ax.imshow(picture, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
        ax.grid(visible=False)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{100 * value / felt.values.sum():.0f} %", fontsize=10)


def crossover(ax: Axes, every: pd.DataFrame, methods: Sequence[str] = image_claims.CLAIMED) -> Axes:
    """Test error against α at one p: lines for gradient flow, open stars for the runs with momentum.

    Args:
        ax: where to draw.
        every: rows of `image_experiments.by_method` of one p.
        methods: which to show.

    Raises:
        ValueError: rows of several p.
    """
    if every.p.nunique() != 1:
        raise ValueError(f"crossover: expected rows of one p, got {sorted(every.p.unique())}")
    table = image_claims.error_by_method(every)
    for name, shift in curves.apart(methods, SPREAD).items():
        look, lines = curves.STYLES[name], table[table.method == name]
        flow, momentum = lines[lines.inertia == 0], lines[lines.inertia > 0]
        marks = {"color": look.colour, "capsize": 3, "mfc": look.colour if look.filled else "none"}
        bars = [flow.error - flow.low, flow.high - flow.error]
        text = look.label.split(",")[0]  # the regime is what the axis says
        ax.errorbar(shift * flow.alpha, flow.error, bars, fmt=f"-{look.marker}", label=text, linewidth=1, **marks)
        if len(momentum) and name != "ntk_init":  # which knows nothing of a path
            bars = [momentum.error - momentum.low, momentum.high - momentum.error]
            open_star = {"fmt": "*", "markersize": 11, "color": look.colour, "mfc": "none", "capsize": 3}
            ax.errorbar(2 * shift * momentum.alpha, momentum.error, bars, label=f"{text}, with momentum", **open_star)
    ax.set(xscale="log", yscale="log", xlabel="$\\alpha$", ylabel="test error $\\varepsilon$")
    _plain(ax, table.alpha.unique())
    return ax


def _two_errors(runs: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"] | None:
    return 2 * runs.std(0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else None


def _plain(ax: Axes, ticks: ArrayLike, rotation: int = 0) -> None:
    """Plain numbers at the given places along the axis, and along the logarithmic axis of values."""
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks], rotation=rotation)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 3, 5)), major_formatter="{x:g}", minor_locator=NullLocator())
