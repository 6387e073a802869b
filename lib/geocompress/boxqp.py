"""Convex quadratic programs in a box: the multipliers of one implicit step of the hinge flow.

    min_c ½ cᵀ A c − qᵀ c   subject to 0 ≤ c ≤ 1,   A symmetric positive semi-definite.

In the flow, A c − q is the vector of margins after the step minus the margin asked for, so every residual below is in
margin units. Most programs of a training have 10 to 40 unknowns and nearly the answer of the step before: there the
number of calls into numpy decides, not the arithmetic. `bench/box_qp.py` compares with other solvers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.linalg import lapack

Vector = Float[ndarray, " n"]
Pair = Float[ndarray, "2 n"]

# Share of the decrease promised by the slope that a Newton step has to bring (Armijo), and the lengths that are tried.
SUFFICIENT = 1e-4
LENGTHS = (1.0, 0.2, 0.04, 8e-3, 1.6e-3, 3.2e-4)
# Relative ridges, tried in turn, that a factorisation may add to the diagonal; the smallest is rounding.
RIDGES = (1e-14, 1e-12, 1e-10)
# The distances to the two bounds, c and 1 − c, change as +c and −c do.
OPPOSITE = np.array([[1.0], [-1.0]])


class BoxQPSolution(NamedTuple):
    """Multipliers, the largest violation of the optimality conditions, and the factorisations it took."""

    c: ndarray
    residual: float
    factorisations: int


def kkt_residual(gradient: Vector, c: Vector) -> Vector:
    """How far each coordinate is from optimal: max(0, −g) where c = 0, max(0, g) where c = 1, |g| in between."""
    return np.abs(gradient) * _free(gradient, c)


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
    first = _projected_newton(matrix, q, c, goal)
    if first.residual <= goal:
        return first
    inner = _interior_point(matrix, q, goal)
    second = _projected_newton(matrix, q, inner.c, goal)
    best = min(first, second, key=lambda solution: solution.residual)
    return best._replace(factorisations=sum(s.factorisations for s in (first, inner, second)))


def _free(gradient: Vector, c: Vector) -> Bool[ndarray, " n"]:
    """Coordinates that no bound keeps from going downhill."""
    return np.where(gradient > 0, c > 0, c < 1)


def _clipped(c: Vector) -> Vector:
    return np.minimum(np.maximum(c, 0.0), 1.0)  # np.clip takes twice as long on short vectors


def _projected_newton(matrix: ndarray, q: Vector, c: Vector, goal: float, max_steps: int = 20) -> BoxQPSolution:
    """Newton on the free coordinates, clipped into the box, with an Armijo search along the clipped path."""
    c, factorisations, scale = _clipped(c), 0, _scale(matrix)
    gradient = matrix.dot(c) - q
    while True:
        free = _free(gradient, c)
        residual = float((np.abs(gradient) * free).max())
        if residual <= goal or factorisations == max_steps:
            break
        rows = free.nonzero()[0]
        factor = _cholesky(matrix.take(rows, axis=0).take(rows, axis=1), scale)
        if factor is None:
            break
        factorisations += 1
        direction = np.zeros(len(q))
        direction[rows] = -lapack.dpotrs(factor, gradient[rows], lower=1)[0]
        for length in LENGTHS:
            trial = _clipped(c + length * direction)
            ahead = matrix.dot(trial) - q
            # The objective changes by ½ (trial − c)·(gradient + ahead), without the cancellation of two objectives.
            if (trial - c).dot(ahead + (1 - 2 * SUFFICIENT) * gradient) <= 0:
                break
        else:
            break
        c, gradient = trial, ahead
    return BoxQPSolution(c, residual, factorisations)


def _scale(matrix: ndarray) -> float:
    """Upper bound on the largest eigenvalue, for positive semi-definite matrices."""
    return len(matrix) * float(matrix.diagonal().max())


def _cholesky(block: ndarray, scale: float) -> ndarray | None:
    """Cholesky factor of a block, with the smallest ridge that rounding lets pass; None when none does."""
    for ridge in RIDGES:
        lifted = block.copy()
        lifted.flat[:: len(block) + 1] += ridge * scale
        factor, failed = lapack.dpotrf(lifted.T, lower=1, overwrite_a=1, clean=0)  # .T: no copy into Fortran order
        if not failed:
            return factor
    return None


def _interior_point(matrix: ndarray, q: Vector, goal: float, max_steps: int = 60) -> BoxQPSolution:
    """Mehrotra's predictor–corrector method (SIAM J. Optim. 2, 575 (1992)) from the middle of the box.

    `room` holds the distances c and 1 − c to the two bounds, `force` the multipliers z and w ≥ 0 that keep c there:
    A c − q = z − w. At the answer one of room and force is 0 for each bound; a coordinate with less room than force is
    put on its bound, so that Newton can finish exactly.
    """
    n, scale = len(q), _scale(matrix)
    room, force = np.full((2, n), 0.5), np.full((2, n), max(1.0, np.abs(q).max()))
    enough = max(0.1 * goal, 1e-15 * scale)  # rounding leaves no less
    # Room given up to a bound shifts margins by up to the diagonal of A times it.
    close = 0.1 * goal / max(1.0, scale / n)
    for step in range(max_steps):
        dual = matrix.dot(room[0]) - q - force[0] + force[1]
        if np.abs(dual).max() <= enough and np.minimum(room, force).max() <= close:
            break
        product, stiffness = room * force, force / room
        factor = _cholesky(matrix + np.diag(stiffness.sum(axis=0)), scale)
        if factor is None:
            break
        d_room, d_force = _newton_step(factor, dual, room, stiffness, -product)
        length = _longest(room, force, d_room, d_force)
        gap, ahead = product.mean(), ((room + length * d_room) * (force + length * d_force)).mean()
        centre = (ahead / gap) ** 3 * gap
        d_room, d_force = _newton_step(factor, dual, room, stiffness, centre - product - d_room * d_force)
        length = 0.995 * _longest(room, force, d_room, d_force)
        room, force = room + length * d_room, force + length * d_force
    low, high = room < force
    return BoxQPSolution(np.where(low, 0.0, np.where(high, 1.0, room[0])), np.inf, step)


def _newton_step(factor: ndarray, dual: Vector, room: Pair, stiffness: Pair, change: Pair) -> tuple[Pair, Pair]:
    """Changes of room and force that cancel the dual residual and change room · force by `change`, to first order."""
    pull = change / room
    d_room = OPPOSITE * lapack.dpotrs(factor, pull[0] - pull[1] - dual, lower=1)[0]
    return d_room, pull - stiffness * d_room


def _longest(room: Pair, force: Pair, d_room: Pair, d_force: Pair) -> float:
    """Longest step in [0, 1] that keeps room and force non-negative."""
    return 1 / max(1.0, -float((d_room / room).min()), -float((d_force / force).min()))
