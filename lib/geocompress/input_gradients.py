"""How a net's output changes with its input: the covariance of the gradient, and what its eigenvalues say.

C = E[Σ_c ∇_x f_c ∇_x f_cᵀ] over points x, in units of f² over x². Its leading eigenvectors are the directions that the
net feels, the others those that it ignores. Where inputs have units of their own, standardise them first.

**What this has to do with λ.** For one hidden layer, ∇_x f(x) = (√2 / (h √d)) Σ_n β_n ω_n 1[n is on at x]. Two numbers
can be made of C, and they are not the same:

- *Along directions that are known* to matter, `along` = (tr_∥ C / d_∥) / (tr_⊥ C / d_⊥). If all ω_n are multiples of
  one vector, which is where the compressing period of the stripe leads, every gradient is a multiple of it too and this
  is λ² of `compression.amplification`, exactly. Later neurons differ, C weighs them by what they do to the output and λ
  does not, and the two part by a factor of order one.
- *By its own eigenvalues*, `compression` = mean of the k largest over mean of the rest. It needs to know nothing, and
  by Ky Fan it is at least `along` for any k directions. It does not equal λ²: when all neurons tilt alike, away from
  the informative direction, the net ignores what is perpendicular to its *own* direction altogether, and the ratio goes
  to infinity where λ² is finite. It says how few directions the net feels, not how well these are aimed. Nor does it
  start at 1: a net of random weights has a mean gradient, and that is one direction. Compare it with the initial state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.checks import Real, Whole, integer, real

BATCH = 256  # points differentiated at once
COPIES = 3  # of the gradients that are alive at once
ROUNDING = 1e-13  # eigenvalues below this, in units of the largest, are zero up to rounding


@dataclass(frozen=True, eq=False)
class GradientCovariance:
    """C over n points of D numbers each: all of its eigenvalues, its leading eigenvectors.

    Attributes:
        values: eigenvalues in descending order, shape (D,); zeros beyond the rank.
        vectors: the leading eigenvectors as rows, orthonormal, shape (r, D), the entry of largest modulus positive.
        points: n.
        known: tr_∥ C and tr C, for the directions that were named; nan without.
    """

    values: Float[np.ndarray, " D"]
    vectors: Float[np.ndarray, "r D"]
    points: int
    known: float

    @property
    def dimension(self) -> float:
        """Participation ratio (tr C)² / tr C² of the eigenvalues: how many directions the net feels, from 1 to D."""
        return float(self.values.sum() ** 2 / (self.values**2).sum())

    def compression(self, informative: Whole) -> float:
        """Mean of the `informative` largest eigenvalues over the mean of the others; inf where those are zero.

        Raises:
            TypeError, ValueError: not 1 ≤ informative < D.
        """
        k, total = integer(informative, "informative"), len(self.values)
        if k >= total:
            raise ValueError(f"informative: expected 1 ≤ k < D = {total}, got {k}; some direction has to be left")
        rest = float(self.values[k:].mean())
        return float(self.values[:k].mean()) / rest if rest > 0 else math.inf

    def along(self, informative: Whole) -> float:
        """(tr_∥ C / k) / (tr_⊥ C / (D − k)) for the k directions that were named; nan without.

        Raises:
            TypeError, ValueError: as `compression`.
        """
        k, total = integer(informative, "informative"), len(self.values)
        if k >= total:
            raise ValueError(f"informative: expected 1 ≤ k < D = {total}, got {k}; some direction has to be left")
        rest = (float(self.values.sum()) - self.known) / (total - k)
        return self.known / k / rest if rest > ROUNDING * self.known else self.known * math.inf


def gradients(function: Callable[[Tensor], Tensor], x: Float[Tensor, "n ..."]) -> Float[Tensor, "n C D"]:
    """∇_x f_c(x_μ) of a function of single points, x (n, …) → (n, C), with points flattened to D numbers.

    One backward pass an output for a batch of points: outputs do not depend on other points.
    """
    parts = []
    for part in x.split(BATCH):
        with torch.enable_grad():
            part = part.detach().requires_grad_()
            outputs = function(part)
            last = outputs.shape[1] - 1
            rows = [
                torch.autograd.grad(column.sum(), part, retain_graph=c < last)[0].reshape(len(part), -1)
                for c, column in enumerate(outputs.unbind(1))
            ]
        parts.append(torch.stack(rows, 1))
    return torch.cat(parts)


def covariance(
    function: Callable[[Tensor], Tensor],
    x: Float[Tensor, "p ..."],
    *,
    directions: Float[Tensor, "k D"] | None = None,
    vectors: Whole = 10,
    memory_gb: Real = 1.0,
) -> GradientCovariance:
    """C of a function over the points x, or over as many of them, evenly spread, as the budget holds gradients of.

    Args:
        function: x (n, …) → (n, C), every row from its own point alone.
        x: points (p, …) in float64.
        directions: orthonormal rows (k, D), for `GradientCovariance.along`.
        vectors: how many eigenvectors to keep.
        memory_gb: in 10⁹ bytes, for the gradients: 24 C D bytes a point.

    Raises:
        TypeError, ValueError: arguments out of range, gradients that are not finite or zero everywhere, or a budget
            below the gradients of one point.
    """
    budget, vectors = real(memory_gb, "memory_gb", 0) * 1e9, integer(vectors, "vectors")
    with torch.no_grad():
        count = function(x[:1]).shape[1]
    numbers = x[0].numel()
    fit = int(budget / (8 * COPIES * count * numbers))
    if fit < 1:
        need = 8 * COPIES * count * numbers / 1e9
        raise ValueError(f"memory_gb: expected at least {need:.2g} for the gradient of one point, got {memory_gb:g}")
    chosen = torch.linspace(0, len(x) - 1, min(fit, len(x)), device=x.device).long()
    flat = gradients(function, x[chosen]).flatten(0, 1) / math.sqrt(len(chosen))
    if not bool(flat.isfinite().all()):
        raise ValueError("covariance: expected finite input gradients, got nan or inf; look at the points")
    if not bool(flat.any()):
        raise ValueError("covariance: expected a net that changes with its input, got gradients of zero everywhere")
    wide = flat.shape[1] > len(flat)
    values, basis = torch.linalg.eigh(flat @ flat.T if wide else flat.T @ flat)
    values, basis = values.flip(0), basis.flip(1)
    values = torch.where(values > ROUNDING * values[0], values, 0)
    top = basis[:, : min(vectors, int((values > 0).sum()))]
    rows = ((flat.T @ top) / values[: top.shape[1]].sqrt() if wide else top).T
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    padded = torch.cat([values, values.new_zeros(numbers - len(values))])
    known = math.nan if directions is None else float((flat @ directions.T).square().sum())
    return GradientCovariance(padded.cpu().numpy(), (rows * largest.sign()).cpu().numpy(), len(chosen), known)
