"""Hard-margin support vector classifiers on any kernel, at sizes whose Gram fits into no memory (see `workingset`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress import svc_checks
from geocompress.checks import Real, Whole, integer, real
from geocompress.kernels import Kernel, matvec
from geocompress.workingset import Ending, WorkingSet


@dataclass(frozen=True, eq=False)
class HardMarginSVC:
    """f(x) = Σ_ν a_ν y_ν K(x, x_ν) + b over the support vectors, and the proof of how good it is.

    Attributes:
        kernel: maps (p, d) and (q, d) to (p, q).
        x: support vectors x_ν, shape (s, d).
        y: their labels ±1, shape (s,).
        a: dual coefficients a_ν ≥ 0, shape (s,); Σ a_ν y_ν = 0 if there is a bias.
        support: their row numbers in the training set, shape (s,), increasing.
        bias: b, or None for a machine without.
        violation: largest max(0, 1 − y f) over all training points, in margin units.
        gap: relative duality gap (P − D)/D, with P the squared norm ½|f|² of f scaled until no margin is below 1 and
            D = Σ a − ½|f|². inf if a margin is not positive.
        rounds: working sets solved on the full training set.
        pivots: linear systems solved.
        ending: how the fit ended.
    """

    kernel: Kernel
    x: Tensor
    y: Tensor
    a: Tensor
    support: Tensor
    bias: float | None
    violation: float
    gap: float
    rounds: int
    pivots: int
    ending: Ending

    def decision(self, x: Float[Tensor, "q d"], *, memory_gb: Real = 1.0) -> Float[Tensor, " q"]:
        """Values f(x) of new points, in blocks under a memory budget in 10⁹ bytes.

        Raises:
            TypeError, ValueError: points that do not fit the support vectors, or a budget too small for one row.
        """
        return matvec(self.kernel, x, self.x, self.a * self.y, memory_gb=memory_gb) + (self.bias or 0.0)

    def predict(self, x: Float[Tensor, "q d"], *, memory_gb: Real = 1.0) -> Float[Tensor, " q"]:
        """Labels sign f in {−1, +1}; f = 0 counts as −1. Raises as `decision`."""
        return torch.where(self.decision(x, memory_gb=memory_gb) > 0, 1.0, -1.0).to(x.dtype)


def hard_margin_svc(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    *,
    bias: bool = True,
    tol: Real = 1e-4,
    memory_gb: Real = 4.0,
    max_rounds: Whole = 50,
    start: Tensor | None = None,
) -> HardMarginSVC:
    """The function of smallest norm in the space of a kernel that gives every training point a margin y f ≥ 1.

    min ½|f|² subject to y_μ (f(x_μ) + b) ≥ 1, the machine of arXiv:2006.09754 and 2007.11471 (there scikit-learn's SVC
    at a huge C). p × p is never held: memory grows with the square of the number of support vectors, time with p times
    that number.
    The answer is unique; the order of the points, `start` and the budget change it by less than the tolerance.

    Args:
        kernel: maps (p, d) and (q, d) to (p, q), symmetric and positive semi-definite; with a bias it is enough that
            it is so on charges that sum to zero, as −|x − z| is. Give it more arguments by `functools.partial`.
        x: training points, shape (p, d), float64: charges are large and cancel, so float32 would leave noise.
        y: labels in {−1, +1}, shape (p,), both classes present.
        bias: whether f has a constant b. Without one libsvm cannot help and the fit takes several times longer.
        tol: accepted violation of margin 1.
        memory_gb: budget in 10⁹ bytes for Grams of the working set and blocks of kernel values.
        max_rounds: working sets to try on the full training set.
        start: row numbers (s,) likely to be support vectors, int64, as those of a smaller fit: saves the nested sets.

    Returns:
        A `HardMarginSVC`; read its `ending`, `violation` and `gap` before you trust it.

    Raises:
        TypeError: x or y are not float64 tensors, or an argument is of the wrong kind.
        ValueError: shapes, labels or numbers no machine can be trained on; one class only; equal points of opposite
            labels (they are listed); a kernel that is not finite, symmetric and positive; a budget too small for the
            support vectors.
    """
    tol, memory_gb = real(tol, "tol", 0, 1), real(memory_gb, "memory_gb", 0)
    max_rounds = integer(max_rounds, "max_rounds")
    svc_checks.data(x, y)
    once = svc_checks.distinct(x, y)
    fit = WorkingSet(kernel, x[once], y[once], bias, tol, memory_gb)
    if start is None:
        fit.nested()
    else:
        fit.begin(svc_checks.started(start, once, len(x), y))
    rounds, ending = fit.finish(max_rounds)
    q = fit.q
    support = (q != 0).nonzero()[:, 0]
    rows = fit.rows[support]
    order = rows.argsort()
    support, rows = support[order], rows[order]
    norm2 = float(q @ (fit.gram @ q))
    q, labels = q[support], fit.y[rows]
    least, dual = fit.least, float((q * labels).sum()) - norm2 / 2
    gap = (norm2 / 2 / least**2 - dual) / dual if least > 0 and dual > 0 else math.inf
    a, b = q * labels, fit.b if bias else None
    return HardMarginSVC(
        kernel, fit.x[rows], labels, a, once[rows], b, max(0.0, 1 - least), gap, rounds, fit.pivots, ending
    )
