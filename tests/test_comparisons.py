"""Two methods on the same samples."""

import numpy as np
import pandas as pd
import pytest

from geocompress import comparisons, curves
from reference import law


def test_ratio_is_that_of_the_same_samples():
    below = law(0.5, method="svc_laplace", seeds=4)
    above = law(0.5).assign(test_error=lambda rows: rows.test_error * np.where(rows.seed % 2, 4.0, 1.0))
    found = comparisons.paired_ratio(above, below)
    np.testing.assert_allclose(found.ratio, 2)
    spread = np.std(np.log([1, 4, 1, 4]), ddof=1) / 2
    np.testing.assert_allclose(np.log(found.high / found.ratio), 2 * spread)
    np.testing.assert_allclose(np.log(found.ratio / found.low), 2 * spread)
    assert list(found.pairs) == [4] * 5
    with pytest.raises(ValueError, match="same task"):
        comparisons.paired_ratio(above, below.assign(d=3))
    with pytest.raises(ValueError, match="without any"):
        comparisons.paired_ratio(above, below.assign(test_error=0.0))


def test_law_of_a_ratio_is_the_difference_of_the_exponents_on_the_same_samples():
    below, above = law(0.7, seeds=4), law(0.5, method="svc_laplace", seeds=6)
    above.loc[above.seed > 3, "test_error"] *= above.p[above.seed > 3]  # replicas that the other lacks
    found = comparisons.ratio_law(above, below)
    assert (found.beta, found.beta_low, found.beta_high) == pytest.approx((-0.2, -0.2, -0.2))
    with pytest.raises(ValueError, match="ratio_law: expected runs of the same task"):
        comparisons.ratio_law(above, below.assign(d=3))


def test_gap_is_over_the_same_points_and_replicas():
    """The kernel is steeper where the network was not run, and worse by a power in a replica that the network lacks."""
    kernel = law(0.4, method="svc_laplace", seeds=6, p=(64, 128, 256, 512, 1024, 2048, 4096))
    kernel.loc[kernel.p > 1024, "test_error"] /= 2
    kernel.loc[kernel.seed > 3, "test_error"] *= kernel.p[kernel.seed > 3]
    table = comparisons.gap_table(pd.concat([law(0.7), law(0.9, d=3), kernel]))
    (line,) = table.itertuples()
    assert (line.kernel, line.d, line.p_low, line.p_high, line.seeds) == ("svc_laplace", 5, 128, 1024, 4)
    assert (line.network, line.lazy, line.gap) == pytest.approx((0.7, 0.4, 0.3))
    assert line.off == pytest.approx(line.network_off - line.lazy_off)
    assert (line.network_off, line.lazy_off) == pytest.approx((0.7 - 9 / 13, 0.4 - 5 / 13))
    assert line.gap_low == pytest.approx(line.gap)
    assert line.predicted == pytest.approx(4 / 13)


def test_gap_interval_forgets_what_is_hard_for_both():
    """Noise of each run enters it, a sample that is hard for network and kernel does not."""
    rng = np.random.default_rng(0)
    noisy = [
        law(b, method=m).assign(test_error=lambda r: r.test_error * rng.lognormal(0, 0.2, len(r)))
        for b, m in ((0.7, "network"), (0.4, "svc_laplace"))
    ]
    table = comparisons.gap_table(pd.concat(noisy))
    net, kernel = (curves.fit(one.assign(curve="")) for one in noisy)
    independent = np.hypot(net.beta_high - net.beta, kernel.beta - kernel.beta_low)
    assert 0.6 * independent < table.gap_high[0] - table.gap[0] < 1.6 * independent
    hard = [one.assign(test_error=lambda r: r.test_error * r.p ** (0.3 * (r.seed - 1.5))) for one in noisy]
    harder = comparisons.gap_table(pd.concat(hard))
    assert harder.network_high[0] - harder.network_low[0] > 3 * (table.network_high[0] - table.network_low[0])
    assert harder.gap_high[0] - harder.gap_low[0] < 2 * (table.gap_high[0] - table.gap_low[0])
    found = table.loc[0, ["network_low", "network_high", "lazy_low", "lazy_high"]]
    np.testing.assert_allclose(found.astype(float), [net.beta_low, net.beta_high, kernel.beta_low, kernel.beta_high])
    assert table.disjoint[0] == (net.beta_low > kernel.beta_high)


def test_gap_to_every_kernel_and_whether_intervals_are_disjoint():
    """A network that falls faster by far, then one that falls more slowly: disjoint means above, not only apart."""
    kernels = [law(0.4, method="svc_laplace"), law(0.6, method="ntk_infinite")]
    table = comparisons.gap_table(pd.concat([law(0.5), *kernels])).set_index("kernel")
    assert list(table.index) == ["svc_laplace", "ntk_infinite"]
    assert list(table.disjoint) == [True, False]
    wide = law(0.5).assign(test_error=lambda rows: rows.test_error * rows.p ** (0.2 * (rows.seed - 1.5)))
    assert not comparisons.gap_table(pd.concat([wide, *kernels])).disjoint.any()
    assert not len(comparisons.gap_table(law(0.5)))


def frozen(beta, **more):
    """Networks whose kernel of t* is worth 0.5 and whose kernel of the end is worth 0.2 of that less."""
    nets = law(beta, **more)
    return nets.assign(svc_init=nets.p**-0.4, svc_star=nets.p**-0.9 * (1 + 0.02 * nets.seed), svc_final=nets.p**-0.7)


def test_kernels_frozen_on_the_way_split_the_gap():
    """Over the window of finished networks of the feature regime that came to t*, each replica once."""
    rows = frozen(0.6, seeds=6)
    rows.loc[rows.p == 64, "test_error"] = 1.0  # outside the window
    rows.loc[rows.seed == 4, "svc_star"] = float("nan")
    rows.loc[rows.seed == 5, ["status", "test_error"]] = ["MAX_TIME", 1.0]
    others = [rows[rows.p == 512].assign(test_error=1.0), frozen(0.2, regime="lazy"), frozen(0.5, d=3, p=(64,))]
    (line,) = comparisons.frozen_table(pd.concat([others[0], rows, *others[1:]])).itertuples()
    assert (line.task, line.d, line.p_low, line.p_high, line.seeds) == ("stripe", 5, 128, 1024, 4)
    assert (line.kept, line.lost, line.rest, line.gap) == pytest.approx((0.5, -0.2, -0.1, 0.2))
    assert (line.kept_low, line.lost_high) == pytest.approx((line.kept, line.lost))
    assert line.predicted == pytest.approx(4 / 13)
    assert (line.kept_verdict, line.lost_verdict, line.gap_verdict) == ("above", "below", "below")


def test_a_wide_interval_decides_nothing_about_a_frozen_kernel():
    rows = frozen(0.6, seeds=8)
    noise = rows.p ** (0.3 * (rows.seed - 3.5) / 3.5)
    (line,) = comparisons.frozen_table(rows.assign(svc_star=rows.p**-0.75 * noise)).itertuples()
    assert line.kept_high - line.kept_low > curves.WIDE
    assert line.kept_verdict == "undecided"


def test_a_table_without_frozen_kernels_is_refused_and_an_empty_one_is_not():
    assert not len(comparisons.frozen_table(pd.DataFrame()))
    with pytest.raises(ValueError, match="of experiment ntk"):
        comparisons.frozen_table(law(0.5))


def lambdas(power, **more):
    """Networks whose λ grows as 2 p^power at t*, a little faster at its largest, and not at all at the end."""
    nets = law(0.5, **more)
    scatter = 1 + 0.05 * nets.seed
    return nets.assign(
        lambda_star=2 * nets.p**power * scatter, lambda_max=nets.p ** (power + 0.2) * scatter, lambda_end=3.0
    )


def test_amplification_is_fitted_over_the_window_of_the_learning_curve():
    """Small p, where λ does not grow, is outside; a lazy network and a failed one do not count."""
    nets = lambdas(0.5, p=(64, 128, 256, 512, 1024))
    nets.loc[nets.p == 64, "lambda_star"] = 1e6
    other = [lambdas(0.1, regime="lazy"), lambdas(0.1).assign(status="FAILED"), lambdas(0.75, d=3)]
    table = comparisons.amplification_table(pd.concat([nets, *other])).set_index("d")
    assert list(table.index) == [3, 5]
    assert tuple(table.loc[5, ["p_low", "p_high", "seeds"]]) == (128, 1024, 4)
    np.testing.assert_allclose(table.star, [0.75, 0.5])
    np.testing.assert_allclose(table["max"], [0.95, 0.7])
    np.testing.assert_allclose(table.end, 0, atol=1e-12)
    np.testing.assert_allclose(table.off, [0.25, 0], atol=1e-12)
    np.testing.assert_allclose(table.end_last, 3)
    mean = np.mean((1 + 0.05 * np.arange(4.0)) ** -2) ** -0.5
    np.testing.assert_allclose(table.prefactor[5], 2 * mean)
    np.testing.assert_allclose(table.max_first[5], 128**0.7 * mean)
    assert table.verdict[3] == "above"
    scattered = lambdas(0.5).assign(lambda_star=lambda rows: rows.p ** (0.5 + 0.02 * (rows.seed - 1.5)))
    (line,) = comparisons.amplification_table(scattered).itertuples()
    assert line.star_low < 0.5 < line.star_high
    assert line.verdict == "agrees"
    assert not len(comparisons.amplification_table(lambdas(0.5, seeds=2)).star)


def test_a_changed_setting_is_compared_on_the_same_samples():
    base = lambdas(0.5, p=[512], width=1000, alpha=1e-6)
    wide = base.assign(width=2000, test_error=2 * base.test_error)
    large = base.assign(alpha=0.01, lambda_star=base.lambda_star / 4)
    both = base.assign(alpha=0.01, width=2000, test_error=9.0)  # two settings changed: belongs nowhere
    table = comparisons.setting_table(pd.concat([large, both, base, wide]), {"width": 1000, "alpha": 1e-6})
    assert list(zip(table.setting, table.value, table.pairs, strict=True)) == [("width", 2000, 4), ("alpha", 0.01, 4)]
    np.testing.assert_allclose(table[["error", "error_low", "error_high"]], [[2] * 3, [1] * 3])
    np.testing.assert_allclose(table[["star", "star_low", "star_high"]], [[1] * 3, [0.25] * 3])
    with pytest.raises(ValueError, match="same task"):
        comparisons.setting_table(pd.concat([large, both, wide]), {"width": 1000, "alpha": 1e-6})


def test_machines_that_are_told_a_compression():
    """One errs as the network does; another falls faster, to half of its error at the largest p."""
    nets = law(0.7)
    alike = law(0.7, method="svc_laplace")
    alike["test_error"] *= 1 + 0.1 * (-1) ** alike.seed  # a few per cent to either side
    steep = law(0.8, method="svc_laplace", p=(128, 256, 512, 1024))
    steep["test_error"] *= 0.5 * 1024**0.1
    table = comparisons.metric_table(nets, {"star": pd.concat([alike, alike.assign(d=3)]), "end": steep})
    star, end = table.itertuples()
    assert (star.told, star.d, star.held, star.points, star.verdict) == ("star", 5, 4, 4, "agrees")
    assert (end.told, end.p_low, end.p_high, end.held, end.points) == ("end", 128, 1024, 0, 4)
    assert (end.highest, end.last, end.trend) == pytest.approx((2, 2, 0.1))
    assert end.lowest == pytest.approx(2 / 8**0.1)
    assert end.verdict == "above"
    assert not len(comparisons.metric_table(nets, {"star": alike.assign(d=3)}))
