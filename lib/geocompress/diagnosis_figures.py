"""Figures of a `diagnosis.Diagnosis`: each on axes that come in, for chapters and for the page of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from geocompress.diagnosis import Diagnosis
from geocompress.figures import COLOURS

NET, KERNEL = COLOURS["blue"], COLOURS["vermilion"]
FIRST, LAST = COLOURS["vermilion"], COLOURS["blue"]
LONG = 16  # entries of a direction up to which it is drawn as bars


def errors(ax: Axes, report: Diagnosis, *, time: str = "checkpoint") -> Axes:
    """Test error of the net and of its kernel frozen at each checkpoint; of the net on the training points, dashed.

    Raises:
        ValueError: a report without held-out points.
    """
    if not report.holdout:
        raise ValueError("errors: expected a report with held-out points, got none; pass holdout to diagnose")
    table = report.table
    ax.plot(table.time, table.net_error, "o-", color=NET, label="net")
    ax.plot(table.time, table.train_error, ":", color=NET, label="net, training points")
    ax.plot(table.time, table.kernel_error, "s-", color=KERNEL, label="its tangent kernel, frozen")
    unit = "relative squared error" if report.kind == "regression" else "share of wrong labels"
    ax.set(xlabel=time, ylabel=unit, ylim=(0, None))
    _instants(ax, report)
    ax.legend()
    return ax


def alignment(ax: Axes, report: Diagnosis, *, time: str = "checkpoint") -> Axes:
    """Alignment of the tangent kernel with the label at each checkpoint."""
    ax.plot(report.table.time, report.table.alignment, "o-", color=NET)
    ax.set(xlabel=time, ylabel="alignment with the label", ylim=(0, None))
    _instants(ax, report)
    return ax


def information(ax: Axes, report: Diagnosis) -> Axes:
    """Mutual information of the kernel's eigenvectors with the label by rank, at the first and last checkpoint."""
    rank = np.arange(1, report.information.shape[1] + 1)
    names = report.table.checkpoint
    if len(names) > 1:
        ax.bar(rank - 0.2, report.information[0], 0.4, color=FIRST, label=names.iloc[0])
    shift = 0.2 if len(names) > 1 else 0.0
    ax.bar(rank + shift, report.information[-1], 0.4, color=LAST, label=names.iloc[-1])
    if np.isfinite(report.ceiling):
        ax.axhline(report.ceiling, color="0.5", linestyle="--", label="all there is to know")
    ax.set(xlabel="rank of the eigenvector", ylabel="information on the label [nats]")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def gradient_spectrum(ax: Axes, report: Diagnosis) -> Axes:
    """Eigenvalues of the input-gradient covariance by rank, each as a share of their sum, first and last checkpoint.

    Raises:
        ValueError: a report on inputs that are whole numbers.
    """
    _refuse_whole_numbers(report)
    names = report.table.checkpoint
    shown = [(0, FIRST, "s"), (len(names) - 1, LAST, "o")][len(names) < 2 :]
    for number, colour, marker in shown:
        values = report.covariances[number].values
        values = values[values > 0] / values.sum()
        ax.plot(np.arange(1, len(values) + 1), values, marker, color=colour, label=names.iloc[number])
    ax.axvline(report.informative + 0.5, color="0.5", linestyle="--", label="last one that counts as informative")
    ax.set(xlabel="rank of the direction", ylabel="share of the input gradient", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def directions(axes: Sequence[Axes], report: Diagnosis, checkpoint: int = -1) -> Sequence[Axes]:
    """The leading informative directions at a checkpoint, one on each axes: an image, or a line or bars over entries.

    Points of one or more channels in two dimensions show the channel with the largest entry; points (c, n) are a
    picture of channels against places.

    Raises:
        ValueError: a report on inputs that are whole numbers, or fewer directions than axes.
    """
    _refuse_whole_numbers(report)
    if len(axes) > (found := len(report.covariances[checkpoint].vectors)):
        raise ValueError(f"directions: expected at most {found} axes, one a direction, got {len(axes)}")
    for rank, ax in enumerate(axes):
        vector = np.squeeze(report.direction(checkpoint, rank))
        if vector.ndim > 2:
            planes = vector.reshape(-1, *vector.shape[-2:])
            vector = planes[np.abs(planes).max((1, 2)).argmax()]
        if vector.ndim == 2:
            reach = np.abs(vector).max()
            ax.imshow(vector, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto" if len(vector) < 5 else "equal")
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        elif vector.size <= LONG:
            ax.bar(np.arange(1, vector.size + 1), np.atleast_1d(vector), color=LAST)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            ax.plot(np.arange(1, vector.size + 1), vector, color=LAST)
        share = report.covariances[checkpoint].values
        ax.set_title(f"{100 * share[rank] / share.sum():.0f} %")
    return axes


def _instants(ax: Axes, report: Diagnosis) -> None:
    """Names on the axis where checkpoints are numbered, and few."""
    table = report.table
    if table.time.tolist() == list(range(len(table))):
        if len(table) <= 6:
            ax.set_xticks(table.time, table.checkpoint)
        else:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _refuse_whole_numbers(report: Diagnosis) -> None:
    if not report.covariances:
        raise ValueError("expected inputs in floating point, got a report on whole numbers; they have no gradient")
