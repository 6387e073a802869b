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


def test_gap_is_over_the_same_points_and_replicas():
    """The kernel is steeper where the network was not run, and worse by a power in a replica that the network lacks."""
    kernel = law(0.4, method="svc_laplace", seeds=6, p=(64, 128, 256, 512, 1024, 2048, 4096))
    kernel.loc[kernel.p > 1024, "test_error"] /= 2
    kernel.loc[kernel.seed > 3, "test_error"] *= kernel.p[kernel.seed > 3]
    table = comparisons.gap_table(pd.concat([law(0.7), law(0.9, d=3), kernel]))
    (line,) = table.itertuples()
    assert (line.d, line.p_low, line.p_high, line.seeds) == (5, 128, 1024, 4)
    assert (line.network, line.kernel, line.gap) == pytest.approx((0.7, 0.4, 0.3))
    assert line.gap_low == pytest.approx(line.gap)
    assert line.predicted == pytest.approx(4 / 13)


def test_gap_interval_adds_both_spreads():
    rng = np.random.default_rng(0)
    noisy = [
        law(b, method=m).assign(test_error=lambda r: r.test_error * rng.lognormal(0, 0.2, len(r)))
        for b, m in ((0.7, "network"), (0.4, "svc_laplace"))
    ]
    table = comparisons.gap_table(pd.concat(noisy))
    net, kernel = (curves.fit(one.assign(curve="")) for one in noisy)
    expected = np.hypot(net.beta_high - net.beta, kernel.beta - kernel.beta_low)
    assert table.gap_high[0] - table.gap[0] == pytest.approx(expected)
