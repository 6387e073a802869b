"""Many nets of one hidden layer side by side, on any device: `networks.OneHidden` with a batch axis in front.

Pre-activations are made again, in tiles of neurons, wherever they are needed: with d + 1 columns to multiply that costs
little, and memory is that of one tile however many points and neurons there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.networks import OneHidden, Params

LANES = 32  # neurons of the smallest tile
ARRAYS = 6  # arrays of the size of a tile that are held at once, at most
# Numbers in a tile, at most: more than a cache holds slows a processor, and a GPU is busy with this many.
CELLS = {"cpu": 2**18, "cuda": 2**27}


def tile_cells(x: Float[Tensor, "B p d"], network: OneHidden, budget: float) -> int:
    """Numbers in a tile (batch, points, neurons) so that all that is held of its size stays within `budget` bytes.

    Raises:
        ValueError: the budget does not hold tiles of `LANES` neurons on all points.
    """
    pairs, item = x.shape[0] * x.shape[1], ARRAYS * x.element_size()
    least = pairs * min(LANES, network.width)
    if budget < least * item:
        raise ValueError(
            f"memory_gb: expected room for {ARRAYS} tiles of {least} numbers ({least * item / 1e9:.3g} GB), got "
            f"{budget / 1e9:.3g} GB for them; raise it, or train fewer nets together"
        )
    return max(least, min(int(budget // item), CELLS.get(x.device.type, CELLS["cuda"])))


@dataclass(frozen=True)
class OneHiddenBatch:
    """Nets of one shape. Parameters: `omega` (B, h, d), `b` (B, h), `beta` (B, h); tiles of at most `cells` numbers."""

    network: OneHidden
    cells: int

    @property
    def width(self) -> int:
        """Neurons of each net."""
        return self.network.width

    def augment(self, x: Float[Tensor, "B p d"]) -> Float[Tensor, "B p d1"]:
        """x̃ = (x/√d, 1), the form in which all products want the points."""
        return torch.cat([x / math.sqrt(self.network.d), x.new_ones(*x.shape[:2], 1)], dim=2)

    def forward(self, params: Params, x: Float[Tensor, "B p d1"]) -> Float[Tensor, "B p"]:
        """Outputs f(x_μ) of each net on its own augmented points."""
        weights, out = augmented(params).transpose(1, 2), x.new_zeros(x.shape[:2])
        for part in tiles(x, self.width, self.cells):
            activations = (x @ weights[:, :, part]).clamp_(min=0)
            out += (activations @ params["beta"][:, part, None])[:, :, 0]
        return math.sqrt(2) / self.width * out

    def linearise(self, params: Params, x: Float[Tensor, "B p d1"]) -> JacobianBatch:
        """The Jacobians at `params` on augmented points."""
        return JacobianBatch(x, params, None, self.cells)


class JacobianBatch:
    """Products with J = k [M β x̃ᵀ, S], k = √2/h, of every net, as `networks.OneHiddenJacobian` has them.

    M and S belong to the weights w̃ = (ω, b) at the start or, where there is an end, are averages over the straight line
    to it. They are kept if one tile holds them all.
    """

    def __init__(self, x: Float[Tensor, "B s d1"], start: Params, end: Params | None, cells: int) -> None:
        self._x, self._start, self._end, self._cells = x, start, end, cells
        self._beta = start["beta"] if end is None else 0.5 * (start["beta"] + end["beta"])
        self._h = self._beta.shape[1]
        self._scale = math.sqrt(2) / self._h
        self._parts = tiles(x, self._h, cells)
        self._kept: tuple[Tensor, Tensor] | None = None

    def secant(self, end: Params) -> JacobianBatch:
        """The Jacobians averaged over the straight line to `end`, see `networks.OneHiddenLinearisation.secant`."""
        return JacobianBatch(self._x, self._start, end, self._cells)

    def among(self, replicas: Tensor, rows: Tensor) -> JacobianBatch:
        """The same Jacobians of some of the nets, shape (b,), on some of the points of each, shape (b, n)."""
        x = self._x[replicas[:, None], rows]
        start, end = (
            None if params is None else {k: v[replicas] for k, v in params.items()}
            for params in (self._start, self._end)
        )
        return JacobianBatch(x, start, end, self._cells)

    def pullback(self, cotangent: Float[Tensor, "B s"]) -> Params:
        """Σ_μ v_μ ∇f(x_μ) for multipliers v."""
        batch, _, columns = self._x.shape
        pulled = (cotangent[:, :, None] * self._x).transpose(1, 2)
        hidden, readout = self._x.new_empty(batch, columns, self._h), self._x.new_empty(batch, self._h)
        for part, slopes, activations in self._tiles():
            hidden[:, :, part] = pulled @ slopes
            readout[:, part] = (cotangent[:, None] @ activations)[:, 0]
        grad_w = (self._scale * self._beta[:, None] * hidden).transpose(1, 2)
        return {"omega": grad_w[:, :, :-1], "b": grad_w[:, :, -1], "beta": self._scale * readout}

    def pushforward(self, tangent: Params) -> Float[Tensor, "B s"]:
        """⟨∇f(x_μ), δ⟩ for every point."""
        way, out = self._beta[:, :, None] * augmented(tangent), self._x.new_zeros(self._x.shape[:2])
        for part, slopes, activations in self._tiles():
            out += (activations @ tangent["beta"][:, part, None])[:, :, 0]
            out += ((slopes @ way[:, part]) * self._x).sum(2)
        return self._scale * out

    def gram(self) -> Float[Tensor, "B s s"]:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ among all points, summed over tiles of neurons."""
        batch, points, _ = self._x.shape
        readout, hidden = (self._x.new_zeros(batch, points, points) for _ in range(2))
        for part, slopes, activations in self._tiles():
            readout.baddbmm_(activations, activations.transpose(1, 2))
            weighted = slopes * self._beta[:, None, part]
            hidden.baddbmm_(weighted, weighted.transpose(1, 2))
        hidden.mul_(self._x @ self._x.transpose(1, 2))
        return hidden.add_(readout).mul_(self._scale**2)

    def _tiles(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Neurons, slopes M and activations S of one tile after the other."""
        if self._kept is not None:
            yield self._parts[0], *self._kept
            return
        start = augmented(self._start).transpose(1, 2)
        end = None if self._end is None else augmented(self._end).transpose(1, 2)
        for part in self._parts:
            both = _bent(self._x @ start[:, :, part], None if end is None else self._x @ end[:, :, part])
            if len(self._parts) == 1:
                self._kept = both
            yield part, *both


def _bent(z: Tensor, z_end: Tensor | None) -> tuple[Tensor, Tensor]:
    """Slopes and activations at pre-activations z, or averaged over the way from z to z_end; overwrites both."""
    if z_end is None:
        return (z > 0).to(z), z.clamp_(min=0)
    way = (z_end - z).abs_().add_(torch.finfo(z.dtype).tiny)
    z.clamp_(min=0)
    z_end.clamp_(min=0)
    # the share of the way above zero; more than 1 says that no kink is crossed
    slopes = torch.maximum(z, z_end).div_(way).clamp_(max=1)
    return slopes, z.add_(z_end).mul_(0.5)


def tiles(x: Tensor, width: int, cells: int) -> list[slice]:
    """Equal shares of the neurons, each so that a tile on all points of x (B, s, ·) has at most `cells` numbers."""
    most = max(min(LANES, width), cells // max(1, x.shape[0] * x.shape[1]))
    count = -(-width // most)
    size = -(-width // count)
    return [slice(i, min(i + size, width)) for i in range(0, width, size)]


def augmented(params: Params) -> Float[Tensor, "B h d1"]:
    """w̃ = (ω, b)."""
    return torch.cat([params["omega"], params["b"][:, :, None]], dim=2)
