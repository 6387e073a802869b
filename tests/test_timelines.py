"""What the drawings of trainings show, read back from their axes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from geocompress import timelines

mpl.use("agg")
SERIES = pd.DataFrame(
    {
        "t": [0.0, 1.0, 10.0, 100.0],
        "amplification": [1.0, 4.0, 9.0, 5.0],
        "unfitted": [8, 6, 2, 0],
        "m10": [0.0, 0.2, 0.5, 1.0],
        "m50": [0.0, 0.6, 1.0, 2.0],
        "m90": [0.0, 1.0, 3.0, 9.0],
        "test_error": [0.5, 0.3, 0.1, 0.1],
    }
)


def test_periods_start_after_time_zero_and_end_where_they_are_said_to():
    _, axes = plt.subplots(3, 1)
    timelines.training_periods(axes, SERIES, t_star=1.0, t_lambda_max=10.0)
    np.testing.assert_array_equal(axes[0].lines[0].get_xdata(), [1, 10, 100])
    np.testing.assert_array_equal(axes[2].lines[0].get_ydata(), [0.3, 0.1, 0.1])
    assert [text.get_text() for text in axes[0].texts] == ["compressing", "fitting", "over-fitting"]
    shaded = axes[1].patches[0]
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == (1, 10)


def test_amplification_in_time_is_drawn_in_its_unit():
    _, ax = plt.subplots()
    timelines.amplification_in_time(ax, SERIES, 10.0, label="a", unit=2.0)
    curve, dot = ax.lines
    np.testing.assert_allclose(curve.get_ydata(), [2, 4.5, 2.5])
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (10.0, 4.5)


def test_amplification_scaling_draws_both_readings_with_their_bars():
    rows = pd.DataFrame({"p": [64] * 3 + [256] * 3, "lambda_star": [7, 8, 9, 14, 16, 18]})
    rows["lambda_max"] = 3.0 * rows.lambda_star
    _, ax = plt.subplots()
    timelines.amplification_scaling(ax, rows, "live", shift=1.5)
    star, peak = ax.containers
    np.testing.assert_allclose(star.lines[0].get_xdata(), [96, 384])
    np.testing.assert_allclose(peak.lines[0].get_ydata(), 3 * star.lines[0].get_ydata())
    assert ax.get_legend_handles_labels()[1] == ["$\\lambda(t^*)$, live", "$\\max_t\\lambda$, live"]


def test_convergence_changes_one_setting_at_a_time():
    """Rows with two settings changed belong to no panel; means and the usual values are where they should be."""
    usual = {"width": 1000, "alpha": 1e-6}
    settings = [(500, 1e-6), (1000, 1e-6), (1000, 1e-4), (500, 1e-4)]
    rows = pd.DataFrame(
        [
            {"width": width, "alpha": alpha, "test_error": error * (1 + 0.1 * seed), "lambda_star": 10.0 * (1 + seed)}
            for (width, alpha), error in zip(settings, (0.1, 0.2, 0.3, 0.4), strict=True)
            for seed in range(3)
        ]
    )
    _, axes = plt.subplots(2, 2)
    timelines.convergence(axes, rows, usual)
    for column, values, errors in ((0, [500, 1000], [0.1, 0.2]), (1, [1e-6, 1e-4], [0.2, 0.3])):
        dots, line = axes[0, column].lines[0], axes[0, column].lines[-1]
        np.testing.assert_allclose(dots.get_xdata(), values)
        np.testing.assert_allclose(dots.get_ydata(), 1.1 * np.array(errors))
        assert line.get_xdata()[0] == list(usual.values())[column]
    harmonic = np.mean([10.0**-2, 20.0**-2, 30.0**-2]) ** -0.5
    np.testing.assert_allclose(axes[1, 0].lines[0].get_ydata(), harmonic)
    with pytest.raises(ValueError, match="two distinct"):
        timelines.convergence(axes, rows[rows.width == 1000], usual)
