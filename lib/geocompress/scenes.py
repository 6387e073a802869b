"""Pictures of a task whose label depends on two directions: the cylinder in space, its plane, and angles in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from mpl_toolkits.mplot3d.axes3d import Axes3D
from numpy.typing import ArrayLike

from geocompress.checks import Real
from geocompress.figures import COLOURS, LABEL_COLOURS, points_in_plane

MARKERS = {-1: "s", 1: "o"}  # as in `figures.points_in_plane`


def cylinder_in_space(ax: Axes3D, x: ArrayLike, y: ArrayLike, radius: Real, *, reach: Real = 2.6) -> Axes3D:
    """Points in the space of (x_1, x_2, x_3) with the cylinder |(x_1, x_2)| = `radius` along x_3 as a see-through wall.

    Colours and shapes tell labels apart. Points beyond ±`reach` in any of the three are left out.

    Args:
        ax: axes of `projection="3d"`.
        x: points, shape (p, ≥ 3).
        y: labels, shape (p,), −1 or +1.
        radius: R of the cylinder.
        reach: half the side of the cube that is shown.

    Raises:
        ValueError: if x is not (p, ≥ 3) or y not (p,).
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] < 3 or y.shape != x.shape[:1]:
        raise ValueError(f"expected x (p, ≥ 3) and y (p,), got {x.shape} and {y.shape}")
    shown = (np.abs(x[:, :3]) <= reach).all(axis=1)
    for label, marker in MARKERS.items():
        of_label = x[shown & (y == label), :3]
        outline = {"edgecolor": "0.2", "linewidth": 0.4, "label": f"$y={label:+d}$", "depthshade": False}
        ax.scatter(*of_label.T, s=16, marker=marker, color=LABEL_COLOURS[label], **outline)
    angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 49), [-reach, reach])
    wall = radius * np.cos(angle), radius * np.sin(angle), height
    ax.plot_surface(*wall, color=COLOURS["sky"], alpha=0.2, linewidth=0, shade=False)
    for end in (-reach, reach):
        ax.plot(wall[0][0], wall[1][0], end, color="0.3", linewidth=1)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach), box_aspect=(1, 1, 1))
    ax.set(xlabel="$x_1$", ylabel="$x_2$", zlabel="$x_3$")
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_ticks([-2, 0, 2])
        axis.set_pane_color((1, 1, 1, 1))
    return ax


def cylinder_from_above(ax: Axes, x: ArrayLike, y: ArrayLike, radius: Real) -> Axes:
    """The same points seen along x_3: the plane (x_1, x_2), in which the boundary is a circle.

    Raises:
        ValueError: if x is not (p, ≥ 2) or y not (p,).
    """
    points_in_plane(ax, x, y)
    ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor="0.2", linewidth=1.2))
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


def roses(axes: Sequence[Axes] | np.ndarray, shares: Sequence[Float[np.ndarray, " _"]], titles: list[str]) -> None:
    """Share of the weight in each sector of the plane, one rose for each moment, each in units of its largest petal.

    The area of a petal is proportional to its share. `axes` are polar; `shares` are those of `angles.angular_shares`.

    Raises:
        ValueError: lengths differ.
    """
    if not len(axes) == len(shares) == len(titles):
        raise ValueError(
            f"expected one share and title for each of the axes, got {len(axes)}, {len(shares)}, {len(titles)}"
        )
    for ax, petals, title in zip(axes, shares, titles, strict=True):
        width = 2 * np.pi / len(petals)
        middle = -np.pi + width * (np.arange(len(petals)) + 0.5)
        ax.bar(
            middle, np.sqrt(petals / petals.max()), width=width, color=COLOURS["blue"], edgecolor="white", linewidth=0.5
        )
        ax.set(ylim=(0, 1.02), yticks=[], title=title)
        ax.set_xticks(np.linspace(0, 2 * np.pi, 4, endpoint=False), ["$x_1$", "$x_2$", "", ""])
