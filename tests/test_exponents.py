"""Exponents: exact fractions and limits of the predictions; fits recover a known law and their intervals cover it."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from geocompress import exponents, fits, tasks

P_GRID = np.array([64, 128, 256, 512])


def runs(beta, n_seeds, noise, rng, p_grid=P_GRID):
    """Runs of ε = 0.8 p^{−β} with multiplicative gamma noise of mean 1 and relative deviation `noise`."""
    p = np.repeat(p_grid, n_seeds)
    shape = noise**-2
    return p, 0.8 * p ** (-beta) * rng.gamma(shape, 1 / shape, size=len(p))


@pytest.mark.parametrize(
    ("d", "lazy", "stripe", "cylinder"),
    [
        (2, Fraction(1, 2), Fraction(3, 4), Fraction(1, 2)),
        (3, Fraction(3, 7), Fraction(5, 7), Fraction(1, 2)),
        (5, Fraction(5, 13), Fraction(9, 13), Fraction(1, 2)),
        (10, Fraction(5, 14), Fraction(19, 28), Fraction(1, 2)),
    ],
)
def test_exact_fractions(d, lazy, stripe, cylinder):
    assert exponents.beta_lazy(d) == float(lazy)
    assert exponents.beta_feature(d, 1) == float(stripe)
    assert exponents.beta_feature(d, 2) == float(cylinder)


@pytest.mark.parametrize("d", range(1, 30))
def test_relations_between_the_predictions(d):
    # the stripe's feature exponent is the lazy one after a compression by λ ~ √p
    assert exponents.beta_lazy(d) + exponents.compression_gain(d) / 2 == pytest.approx(exponents.beta_feature(d, 1))
    if d > 1:
        # nothing to compress: feature is lazy; each direction that can be compressed helps
        betas = [exponents.beta_feature(d, d_parallel) for d_parallel in range(1, d + 1)]
        assert betas[-1] == exponents.beta_lazy(d)
        assert (np.diff(betas) < 0).all()
        assert exponents.beta_lazy(d, 0.5) < exponents.beta_lazy(d, 1) < exponents.beta_lazy(d, 1.5)


def test_limits_of_high_dimension():
    assert exponents.beta_lazy(10**9) == pytest.approx(1 / 3, abs=1e-8)
    assert exponents.beta_feature(10**9, 1) == pytest.approx(2 / 3, abs=1e-8)
    assert exponents.compression_gain(10**9) == pytest.approx(2 / 3, abs=1e-8)
    assert exponents.compression_gain(1) == 0


@pytest.mark.parametrize("edges", [tasks.stripe(3).edges, (-1.2, 0.4), (0.5, np.inf)])
def test_amplification_prefactor_is_the_mean_pull_along_x_parallel(edges):
    def pull(low, high):
        return quad(lambda x: x * norm.pdf(x), low, high)[0]

    x_min, x_max = edges
    mean_pull = pull(-np.inf, x_min) - pull(x_min, x_max) + (pull(x_max, np.inf) if np.isfinite(x_max) else 0)
    assert exponents.amplification_prefactor(*edges) == pytest.approx(abs(mean_pull), abs=1e-9)


def test_amplification_prefactor_vanishes_on_a_symmetric_stripe():
    assert exponents.amplification_prefactor(-0.67, 0.67) == 0
    assert exponents.amplification_prefactor(*tasks.stripe(10).edges) == pytest.approx(0.37, abs=0.005)


def test_table_holds_every_pair_that_exists():
    frame = exponents.table([1, 2, 5], d_parallels=[1, 2, 5], xi=1.0)
    assert list(zip(frame["d"], frame["d_parallel"], strict=True)) == [(1, 1), (2, 1), (2, 2), (5, 1), (5, 2), (5, 5)]
    row = frame.set_index(["d", "d_parallel"]).loc[(5, 1)]
    assert (row["beta_lazy"], row["beta_feature"]) == (5 / 13, 9 / 13)


def test_an_exact_power_law_is_recovered_exactly():
    p = np.repeat(P_GRID, 3)
    fit = exponents.fit_power_law(p, 0.8 * p**-0.7)
    assert (fit.beta, fit.beta_low, fit.beta_high) == pytest.approx((0.7, 0.7, 0.7), abs=1e-12)
    assert fit.prefactor == pytest.approx(0.8, rel=1e-12)
    assert fit.predict(2048) == pytest.approx(0.8 * 2048**-0.7, rel=1e-12)
    np.testing.assert_allclose(fit.predict(fit.p), fit.mean_error, rtol=1e-12)
    assert fit.n_runs.tolist() == [3] * 4


def test_the_law_is_that_of_the_mean_over_seeds():
    # half of the runs make no error: the mean of logs does not exist, the law of the mean does
    p = np.repeat(P_GRID, 2)
    error = np.where(np.arange(len(p)) % 2, 0.0, 2 * 0.8 * p**-0.5)
    fit = exponents.fit_power_law(p, error)
    assert fit.beta == pytest.approx(0.5, abs=1e-12)
    assert np.isfinite([fit.beta_low, fit.beta_high]).all()
    assert fit.beta_low < 0.3 < 0.7 < fit.beta_high


def test_order_of_runs_is_irrelevant_to_the_estimate():
    rng = np.random.default_rng(0)
    p, error = runs(0.6, 5, 0.3, rng)
    order = rng.permutation(len(p))
    fit, shuffled = exponents.fit_power_law(p, error), exponents.fit_power_law(p[order], error[order])
    assert shuffled.beta == pytest.approx(fit.beta, abs=1e-12)
    np.testing.assert_array_equal(shuffled.p, fit.p)


@pytest.mark.parametrize("n_seeds", [3, 6])
def test_intervals_cover_the_truth_as_often_as_they_say(n_seeds):
    rng = np.random.default_rng(20)
    replications = 600
    hits = {0.95: 0, 0.5: 0}
    for _ in range(replications):
        p, error = runs(9 / 13, n_seeds, 0.4, rng)
        for confidence in hits:
            fit = exponents.fit_power_law(p, error, n_bootstrap=400, confidence=confidence)
            hits[confidence] += fit.beta_low <= 9 / 13 <= fit.beta_high
    # about three deviations of a count over 600; a bare percentile bootstrap covers 0.88 with three seeds and fails
    assert 0.925 <= hits[0.95] / replications <= 0.975
    assert 0.44 <= hits[0.5] / replications <= 0.56


@pytest.mark.parametrize("n_seeds", [3, 10])
def test_intervals_over_whole_replicas_cover_the_truth(n_seeds):
    """Replicas that are steep or flat as a whole, beside noise of every run; also the difference of two such curves."""
    rng = np.random.default_rng(21)
    replications, p, replica = 600, np.repeat(P_GRID, n_seeds), np.tile(np.arange(n_seeds), len(P_GRID))
    hits = {"joint": 0, "independent": 0, "difference": 0}
    for _ in range(replications):
        shared = (p / 100.0) ** (0.15 * rng.standard_normal(n_seeds)[replica])
        error, other = (shared * 0.8 * p**-beta * rng.lognormal(0, 0.1, len(p)) for beta in (9 / 13, 5 / 13))
        fits = {"joint": exponents.fit_power_law(p, error, replica=replica, n_bootstrap=400)}
        fits["independent"] = exponents.fit_power_law(p, error, n_bootstrap=400)
        for name, fit in fits.items():
            hits[name] += fit.beta_low <= 9 / 13 <= fit.beta_high
        value, low, high = exponents.exponent_difference(p, error, other, replica=replica)
        assert low <= value <= high
        hits["difference"] += low <= 4 / 13 <= high
    assert hits["independent"] / replications < 0.9
    for name in ("joint", "difference"):
        assert 0.91 <= hits[name] / replications <= 0.985, name


def test_interval_shrinks_like_one_over_root_n():
    rng = np.random.default_rng(3)
    widths = {}
    for n_seeds in (25, 400):
        fit = exponents.fit_power_law(*runs(0.5, n_seeds, 0.4, rng))
        widths[n_seeds] = fit.beta_high - fit.beta_low
    assert widths[25] / widths[400] == pytest.approx(4, rel=0.25)


def test_a_single_run_has_no_interval():
    fit = exponents.fit_power_law([10, 20, 20], [0.4, 0.2, 0.2])
    assert fit.beta == pytest.approx(1)
    assert np.isnan(fit.beta_low)
    assert np.isnan(fit.beta_high)


def test_local_slopes_follow_a_curve_that_bends():
    p = np.repeat(2 ** np.arange(4, 10), 2)
    error = np.where(p <= 64, p**-1.0, 64**-0.5 * p**-0.5)
    frame = exponents.local_slopes(p, error)
    np.testing.assert_allclose(frame["beta"], [1, 1, 0.5, 0.5, 0.5], atol=1e-12)
    assert frame["p_low"].tolist() == [16, 32, 64, 128, 256]
    assert (frame["p_high"] == 2 * frame["p_low"]).all()


def test_local_slopes_span_an_octave_on_any_grid():
    rng = np.random.default_rng(1)
    fine = np.round(42 * 1.2 ** np.arange(12))
    frame = exponents.local_slopes(*runs(0.4, 30, 0.2, rng, fine))
    ratio = frame["p_high"] / frame["p_low"]
    assert (ratio >= 2 - 1e-9).all()
    assert (ratio < 2 * 1.25).all()
    assert ((frame["beta_low"] < frame["beta"]) & (frame["beta"] < frame["beta_high"])).all()
    assert (abs(frame["beta"] - 0.4) < 0.3).all()
    coarse = exponents.local_slopes([10, 10, 40, 40], [0.4, 0.4, 0.2, 0.2])
    assert (coarse["p_low"][0], coarse["p_high"][0], coarse["beta"][0]) == (10, 40, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("p", "error", "message"),
    [
        ([1, 2], [0.1], "one p and one error per run, got 2 p and 1 errors"),
        ([1, 1], [0.1, 0.2], r"p: expected at least two distinct values for a slope, got \[1.0\]"),
        ([], [], "p: expected at least two distinct values"),
        ([1, 2], [0.1, np.nan], "error: expected finite values, got 1 nan or inf"),
        ([1, np.inf], [0.1, 0.1], "p: expected finite values"),
        ([1, 2], [0.1, -0.1], "error ≥ 0, got 1 runs otherwise, first 1"),
        ([0, 2], [0.1, 0.1], "expected p > 0"),
        ([1, 2, 2], [0.1, 0.0, 0.0], r"error: expected a positive mean at each p, got 0 at p = \[2.0\]"),
        ([[1, 2]], [[0.1, 0.1]], r"p: expected one axis, one entry per run, got shape \(1, 2\)"),
    ],
)
def test_bad_runs_are_refused(p, error, message):
    for measure in (exponents.fit_power_law, exponents.local_slopes):
        with pytest.raises(ValueError, match=message):
            measure(p, error)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exponents.beta_lazy(0), "d: expected an integer ≥ 1"),
        (lambda: exponents.beta_lazy(3, xi=0.0), r"xi: expected a finite number in \(0, 2\), got 0.0"),
        (lambda: exponents.beta_lazy(3, xi=float("nan")), "xi: expected"),
        (lambda: exponents.compression_gain(3, xi=2.0), "xi: expected"),
        (lambda: exponents.beta_feature(3, 4), "d_parallel: expected at most d = 3, got 4"),
        (lambda: exponents.amplification_prefactor(1.0, 1.0), "expected x_min < x_max"),
        (lambda: exponents.fit_power_law([1, 2], [1, 1], confidence=1.0), "confidence: expected"),
        (lambda: exponents.fit_power_law([1, 2], [1, 1], n_bootstrap=0), "n_bootstrap: expected an integer ≥ 1"),
        (lambda: exponents.local_slopes([10, 15], [1, 1]), "p: expected a span of 1 octaves, got 10 to 15"),
    ],
)
def test_bad_parameters_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_text_is_no_measurement():
    with pytest.raises(TypeError, match="p: expected a sequence of numbers"):
        fits._vector(["many", "few"], "p")


def test_amplifications_average_as_their_noise_does():
    p = np.repeat([64, 256, 1024], 400)
    noise = np.random.default_rng(3).chisquare(4, len(p)) / 4
    fit = exponents.fit_amplification(p, 0.9 * np.sqrt(p / noise), confidence=0.999)
    assert fit.beta_low < -0.5 < fit.beta_high
    assert fit.beta == pytest.approx(-0.5, abs=0.05)
    assert (fit.mean_low < 0.9 * np.sqrt(fit.p)).all()
    assert (fit.mean_high > 0.9 * np.sqrt(fit.p)).all()
    exact = exponents.fit_amplification([1, 4, 16], [3, 6, 12])
    assert (exact.beta, exact.prefactor) == (pytest.approx(-0.5), pytest.approx(3))
    np.testing.assert_allclose(exact.mean_error, [3, 6, 12])


def test_intervals_of_the_means_hold_the_means():
    p = np.repeat([10, 20], 5)
    error = np.random.default_rng(0).random(10) + 0.5
    fit = exponents.fit_power_law(p, error)
    assert (fit.mean_low < fit.mean_error).all()
    assert (fit.mean_error < fit.mean_high).all()
    assert np.isnan(exponents.fit_power_law([1, 2], [1.0, 0.5]).mean_low).all()


def test_replicas_that_share_their_luck_are_resampled_together():
    p, replica = np.repeat([64, 128, 256], 8), np.tile(np.arange(8), 3)
    luck = np.random.default_rng(1).standard_normal(8)
    steep = p**-0.5 * np.exp(0.3 * luck[replica] * np.log2(p / 128))  # a good replica falls faster: errors correlate
    alike = p**-0.5 * np.exp(0.3 * luck[replica])  # a good replica is good everywhere: the slope is sure
    for error, wider in ((steep, True), (alike, False)):
        apart, together = exponents.fit_power_law(p, error), exponents.fit_power_law(p, error, replica=replica)
        assert together.beta == apart.beta
        widths = [fit.beta_high - fit.beta_low for fit in (apart, together)]
        assert (widths[1] > 1.2 * widths[0]) if wider else (widths[1] < 0.01 * widths[0])
    shuffled = np.random.default_rng(2).permutation(24)
    again = exponents.fit_power_law(p[shuffled], steep[shuffled], replica=replica[shuffled])
    assert again.beta_low == pytest.approx(exponents.fit_power_law(p, steep, replica=replica).beta_low)
    with pytest.raises(ValueError, match="the same replicas at every p"):
        exponents.fit_power_law(p[1:], steep[1:], replica=replica[1:])


@pytest.mark.parametrize("d", [2, 3, 5, 10])
@pytest.mark.parametrize("xi", [0.5, 1, 1.5])
def test_layer_satisfies_the_three_conditions_of_the_argument(d, xi):
    """Spacing, variation across the layer Q Δ² ~ 1 and fluctuation along it, Q / (p Δ) r_c^ξ ~ 1, as powers of p."""
    layer = exponents.layer_exponents(d, xi)
    total = layer.charge + 1 + layer.width  # Q: charge of one times their number p Δ
    assert layer.spacing == pytest.approx(-(1 + layer.width) / (d - 1))
    assert total + 2 * layer.width == pytest.approx(0)
    assert layer.charge + xi * layer.spacing == pytest.approx(0)


def test_layer_needs_a_surface():
    with pytest.raises(ValueError, match="d: expected"):
        exponents.layer_exponents(1)
