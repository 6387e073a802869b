"""Convex quadratic programs in a box: the multipliers of one implicit step of the hinge flow.

    min_c ½ cᵀ A c − qᵀ c   subject to 0 ≤ c ≤ 1,   A symmetric positive semi-definite.

In the flow, A c − q is the vector of margins after the step minus the margin asked for, so every residual below is in
margin units. In trainings of nets at most 34 coordinates were ever seen between the bounds at the answer, of thousands
(stripe, p ≤ 4096): what counts is to find out cheaply which. `bench/box_qp.py` compares with other solvers.

Both bounds count here, the matrix is new at every step and small, and the last step's answer is nearly right. Without
an upper bound, on one Gram that never changes: `marginqp`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.linalg import lapack

from geocompress.checks import Real, real
from geocompress.jit import compiled

Vector = Float[ndarray, " n"]
Pair = Float[ndarray, "2 n"]

# Share of the decrease promised by the slope that a Newton step has to bring (Armijo).
SUFFICIENT = 1e-4
TINY = np.finfo(float).tiny
# Relative ridges, tried in turn, that a factorisation may add to the diagonal; the smallest is rounding.
RIDGES = (1e-14, 1e-12, 1e-10)
# How far A may be from symmetric and positive semi-definite, relative to its largest element: as far as single
# precision takes a Gram.
PRECISION = 1e-5
# The distances to the two bounds, c and 1 − c, change as +c and −c do.
OPPOSITE = np.array([[1.0], [-1.0]])


class BoxQPSolution(NamedTuple):
    """Multipliers, the largest violation of the optimality conditions, and the factorisations it took."""

    c: ndarray
    residual: float
    factorisations: int


@compiled
def kkt_residual(gradient: Vector, c: Vector) -> Vector:
    """How far each coordinate is from optimal: max(0, −g) where c = 0, max(0, g) where c = 1, |g| in between."""
    return np.abs(gradient) * np.where(gradient > 0, c > 0, c < 1)


def boxqp(matrix: ndarray, q: ndarray, c: ndarray, *, tol: Real = 1e-9, check_convex: bool = True) -> BoxQPSolution:
    """Minimise ½ cᵀAc − qᵀc over the unit box, starting from `c`.

    An active-set method (`_active_set`) that starts from the multipliers of the previous time step. Should it not get
    there, Mehrotra's interior-point method takes over and its answer is polished by the active set again. The better
    of the two is returned with its residual: the caller decides whether that is good enough.

    Args:
        matrix: A, shape (n, n), float64.
        q: linear term, shape (n,).
        c: starting point, shape (n,); clipped into the box.
        tol: target for the residual, relative to max(1, ‖q‖_∞).
        check_convex: False spares the look at A, for those who formed it as a Gram.

    Raises:
        TypeError: a tolerance that is no number.
        ValueError: shapes that do not fit together, numbers that are not finite, a tolerance ≤ 0, or a matrix that is
            not symmetric or has a negative eigenvalue, by more than 10⁻⁵ of its largest element (Grams in single
            precision are welcome). Found by one factorisation.
    """
    matrix, q, c = (np.asarray(values, float) for values in (matrix, q, c))
    tol, n = real(tol, "tol", 0), len(q)
    if matrix.shape != (n, n) or c.shape != (n,):
        raise ValueError(f"boxqp: expected A ({n}, {n}) and c ({n},) for q ({n},), got {matrix.shape} and {c.shape}")
    if not (np.isfinite(matrix).all() and np.isfinite(q).all() and np.isfinite(c).all()):
        raise ValueError("boxqp: A, q and c must be finite; a diverged state must not reach the quadratic program")
    if n == 0:
        return BoxQPSolution(c, 0.0, 0)
    if check_convex:
        _convex(matrix)
    goal = tol * max(1.0, float(np.abs(q).max()))
    first = _active_set(matrix, q, c, goal)
    if first.residual <= goal:
        return first
    inner = _interior_point(matrix, q, goal)
    second = _active_set(matrix, q, inner.c, goal)
    best = min(first, second, key=lambda solution: solution.residual)
    return best._replace(factorisations=sum(s.factorisations for s in (first, inner, second)))


def _convex(matrix: ndarray) -> None:
    """Refuse a matrix that is not symmetric and positive semi-definite: its answers would prove nothing."""
    size = max(0.0, float(matrix.diagonal().max()))  # of the largest element, if it is one
    if (asymmetry := float((matrix - matrix.T).max())) > PRECISION * size:
        raise ValueError(f"boxqp: expected a symmetric A, got A − Aᵀ of {asymmetry:.2g}; average the two")
    lifted = matrix.copy()
    lifted.flat[:: len(matrix) + 1] += PRECISION * size
    failed = lapack.dpotrf(lifted.T, lower=1, overwrite_a=1, clean=0)[1]
    if failed and (lowest := float(np.linalg.eigvalsh(matrix)[0])) < -PRECISION * size:
        raise ValueError(
            f"boxqp: expected a positive semi-definite A, got an eigenvalue of {lowest:.3g} at elements up to "
            f"{size:.3g}, so a corner of the box would pass for the minimum; compute A in float64, or mend its elements"
        )


@compiled
def _violations(gradient, c, inside):
    """Violations of all coordinates, the largest, and the largest of those inside."""
    violation = kkt_residual(gradient, c)
    return violation, violation.max(), (violation * inside).max()


@compiled
def _among(matrix, gradient, c, inside):
    """The coordinates inside, their rows of A, their block of it, their multipliers and slopes."""
    rows = np.nonzero(inside)[0]
    columns = matrix[rows]
    return rows, columns, np.ascontiguousarray(columns[:, rows]), c[rows], gradient[rows]


@compiled
def _step(rows, columns, start, slope, direction, c, gradient, inside):
    """Move c, its gradient and who is inside by a Newton step; False if clipping spoilt it, and it ended early."""
    end = np.minimum(np.maximum(start + direction, 0.0), 1.0)
    ahead = gradient + np.dot(end - start, columns)
    # The objective changes by ½ (end − start)·(gradient + ahead), without the cancellation of two objectives.
    spoilt = np.dot(end - start, ahead[rows] + (1 - 2 * SUFFICIENT) * slope) > 0
    if spoilt:
        bound = np.where(direction > 0, 1.0, 0.0)
        room = np.abs(bound - start) / np.maximum(np.abs(direction), TINY)
        end = np.where(room <= room.min(), bound, start + room.min() * direction)
        ahead = gradient + np.dot(end - start, columns)
    c[rows], gradient[:], inside[rows] = end, ahead, (end > 0) & (end < 1)
    return not spoilt


def _active_set(matrix: ndarray, q: Vector, c: Vector, goal: float) -> BoxQPSolution:
    """Newton steps on the coordinates `inside` the box, which others join only when those have come to rest.

    A step is clipped into the box; coordinates on a bound leave. Those that most want to leave their bounds join, twice
    as many each time. Where clipping has spoilt a step (the objective does not fall), it ends at the first bound that
    it meets, and of the others one joins next. So a regular A is entered by all that it needs in a few steps; a
    singular one, which would send many at once to the wrong bounds, by single coordinates, whose steps descend.
    """
    n, scale, c = len(q), _scale(matrix), np.clip(c, 0.0, 1.0)
    gradient, inside = matrix.dot(c) - q, (c > 0) & (c < 1)
    joining = max(1, int(inside.sum()))
    for step in range(20 + 5 * n):
        violation, worst, worst_inside = _violations(gradient, c, inside)
        if worst <= goal:
            gradient = matrix.dot(c) - q  # without the rounding of many steps
            violation, worst, worst_inside = _violations(gradient, c, inside)
            if worst <= goal:
                return BoxQPSolution(c, float(worst), step)
        if worst_inside <= goal:
            first = max(0, n - joining)
            inside |= violation >= max(goal, np.partition(violation, first)[first])
        rows, columns, block, start, slope = _among(matrix, gradient, c, inside)
        factor = _cholesky(block, scale)
        if factor is None:
            break
        direction = lapack.dpotrs(factor, -slope, lower=1)[0]
        whole = _step(rows, columns, start, slope, direction, c, gradient, inside)
        joining = 2 * joining if whole else 1
    return BoxQPSolution(c, float(kkt_residual(matrix.dot(c) - q, c).max()), step)


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
