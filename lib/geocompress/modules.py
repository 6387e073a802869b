"""Any `torch.nn.Module` with one output a sample, as a network that the flow can train."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap

from geocompress.checks import deterministic, integer, real
from geocompress.networks import Params


@dataclass(frozen=True, eq=False)
class ModuleNetwork:
    """A module as a `networks.Network`: its trainable parameters become the dictionary, the rest is held fixed.

    Buffers and parameters with `requires_grad=False` stay as they are in the module, which is never written to.
    Products with the Jacobian are one vjp or jvp each; Gram blocks come from per-sample gradients, in blocks that keep
    the Jacobian of all points from ever existing.

    Per-sample gradients are taken by `vmap(grad)`: on one CPU core with torch 2.15 it took, against
    a plain loop over samples, 0.02 for 0.47 ms a sample on a dense net of 2·10³ weights, 0.22 for 0.50 ms at 2·10⁴,
    0.62 for 1.19 ms on a small convolutional net (28×28, float64), and 9.6 for 16 ms on depthwise-separable blocks
    of 3.6·10⁴ weights; it was never slower by more than 8 %. Older versions have been seen to be slow on depthwise
    convolutions, and some modules cannot be vectorised at all: `vectorised=False` takes the loop.

    Attributes:
        module: maps x (p, …) to (p,) or (p, 1), each sample on its own.
        width: unit of mean-field time, Ẇ = −(width/α) ∂L/∂W. With 1, time is that of plain gradient flow over α.
        memory_gb: what per-sample gradients may occupy at once, in 10⁹ bytes. What one pass over the points keeps for
            a vjp comes on top.
        vectorised: per-sample gradients by vmap rather than one by one.

    Raises:
        TypeError: not a module, or width not an integer.
        ValueError: no trainable parameter; batch normalisation on batch statistics or active dropout (both make the
            output of a sample depend on chance or on other samples); width or memory below their ranges.
    """

    module: nn.Module
    width: int = 1
    memory_gb: float = 1.0
    vectorised: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise TypeError(f"ModuleNetwork: expected a torch.nn.Module, got {type(self.module).__name__}")
        integer(self.width, "width")
        real(self.memory_gb, "memory_gb", 0)
        if not any(value.requires_grad for value in self.module.parameters()):
            raise ValueError(
                "ModuleNetwork: the module has no parameter with requires_grad=True, nothing can be trained"
            )
        deterministic(self.module, "ModuleNetwork")

    def init(self) -> Params:
        """A copy of the module's trainable parameters as they are now."""
        return {k: v.detach().clone() for k, v in self.module.named_parameters() if v.requires_grad}

    def forward(self, params: Params, x: Float[Tensor, "p ..."], *, block: int = 1024) -> Float[Tensor, " p"]:
        """Outputs f(x_μ), shape (p,), without gradients; `block` points at a time."""
        with torch.no_grad():
            return torch.cat([self._outputs(params, part) for part in x.split(block)])

    def linearise(self, params: Params, x: Float[Tensor, "p ..."]) -> ModuleLinearisation:
        """The linearisation at `params` on `x`: one forward pass, kept for the pullbacks.

        Raises:
            ValueError: the module was put in a mode with chance or batch statistics, or its outputs are not one a
                sample.
        """
        deterministic(self.module, "ModuleNetwork")
        return ModuleLinearisation(self, params, x)

    def distance(self, before: Params, after: Params) -> float:
        """∞: nothing is known of how far an output can move."""
        return math.inf

    def sizes(self, x: Float[Tensor, "p ..."]) -> Float[Tensor, " p"]:
        """One for each point; see `distance`."""
        return x.new_ones(len(x))

    def gradients(self, params: Params, x: Float[Tensor, "p ..."]) -> Float[Tensor, "p n"]:
        """∇f(x_μ) as rows, shape (p, number of trainable weights): the caller sees to the memory.

        Raises:
            RuntimeError: the module cannot be vectorised; says what to do.
        """
        if not self.vectorised:
            return torch.stack([_flat(grad(self._single)(params, point), 0) for point in x])
        try:
            return _flat(vmap(grad(self._single), in_dims=(None, 0))(params, x), 1)
        except RuntimeError as error:
            remedy = "pass vectorised=False to take per-sample gradients one by one"
            raise RuntimeError(f"ModuleNetwork: vmap failed on this module ({error}); {remedy}") from error

    def _single(self, params: Params, point: Tensor) -> Tensor:
        return self._outputs(params, point[None]).squeeze(0)

    def _outputs(self, params: Params, x: Tensor) -> Tensor:
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
        self.output, self._vjp = vjp(self._outputs, params)

    def _outputs(self, params: Params) -> Tensor:
        return self._network._outputs(params, self._x)

    def pullback(self, cotangent: Float[Tensor, " p"]) -> Params:
        """Σ_μ v_μ ∇f(x_μ) for multipliers v of shape (p,), in the shape of the parameters."""
        return self._vjp(cotangent, retain_graph=True)[0]

    def pushforward(self, tangent: Params) -> Float[Tensor, " p"]:
        """⟨∇f(x_μ), δ⟩ for every point, shape (p,)."""
        with warnings.catch_warnings():  # the first jvp of a process loads code of torch that torch itself deprecates
            warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
            return jvp(self._outputs, (self._params,), (tangent,))[1]

    def secant(self, end: Params) -> ModuleLinearisation:
        """The linearisation half-way to `end`."""
        middle = {k: torch.lerp(value, end[k], 0.5) for k, value in self._params.items()}
        return ModuleLinearisation(self._network, middle, self._x)

    def gram(self, rows: Tensor | None = None) -> Float[Tensor, "s s"]:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ among the points numbered in `rows` (all by default).

        Blocks of points of at most half the memory budget each meet in pairs: with k blocks, k (k+1)/2 rounds of
        gradients instead of k. One block, when all fit, costs one round.

        Raises:
            ValueError: the budget does not hold the gradients of two points.
        """
        x = self._x if rows is None else self._x[rows]
        weights = sum(value.numel() for value in self._params.values())
        held = int(self._network.memory_gb * 1e9 / (weights * x.element_size()))
        if held < 2:
            need = 2 * weights * x.element_size() / 1e9
            got = self._network.memory_gb
            raise ValueError(
                f"memory_gb: two gradients of {weights} weights take {need:.3g} GB, got {got:.3g}; raise it"
            )
        if len(x) <= held:
            block = self._network.gradients(self._params, x)
            return block @ block.T
        parts = torch.arange(len(x), device=x.device).split(held // 2)
        gram = x.new_empty(len(x), len(x))
        for number, left in enumerate(parts):
            ours = self._network.gradients(self._params, x[left])
            gram[left[:, None], left] = ours @ ours.T
            for right in parts[:number]:
                block = ours @ self._network.gradients(self._params, x[right]).T
                gram[left[:, None], right], gram[right[:, None], left] = block, block.T
        return gram


def _flat(tangent: Params, batch_dims: int) -> Tensor:
    return torch.cat(
        [value.flatten(batch_dims) if value.ndim > batch_dims else value[..., None] for value in tangent.values()], -1
    )
