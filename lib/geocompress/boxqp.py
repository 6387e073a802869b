"""Convex quadratic programs in a box: the multipliers of one implicit step of the hinge flow.

    min_c ½ cᵀ A c − qᵀ c   subject to 0 ≤ c ≤ 1,   A symmetric positive semi-definite.

In the flow, A c − q is the vector of margins after the step minus the margin asked for, so every residual below is in
margin units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.linalg import lapack

Vector = Float[ndarray, " n"]


class BoxQPSolution(NamedTuple):
    """Multipliers, the largest violation of the optimality conditions, and the factorisations it took."""

    c: ndarray
    residual: float
    factorisations: int


def kkt_residual(gradient: Vector, c: Vector) -> Vector:
    """How far each coordinate is from optimal: max(0, −g) where c = 0, max(0, g) where c = 1, |g| in between."""
    return np.where(c <= 0, np.maximum(-gradient, 0), np.where(c >= 1, np.maximum(gradient, 0), np.abs(gradient)))


def boxqp(matrix: ndarray, q: ndarray, c: ndarray, *, tol: float = 1e-9) -> BoxQPSolution:
    """Minimise ½ cᵀAc − qᵀc over the unit box, starting from `c`.

    Projected Newton steps (Bertsekas, SIAM J. Control Optim. 20, 221 (1982)) on the coordinates not held by a bound:
    from the multipliers of the previous time step they identify the active set in a few Cholesky factorisations. Where
    A is too close to singular for that, Mehrotra's interior-point method takes over and its answer is polished by
    Newton again. The better of the two is returned with its residual: the caller decides whether that is good enough.

    Args:
        matrix: A, shape (n, n), float64.
        q: linear term, shape (n,).
        c: starting point, shape (n,); clipped into the box.
        tol: target for the residual, relative to max(1, ‖q‖_∞).

    Raises:
        ValueError: shapes that do not fit together, or numbers that are not finite.
    """
    n = len(q)
    if matrix.shape != (n, n) or c.shape != (n,):
        raise ValueError(f"boxqp: expected A ({n}, {n}) and c ({n},) for q ({n},), got {matrix.shape} and {c.shape}")
    if not (np.isfinite(matrix).all() and np.isfinite(q).all() and np.isfinite(c).all()):
        raise ValueError("boxqp: A, q and c must be finite; a diverged state must not reach the quadratic program")
    if n == 0:
        return BoxQPSolution(c, 0.0, 0)
    goal = tol * max(1.0, float(np.abs(q).max()))
    first = _projected_newton(matrix, q, np.clip(c, 0, 1), goal)
    if first.residual <= goal:
        return first
    inner = _interior_point(matrix, q, goal)
    second = _projected_newton(matrix, q, inner.c, goal)
    best = min(first, second, key=lambda solution: solution.residual)
    return best._replace(factorisations=sum(s.factorisations for s in (first, inner, second)))


def _projected_newton(matrix: ndarray, q: ndarray, c: ndarray, goal: float, max_steps: int = 40) -> BoxQPSolution:
    """Newton on the free coordinates, clipped into the box, with an Armijo search along the clipped path."""
    product = matrix @ c
    for step in range(max_steps):
        gradient = product - q
        residual = float(kkt_residual(gradient, c).max())
        if residual <= goal:
            return BoxQPSolution(c, residual, step)
        free = np.flatnonzero(~(((c <= 0) & (gradient >= 0)) | ((c >= 1) & (gradient <= 0))))
        factor = _factor(matrix[np.ix_(free, free)], len(q) * matrix.diagonal().max())
        if factor is None:
            return BoxQPSolution(c, residual, step)
        direction = np.zeros_like(c)
        direction[free] = -lapack.dpotrs(factor, gradient[free], lower=1)[0]
        moved = _armijo(matrix, q, c, product, gradient, direction)
        if moved is None:
            return BoxQPSolution(c, residual, step)
        c, product = moved
    return BoxQPSolution(c, float(kkt_residual(product - q, c).max()), max_steps)


def _factor(block: ndarray, scale: float) -> ndarray | None:
    """Cholesky factor of a block, with the smallest ridge that rounding lets pass; None when none does."""
    for ridge in (1e-14 * scale, 1e-12 * scale, 1e-10 * scale):
        lifted = block.copy()
        lifted.flat[:: len(block) + 1] += ridge
        factor, failed = lapack.dpotrf(lifted, lower=1, overwrite_a=1)
        if not failed:
            return factor
    return None


def _armijo(
    matrix: ndarray, q: ndarray, c: ndarray, product: ndarray, gradient: ndarray, direction: ndarray
) -> tuple[ndarray, ndarray] | None:
    """First point of the projected path, halving each time, with a sufficient decrease; None when there is none."""
    objective = 0.5 * c @ product - q @ c
    length = 1.0
    while length > 1e-6:
        trial = np.clip(c + length * direction, 0, 1)
        trial_product = matrix @ trial
        if 0.5 * trial @ trial_product - q @ trial <= objective - 1e-4 * (gradient @ (c - trial)):
            return trial, trial_product
        length *= 0.5
    return None


def _interior_point(matrix: ndarray, q: ndarray, goal: float, max_steps: int = 60) -> BoxQPSolution:
    """Mehrotra's predictor–corrector method with multipliers z ≥ 0 for c ≥ 0 and w ≥ 0 for c ≤ 1."""
    n, factorisations = len(q), 0
    force = np.full(n, max(1.0, np.abs(q).max()))
    c, z, w = np.full(n, 0.5), force, force
    for _ in range(max_steps):
        dual = matrix @ c - q - z + w
        gap = (c @ z + (1 - c) @ w) / (2 * n)
        if max(np.abs(dual).max(), (c * z).max(), ((1 - c) * w).max()) <= 0.1 * goal:
            break
        factor, failed = lapack.dpotrf(matrix + np.diag(z / c + w / (1 - c)), lower=1)
        factorisations += 1
        if failed:
            break
        dc, dz, dw = _newton_step(factor, dual, (c, z, w), -c * z, -(1 - c) * w)
        length = _longest((c, dc), (1 - c, -dc), (z, dz), (w, dw))
        ahead = (c + length * dc) @ (z + length * dz) + (1 - c - length * dc) @ (w + length * dw)
        centre = (ahead / (2 * n * gap)) ** 3 * gap
        dc, dz, dw = _newton_step(factor, dual, (c, z, w), centre - c * z - dc * dz, centre - (1 - c) * w + dc * dw)
        length = 0.995 * _longest((c, dc), (1 - c, -dc), (z, dz), (w, dw))
        c, z, w = c + length * dc, z + length * dz, w + length * dw
    # A coordinate smaller than the force that holds it there belongs on its bound: Newton can then finish exactly.
    at_bound = np.where((c < z) & (c < 1e-3), 0.0, np.where((1 - c < w) & (1 - c < 1e-3), 1.0, c))
    return BoxQPSolution(at_bound, np.inf, factorisations)


def _newton_step(
    factor: ndarray, dual: ndarray, point: tuple[ndarray, ndarray, ndarray], r_z: ndarray, r_w: ndarray
) -> tuple[ndarray, ndarray, ndarray]:
    """Changes of (c, z, w) that cancel the dual residual and bring z c and w (1 − c) to their targets."""
    c, z, w = point
    dc = lapack.dpotrs(factor, -dual + r_z / c - r_w / (1 - c), lower=1)[0]
    return dc, (r_z - z * dc) / c, (r_w + w * dc) / (1 - c)


def _longest(*pairs: tuple[ndarray, ndarray]) -> float:
    """Longest step in [0, 1] that keeps every positive vector of the pairs (value, change) non-negative."""
    limits = [-value[shrinking] / change[shrinking] for value, change in pairs if (shrinking := change < 0).any()]
    return float(min([1.0, *(limit.min() for limit in limits)]))
