"""Gradients of a network in a chosen way, whole as rows or assembled into Gram matrices within a budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.gradients.blocks import CHUNK, normal, plan
from geocompress.gradients.contractions import SampleGradients
from geocompress.gradients.samples import Function, Way, one_by_one, vectorised
from geocompress.gradients.tiles import slices


@dataclass(frozen=True)
class Strategy:
    """How gradients of samples are made.

    Attributes:
        contract: from activations and errors, where that is right.
        way: for all other parameters; None takes the faster of the two on a few samples.
    """

    contract: bool = True
    way: Way | None = None


CONTRACTED = Strategy()
VECTORISED = Strategy(contract=False, way=vectorised)
ONE_BY_ONE = Strategy(contract=False, way=one_by_one)


def looked_at(function: Function, x: Tensor, strategy: Strategy) -> SampleGradients:
    """Gradients of a function, after a look at it with two of the points."""
    return SampleGradients(function, x[_unlike(x)], contract=strategy.contract, way=strategy.way)


def _unlike(x: Tensor) -> list[int]:
    """The first point and the last, or the last that differs from the first: twins hide what samples do to others."""
    last = len(x) - 1
    if last and torch.equal(x[0], x[last]):
        others = (x != x[0]).reshape(len(x), -1).any(1).nonzero()
        last = int(others[-1]) if len(others) else last
    return [0, last] if last else [0]


def rows_of_gradients(function: Function, x: Tensor, strategy: Strategy) -> Float[Tensor, "p n"]:
    """∇f(x_i) of a network with one output, whole: shape (p, numbers of all parameters in their order)."""
    gradients = looked_at(function, x, strategy)
    rows = gradients.home.new_empty(len(x), sum(gradients.sizes.values()))
    for part in slices(len(x), CHUNK[x.device.type]):
        made = gradients.at(x[part], list(gradients.sizes))[0]
        torch.cat([made[name].flatten(1) for name in gradients.sizes], 1, out=rows[part])
        normal(rows[part])
    return rows


def assembled(
    gradients: SampleGradients,
    x1: Tensor,
    x2: Tensor | None,
    *,
    budget: float,
    separate: bool = False,
    layers: bool = False,
) -> dict[str | None, Float[Tensor, "p q"]]:
    """⟨∇f(x), ∇f(z)⟩ under None, or that of each parameter under its name; the shorter side of points is held.

    Args:
        gradients: of the network.
        x1: points of the rows.
        x2: points of the columns; None for those of the rows.
        budget: in bytes, beside points and results.
        separate: outputs have rows of their own rather than a sum.
        layers: keep parameters apart.

    Raises:
        ValueError: the budget is too small for one block of rows.
    """
    rows = gradients.outputs if separate else 1
    short, long = sorted((x1, x1 if x2 is None else x2), key=len)
    shape = (len(x1) * rows, len(x1 if x2 is None else x2) * rows)
    results = {name: gradients.home.new_zeros(shape) for name in (gradients.sizes if layers else (None,))}
    numbers = budget / gradients.home.element_size()
    blocks = plan(gradients, len(short), None if x2 is None else len(long), separate=separate, budget=numbers)
    if x2 is None:
        blocks.gram(x1, results)
    else:
        turned = {name: result.T if short is x2 else result for name, result in results.items()}
        blocks.cross(short, long, turned)
    return results
