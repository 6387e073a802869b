"""The quadratic program of a hard-margin classifier on a Gram that fits into memory, with and without a bias.

    min_a ½ Σ_{μν} a_μ a_ν y_μ y_ν K_{μν} − Σ_μ a_μ   subject to a ≥ 0   (and Σ_μ a_μ y_μ = 0 with a bias b).

Its optimum is the f = Σ_ν a_ν y_ν K(x, x_ν) + b of smallest norm with every margin y f ≥ 1; points with a > 0 lie on
margin 1. Signed charges q = a y are the unknowns below. Two methods work together. libsvm (through scikit-learn) comes
within a thousandth of a margin in few cheap steps. Pivoting then finds the exact set of support vectors: it solves the
linear system of the guessed set, drops the points whose charge has the wrong sign, adds those below margin 1, and does
so again. One Cholesky factor serves many pivots, because a few exchanged points are a correction of low rank.

This is the solver of one Gram; `workingset` chooses which points are in it, `activeset` takes over where exchanging
many points at once does not settle, and `boxqp` has an upper bound too.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC
from torch import Tensor

LIBSVM_C = 1e10  # in units of 1 / max |K|: above every charge of a problem that float64 can solve
LIBSVM_TOL = 1e-3  # margin units
LIBSVM_STEPS = 100  # times the number of points; 4 are usual, and pivoting goes on from wherever it stops
PATIENCE = 5  # full exchanges without progress before pivoting exchanges one point at a time
SHIFTS = (0.0, 1.0, 10.0, 100.0, 1000.0)  # times max |K|; adding a constant to K changes nothing where Σq = 0
RIDGES = (1e-15, 1e-13, 1e-11)  # times the trace; only for Grams that are singular to rounding


@dataclass(frozen=True, eq=False)
class Factor:
    """Cholesky factor of K + shift (+ ridge) among the points `base` of a working set."""

    base: Int[Tensor, " n"]
    lower: Float[Tensor, "n n"]
    shift: float

    @property
    def exchanges(self) -> int:
        """How many exchanged points are cheaper to correct for than to factorise again."""
        return 32 + len(self.base) // 12


class MarginSolution(NamedTuple):
    """Charges q (w,), the bias (0 without one), who is a support vector, whether that is exact, and what it took."""

    q: Tensor
    b: float
    free: Tensor
    solved: bool
    pivots: int
    factor: Factor | None


def approximate(gram: Float[Tensor, "w w"], y: Float[Tensor, " w"]) -> tuple[Float[Tensor, " w"], float]:
    """Charges q and bias b by libsvm from a cold start, to 1e-3 in margin units or as far as its steps reach."""
    steps = LIBSVM_STEPS * len(y) + 10_000
    ceiling = LIBSVM_C / max(_size(gram), 1e-300)
    svc = SVC(kernel="precomputed", C=ceiling, tol=LIBSVM_TOL, max_iter=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what it has found by then is a start for pivoting
        svc.fit(gram.cpu().numpy(), y.cpu().numpy())
    q = y.new_zeros(len(y))
    q[torch.from_numpy(svc.support_).long().to(y.device)] = torch.from_numpy(svc.dual_coef_[0]).to(y)
    return q, float(svc.intercept_[0])


def pivot(
    gram: Float[Tensor, "w w"],
    y: Float[Tensor, " w"],
    free: Bool[Tensor, " w"],
    *,
    bias: bool = True,
    tol: float = 1e-9,
    max_pivots: int = 200,
    factor: Factor | None = None,
) -> MarginSolution:
    """Exchange points in and out of `free` until every charge has the sign of its label and every margin is 1 − tol.

    Block principal pivoting for a linear complementarity problem (Júdice and Pires, Comput. Oper. Res. 21, 587
    (1994)): all wrong points are exchanged at once, and one at a time when that has made no progress for a while.

    Args:
        gram: K among the w points of a working set, float64, positive semi-definite (on Σq = 0 if there is a bias).
        y: labels ±1, shape (w,).
        free: first guess of the support vectors, shape (w,).
        bias: whether f has a bias, and Σq = 0.
        tol: accepted violation of margin 1.
        max_pivots: linear systems to solve before giving up.
        factor: a `Factor` of an earlier call on a working set that began with the same points.

    Returns:
        A `MarginSolution`. `solved` is False when the system was singular, max_pivots were not enough, or the answer
        is no classifier (an empty set); the last charges are then still there.
    """
    columns = torch.stack([y, torch.ones_like(y)], dim=1) if bias else y[:, None]
    q, b, fewest, patience = torch.zeros_like(y), 0.0, len(y) + 1, PATIENCE
    for count in range(1, max_pivots + 1):
        solved = _solve(gram, columns, free, factor, bias)
        if solved is None:
            return MarginSolution(q, b, free, False, count, None)
        solution, factor = solved
        # K q + b = y on the free points, Σq = 0: b is what makes the charges of the two right-hand sides cancel
        b = float(solution[:, 0].sum() / solution[:, 1].sum()) if bias else 0.0
        q = solution[:, 0] - b * solution[:, 1] if bias else solution[:, 0]
        margins = y * (gram @ q + b)
        if not bool(margins.isfinite().all()):
            return MarginSolution(torch.zeros_like(q), 0.0, free, False, count, None)
        wrong = torch.where(free, q * y < 0, margins < 1 - tol)
        number = int(wrong.sum())
        if number == 0:
            exact = bool((margins[free] - 1).abs().max() <= max(tol, 1e-6)) if bool(free.any()) else False
            return MarginSolution(q, b, free, exact, count, factor)
        patience = PATIENCE if number < fewest else patience - 1
        fewest = min(fewest, number)
        if patience < 0:
            wrong[: int(wrong.nonzero()[-1])] = False  # Murty's rule: the last one alone cannot cycle
        free = free ^ wrong
    return MarginSolution(q, b, free, False, max_pivots, factor)


def _size(gram: Tensor) -> float:
    """Largest |K|, without a copy of K."""
    low, high = gram.aminmax()
    return max(-float(low), float(high))


def _solve(
    gram: Tensor, columns: Tensor, free: Tensor, factor: Factor | None, conditional: bool
) -> tuple[Tensor, Factor] | None:
    """K_FF⁻¹ applied to `columns`, zero outside F, by a factor of nearly the same set or a new one, or None."""
    rows = free.nonzero()[:, 0]
    if factor is not None:
        in_base = torch.zeros_like(free)
        in_base[factor.base] = True
        added = (free & ~in_base).nonzero()[:, 0]
        dropped = (~free[factor.base]).nonzero()[:, 0]  # positions in the base
        if len(added) + len(dropped) <= factor.exchanges:
            return _corrected(gram, columns, factor, added, dropped), factor
    factor = _factorise(gram, rows, conditional)
    if factor is None:
        return None
    nothing = rows[:0]
    return _corrected(gram, columns, factor, nothing, nothing), factor


def _factorise(gram: Tensor, rows: Tensor, conditional: bool) -> Factor | None:
    """Cholesky factor among `rows`, with the smallest shift (with a bias) or ridge that lets it pass."""
    if not len(rows):
        return None
    size, trace = _size(gram), float(gram.diagonal().abs().sum())
    attempts = [(shift, 0.0) for shift in (SHIFTS if conditional else SHIFTS[:1])] + [(0.0, r) for r in RIDGES]
    for shift, ridge in attempts:
        block = gram[rows[:, None], rows]
        if shift:
            block += shift * size
        block.diagonal().add_(ridge * trace)
        lower, info = torch.linalg.cholesky_ex(block)
        if not int(info):
            return Factor(rows, lower, shift * size)
    return None


def _corrected(gram: Tensor, columns: Tensor, factor: Factor, added: Tensor, dropped: Tensor) -> Tensor:
    """Solve on base − dropped + added: a bordered system whose second block is as small as the exchange.

    [K_BB U; Uᵀ C] with U = (K_BA, E_D) and C = diag(K_AA, 0): rows of E_D force the dropped charges to zero.
    """
    base, result = factor.base, torch.zeros_like(columns)
    inner = torch.cholesky_solve(columns[base], factor.lower)
    if exchanged := len(added) + len(dropped):
        border = gram.new_zeros(len(base), exchanged)
        border[:, : len(added)] = gram[base[:, None], added] + factor.shift
        border[dropped, len(added) + torch.arange(len(dropped), device=base.device)] = 1
        corner = gram.new_zeros(exchanged, exchanged)
        corner[: len(added), : len(added)] = gram[added[:, None], added] + factor.shift
        target = columns.new_zeros(exchanged, columns.shape[1])
        target[: len(added)] = columns[added]
        answered = torch.cholesky_solve(border, factor.lower)
        outer, _ = torch.linalg.solve_ex(corner - border.T @ answered, target - border.T @ inner)  # nan if singular
        inner = inner - answered @ outer
        inner[dropped] = 0  # exactly, not to rounding
        result[added] = outer[: len(added)]
    result[base] = inner
    return result
