"""Learning curves of many methods: one rule of fitting, one table, one pair of drawings."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from geocompress import curves, exponents
from reference import law


def test_exponent_of_an_exact_law_and_its_verdict():
    table = curves.exponent_table(pd.concat([law(9 / 13), law(0.3, method="svc_laplace", regime="kernel")]))
    lines = table.set_index("method")
    np.testing.assert_allclose(lines.beta[["network", "svc_laplace"]], [9 / 13, 0.3])
    np.testing.assert_allclose(lines["last"][["network", "svc_laplace"]], [9 / 13, 0.3])
    assert lines.predicted["network"] == exponents.beta_feature(5, 1)
    assert lines.predicted["svc_laplace"] == exponents.beta_lazy(5)
    assert lines.verdict["network"] == "agrees"
    assert lines.verdict["svc_laplace"] == "below"
    np.testing.assert_allclose(lines.off[["network", "svc_laplace"]], [0, 0.3 - 5 / 13], atol=1e-12)


@pytest.mark.parametrize(
    ("interval", "expected", "word"),
    [
        ((0.7, 0.61, 0.8), 0.69, "agrees"),
        ((0.7, 0.59, 0.8), 0.69, "undecided"),  # too wide to agree with anything
        ((0.7, 0.3, 0.69), 0.695, "above"),  # as wide, and yet it excludes the prediction
        ((0.4, 0.35, 0.45), 0.46, "below"),
        ((0.4, np.nan, np.nan), 0.4, "–"),
        ((0.4, 0.35, 0.45), np.nan, "–"),
    ],
)
def test_verdict_tells_a_wide_interval_from_agreement(interval, expected, word):
    assert curves.verdict(*interval, expected) == word


def test_window_holds_the_largest_octaves_with_enough_replicas_and_only_complete_ones():
    curve = law(0.5, seeds=5).query("not (p == 256 and seed == 3)")
    curve = pd.concat([curve, law(0.5, p=[2048], seeds=2)])
    part = curves.window(curve)
    assert sorted(part.p.unique()) == [128, 256, 512, 1024]
    assert sorted(part.seed.unique()) == [0, 1, 2, 4]
    assert sorted(curves.window(curve, octaves=1).seed.unique()) == [0, 1, 2, 3, 4]


def test_replicas_that_are_missing_at_one_end_do_not_bend_the_slope():
    """A replica twice as bad that only the smaller p has would look like a steeper curve."""
    whole = law(0.5, p=[64, 128], seeds=3)
    odd = law(0.5, p=[64], seeds=1).assign(seed=9, test_error=1.0)
    found = curves.slopes(pd.concat([whole, odd]))
    np.testing.assert_allclose(found.beta, [0.5])


def test_failed_and_repeated_rows_do_not_count():
    rows = pd.concat(
        [law(0.9), law(0.5), law(0.1).assign(status="FAILED"), law(0.1, p=[1 << 14]).assign(status="MAX_TIME")]
    )
    ((kind, curve),) = curves.curves(rows).items()
    assert kind == ("stripe", 5, "network")
    assert len(curve) == 20
    assert curves.fit(curve).beta == pytest.approx(0.5)


def test_names_tell_lazy_nets_and_measured_compression_apart():
    rows = pd.concat(
        [
            law(0.4, regime="lazy"),
            law(0.5, amplification=None),
            law(0.6, method="svc_laplace_compressed", amplification=None),
            law(0.7, method="svc_laplace_compressed", amplification=3.0),
        ]
    )
    names = {name: curves.fit(curve).beta for (_, _, name), curve in curves.curves(rows).items()}
    assert names == pytest.approx(
        {"network_lazy": 0.4, "network": 0.5, "svc_laplace_compressed": 0.6, "svc_laplace_measured": 0.7}
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("network", 9 / 13),
        ("network_lazy", 5 / 13),
        ("ntk_init", 5 / 13),
        ("ntk_infinite", 5 / 13),
        ("ntk_infinite_compressed", 9 / 13),
        ("svc_laplace_measured", 9 / 13),
    ],
)
def test_predictions(name, expected):
    assert curves.predicted_beta(5, 1, name) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["ntk_star", "ntk_final", "ntk_final_flow", "last_init", "last_final"])
def test_what_theory_says_nothing_about_has_no_prediction(name):
    with pytest.raises(ValueError, match="theory says nothing"):
        curves.predicted_beta(5, 1, name)


def test_a_kernel_frozen_on_the_way_has_no_prediction_in_the_table():
    line = curves.exponent_table(law(0.6, method="ntk_final", regime="kernel")).iloc[0]
    assert np.isnan(line.predicted)
    assert line.verdict == "–"


def test_too_few_runs_are_said_and_left_out_of_the_table():
    with pytest.raises(ValueError, match="at least 3 replicas"):
        curves.window(law(0.5, seeds=2))
    with pytest.raises(ValueError, match="two p"):
        curves.window(law(0.5, p=[64]))
    assert not len(curves.exponent_table(law(0.5, seeds=2)))
    assert not len(curves.exponent_table(pd.DataFrame(columns=["status"])))
    with pytest.raises(ValueError, match="an octave apart"):
        curves.slopes(law(0.5, p=[64, 96]))


def test_dots_of_curves_that_lie_on_each_other_are_moved_apart_and_fits_are_not():
    rows = pd.concat([law(0.7, p=(64, 128, 256)), law(0.7, method="ntk_final", regime="kernel", p=(64, 128, 256))])
    _, ax = plt.subplots()
    curves.draw_errors(ax, rows, ["network", "ntk_final"], spread=1.21)
    dots = [bars.lines[0].get_xdata(orig=False) for bars in ax.containers]
    np.testing.assert_allclose(dots, np.outer([1 / 1.1, 1.1], [64, 128, 256]))
    fits = [line.get_xdata() for line in ax.lines if line.get_linestyle() == "-"]
    assert fits
    assert all(set(x) <= {64, 128, 256} for x in fits)
    assert curves.apart(["network"], 1.21) == {"network": 1}
    assert curves.apart(["a", "b", "c"], 4.0) == {"a": 0.5, "b": 1, "c": 2}


def test_drawing_holds_every_method_that_is_there():
    fig, axes = plt.subplots(1, 2)
    rows = pd.concat([law(0.7), law(0.4, method="svc_laplace", regime="kernel")])
    for ax, draw in zip(axes, (curves.draw_errors, curves.draw_slopes), strict=True):
        draw(ax, rows, ["network", "svc_laplace", "ntk_infinite"])
    _, labels = axes[0].get_legend_handles_labels()
    assert labels == [curves.STYLES[name].label for name in ("network", "svc_laplace")]
    dashed = sorted(line.get_ydata()[0] for line in axes[1].lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(dashed, [5 / 13, 9 / 13])
    with pytest.raises(ValueError, match="one task and d"):
        curves.draw_errors(axes[0], pd.concat([rows, law(0.7, d=3)]), ["network"])
    with pytest.raises(ValueError, match="one task and d"):
        curves.draw_slopes(axes[1], rows, ["ntk_init"])
    plt.close(fig)


def test_every_style_can_be_told_from_every_other():
    looks = [(style.colour, style.marker, style.filled) for style in curves.STYLES.values()]
    assert len(set(looks)) == len(looks)
