"""A hard-margin machine on a Gram, found one point at a time: slow where many points carry it, and never lost.

For Grams a few of whose eigenvalues stand many orders above the rest, as that of a tangent kernel around t*: a first
guess by libsvm, in single precision, does not see the rest, and exchanging many points at once does not settle.
Unlike `marginqp` it begins with two points, holds the exact machine of its points at every step, and keeps no factor.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 20  # points that join, per training point, before giving up


class Machine(NamedTuple):
    """The support, ascending, with its charges q = a y; the bias; the largest max(0, 1 − y f); the points that joined.

    Shapes: `support` and `charges` (s,).
    """

    support: Tensor
    charges: Tensor
    bias: float
    violation: float
    steps: int


def hard_margin(gram: Float[Tensor, "p p"], y: Float[Tensor, " p"], *, tol: float = 1e-6) -> Machine | None:
    """The f of smallest norm with every margin y (f + b) ≥ 1, f = Σ_ν q_ν K(x, x_ν); None when it was not found.

    The dual method of Goldfarb and Idnani (Math. Program. 27, 1 (1983)): the machine is always the exact one of the
    points it holds. The point with the smallest margin joins; on the way to margin 1 of the newcomer, points whose
    charge falls to zero leave. The norm of f grows with every step, so no set comes twice and the method ends. A step
    costs a system of the size of the support, so it suits small ones: 25 support vectors of p = 4096 take a second.

    Args:
        gram: K, float64, symmetric and positive semi-definite on charges that sum to zero.
        y: labels ±1, both present.
        tol: accepted violation of margin 1.
    """
    held = [int((y == label).nonzero()[0]) for label in (-1, 1)]
    for steps in range(STEPS * len(y)):
        rows = torch.tensor(sorted(held), device=y.device)
        charges, b = _solve(gram, rows, y[rows], 0.0)
        margins = y * (gram[:, rows] @ charges + b)
        if not bool(margins.isfinite().all()):
            return None
        outside = margins.index_fill(0, rows, 1.0)  # those held are on the margin, to rounding
        newcomer = int(outside.argmin())
        missing = 1 - float(outside[newcomer])
        if missing <= tol:
            return Machine(rows, charges, b, max(0.0, 1 - float(margins.min())), steps)
        joined = _join(gram, y, rows.tolist(), charges, newcomer, missing)
        if joined is None:
            return None
        held = joined
    return None


def _join(gram: Tensor, y: Tensor, held: list[int], charges: Tensor, newcomer: int, missing: float) -> list[int] | None:
    """The set with the newcomer and without those whose charge fell to zero before its margin was 1."""
    while held:
        rows = torch.tensor(held, device=y.device)
        # dq_r = y_r dt; the others keep their margins, K dq + db = −K_r dq_r, and Σ dq = −dq_r
        change, db = _solve(gram, rows, -y[newcomer] * gram[rows, newcomer], -float(y[newcomer]))
        gain = float(y[newcomer] * (gram[newcomer, rows] @ change + db) + gram[newcomer, newcomer])
        force, rate = charges * y[rows], change * y[rows]
        waits = torch.where(rate < 0, force / -rate, math.inf)
        first = int(waits.argmin())
        full, partial = missing / gain if gain > 0 else math.inf, max(0.0, float(waits[first]))
        step = min(full, partial)
        if not math.isfinite(step):
            return None  # a newcomer that no charge helps: the classes touch, to rounding
        if full <= partial:
            return [*held, newcomer]
        charges, missing = charges + step * change, missing - step * gain
        charges = torch.cat([charges[:first], charges[first + 1 :]])
        held = held[:first] + held[first + 1 :]
    return None


def _solve(gram: Tensor, rows: Tensor, target: Tensor, total: float) -> tuple[Tensor, float]:
    """Charges q on `rows` and b with K q + b = target there and Σ q = total."""
    size = len(rows)
    bordered = gram.new_zeros(size + 1, size + 1)
    bordered[:size, :size] = gram[rows[:, None], rows]
    bordered[size, :size] = bordered[:size, size] = 1
    solution, _ = torch.linalg.solve_ex(bordered, torch.cat([target, target.new_tensor([total])]))
    return solution[:size], float(solution[size])
