"""What the drawings of a moving kernel show, read back from their axes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from geocompress import spectra_figures

mpl.use("agg")
SERIES = pd.DataFrame(
    {
        "t": [0.0, 1.0, 10.0, 100.0],
        "alignment": [0.1, 0.1, 0.2, 0.3],
        "alignment_readout": [0.1, 0.2, 0.4, 0.5],
        "alignment_hidden": [0.1, 0.1, 0.1, 0.2],
        "readout_share": [0.5, 0.5, 0.25, 0.1],
    }
)


def test_an_eigenfunction_of_x_1_varies_from_left_to_right_and_is_drawn_in_its_own_unit():
    axis = np.linspace(-2, 2, 5)
    picture = np.stack([7 * np.tile(axis, (5, 1)), 3 * np.tile(axis, (5, 1)).T, np.ones((5, 5))], axis=2)
    _, axes = plt.subplots(2, 2)
    spectra_figures.eigenfunctions(axes, axis, {"first": picture, "second": -picture}, edges=(-0.3, 1.2))
    drawn = [np.asarray(ax.collections[0].get_array()).reshape(5, 5) for ax in axes.ravel()]
    along = np.tile(axis, (5, 1)) / 2
    for found, expected in zip(drawn, (along, along.T, -along, -along.T), strict=True):
        np.testing.assert_allclose(found, expected)
    coordinates = axes[0, 0].collections[0].get_coordinates()
    np.testing.assert_allclose((coordinates[2, 1:, 0] + coordinates[2, :-1, 0]) / 2, axis)  # x_1 to the right
    assert [line.get_xdata()[0] for line in axes[1, 1].lines] == [-0.3, 1.2]
    assert [ax.get_title() for ax in axes[0]] == ["$\\varphi_{1}$", "$\\varphi_{2}$"]
    assert [ax.get_ylabel().split("\n")[0] for ax in axes[:, 0]] == ["first", "second"]


def test_axes_that_do_not_fit_the_pictures_are_refused():
    pictures = {"first": np.ones((5, 5, 2))}
    for shape in ((2, 2), (1, 3)):
        _, axes = plt.subplots(*shape)
        with pytest.raises(ValueError, match="expected 1 rows of at most 2"):
            spectra_figures.eigenfunctions(axes, np.arange(5.0), pictures)


def test_alignments_begin_after_time_zero_and_t_star_is_marked():
    _, ax = plt.subplots()
    spectra_figures.alignment_in_time(ax, SERIES, 10.0)
    whole, readout, hidden, star = ax.lines
    np.testing.assert_array_equal(whole.get_xdata(), [1, 10, 100])
    np.testing.assert_array_equal(readout.get_ydata(), [0.2, 0.4, 0.5])
    np.testing.assert_array_equal(hidden.get_ydata(), [0.1, 0.1, 0.2])
    assert star.get_xdata()[0] == 10
    assert spectra_figures.alignment_in_time(plt.figure().add_subplot(), SERIES).lines[-1].get_label() == "hidden part"


def test_the_two_shares_fill_the_unit():
    _, ax = plt.subplots()
    spectra_figures.readout_share_in_time(ax, SERIES)
    lower, upper = (band.get_paths()[0].vertices for band in ax.collections)
    assert {tuple(v) for v in lower} >= {(1, 0), (1, 0.5), (10, 0.25), (100, 0.1)}
    assert {tuple(v) for v in upper} >= {(1, 1), (1, 0.5), (10, 1), (100, 0.1)}
    assert [band.get_label() for band in ax.collections] == ["readout $\\beta$", "hidden layer $\\omega, b$"]


def test_rank_one_is_at_the_top_and_its_cells_lie_at_their_times():
    values = np.arange(12.0).reshape(4, 3)
    _, ax = plt.subplots()
    mesh = spectra_figures.by_rank_in_time(ax, SERIES.t.to_numpy(), values, 10.0, largest=11.0)
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(3, 3), values[1:].T)
    borders = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_allclose(borders, [1, 10**0.5, 10**1.5, 100])
    assert ax.get_ylim() == (3.5, 0.5)
    assert mesh.get_clim() == (0, 11)
    with pytest.raises(ValueError, match="one for each of 4"):
        spectra_figures.by_rank_in_time(ax, np.arange(3.0), values, largest=1.0)
    with pytest.raises(ValueError, match="two above 0"):
        spectra_figures.by_rank_in_time(ax, np.array([0.0, 1.0]), values[:2], largest=1.0)


def test_net_and_machine_are_told_apart():
    run = pd.DataFrame({"t": [0.0, 1.0, 2.0], "net": [1.0, 0.3, 0.1], "machine": [0.2, 0.2, 0.05]})
    _, ax = plt.subplots()
    spectra_figures.machines_in_time(ax, run, 1.5)
    net, machine, star = ax.lines
    np.testing.assert_array_equal(net.get_ydata(), [0.3, 0.1])
    np.testing.assert_array_equal(machine.get_ydata(), [0.2, 0.05])
    assert star.get_xdata()[0] == 1.5
    assert ax.get_legend_handles_labels()[1] == ["the net at time $t$", "machine, NTK frozen at $t$"]


def test_ratios_are_held_against_one_with_plain_numbers():
    figure, ax = plt.subplots()
    ax.set(xscale="log", yscale="log")
    ax.plot([64, 512], [0.3, 4.0])
    assert spectra_figures.against_one(ax, "error, this / that").get_ylabel() == "error, this / that"
    assert set(ax.lines[1].get_ydata()) == {1}
    figure.canvas.draw()
    low, high = ax.get_ylim()
    shown = [text.get_text() for text, y in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True) if low < y < high]
    assert shown == ["0.3", "0.5", "0.7", "1", "1.5", "2", "3"]
