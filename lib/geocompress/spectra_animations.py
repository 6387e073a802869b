"""The spectrum of a tangent kernel during training, with a slider: arrays in, a plotly figure out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from geocompress import animations
from geocompress.figures import COLOURS, LABEL_COLOURS

MARKERS = {-1: "square", 1: "circle"}


def moving_spectrum(
    series: pd.DataFrame,
    vectors: Float[np.ndarray, "n p k"],
    projections: Float[np.ndarray, "n k"],
    information: Float[np.ndarray, "n k"],
    x_1: ArrayLike,
    y: ArrayLike,
    *,
    points: int = 400,
) -> go.Figure:
    """What the top eigenvectors know of the label, time by time, with a slider.

    Above: the components of the eigenvector with the most mutual information against x_1, one dot a training point,
    in units of 1/√p. Below: label projection ⟨u_r, y⟩²/|y|² and mutual information I(u_r; y) of every rank r.

    Args:
        series: columns t, amplification and alignment, one line a frame (`ntk_experiments.Spectra.series`).
        vectors: u_r at each time.
        projections: ⟨u_r, y⟩²/|y|².
        information: I(u_r; y) in nats.
        x_1: informative coordinate of the training points, shape (p,).
        y: their labels, shape (p,), −1 or +1.
        points: how many of the training points to draw, the first ones.

    Raises:
        ValueError: lengths differ.
    """
    x_1, y = np.asarray(x_1, dtype=np.float32), np.asarray(y)
    lengths = [len(part) for part in (series, vectors, projections, information)]
    if len(set(lengths)) > 1 or not len(x_1) == len(y) == vectors.shape[1]:
        raise ValueError(
            f"expected one entry a time in all and one point a component, got {lengths} times, {vectors.shape[1]} "
            f"components, {len(x_1)} points and {len(y)} labels"
        )
    shown = slice(points)
    frames = []
    for i, line in enumerate(series.itertuples()):
        best = int(information[i].argmax())
        component = (vectors[i, :, best] * np.sqrt(vectors.shape[1])).astype(np.float32)[shown]
        data = [*_dots(x_1[shown], component, y[shown]), *_bars(projections[i], information[i])]
        title = (
            f"t = {line.t:.3g},  λ = {line.amplification:.3g},  alignment {line.alignment:.2f};  above: r = {best + 1}"
        )
        frames.append(go.Frame(name=str(i), data=data, traces=[0, 1, 2, 3], layout={"title": {"text": title}}))
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.14, row_heights=[0.55, 0.45])
    for trace, row in zip(frames[0].data, (1, 1, 2, 2), strict=True):
        figure.add_trace(trace, row=row, col=1)
    figure.frames = frames
    times = series["t"].to_numpy()
    reach = 1.05 * float(np.sqrt(vectors.shape[1]) * np.abs(vectors).max(axis=(1, 2)).mean())
    figure.update_xaxes(title_text="x<sub>1</sub>", row=1, col=1)
    figure.update_yaxes(title_text="u<sub>r</sub> √p", range=[-reach, reach], row=1, col=1)
    figure.update_xaxes(title_text="rank r", dtick=1, row=2, col=1)
    figure.update_yaxes(range=[0, 1.05 * max(projections.max(), information.max())], row=2, col=1)
    figure.update_layout(
        title=frames[0].layout.title,
        template="plotly_white",
        height=720,
        barmode="group",
        margin={"l": 60, "r": 20, "t": 90, "b": 40},
        font={"size": 14},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        sliders=[animations._slider(np.arange(len(times)), times)],
    )
    return figure


def _dots(x_1: np.ndarray, component: np.ndarray, y: np.ndarray) -> list[go.Scatter]:
    """The points of either label, as in `figures.points_in_plane`."""
    return [
        go.Scatter(
            x=x_1[y == label],
            y=component[y == label],
            mode="markers",
            name=f"y = {label:+d}".replace("-", "−"),
            marker={
                "size": 6,
                "symbol": symbol,
                "color": LABEL_COLOURS[label],
                "line": {"width": 0.5, "color": "#333"},
            },
            hoverinfo="skip",
        )
        for label, symbol in MARKERS.items()
    ]


def _bars(projection: np.ndarray, information: np.ndarray) -> list[go.Bar]:
    ranks = np.arange(1, len(projection) + 1)
    kinds = (("label projection", projection, "blue"), ("information (nats)", information, "vermilion"))
    return [go.Bar(x=ranks, y=value.round(4), name=name, marker={"color": COLOURS[c]}) for name, value, c in kinds]
