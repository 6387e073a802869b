"""Figures: what is drawn is what was given, legibly, and nothing is computed on the way."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb

from geocompress import figures

P = [64, 128, 256]
ERROR = [0.08, 0.05, 0.03]


@pytest.fixture
def ax():
    figures.use_style()
    figure, axes = plt.subplots()
    yield axes
    figure.canvas.draw()  # what cannot be drawn is noticed here
    plt.close(figure)


def legend(ax):
    return ax.get_legend_handles_labels()[1]


def line(ax, label):
    handles, labels = ax.get_legend_handles_labels()
    return handles[labels.index(label)]


def test_style_is_readable_and_white(ax):
    sizes = [mpl.rcParams[k] for k in ("font.size", "axes.labelsize", "legend.fontsize", "xtick.labelsize")]
    assert min(sizes) >= 10
    assert 6 <= mpl.rcParams["figure.figsize"][0] <= 7
    assert to_rgb(mpl.rcParams["figure.facecolor"]) == (1, 1, 1)
    assert not mpl.rcParams["text.usetex"]


def test_style_does_not_depend_on_what_was_set_before():
    mpl.rcParams["font.size"] = 3
    figures.use_style()
    assert mpl.rcParams["font.size"] == 11


def luminance(colour):
    return np.dot([0.2126, 0.7152, 0.0722], np.array(to_rgb(colour)) ** 2.2)


def test_labels_differ_by_luminance_too():
    assert abs(luminance(figures.LABEL_COLOURS[-1]) - luminance(figures.LABEL_COLOURS[1])) > 0.01


def test_scaling_draws_the_data_and_its_bars(ax):
    figures.scaling(ax, P, ERROR, [0.07, 0.04, 0.02], [0.1, 0.06, 0.05], label="net")
    container = ax.containers[0]
    np.testing.assert_array_equal(container[0].get_ydata(), ERROR)
    segments = container[2][0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], [[0.07, 0.1], [0.04, 0.06], [0.02, 0.05]])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["64", "128", "256"]


def test_labels_of_a_narrow_panel_do_not_overlap():
    values = 2 ** np.arange(7, 17)
    for columns in (1, 2, 3):
        fig, axes = plt.subplots(1, columns, figsize=(8.2, 3.4), squeeze=False)
        for ax in axes[0]:
            figures.scaling(ax, values, values**-0.4)
        fig.canvas.draw()
        shown = [label for label in axes[0, 0].get_xticklabels() if label.get_text()]
        boxes = [label.get_window_extent() for label in shown]
        assert shown[-1].get_text() == "65536"
        assert len(shown) >= 4
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)))
        plt.close(fig)


def test_learning_curve_draws_the_predicted_slope_below_the_data(ax):
    figures.learning_curve(ax, P, ERROR, label="net", fit=lambda p: p**-0.7, fit_label="fit", prediction=0.75)
    assert legend(ax)[:2] == ["fit", "predicted slope −0.750"]
    x, y = line(ax, "predicted slope −0.750").get_data()
    np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), -0.75)
    assert (np.interp(P, x, y) < ERROR).all()
    fitted = line(ax, "fit").get_data()
    np.testing.assert_allclose(fitted[1], fitted[0] ** -0.7)


def test_guide_passes_through_its_point(ax):
    y = figures.guide(ax, P, 0.5, (64, 8.0), label="√p").get_ydata()
    assert y[0] == pytest.approx(8)
    assert y[-1] == pytest.approx(16)


def test_points_in_plane_are_split_by_label(ax):
    x = np.array([[0.0, 1], [2, 3], [4, 5]])
    figures.points_in_plane(ax, x, np.array([1.0, -1, 1]), edges=(-0.3,))
    minus, plus = ax.collections
    np.testing.assert_array_equal(minus.get_offsets(), [[2, 3]])
    np.testing.assert_array_equal(plus.get_offsets(), [[0, 1], [4, 5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ax: figures.scaling(ax, P, ERROR[:2]), "of one length"),
        (lambda ax: figures.scaling(ax, [], []), "of one length"),
        (lambda ax: figures.scaling(ax, P, ERROR, low=ERROR), "both ends"),
        (lambda ax: figures.scaling(ax, P, ERROR, [0.01] * 3, [0.01] * 3), "ends of the bar"),
        (lambda ax: figures.points_in_plane(ax, np.zeros((3, 1)), np.ones(3)), "expected x"),
        (lambda ax: figures.points_in_plane(ax, np.zeros((3, 2)), np.ones(2)), "expected x"),
    ],
)
def test_what_cannot_be_drawn_is_refused(ax, call, message):
    with pytest.raises(ValueError, match=message):
        call(ax)
