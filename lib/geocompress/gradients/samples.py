"""Gradients of a network for every sample by autograd: vectorised over samples, or one by one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from geocompress.networks import Params

Gradients = dict[str, Float[Tensor, "n c w"]]


@dataclass(frozen=True, eq=False)
class Function:
    """A network as a function of its trainable parameters and samples.

    Attributes:
        forward: (params, x) → f, of first dimension len(x).
        params: what gradients are taken with respect to.
        constants: other tensors of the network, the same for all samples.
    """

    forward: Callable[[Params, Tensor], object]
    params: Params
    constants: tuple[Tensor, ...] = ()

    def outputs(self, params: Params, x: Tensor) -> Float[Tensor, "n c"]:
        """Outputs, one row a sample.

        Raises:
            TypeError: no tensor.
            ValueError: no row for every sample.
        """
        output = self.forward(params, x)
        if not isinstance(output, Tensor):
            raise TypeError(f"empirical_ntk: expected a tensor of outputs, got {type(output).__name__}; return one")
        if output.ndim < 1 or len(output) != len(x):
            got = tuple(output.shape)
            raise ValueError(
                f"empirical_ntk: expected outputs ({len(x)}, …) of {len(x)} samples, got {got}; one row each"
            )
        return output.reshape(len(x), -1)


Way = Callable[[Function, Collection[str], Tensor, int], Gradients]


def vectorised(function: Function, names: Collection[str], x: Tensor, outputs: int) -> Gradients:
    """∂f_c(x_i)/∂W of the named parameters by `vmap(grad)`, every parameter (n, C, its numbers).

    Raises:
        RuntimeError: the network cannot be vectorised; says what to do.
    """
    wanted = {name: function.params[name] for name in names}

    def single(some: Params, point: Tensor, c: int) -> Tensor:
        return function.outputs({**function.params, **some}, point[None])[0, c]

    try:
        with warnings.catch_warnings():  # `faster` measures what this one warns of
            warnings.filterwarnings("ignore", message="There is a performance drop because")
            parts = [vmap(grad(single), in_dims=(None, 0, None))(wanted, x, c) for c in range(outputs)]
    except RuntimeError as error:
        remedy = "pass strategy=ONE_BY_ONE to take gradients sample by sample"
        raise RuntimeError(f"empirical_ntk: vmap failed on this network ({error}); {remedy}") from error
    return {name: torch.stack([part[name].reshape(len(x), -1) for part in parts], dim=1) for name in names}


def one_by_one(function: Function, names: Collection[str], x: Tensor, outputs: int) -> Gradients:
    """∂f_c(x_i)/∂W as `vectorised`, by a backward pass for every sample and output."""
    leaves = {name: value.detach().requires_grad_(name in names) for name, value in function.params.items()}
    wanted = [leaves[name] for name in names]
    out = {name: x.new_zeros(len(x), outputs, leaves[name].numel(), dtype=leaves[name].dtype) for name in names}
    for i in range(len(x)):
        with torch.enable_grad():
            output = function.outputs(leaves, x[i : i + 1])[0]
        if not output.requires_grad:
            continue
        for c in range(outputs):
            parts = torch.autograd.grad(output[c], wanted, retain_graph=c + 1 < outputs, allow_unused=True)
            for name, part in zip(names, parts, strict=True):
                if part is not None:
                    out[name][i, c] = part.flatten()
    return out


def faster(function: Function, names: Collection[str], x: Tensor, outputs: int) -> Way:
    """`vectorised` or `one_by_one`, whichever takes less time on these samples, both warmed up."""
    try:
        vectorised(function, names, x, outputs)
    except RuntimeError:
        return one_by_one
    one_by_one(function, names, x[:1], outputs)
    times = {}
    for way in (vectorised, one_by_one):
        start = time.perf_counter()
        for part in way(function, names, x, outputs).values():
            part.sum().item()  # waits for a GPU
        times[way] = time.perf_counter() - start
    return min(times, key=times.get)
