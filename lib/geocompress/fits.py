"""Power laws measured: least squares on log mean errors, with bootstrap intervals.

A measured curve is a list of runs (p, ε), several seeds to a p; the power law is that of the mean error over seeds.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from geocompress.checks import Real, Whole, integer, real

BOOTSTRAP = 2000  # resamples of an interval
Numbers = ArrayLike | Real  # one number, or anything numpy makes an array of


@dataclass(frozen=True, eq=False)
class PowerLawFit:
    """ε = prefactor · p^{−beta} with a bootstrap interval [beta_low, beta_high], and the points behind it.

    `p`, `mean_error`, its interval [`mean_low`, `mean_high`] and `n_runs` have one entry per distinct p, in increasing
    order. An interval is nan where a p has a single run: one run says nothing about its spread.
    """

    beta: float
    beta_low: float
    beta_high: float
    prefactor: float
    confidence: float
    p: np.ndarray
    mean_error: np.ndarray
    mean_low: np.ndarray
    mean_high: np.ndarray
    n_runs: np.ndarray

    def predict(self, p: Numbers) -> np.ndarray | np.float64:
        """Fitted error at p, in the shape of p."""
        return self.prefactor * np.asarray(p, dtype=np.float64) ** -self.beta

    def __str__(self):
        return f"β = {self.beta:.3f} [{self.beta_low:.3f}, {self.beta_high:.3f}] at {self.confidence:.0%}"


def fit_power_law(
    p: Numbers,
    error: Numbers,
    *,
    replica: Numbers | None = None,
    n_bootstrap: Whole = BOOTSTRAP,
    confidence: Real = 0.95,
    seed: Whole = 0,
) -> PowerLawFit:
    """Fit ε = A p^{−β} to runs (p, error), one entry per run, by least squares in log-log scale.

    Each p enters once, as log(mean error), with equal weight. The mean comes before the log because the law is stated
    for the mean, a single run may well make no error at all, and the mean of logs sits below the log of the mean by an
    amount that changes with p. Equal weights, because at small p the curve departs from a power law by more than the
    noise of its best measured points.

    The interval resamples runs within each p (percentile bootstrap) and is widened for few runs: by √(n/(n−1)), as
    resampling n runs underestimates their spread, and by Student's over the normal quantile (Welch–Satterthwaite).
    Runs at different p are taken to be independent unless `replica` numbers them: runs of one replica share their data
    (a small sample is the head of a larger one) or weights, so whole replicas are resampled, each at every p.

    Raises:
        TypeError, ValueError: for lengths that differ, replicas that are not the same at every p, values that are nan,
            infinite, negative or no numbers, fewer than two distinct p, a p whose errors are all zero, n_bootstrap < 1
            or a confidence outside (0, 1).
    """
    confidence = real(confidence, "confidence", 0, 1)
    p_values, mean_error, n_runs, deviations = _resampled(p, error, replica, n_bootstrap, seed)
    beta, low, high = _slope(p_values, mean_error, n_runs, deviations, confidence, joint=replica is not None)
    prefactor = math.exp(np.log(mean_error).mean() + beta * np.log(p_values).mean())
    upper = (1 + confidence) / 2
    widening = stdtrit(np.maximum(n_runs - 1, 1), upper) / ndtri(upper)
    mean_low, mean_high = mean_error * np.exp(widening * np.quantile(deviations, [1 - upper, upper], axis=0))
    return PowerLawFit(beta, low, high, prefactor, confidence, p_values, mean_error, mean_low, mean_high, n_runs)


def fit_amplification(p: Numbers, amplification: Numbers, **settings: Any) -> PowerLawFit:
    """Fit λ = A p^{−β} to runs (p, λ), so β is near −½ where λ ~ √p; `settings` are those of `fit_power_law`.

    The average over runs is (mean λ^{−2})^{−½}: the noise along x_⊥ enters λ^{−2} as a χ² variable, which averages
    well, while λ itself has a heavy tail when d_⊥ is small. The prediction C √p is for this mean.

    Raises:
        TypeError, ValueError: as `fit_power_law`.
    """
    fit = fit_power_law(p, _vector(amplification, "amplification") ** -2, **settings)
    return replace(
        fit,
        beta=-fit.beta / 2,
        beta_low=-fit.beta_high / 2,
        beta_high=-fit.beta_low / 2,
        prefactor=fit.prefactor**-0.5,
        mean_error=fit.mean_error**-0.5,
        mean_low=fit.mean_high**-0.5,
        mean_high=fit.mean_low**-0.5,
    )


def exponent_difference(
    p: Numbers, error: Numbers, other: Numbers, *, replica: Numbers, confidence: Real = 0.95
) -> tuple[float, float, float]:
    """β of one curve minus β of another, with its interval, where both methods ran on the same replicas.

    Both slopes are those of `fit_power_law`. Replicas are resampled, each with what both methods made of it, so that
    what is hard for both drops out of the interval. One entry per run: `error` and `other` belong to p and `replica`.

    Raises:
        TypeError, ValueError: as `fit_power_law`.
    """
    confidence = real(confidence, "confidence", 0, 1)
    p_values, mean, n_runs, deviations = _resampled(p, error, replica, BOOTSTRAP, 0)
    _, mean_other, _, deviations_other = _resampled(p, other, replica, BOOTSTRAP, 0)  # the same draws
    return _slope(p_values, mean / mean_other, n_runs, deviations - deviations_other, confidence, joint=True)


def local_slopes(
    p: Numbers,
    error: Numbers,
    *,
    replica: Numbers | None = None,
    octaves: Real = 1,
    n_bootstrap: Whole = BOOTSTRAP,
    confidence: Real = 0.95,
    seed: Whole = 0,
) -> pd.DataFrame:
    """Exponent of the learning curve octave by octave: how far the asymptotic law still is.

    A window starts at each p and ends at the first one at least `octaves` doublings above, so that it holds two points
    when p doubles and all points between when the grid is finer; the fit is that of `fit_power_law`. Columns: p_low,
    p_high, beta, beta_low, beta_high.

    Raises:
        TypeError, ValueError: as `fit_power_law`, or when p does not span `octaves`.
    """
    octaves, confidence = real(octaves, "octaves", 0), real(confidence, "confidence", 0, 1)
    p_values, mean_error, n_runs, deviations = _resampled(p, error, replica, n_bootstrap, seed)
    joint = replica is not None
    # the margin forgives the rounding of 2^octaves
    ends = np.searchsorted(p_values, p_values * 2**octaves * (1 - 1e-9))
    rows = []
    for start, end in enumerate(ends[ends < len(p_values)]):
        window = slice(start, end + 1)
        slope = _slope(
            p_values[window], mean_error[window], n_runs[window], deviations[:, window], confidence, joint=joint
        )
        rows.append((p_values[start], p_values[end], *slope))
    if not rows:
        raise ValueError(f"p: expected a span of {octaves:g} octaves, got {p_values[0]:g} to {p_values[-1]:g}")
    return pd.DataFrame(rows, columns=["p_low", "p_high", "beta", "beta_low", "beta_high"])


def _grouped(p: Numbers, error: Numbers, replica: Numbers | None) -> tuple[Float64[np.ndarray, " k"], list[np.ndarray]]:
    """Distinct p in increasing order and, for each, the errors of its runs, in the order of their replicas if given."""
    p, error = _vector(p, "p"), _vector(error, "error")
    if replica is not None:
        replica = _vector(replica, "replica")
        if len(replica) != len(p):
            raise ValueError(f"expected one replica per run, got {len(replica)} for {len(p)} runs")
        order = np.argsort(replica, kind="stable")
        p, error, replica = p[order], error[order], replica[order]
        if len({tuple(replica[p == value]) for value in p}) > 1:
            raise ValueError("replica: expected the same replicas at every p, got others; drop the incomplete ones")
    if len(p) != len(error):
        raise ValueError(f"expected one p and one error per run, got {len(p)} p and {len(error)} errors")
    if (wrong := (p <= 0) | (error < 0)).any():
        raise ValueError(f"expected p > 0 and error ≥ 0, got {wrong.sum()} runs otherwise, first {wrong.argmax()}")
    p_values = np.unique(p)
    if len(p_values) < 2:
        raise ValueError(f"p: expected at least two distinct values for a slope, got {p_values.tolist()}; add runs")
    groups = [error[p == value] for value in p_values]
    if zero := [value for value, group in zip(p_values.tolist(), groups, strict=True) if not group.any()]:
        raise ValueError(f"error: expected a positive mean at each p, got 0 at p = {zero}; test on more points")
    return p_values, groups


def _vector(values: Numbers, name: str) -> Float64[np.ndarray, " n"]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise TypeError(f"{name}: expected a sequence of numbers, one per run, got {values!r}") from cause
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one axis, one entry per run, got shape {array.shape}; flatten it")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got {(~np.isfinite(array)).sum()} nan or inf; drop them")
    return array


def _resampled(
    p: Numbers, error: Numbers, replica: Numbers | None, n_bootstrap: Whole, seed: Whole
) -> tuple[np.ndarray, ...]:
    """Distinct p, mean error and number of runs (k,), and the deviations (b, k) of the log mean of each resample.

    The deviations are nan where a p has a single run.
    """
    p_values, groups = _grouped(p, error, replica)
    n_bootstrap = integer(n_bootstrap, "n_bootstrap")
    seed = integer(seed, "seed", minimum=0)
    rng = np.random.default_rng(seed)
    deviations = np.full((n_bootstrap, len(groups)), np.nan)
    for k, group in enumerate(groups):
        if replica is not None:
            rng = np.random.default_rng(seed)  # the same replicas are drawn at every p
        if (n := len(group)) > 1:
            means = group[rng.integers(n, size=(n_bootstrap, n))].mean(axis=1)
            # a resample of zeros only has no log: it counts as the smallest mean that is not zero
            means = np.maximum(means, group[group > 0].min() / n)
            deviations[:, k] = np.log(means / group.mean()) * math.sqrt(n / (n - 1))
    return p_values, np.array([g.mean() for g in groups]), np.array([len(g) for g in groups]), deviations


def _slope(
    p: np.ndarray,
    mean_error: np.ndarray,
    n_runs: np.ndarray,
    deviations: np.ndarray,
    confidence: float,
    *,
    joint: bool,
) -> tuple[float, float, float]:
    """Least-squares exponent β and its interval, quantiles of the resamples widened as Student's are to the normal."""
    centred = np.log(p) - np.log(p).mean()
    weights = -centred / (centred @ centred)
    beta = float(weights @ np.log(mean_error))
    if (n_runs < 2).any():
        return beta, math.nan, math.nan
    upper = (1 + confidence) / 2
    variance = (deviations * weights).var(axis=0)
    freedom = variance.sum() ** 2 / max((variance**2 / (n_runs - 1)).sum(), np.finfo(float).tiny)
    if joint:
        freedom = min(freedom, n_runs.min() - 1)  # so many replicas, however many p
    widening = stdtrit(freedom, upper) / ndtri(upper) if freedom else 1.0  # no variance: the runs agree exactly
    low, high = beta + widening * np.quantile(deviations @ weights, [1 - upper, upper])
    return beta, float(low), float(high)
