"""Gram matrices of gradients under a memory budget: parameters in groups, samples in chunks, pairs in tiles.

For each group of parameters the gradients of the shorter side of points are held, those of the other side made chunk by
chunk and multiplied at once. A group is as large as the budget allows, a parameter too large for it is cut. So with n
numbers of parameters and room for m numbers a sample there are n/m rounds of forward and backward passes, against about
as many halves for blocks of samples that meet in pairs, which would make every gradient again for every pair.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from geocompress.gradients.contractions import SampleGradients
from geocompress.gradients.tiles import mirror, slices

CHUNK = defaultdict(lambda: 1024, cpu=64)  # samples of a pass, enough to fill a machine
_HELD = 2**22  # numbers of a pass for which more samples are taken: small ones cost their calls
_TILE = (128, 1024)  # least and largest side of a tile of pairs
_ELEMENTWISE = 10  # cost of one entry of a product of two tiles, in multiply-adds of a product of matrices


@dataclass(frozen=True)
class Piece:
    """Numbers `start` to `stop` of a parameter's gradient, or its two factors if `positions` is not zero."""

    name: str
    start: int
    stop: int
    positions: int = 0


@dataclass(frozen=True, eq=False)
class Features:
    """What is held of some samples: gradients as rows, and factors x (rows, T, a), e (rows, T, b)."""

    formed: Float[Tensor, "rows columns"]
    spans: dict[str, slice]
    factored: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Blocks:
    """A way to cut the work, fixed before it begins.

    Attributes:
        gradients: of the network.
        separate: outputs are kept apart (a sample has C rows) rather than summed over (C times the columns).
        groups: of pieces that are held together.
        chunk: samples of one pass.
        tile: rows and columns of a block of pairs.
    """

    gradients: SampleGradients
    separate: bool
    groups: tuple[tuple[Piece, ...], ...]
    chunk: int
    tile: int

    @property
    def rows(self) -> int:
        """Rows of a sample."""
        return self.gradients.outputs if self.separate else 1

    def gram(self, x: Shaped[Tensor, "p ..."], results: dict[str | None, Tensor]) -> None:
        """Add ⟨∇f(x_i), ∇f(x_j)⟩, of every parameter to its own result or of all to that under None."""
        for group in self.groups:
            held = self._features(x, group)
            for i in slices(len(held.formed), self.tile):
                for j in slices(len(held.formed), self.tile, first=i.start):
                    _accumulate(results, held, held, i, j, (i, j))
            del held  # so that one group is alive while the next is made
        for result in results.values():
            mirror(result, self.tile)

    def cross(
        self, held: Shaped[Tensor, "p ..."], other: Shaped[Tensor, "q ..."], results: dict[str | None, Tensor]
    ) -> None:
        """Add ⟨∇f(x_i), ∇f(z_j)⟩ for x_i of `held` and z_j of `other`, as `gram`."""
        for group in self.groups:
            left = self._features(held, group)
            for part in slices(len(other), self.chunk):
                right = self._features(other[part], group)
                cols = slice(part.start * self.rows, part.stop * self.rows)
                for i in slices(len(left.formed), self.tile):
                    _accumulate(results, left, right, i, slice(None), (i, cols))
                del right
            del left

    def _features(self, x: Tensor, group: tuple[Piece, ...]) -> Features:
        count, home = self.gradients.outputs, self.gradients.home
        times = 1 if self.separate else count
        formed = [piece for piece in group if not piece.positions]
        ends = torch.tensor([0] + [times * (piece.stop - piece.start) for piece in formed]).cumsum(0).tolist()
        spans = {piece.name: slice(a, b) for piece, a, b in zip(formed, ends, ends[1:], strict=False)}
        held = Features(home.new_empty(len(x) * self.rows, ends[-1]), spans)
        names = [piece.name for piece in group if piece.positions]
        for part in slices(len(x), self.chunk):
            rows = slice(part.start * self.rows, part.stop * self.rows)
            gradients, factors = self.gradients.at(x[part], list(spans), names)
            for piece in formed:
                some = gradients.pop(piece.name)[:, :, piece.start : piece.stop]
                shape = (-1, piece.stop - piece.start) if self.separate else (len(some), -1)
                held.formed[rows, spans[piece.name]] = some.reshape(shape)
            normal(held.formed[rows])
            for name in names:
                pair = self._paired(factors.pop(name))
                if name not in held.factored:
                    held.factored[name] = tuple(home.new_empty(len(held.formed), *some.shape[1:]) for some in pair)
                for whole, some in zip(held.factored[name], pair, strict=True):
                    whole[rows] = some
        return held

    def _paired(self, factors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Factors as rows: the errors of all outputs beside each other, or a row for each with the same data."""
        x, errors = factors
        if self.separate:
            return x.repeat_interleave(self.rows, 0), errors.flatten(0, 1)
        return x, errors.transpose(1, 2).flatten(2)


def normal(rows: Tensor) -> Tensor:
    """Zero, in place, what is so small that its square underflows: subnormal numbers make products ten times slower.

    Gradients of samples that a trained network hardly sees may be that small.
    """
    tiny = math.sqrt(torch.finfo(rows.dtype).tiny)
    return torch.hardshrink(rows, tiny, out=rows)


def plan(gradients: SampleGradients, p: int, q: int | None, *, separate: bool, budget: float) -> Blocks:
    """How to cut the work for p points held and q streamed (None: the p points with themselves).

    Args:
        gradients: of the network.
        p: points on the held side.
        q: points on the other side.
        separate: see `Blocks`.
        budget: numbers that may be held at once, results and points aside.

    Raises:
        ValueError: the budget does not hold one number of the gradient for all p points, and one sample's pass.
    """
    count = gradients.outputs
    forms = {name: form for name, form in gradients.factored.items() if _pays(form, p, q, count, separate)}
    whole = {name: count * size for name, size in gradients.sizes.items() if name not in forms}
    largest = max(whole.values(), default=0)
    sample = gradients.held + 2 * largest + (2 * count * sum(gradients.sizes[n] for n in gradients.general))
    tile = max(1, min(_TILE[1], max(_TILE[0], p // 8), math.isqrt(int(budget / 24))))
    most = max(CHUNK[gradients.home.device.type], _HELD // sample)
    chunk = max(1, min(most, max(p, q or 0), int(budget / 3 / sample)))
    room = int((budget - 3 * tile**2 - chunk * sample) / (p + 2 * chunk))
    if room < count:
        need = (sample + (p + 2) * count) * 1.15 * gradients.home.element_size() / 1e9
        got = budget * gradients.home.element_size() / 1e9
        raise ValueError(
            f"memory_gb: expected at least {need:.3g} for one sample's pass and one row block of {p} points, got "
            f"{got:.3g}; raise it, or pass fewer points"
        )
    groups: list[list[Piece]] = [[]]
    left = room
    for name, size in gradients.sizes.items():
        form = forms.get(name)
        if form is not None and (cost := _numbers(form, count, separate)) <= room:
            if cost > left:
                groups.append([])
                left = room
            groups[-1].append(Piece(name, 0, size, form[0]))
            left -= cost
            continue
        start = 0
        while start < size:
            if left < count:
                groups.append([])
                left = room
            stop = min(size, start + left // count)
            groups[-1].append(Piece(name, start, stop))
            left -= count * (stop - start)
            start = stop
    return Blocks(gradients, separate, tuple(map(tuple, groups)), chunk, tile)


def _numbers(form: tuple[int, int, int], count: int, separate: bool) -> int:
    """Numbers of the factors of a sample."""
    positions, n, m = form
    return positions * ((count * n if separate else n) + count * m)


def _pays(form: tuple[int, int, int], p: int, q: int | None, count: int, separate: bool) -> bool:
    """Whether multiply-adds are fewer with factors than with gradients that are made first."""
    positions, n, m = form
    pairs, points = (p * p / 2, p) if q is None else (p * q, p + q)
    pairs *= count**2 if separate else 1
    columns = m if separate else count * m
    made = points * count * positions * n * m + pairs * n * columns
    return positions**2 * pairs * (n + columns + _ELEMENTWISE) < made


def _accumulate(
    results: dict[str | None, Tensor], left: Features, right: Features, i: slice, j: slice, place: tuple[slice, slice]
) -> None:
    """Add the products of rows i of one side and j of the other to the results, at `place`."""
    spans = {None: slice(None)} if None in results else left.spans
    for name, span in spans.items():
        if left.formed.shape[1]:
            results[name][place].addmm_(left.formed[i, span], right.formed[j, span].T)
    for name, (x, errors) in left.factored.items():
        z, others = right.factored[name]
        into = results[None if None in results else name][place]
        for t in range(x.shape[1]):
            for s in range(x.shape[1]):
                block = errors[i, t] @ others[j, s].T
                into.add_(block.mul_(x[i, t] @ z[j, s].T))
