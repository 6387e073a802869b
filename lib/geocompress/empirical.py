"""The empirical neural tangent kernel of any network, in blocks under a memory budget.

How a Gram matrix is made depends on the network: `networks.OneHidden` has a closed form (`gradients.one_hidden`);
layers that are products or convolutions give it from activations and back-propagated errors, one backward pass an
output for a chunk of samples (`gradients.contractions`, `gradients.factors`); what is left is differentiated sample by
sample (`gradients.samples`).

Why no library does this here (`bench/empirical_ntk.py --threads 1`; float32, 512 points, ratios of times): curvlinops
3.0 has products with the Jacobian but no kernel, and J (Jᵀ 1) takes a backward pass of all points for each point: at 32
points 4.0 times as long on a small convolution net, 15 times on a dense one. The Gram matrix of nngeometry 0.4 takes
1.6 times as long on both. It knows a list of modules, so neither weights that are scaled or shared in the forward pass
nor functions, and has no cross-Gram and no budget. neural-tangents 0.6.5, compiled by JAX, takes 2.3 and 1.3 times as
long; it is for functions of JAX, and its last release does not run on the JAX of today. On the 16-layer convolution net
of arXiv:2007.11471 with 23 251 weights a backward pass a sample takes 5.6 times as long, `vmap(grad)` 1.9 times; on the
small convolution net `vmap` is nearly as fast. The forward and backward pass alone, which nothing here can avoid, is
half of our time on the 16 layers.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from geocompress.checks import Real, real
from geocompress.gradients.arguments import as_function, finite, points
from geocompress.gradients.assembly import CONTRACTED, ONE_BY_ONE, VECTORISED, Strategy, assembled, looked_at
from geocompress.gradients.one_hidden import closed_form
from geocompress.gradients.samples import Function
from geocompress.modules import ModuleNetwork
from geocompress.networks import OneHidden, Params

__all__ = ["CONTRACTED", "ONE_BY_ONE", "VECTORISED", "Strategy", "empirical_ntk"]

Network = OneHidden | ModuleNetwork | nn.Module | Callable[[Params, Tensor], Tensor]


def empirical_ntk(
    network: Network,
    params: Params | None,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    memory_gb: Real = 1.0,
    outputs: str = "single",
    layers: bool = False,
    strategy: Strategy | None = None,
) -> Float[Tensor, "..."] | dict[str, Float[Tensor, "..."]]:
    """Θ(x, z) = ⟨∇f(x), ∇f(z)⟩ over trainable parameters, at `params`: shape (p, q) (arXiv:1806.07572).

    For `OneHidden` and `ModuleNetwork` times their width, the unit of mean-field time, as `OneHidden.ntk` has it.

    Args:
        network: a `OneHidden`, a `ModuleNetwork`, a module, or a function (params, x) → f with f (p,) or (p, …).
        params: of the network; for a module None takes its own, and a `state_dict` may be given. Of a module those with
            `requires_grad` are trained, of a function all of floating point.
        x1: points (p, …), of the dtype of the parameters, or whole numbers where the network looks them up.
        x2: points (q, …); None means x1: half of the work, and the result is exactly symmetric.
        memory_gb: budget in 10⁹ bytes, beside the points, the network and the result.
        outputs: "single" refuses a network with C > 1 outputs; "trace" is Σ_c Θ_cc (p, q), "full" all Θ (p, C, q, C).
        layers: return a dictionary with the contribution of every parameter instead; their sum is Θ.
        strategy: None is `CONTRACTED`, or the closed form of `OneHidden`; others are `VECTORISED` and `ONE_BY_ONE`.

    Raises:
        TypeError: arguments of other types, or of more than one dtype.
        ValueError: noise or batch statistics in the network, nothing to train, parameters of another architecture,
            several outputs without a choice, numbers that are not finite, two devices, no points, or a budget too
            small for one block of rows.
        RuntimeError: `VECTORISED` on a network that cannot be.
    """
    budget = real(memory_gb, "memory_gb", 0) * 1e9
    if outputs not in ("single", "trace", "full"):
        raise ValueError(f"outputs: expected 'single', 'trace' or 'full', got {outputs!r}")
    width, network = (network.width, network.module) if isinstance(network, ModuleNetwork) else (1, network)
    if isinstance(network, OneHidden):
        x2 = _one_hidden(network, params, x1, x2, strategy)
        results, count = closed_form(network, params, x1, x2, budget=budget, layers=layers), 1
    else:
        function = as_function(network, params)
        x2 = points(x1, x2, function)
        gradients = looked_at(function, x1 if x2 is None or len(x1) >= len(x2) else x2, strategy or CONTRACTED)
        if (count := gradients.outputs) > 1 and outputs == "single":
            raise ValueError(
                f"outputs: expected one output a sample, got {count}; pass 'trace' for Σ_c Θ_cc or 'full' for all"
            )
        results = assembled(gradients, x1, x2, budget=budget, separate=outputs == "full", layers=layers)
    for result in results.values():
        if not all(finite(part) for part in result.split(1024)):
            raise ValueError("empirical_ntk: expected finite outputs and gradients, got nan or inf; look at the points")
        result.mul_(width)
    if outputs == "full":
        results = {name: result.unflatten(1, (-1, count)).unflatten(0, (-1, count)) for name, result in results.items()}
    return results if layers else results[None]


def _one_hidden(
    network: OneHidden, params: Params | None, x1: Tensor, x2: Tensor | None, strategy: Strategy | None
) -> Tensor | None:
    """Refuse what does not fit the closed form; returns x2."""
    if strategy is not None:
        raise ValueError(
            "strategy: expected None for OneHidden, which has a closed form; or pass a function (params, x) → f"
        )
    if params is None:
        raise TypeError("empirical_ntk: expected params of OneHidden, got None; pass network.init(seed) or a state's")
    x2 = points(x1, x2, Function(network.forward, params))
    network.linearise(params, x1[:1])  # refuses parameters and points of another network
    return x2
