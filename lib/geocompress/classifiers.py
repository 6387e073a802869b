"""Machines on a fixed kernel: hard-margin classifier, ridge regression, their test error, the layer that carries them.

`hard_margin_svc` lives in `svc`. Everything here takes points, Grams or a decision function, and knows no network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.special import gammainc, gammaincinv, ndtr, ndtri
from torch import Tensor

from geocompress.checks import Real, Whole, integer, real
from geocompress.svc import Ending, HardMarginSVC, hard_margin_svc
from geocompress.tasks import Task, axis, radius

__all__ = [
    "Ending",
    "ErrorEstimate",
    "HardMarginSVC",
    "hard_margin_svc",
    "kernel_ridge",
    "layer_charge",
    "layer_spacing",
    "layer_width",
    "stratified_error",
]

TINY = 2.0**-53  # keeps a coordinate off infinity
DEPTH = 12  # strata shrink by halves towards an edge, this many times
PILOT = 0.1  # share of the test points that only tell where errors are
PLAIN = 0.5  # share of the rest that is spread by mass alone, so that no stratum is ever trusted unseen


class ErrorEstimate(NamedTuple):
    """An estimated test error, its standard error, and the test points it took."""

    error: float
    standard_error: float
    points: int


def kernel_ridge(gram: Tensor, y: Tensor, ridge: Real = 0.0) -> Tensor:
    """Coefficients a of kernel ridge regression, f(x) = Σ_ν a_ν K(x, x_ν): (K + ridge I) a = y, by Cholesky.

    Minimises Σ_μ (f(x_μ) − y_μ)² + ridge |f|². At ridge 0 it interpolates.

    Args:
        gram: K(x_μ, x_ν), shape (p, p), float64, symmetric.
        y: targets, shape (p,) or (p, m).
        ridge: ≥ 0, in the unit of K; `p` times the ridge of a mean loss.

    Returns:
        The coefficients, in the shape of y.

    Raises:
        TypeError: the Gram or y are not float64 tensors, or ridge is no number.
        ValueError: shapes that do not fit, numbers that are not finite, a negative ridge, a Gram that is not
            symmetric, or K + ridge I not positive definite.
    """
    for name, value in (("gram", gram), ("y", y)):
        if not isinstance(value, Tensor) or value.dtype != torch.float64:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"kernel_ridge: expected {name} as a float64 torch tensor, got {got}; use {name}.double()")
        if not bool(value.isfinite().all()):
            raise ValueError(f"kernel_ridge: expected finite {name}, got nan or inf; look at the points it came from")
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or y.ndim not in (1, 2) or len(y) != len(gram) or not len(y):
        got = f"{tuple(gram.shape)} and {tuple(y.shape)}"
        raise ValueError(f"kernel_ridge: expected a Gram (p, p) and targets (p,) or (p, m), got {got}")
    if (ridge := real(ridge, "ridge")) < 0:
        raise ValueError(f"ridge: expected a number ≥ 0, got {ridge}; 0 interpolates")
    asymmetry = float((gram - gram.T).abs().max())
    if asymmetry > 10 * len(gram) * torch.finfo(gram.dtype).eps * float(gram.abs().max()):
        raise ValueError(f"kernel_ridge: expected a symmetric Gram, got K − Kᵀ of {asymmetry:.2g}; average the two")
    lifted = gram.clone()
    lifted.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(lifted)
    if int(failed):
        raise ValueError(
            f"kernel_ridge: expected K + ridge I to be positive definite, got a leading minor of order {int(failed)} "
            f"that is not, at ridge = {ridge:g}; raise the ridge, or drop points that coincide"
        )
    return torch.cholesky_solve(y.reshape(len(y), -1), factor).reshape(y.shape)


def stratified_error(
    task: Task, decision: Callable[[Tensor], Tensor], points: Whole, seed: Whole, *, batch: Whole = 2**17
) -> ErrorEstimate:
    """Unbiased estimate of P(y f(x) ≤ 0) that looks for errors where they are: near the edges of the label.

    The coordinate s(x_∥) of the task is cut into strata that shrink by halves in probability towards every edge. In a
    stratum of mass w, points are drawn from the task's own distribution given s, so the estimate Σ_k w_k ē_k is
    unbiased whatever f is. A tenth of the points is a pilot that is thrown away; of the rest, half is shared by mass
    and half by w_k √(e_k (1 − e_k)) of the pilot (Neyman, J. R. Stat. Soc. 97, 558 (1934)). Its standard error is
    √(Σ_k w_k² ē_k (1 − ē_k)/(n_k − 1)), at most √(1/0.45) ≈ 1.5 times that of as many plain points, and far less when
    errors are close to the edges; read it with care below some ten errors, as with any sample.

    Args:
        task: a task whose coordinate is x_1 or |x_∥|.
        decision: f: points (q, d) → (q,), a function that is trained already.
        points: number of test points, at least 100 for each of the strata (about 50 an edge).
        seed: seed of the test points, one that no training set uses.
        batch: points handed to `decision` at once.

    Raises:
        TypeError, ValueError: too few points, a seed below 0, or a task with another coordinate.
    """
    points, seed, batch = integer(points, "points"), integer(seed, "seed", minimum=0), integer(batch, "batch")
    cumulative, quantile = _law(task)
    edges = cumulative(np.array(task.edges))
    steps = 0.5 ** np.arange(1, DEPTH + 2)
    cuts = np.concatenate([[0, 1], edges, *(edges + sign * step for sign in (-1, 1) for step in steps)])
    cuts = np.unique(cuts[(cuts >= 0) & (cuts <= 1)])
    mass = np.diff(cuts)
    if points < 100 * len(mass):
        raise ValueError(f"points: expected at least {100 * len(mass)} for {len(mass)} strata, got {points}; add some")
    rng = np.random.default_rng(seed)

    def errors(counts: np.ndarray) -> np.ndarray:
        stratum = np.repeat(np.arange(len(mass)), counts)
        wrong = np.zeros(len(mass))
        for start in range(0, len(stratum), batch):
            some = stratum[start : start + batch]
            u = cuts[some] + mass[some] * rng.random(len(some))
            x = _points_at(task, quantile(u.clip(TINY, 1 - TINY)), rng)
            missed = (~(task.label(x) * decision(x).cpu() > 0)).numpy()  # nan, too, is no answer
            wrong += np.bincount(some, weights=missed, minlength=len(mass))
        return wrong / counts

    pilot = np.full(len(mass), max(10, int(PILOT * points / len(mass))))
    guess = errors(pilot)
    weight = mass * np.sqrt(guess * (1 - guess))
    if weight.sum() == 0:
        weight = mass
    left = points - pilot.sum()
    share = PLAIN * mass + (1 - PLAIN) * weight / weight.sum()
    counts = 2 + np.floor((left - 2 * len(mass)) * share).astype(int)
    rate = errors(counts)
    variance = (mass**2 * rate * (1 - rate) / (counts - 1)).sum()
    return ErrorEstimate(float(mass @ rate), math.sqrt(variance), int(pilot.sum() + counts.sum()))


def layer_width(task: Task, x_support: Float[Tensor, "s d"]) -> float:
    """Δ, the mean distance of support vectors to the nearest edge of the label along x_∥, in the unit of the points.

    Δ ~ p^{−β}, as the test error (arXiv:2006.09754, 2007.11471).

    Raises:
        TypeError, ValueError: no support vectors, or points that do not fit the task.
    """
    s = task.coordinate(_some(x_support))
    return float((s[:, None] - torch.tensor(task.edges, dtype=s.dtype, device=s.device)).abs().amin(1).mean())


def layer_charge(a: Float[Tensor, " s"]) -> float:
    """Mean charge a_ν = |q_ν| of a support vector: Q/(pΔ) of the scaling argument, in margin units over kernel units.

    Raises:
        ValueError: no support vectors.
    """
    return float(_some(a).mean())


def layer_spacing(x_support: Float[Tensor, "s d"]) -> float:
    """r_c, the mean distance from a support vector to the nearest other one of either class, in the unit of the points.

    r_c ~ (pΔ)^{−1/(d−1)} on a layer much thinner than r_c (arXiv:2007.11471).

    Raises:
        ValueError: fewer than two support vectors.
    """
    if len(x_support) < 2:
        raise ValueError(f"layer_spacing: expected two support vectors or more, got {len(x_support)}; train a machine")
    points = x_support.cpu().numpy()
    return float(cKDTree(points).query(points, k=2)[0][:, 1].mean())


def _some(values: Tensor) -> Tensor:
    if not len(values):
        raise ValueError("support vectors: expected at least one, got none; read the ending of the fit")
    return values


def _law(task: Task) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Distribution function of the task's coordinate, and its inverse."""
    if task.rule.coordinate is axis:
        return ndtr, ndtri
    if task.rule.coordinate is radius:
        half = task.d_parallel / 2
        return lambda s: gammainc(half, s**2 / 2), lambda u: np.sqrt(2 * gammaincinv(half, u))
    raise ValueError(
        f"stratified_error: expected a task whose coordinate is tasks.axis or tasks.radius, got {task.name}; "
        "use plain test points"
    )


def _points_at(task: Task, s: np.ndarray, rng: np.random.Generator) -> Float[Tensor, "q d"]:
    """Gaussian points given their coordinate s: x_1 = s, or |x_∥| = s in a direction at random."""
    x = rng.standard_normal((len(s), task.d))
    if task.rule.coordinate is axis:
        x[:, 0] = s
    else:
        parallel = x[:, : task.d_parallel]
        parallel *= (s / np.linalg.norm(parallel, axis=1))[:, None]
    return torch.from_numpy(x)
