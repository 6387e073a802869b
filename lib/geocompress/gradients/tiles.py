"""Ranges and square matrices, cut into tiles."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor


def slices(length: int, step: int, first: int = 0) -> Iterator[slice]:
    """Numbers from `first` to `length`, `step` at a time."""
    return (slice(start, min(start + step, length)) for start in range(first, length, step))


def mirror(result: Float[Tensor, "p p"], side: int) -> None:
    """Make a matrix whose upper triangle is known exactly symmetric, in place and tile by tile."""
    for i in slices(len(result), side):
        result[i, i] = result[i, i].triu() + result[i, i].triu(1).T
        for j in slices(len(result), side, first=i.stop):
            result[j, i] = result[i, j].T
