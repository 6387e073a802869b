"""What the pictures of a task with two directions show, read back from their axes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from geocompress import angles, figures, scenes, tasks

mpl.use("agg")
TASK = tasks.cylinder(3)
(RADIUS,) = TASK.edges
X, Y = (array.numpy() for array in TASK.sample(200, 0))


def test_points_in_space_lie_where_they_are_and_wear_their_label():
    ax = scenes.cylinder_in_space(plt.figure().add_subplot(projection="3d"), X, Y, RADIUS, reach=2.0)
    inside = (np.abs(X) <= 2).all(axis=1)
    clouds = [artist for artist in ax.collections if artist.get_label().startswith("$y")]
    assert [cloud.get_label() for cloud in clouds] == ["$y=-1$", "$y=+1$"]
    for cloud, label in zip(clouds, (-1, 1), strict=True):
        np.testing.assert_allclose(np.stack(cloud._offsets3d, axis=1), X[inside & (label == Y)])
        assert tuple(cloud.get_facecolor()[0]) == to_rgba(figures.LABEL_COLOURS[label])
    rims = [np.stack(line.get_data_3d(), axis=1) for line in ax.lines]
    for rim, height in zip(rims, (-2, 2), strict=True):
        np.testing.assert_allclose(np.linalg.norm(rim[:, :2], axis=1), RADIUS)
        np.testing.assert_array_equal(rim[:, 2], height)


def test_the_circle_from_above_parts_the_labels():
    _, ax = plt.subplots()
    scenes.cylinder_from_above(ax, X, Y, RADIUS)
    (circle,) = ax.patches
    for cloud, inside in zip(ax.collections, (False, True), strict=True):
        distance = np.linalg.norm(np.asarray(cloud.get_offsets()) - circle.center, axis=1)
        assert ((distance < circle.radius) == inside).all()


def test_petals_have_the_area_of_their_share():
    shares = angles.angular_shares(X[:, :2], 12)
    _, axes = plt.subplots(1, 2, subplot_kw={"projection": "polar"})
    scenes.roses(axes, [shares, np.eye(4)[0]], ["a", "b"])
    petals = axes[0].patches
    areas = np.array([petal.get_width() * petal.get_height() ** 2 for petal in petals])
    np.testing.assert_allclose(areas / areas.sum(), shares)
    np.testing.assert_allclose(petals[0].get_x(), -np.pi)  # the first sector begins at −180°
    assert max(petal.get_height() for petal in petals) == 1
    assert [ax.get_title() for ax in axes] == ["a", "b"]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected x \(p, ≥ 3\) and y \(p,\), got \(200, 2\)"):
        scenes.cylinder_in_space(plt.figure().add_subplot(projection="3d"), X[:, :2], Y, RADIUS)
    with pytest.raises(ValueError, match="got 1, 2, 1"):
        scenes.roses([plt.figure().add_subplot(projection="polar")], [np.ones(3), np.ones(3)], ["a"])
