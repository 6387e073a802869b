"""What the drawings of images show, read back from their axes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from geocompress import image_figures
from geocompress.input_gradients import GradientCovariance
from geocompress.states import State, Status
from reference import image_rows

mpl.use("agg")
METHODS = {"network": 1.0, "ntk_init": 2.0, "ntk_final": 1.1, "last_init": 4.0, "last_final": 1.2}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def published(points=(100, 200, 400), alphas=(2e-3,), inertias=(0.0,)) -> pd.DataFrame:
    """ε = c/√p for every method, 1.5 times that with momentum; three seeds a per cent apart."""
    laws = {inertia: {name: (c * (1.5 if inertia else 1), 0.5) for name, c in METHODS.items()} for inertia in inertias}
    parts = [image_rows(points, 3, alpha, inertia, **laws[inertia]) for alpha in alphas for inertia in inertias]
    return pd.concat(parts, ignore_index=True)


def path(*margins: list[float]) -> list[State]:
    """States at t = 0, 1, 2, … with these margins."""
    return [
        State(float(t), {}, torch.tensor(m), torch.zeros(len(m)), 1 / (t + 1), t, 1.0, 0.0, torch.zeros(len(m)), status)
        for t, m in enumerate(margins)
        for status in (Status.RUNNING,)
    ]


def test_a_strip_goes_from_the_smallest_value_to_the_largest_with_the_labels_below():
    images = np.arange(5.0)[:, None, None, None] * np.ones((1, 2, 4, 4))  # image n has the grey level n
    values, y = np.array([0.3, -1.0, 2.0, 0.0, 1.0]), np.array([1, -1, -1, 1, -1])
    _, ax = plt.subplots()
    image_figures.strip(ax, images, values, y, 3)
    drawn = np.asarray(ax.images[0].get_array())
    assert drawn.shape == (4, 12)
    np.testing.assert_array_equal(drawn[0], np.repeat([1, 0, 2], 4))  # ranks 0, 2 and 4 of five
    assert [text.get_text() for text in ax.get_xticklabels()] == ["−", "+", "−"]
    np.testing.assert_allclose(ax.get_xticks(), [1.5, 5.5, 9.5])  # in the middle of each image


@pytest.mark.parametrize(("count", "labels"), [(6, 5), (3, 4)])
def test_a_strip_of_what_is_not_there_is_refused(count, labels):
    with pytest.raises(ValueError, match=f"at least {count} images"):
        image_figures.strip(plt.subplots()[1], np.ones((5, 1, 4, 4)), np.arange(5.0), np.ones(labels), count)


def test_the_burst_begins_at_the_last_state_with_all_margins_within_one():
    states = path([0.0, 0.0], [0.01, -0.01], [0.5, -0.9], [3.0, -1.2], [0.5, 0.6], [4.0, 1.5])
    assert image_figures.burst(states) == 2
    with pytest.raises(ValueError, match="from small margins to a margin of 1"):
        image_figures.burst(states[:3])
    with pytest.raises(ValueError, match="from small margins to a margin of 1"):
        image_figures.burst(states[3:])


def test_time_is_counted_from_the_burst():
    states = path([0.0, 0.0, 0.0], [0.01, -0.02, 0.0], [1.5, 2.5, -0.5], [1.5, 2.5, 1.0])
    _, axes = plt.subplots(1, 3)
    image_figures.awakening(axes[0], states)
    np.testing.assert_array_equal(axes[0].lines[0].get_xdata(orig=False), [1, 2, 3])
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(orig=False), [0.02, 2.5, 2.5])
    image_figures.after_burst(axes[1:], states)
    np.testing.assert_array_equal(axes[1].lines[0].get_xdata(orig=False), [1, 2])
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(orig=False), [1 / 3, 1 / 4])
    middle, smallest, one = axes[2].lines
    np.testing.assert_allclose(middle.get_ydata(orig=False), [1.5, 1.5])
    np.testing.assert_allclose(smallest.get_ydata(orig=False), [-0.5, 1.0])
    assert one.get_ydata(orig=False)[0] == 1


def test_bars_are_means_over_runs_and_one_run_has_no_error_bars():
    _, (one, several) = plt.subplots(1, 2)
    image_figures.by_rank(one, {"init": [[0.1, 0.2]], "final": [[0.3, 0.4]]}, "share")
    assert [bar.get_height() for bar in one.patches] == [0.1, 0.2, 0.3, 0.4]
    assert not one.collections
    image_figures.by_rank(several, {"init": [[0.0], [0.2]], "final": pd.Series([[1.0], [3.0]])}, "share")
    np.testing.assert_allclose([bar.get_height() for bar in several.patches], [0.1, 2.0])
    np.testing.assert_allclose(several.collections[1].get_segments()[0][:, 1], [0, 4])  # 2 ± 2 · √2 / √2


def test_layers_are_drawn_in_their_order_with_a_line_at_one():
    _, ax = plt.subplots()
    image_figures.layers(ax, {"init": [[1.0, 0.8, 0.6], [1.2, 1.0, 0.8]], "final": [[2.0, 1.0, 0.5], [2.0, 1.0, 0.5]]})
    before, after = (bars.lines[0] for bars in ax.containers)
    np.testing.assert_array_equal(before.get_xdata(orig=False), [1, 2, 3])
    np.testing.assert_allclose(before.get_ydata(orig=False), [1.1, 0.9, 0.7])
    np.testing.assert_allclose(after.get_ydata(orig=False), [2.0, 1.0, 0.5])
    assert any(list(line.get_ydata(orig=False)) == [1, 1] and line.get_linestyle() == "--" for line in ax.lines)


def test_ratios_and_the_guide_are_those_of_the_rows():
    _, axes = plt.subplots(1, 2)
    image_figures.learning(axes, published())
    (guide,) = [line for line in axes[0].lines if line.get_label() == "slope −1/2"]
    x, y = guide.get_data()
    np.testing.assert_allclose(y * np.sqrt(x), 0.6)  # below the net's p^(−1/2)
    ratios = [bars.lines[0].get_ydata(orig=False) for bars in axes[1].containers]
    for found, (name, factor) in zip(ratios, list(METHODS.items())[1:], strict=True):
        np.testing.assert_allclose(found, factor, err_msg=name)


def test_one_p_is_drawn_without_a_curve():
    _, axes = plt.subplots(1, 2)
    image_figures.learning(axes, published(points=(100,)))
    assert not axes[0].containers
    assert len(axes[1].containers) == 4


def test_the_crossover_has_lines_for_the_flow_and_stars_for_momentum():
    rows = published(points=(200,), alphas=(1e-4, 2e-3, 10.0))
    stars = published(points=(200,), alphas=(2e-3,), inertias=(10.0,))
    _, ax = plt.subplots()
    image_figures.crossover(ax, pd.concat([rows, stars]))
    by_label = {bars.get_label(): bars.lines[0] for bars in ax.containers}
    assert len(by_label) == 5
    net = by_label["net"]
    np.testing.assert_allclose(net.get_ydata(orig=False), 200**-0.5)
    np.testing.assert_allclose(net.get_xdata(orig=False), np.array([1e-4, 2e-3, 10]) / 1.15**0.5)
    np.testing.assert_allclose(by_label["net, with momentum"].get_ydata(orig=False), 1.5 * 200**-0.5)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.0001", "0.002", "10"]
    with pytest.raises(ValueError, match="rows of one p"):
        image_figures.crossover(ax, published())


def test_two_tasks_get_the_same_three_pictures():
    wide = pd.DataFrame({"p": [100, 400, 400]})
    for name in ("projections", "information"):
        wide[f"{name}_init"] = [[9.0, 9.0], [0.1, 0.2], [0.3, 0.4]]
        wide[f"{name}_final"] = [[9.0, 9.0], [0.5, 0.6], [0.7, 0.8]]
    _, axes = plt.subplots(3, 1)
    image_figures.alike(axes, wide, published())
    for ax in axes[:2]:  # the largest p alone
        np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0.2, 0.3, 0.6, 0.7])
    assert len(axes[2].containers) == 3


def test_directions_are_pictures_with_their_share_of_the_trace():
    vectors = np.eye(8)[:2]
    felt = GradientCovariance(np.array([6.0, 3.0, 1.0, 0, 0, 0, 0, 0]), vectors, 5, float("nan"))
    _, axes = plt.subplots(1, 2)
    image_figures.directions(axes, felt, (2, 2, 2))
    np.testing.assert_array_equal(axes[0].images[0].get_array(), [[1, 0], [0, 0]])
    np.testing.assert_array_equal(axes[1].images[0].get_array(), [[0, 1], [0, 0]])
    assert [ax.get_title() for ax in axes] == ["60 %", "30 %"]
    assert axes[0].images[0].get_cmap().name == "RdBu_r"
