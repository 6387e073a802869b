"""The kernel of `networks.OneHidden` in its closed form, tile by tile."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.gradients.tiles import mirror, slices
from geocompress.networks import OneHidden, Params

_SIDES = (1024, 256, 64, 16, 4, 1)  # of a tile of points, the first that the budget allows
_NEURONS = 128  # with fewer at a time the products of matrices are slow
_Features = tuple[Float[Tensor, "p h"], Float[Tensor, "p h"]]


def closed_form(
    network: OneHidden, params: Params, x1: Tensor, x2: Tensor | None, *, budget: float, layers: bool
) -> dict[str | None, Float[Tensor, "p q"]]:
    """Θ of `OneHidden.ntk` under None, or split over the parameters, tile by tile of points and neurons.

    With slopes M = 1[z > 0] and activations S = max(0, z) of every neuron on every point, and σ(z) = √2 max(0, z):

        Θ_β = (2/h) S Sᵀ,    Θ_ω = (2/h) (M β)(M β)ᵀ ∘ x xᵀ/d,    Θ_b = (2/h) (M β)(M β)ᵀ.

    Args:
        network: of width h.
        params: its parameters.
        x1: points (p, d).
        x2: points (q, d), or None for x1: half of the work, and exactly symmetric.
        budget: bytes beside points and results.
        layers: whether to split.

    Raises:
        ValueError: a budget too small for one tile.
    """
    h, d = params["omega"].shape
    z = x1 if x2 is None else x2
    side, neurons = _cut(budget / x1.element_size(), h, max(len(x1), len(z)))
    results = {name: x1.new_zeros(len(x1), len(z)) for name in (("omega", "b", "beta") if layers else (None,))}
    for some in (slice(n, n + neurons) for n in range(0, h, neurons)):
        chosen = {name: value[some] for name, value in params.items()}
        for i in slices(len(x1), side):
            left = _features(chosen, x1[i])
            for j in slices(len(z), side, first=i.start if x2 is None else 0):
                right = left if x2 is None and i == j else _features(chosen, z[j])
                readout, hidden = ((a @ b.T).mul_(2 / h) for a, b in zip(left, right, strict=True))
                inner = (x1[i] @ z[j].T).div_(d)
                if layers:
                    results["omega"][i, j].addcmul_(hidden, inner)
                    results["b"][i, j].add_(hidden)
                    results["beta"][i, j].add_(readout)
                else:
                    results[None][i, j].add_(readout).addcmul_(hidden, inner.add_(1))
    if x2 is None:
        for result in results.values():
            mirror(result, side)
    return results


def _features(params: Params, x: Float[Tensor, "p d"]) -> _Features:
    """S and M β of the neurons."""
    z = torch.addmm(params["b"], x, params["omega"].T, alpha=1 / math.sqrt(x.shape[1]))
    slopes = (z > 0).to(z).mul_(params["beta"])
    return z.clamp_(min=0), slopes


def _cut(numbers: float, h: int, points: int) -> tuple[int, int]:
    """Points of a tile's side and neurons at a time: two sides of features with what they are made of, three tiles."""
    for side in (min(side, points) for side in _SIDES):
        neurons = int((numbers - 3 * side**2) / (6 * side))
        if neurons >= min(h, _NEURONS):
            return side, min(h, neurons)
    raise ValueError(
        f"memory_gb: expected at least {(3 + 6 * min(h, _NEURONS)) * 8e-9:.3g} for one row block, raise it"
    )
