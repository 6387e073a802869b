"""Interactive figures that work in a built page without a network: arrays in, plotly figures out."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from numpy.typing import ArrayLike

from geocompress.figures import COLOURS

PLOTLY_FROM_CHAPTER = "../shared/plotly.min.js"  # one copy for all pages, put there when the book is built


def moving_neurons(
    planes: Float[np.ndarray, "frames h 2"],
    times: ArrayLike,
    amplifications: ArrayLike,
    *,
    neurons: int = 400,
    frames: int = 40,
) -> go.Figure:
    """The arrows β_n ω_n in the plane (x_1, x_2) over training, with a slider.

    Lengths span many orders of magnitude during a run, so each frame is drawn in units of its own longest arrow: what
    is seen is where the weight goes, not how much of it there is. Frames are spread evenly in the logarithm of time:
    neurons turn early, and the last points take most of the time.

    Args:
        planes: β_n ω_n on two input directions at each step, from `experiments.record_network`.
        times: mean-field time of each step, shape (frames,).
        amplifications: λ of each step, shape (frames,).
        neurons: how many of the h neurons to draw (the first ones; they are exchangeable).
        frames: how many of the steps to draw.

    Raises:
        ValueError: lengths differ.
    """
    times, amplifications = np.asarray(times), np.asarray(amplifications)
    if not len(planes) == len(times) == len(amplifications):
        raise ValueError(f"expected one time and λ a frame, got {len(planes)}, {len(times)}, {len(amplifications)}")
    chosen = _spread(times, min(frames, len(planes)))
    drawn = [
        go.Frame(
            name=str(i),
            data=[_arrows(planes[i], neurons)],
            layout={"title": {"text": _title(times[i], amplifications[i])}},
        )
        for i in chosen
    ]
    figure = go.Figure(data=drawn[0].data, frames=drawn, layout={"title": drawn[0].layout.title})
    axis = {"range": [-1.1, 1.1], "zeroline": True, "zerolinecolor": "#999999", "gridcolor": "#dddddd"}
    figure.update_layout(
        xaxis={**axis, "title": "β<sub>n</sub> ω<sub>n,1</sub> (informative)"},
        yaxis={**axis, "title": "β<sub>n</sub> ω<sub>n,2</sub> (not)", "scaleanchor": "x"},
        template="plotly_white",
        height=560,
        margin={"l": 60, "r": 20, "t": 60, "b": 40},
        font={"size": 14},
        sliders=[_slider(chosen, times)],
        updatemenus=[_play_button()],
    )
    return figure


def embed(figure: go.Figure, name: str, description: str) -> str:
    """HTML of a figure for a chapter's page, taking plotly from the copy that all pages share.

    Args:
        figure: a plotly figure.
        name: unique in the book; the id of its element.
        description: what is seen, for readers who do not see it.
    """
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=PLOTLY_FROM_CHAPTER,
        div_id=name,
        auto_play=False,  # the reader starts it, at the beginning
        config={"displayModeBar": False, "responsive": True},
    )
    return f'<div role="img" aria-label="{escape(description)}">{body}</div>'


def _spread(times: np.ndarray, frames: int) -> np.ndarray:
    """Indices of the first and last step and of others between, as evenly in log t as the steps allow."""
    moments = np.geomspace(times[1], times[-1], frames - 1) if len(times) > 2 else times[1:]
    nearest = np.abs(np.log(times[1:])[None, :] - np.log(moments)[:, None]).argmin(1) + 1
    return np.unique(np.concatenate([[0], nearest]))


def _arrows(plane: Float[np.ndarray, "h 2"], neurons: int) -> go.Scatter:
    longest = np.linalg.norm(plane, axis=1).max()
    points = (plane[:neurons] / longest).astype(np.float32)
    marker = {"size": 5, "color": COLOURS["blue"], "opacity": 0.55}
    return go.Scatter(x=points[:, 0], y=points[:, 1], mode="markers", marker=marker, hoverinfo="skip")


def _title(t: float, amplification: float) -> str:
    return f"t = {t:.3g},  λ = {amplification:.3g}"


def _slider(chosen: np.ndarray, times: np.ndarray) -> dict:
    show = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [{"method": "animate", "args": [[str(i)], show], "label": f"{times[i]:.3g}"} for i in chosen]
    return {"steps": steps, "currentvalue": {"prefix": "t = "}, "pad": {"t": 50}}


def _play_button() -> dict:
    play = {"frame": {"duration": 120, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    hold = {"frame": {"duration": 0}, "mode": "immediate", "transition": {"duration": 0}}
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, play]},
        {"label": "Pause", "method": "animate", "args": [[None], hold]},
    ]
    return {
        "type": "buttons",
        "direction": "left",
        "buttons": buttons,
        "x": 1,
        "y": 1.02,
        "xanchor": "right",
        "yanchor": "bottom",
    }
