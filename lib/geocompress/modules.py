"""Any `torch.nn.Module` with one output a sample, as a network that the flow can train."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp

from geocompress.checks import deterministic, integer, real
from geocompress.gradients.assembly import CONTRACTED, assembled, looked_at, rows_of_gradients
from geocompress.gradients.samples import Function
from geocompress.networks import Params


@dataclass(frozen=True, eq=False)
class ModuleNetwork:
    """A module as a `networks.Network`: its trainable parameters become the dictionary, the rest is held fixed.

    Buffers and parameters with `requires_grad=False` stay as they are in the module, which is never written to.
    Gram blocks are made as `empirical.empirical_ntk` makes them, under the memory budget. Where half of it holds the
    Jacobian of the points, this is kept for the products with it; else these are made in blocks of points, each with
    one forward and one backward pass.

    Attributes:
        module: maps x (p, …) to (p,) or (p, 1), each sample on its own.
        width: unit of mean-field time, Ẇ = −(width/α) ∂L/∂W. With 1, time is that of plain gradient flow over α.
        memory_gb: what gradients may occupy at once, in 10⁹ bytes.
        block: points of one forward and backward pass, which keeps their activations.

    Raises:
        TypeError: not a module, or width not an integer.
        ValueError: no trainable parameter; batch normalisation on batch statistics or active dropout (both make the
            output of a sample depend on chance or on other samples); width or memory below their ranges.
    """

    module: nn.Module
    width: int = 1
    memory_gb: float = 1.0
    block: int = 256

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise TypeError(f"ModuleNetwork: expected a torch.nn.Module, got {type(self.module).__name__}")
        integer(self.width, "width")
        real(self.memory_gb, "memory_gb", 0)
        integer(self.block, "block")
        if not any(value.requires_grad for value in self.module.parameters()):
            raise ValueError(
                "ModuleNetwork: the module has no parameter with requires_grad=True, nothing can be trained"
            )
        deterministic(self.module, "ModuleNetwork")

    def init(self) -> Params:
        """A copy of the module's trainable parameters as they are now."""
        return {k: v.detach().clone() for k, v in self.module.named_parameters() if v.requires_grad}

    def forward(self, params: Params, x: Float[Tensor, "p ..."]) -> Float[Tensor, " p"]:
        """Outputs f(x_μ), shape (p,), without gradients."""
        with torch.no_grad():
            return torch.cat([self.outputs(params, part) for part in x.split(self.block)])

    def linearise(self, params: Params, x: Float[Tensor, "p ..."]) -> ModuleLinearisation:
        """The linearisation at `params` on `x`; nothing is computed before it is asked for.

        Raises:
            ValueError: the module was put in a mode with chance or batch statistics, or its outputs are not one a
                sample.
        """
        deterministic(self.module, "ModuleNetwork")
        with torch.no_grad():
            self.outputs(params, x[:2])
        return ModuleLinearisation(self, params, x)

    def distance(self, before: Params, after: Params) -> float:
        """∞: nothing is known of how far an output can move."""
        return math.inf

    def sizes(self, x: Float[Tensor, "p ..."]) -> Float[Tensor, " p"]:
        """One for each point; see `distance`."""
        return x.new_ones(len(x))

    def outputs(self, params: Params, x: Float[Tensor, "p ..."]) -> Float[Tensor, " p"]:
        """Outputs in one pass, which autograd can follow.

        Raises:
            ValueError: not one output a sample.
        """
        output = functional_call(self.module, params, (x,))
        if not isinstance(output, Tensor) or output.shape not in ((len(x),), (len(x), 1)):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"ModuleNetwork: expected one output a sample, ({len(x)},) or ({len(x)}, 1), got {got}; end the module "
                "in a layer with one output"
            )
        return output.reshape(-1)


class ModuleLinearisation:
    """Outputs, Jacobian products and Gram blocks of a `ModuleNetwork` at fixed parameters on fixed points."""

    def __init__(self, network: ModuleNetwork, params: Params, x: Tensor) -> None:
        self._network, self._params, self._x = network, params, x

    @functools.cached_property
    def output(self) -> Float[Tensor, " p"]:
        """f(x_μ), shape (p,)."""
        return self._network.forward(self._params, self._x)

    @functools.cached_property
    def _jacobian(self) -> Float[Tensor, "p n"] | None:
        """∇f(x_μ) as rows, where half of the memory budget holds them: made for a Gram, it serves all products."""
        held = len(self._x) * sum(value.numel() for value in self._params.values()) * self._x.element_size()
        if 2 * held > self._network.memory_gb * 1e9:
            return None
        return rows_of_gradients(self._function, self._x, CONTRACTED)

    @property
    def _function(self) -> Function:
        return Function(self._network.outputs, self._params)

    def pullback(self, cotangent: Float[Tensor, " p"]) -> Params:
        """Σ_μ v_μ ∇f(x_μ) for multipliers v of shape (p,), in the shape of the parameters."""
        if (rows := self.__dict__.get("_jacobian")) is not None:
            parts = (cotangent @ rows).split([value.numel() for value in self._params.values()])
            return {k: part.view_as(v) for (k, v), part in zip(self._params.items(), parts, strict=True)}
        leaves = {k: value.detach().requires_grad_() for k, value in self._params.items()}
        total = {k: torch.zeros_like(value) for k, value in self._params.items()}
        for points, pull in zip(self._x.split(self._network.block), cotangent.split(self._network.block), strict=True):
            with torch.enable_grad():
                whole = self._network.outputs(leaves, points) @ pull
            parts = torch.autograd.grad(whole, list(leaves.values()), allow_unused=True)
            for value, part in zip(total.values(), parts, strict=True):
                if part is not None:
                    value.add_(part)
        return total

    def pushforward(self, tangent: Params) -> Float[Tensor, " p"]:
        """⟨∇f(x_μ), δ⟩ for every point, shape (p,)."""
        if (rows := self.__dict__.get("_jacobian")) is not None:
            return rows @ torch.cat([tangent[k].flatten() for k in self._params])
        with warnings.catch_warnings():  # the first jvp of a process loads code of torch that torch itself deprecates
            warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
            return torch.cat([self._push(points, tangent) for points in self._x.split(self._network.block)])

    def secant(self, end: Params) -> ModuleLinearisation:
        """The linearisation half-way to `end`."""
        middle = {k: torch.lerp(value, end[k], 0.5) for k, value in self._params.items()}
        return ModuleLinearisation(self._network, middle, self._x)

    def gram(self, rows: Tensor | None = None) -> Float[Tensor, "s s"]:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ among the points numbered in `rows` (all by default).

        Raises:
            ValueError: the budget does not hold one block of rows.
        """
        if self._jacobian is not None:
            held = self._jacobian if rows is None else self._jacobian[rows]
            return held @ held.T
        x = self._x if rows is None else self._x[rows]
        return assembled(looked_at(self._function, x, CONTRACTED), x, None, budget=self._network.memory_gb * 1e9)[None]

    def _push(self, points: Tensor, tangent: Params) -> Tensor:
        return jvp(lambda params: self._network.outputs(params, points), (self._params,), (tangent,))[1]
