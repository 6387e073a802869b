"""Networks as pure functions of a dictionary of tensors.

What a network offers to the flow is its linearisation at a point of parameter space: the outputs, the two products
with the Jacobian, and Gram blocks of the gradients. Nothing here knows about losses, training or kernels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress import fused
from geocompress.checks import integer

Params = dict[str, Tensor]

CACHED, GPU = 2**16, 2**24  # numbers of a block that stays in a processor's cache; that keeps a GPU busy


@runtime_checkable
class Jacobian(Protocol):
    """First-order picture of a network on fixed points: the two products with its Jacobian J, and Gram blocks."""

    def pullback(self, cotangent: Tensor) -> Params:
        """Jᵀ v: Σ_μ v_μ ∇f(x_μ), in the shape of the parameters."""

    def pushforward(self, tangent: Params) -> Tensor:
        """J δ: ⟨∇f(x_μ), δ⟩ for every point, shape (p,)."""

    def gram(self, rows: Tensor) -> Tensor:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ for the points numbered in `rows`, shape (s, s)."""


@runtime_checkable
class Linearisation(Jacobian, Protocol):
    """A network at fixed parameters W on fixed points: outputs, Jacobian, and its averages on the way elsewhere."""

    output: Tensor

    def secant(self, end: Params) -> Jacobian:
        """A mean of the Jacobian on the straight line from W to `end`, of second order: f(end) − f(W) ≈ J̄ (end − W)."""


@runtime_checkable
class Network(Protocol):
    """What `flow` asks of a network. `width` sets the unit of mean-field time: Ẇ = −(width/α) ∂L/∂W."""

    width: int

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """Outputs f(x_μ), shape (p,)."""

    def linearise(self, params: Params, x: Tensor) -> Linearisation:
        """The linearisation at `params` on the points `x`."""

    def distance(self, before: Params, after: Params) -> float:
        """A length L of the way between two parameters with |Δf(x_μ)| ≤ L s_μ for the `sizes` s_μ of the points.

        ∞ where nothing is known: then no point is ever left out of a step.
        """

    def sizes(self, x: Tensor) -> Tensor:
        """Sizes s_μ > 0 of the points, shape (p,); see `distance`."""


@dataclass(frozen=True)
class OneHidden:
    """One hidden layer of ReLUs with biases, in mean-field scaling.

    f(x) = (1/h) Σ_n β_n σ(ω_n·x/√d + b_n) with σ(z) = √2 max(0, z); every parameter is N(0, 1) at initialisation
    (arXiv:2007.11471). Parameters: `omega` (h, d), `b` (h,), `beta` (h,). The output is homogeneous of degree two in
    them: scaling all by s multiplies f by s².

    Raises:
        TypeError, ValueError: d or width is not an integer of at least 1.
    """

    d: int
    width: int

    def __post_init__(self) -> None:
        integer(self.d, "d")
        integer(self.width, "width")

    def init(
        self, seed: int, *, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
    ) -> dict[str, Float[Tensor, "..."]]:
        """Standard normal parameters. Drawn in float64 on the CPU, so a seed means the same net everywhere."""
        generator = torch.Generator().manual_seed(seed)
        shapes = {"omega": (self.width, self.d), "b": (self.width,), "beta": (self.width,)}
        draws = {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in shapes.items()}
        return {k: v.to(device=device, dtype=dtype) for k, v in draws.items()}

    def linearise(self, params: Params, x: Tensor) -> Linearisation:
        """The linearisation at `params` on `x` (p, d): compiled loops on a processor with numba, else plain torch."""
        shapes = {k: tuple(v.shape) for k, v in params.items()}
        expected = {"omega": (self.width, self.d), "b": (self.width,), "beta": (self.width,)}
        if shapes != expected:
            raise ValueError(f"OneHidden: expected parameters {expected}, got {shapes}; they belong to another network")
        kind = fused.FusedLinearisation if fused.available(params) else OneHiddenLinearisation
        return kind(params, self._augment(x))

    def forward(self, params: Params, x: Float[Tensor, "p d"], *, block: int | None = None) -> Float[Tensor, " p"]:
        """Outputs f(x_μ), shape (p,); `block` points at a time (default: as many as suit the device)."""
        if block is None and fused.available(params):
            return self.linearise(params, x).output
        block = block or max(1, (GPU if x.is_cuda else CACHED) // self.width)
        return torch.cat([self.linearise(params, part).output for part in x.split(block)])

    def distance(self, before: Params, after: Params) -> float:
        """L with |f(x_μ; after) − f(x_μ; before)| ≤ L |x̃_μ| for every point, x̃ = (x/√d, 1); costs h d.

        With u = |β| w̃, w̃ = (ω, b), a neuron is ±√2 max(0, u·x̃): it changes by at most √2 |Δu| |x̃| while β keeps its
        sign, and by at most √2 (|u| + |u'|) |x̃| when it does not. L is the mean of that over neurons.
        """
        if fused.available(before) and fused.available(after):
            return fused.distance(before, after)
        u, v = (params["beta"].abs()[:, None] * _augmented(params) for params in (before, after))
        turned = before["beta"] * after["beta"] < 0
        change = torch.where(turned, u.norm(dim=1) + v.norm(dim=1), (v - u).norm(dim=1))
        return math.sqrt(2) * float(change.mean())

    def sizes(self, x: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
        """|x̃_μ|, the sizes that `distance` is measured against."""
        return self._augment(x).norm(dim=1)

    def ntk(
        self, params: Params, x1: Float[Tensor, "p d"], x2: Float[Tensor, "q d"] | None = None
    ) -> Float[Tensor, "p q"]:
        """Closed-form neural tangent kernel Θ(x, z) = h ⟨∇f(x), ∇f(z)⟩ at these parameters, shape (p, q).

        Θ = (1/h) Σ_n [ σ(z_n) σ(z'_n) + β_n² σ'(z_n) σ'(z'_n) (x·x'/d + 1) ]. The factor h is that of mean-field
        time, which makes Θ of order one: at α = 1 the flow moves f(x) at the rate (1/p) Σ_ν c_ν y_ν Θ(x, x_ν).
        """
        left = self.linearise(params, x1)
        return self.width * left.gram() if x2 is None else self.width * left.gram_with(self.linearise(params, x2))

    def _augment(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ValueError(f"OneHidden: x must have shape (p, {self.d}), got {tuple(x.shape)}")
        return torch.cat([x / math.sqrt(self.d), x.new_ones(len(x), 1)], dim=1)


class OneHiddenJacobian:
    """Products with J = k [M β x̃ᵀ, S], k = √2/h, for slopes M and activations S of every neuron on every point.

    At fixed parameters M_{μn} = 1[z > 0] and S_{μn} = max(0, z) with z = w̃_n·x̃_μ, w̃_n = (ω_n, b_n), x̃ = (x/√d, 1).
    """

    def __init__(self, slopes: Tensor, activations: Tensor, beta: Tensor, x_augmented: Float[Tensor, "p d1"]) -> None:
        self._slopes, self._activations, self._beta, self._x = slopes, activations, beta, x_augmented
        self._scale = math.sqrt(2) / len(beta)

    def pullback(self, cotangent: Float[Tensor, " p"]) -> dict[str, Float[Tensor, "..."]]:
        """Σ_μ v_μ ∇f(x_μ) for multipliers v of shape (p,)."""
        v, slopes, activations, x = cotangent, self._slopes, self._activations, self._x
        if not v.is_cuda and 2 * int(v.count_nonzero()) < len(
            v
        ):  # most points pull on nothing: their rows are not read
            rows = v.nonzero()[:, 0]
            v, slopes, activations, x = v[rows], slopes[rows], activations[rows], x[rows]
        # Written with the thin factor on the left, so that M is read along its rows: twice as fast as Mᵀ @ (…).
        grad_w = (self._scale * self._beta * ((v[:, None] * x).T @ slopes)).T
        return {"omega": grad_w[:, :-1], "b": grad_w[:, -1], "beta": self._scale * (v @ activations)}

    def pushforward(self, tangent: Params) -> Float[Tensor, " p"]:
        """⟨∇f(x_μ), δ⟩ for every point, shape (p,)."""
        delta_w = self._beta[:, None] * _augmented(tangent)
        return self._scale * (self._activations @ tangent["beta"] + ((self._slopes @ delta_w) * self._x).sum(1))

    def gram(self, rows: Tensor | None = None) -> Float[Tensor, "s s"]:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ among the points numbered in `rows` (all by default)."""
        return self._inner(*[self._features(rows)] * 2)

    def gram_with(self, other: OneHiddenJacobian) -> Float[Tensor, "p q"]:
        """⟨∇f(x_μ), ∇f(z_ν)⟩ against the points of another linearisation at the same parameters."""
        return self._inner(self._features(None), other._features(None))

    def _features(self, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        parts = (self._activations, self._slopes, self._x)
        activations, slopes, x = parts if rows is None else (part[rows] for part in parts)
        return activations, slopes * self._beta, x

    def _inner(self, left: tuple[Tensor, Tensor, Tensor], right: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        readout = left[0] @ right[0].T
        hidden = (left[1] @ right[1].T) * (left[2] @ right[2].T)
        return self._scale**2 * (readout + hidden)


class OneHiddenLinearisation(OneHiddenJacobian):
    """Outputs and Jacobian of `OneHidden` at fixed parameters, from the pre-activations z (p, h), which are kept."""

    def __init__(self, params: Params, x_augmented: Float[Tensor, "p d1"]) -> None:
        self._z = x_augmented @ _augmented(params).T
        self._params, self._beta, self._x = params, params["beta"], x_augmented
        self._activations = self._z.clamp(min=0)
        self._scale = math.sqrt(2) / len(self._beta)
        self.output = self._scale * (self._activations @ self._beta)

    @functools.cached_property
    def _slopes(self) -> Tensor:
        return (self._z > 0).to(self._z)

    def secant(self, end: Params) -> OneHiddenJacobian:
        """The Jacobian averaged over the straight line to `end` so that f(end) − f(W) = J̄ (end − W) without error.

        Slopes are M̄ = (σ(z') − σ(z)) / (z' − z), the share of the way on which the neuron is active; activations and β
        are the means of both ends. That holds whatever kinks are crossed.
        """
        z_end = self._x @ _augmented(end).T
        top, bottom = torch.maximum(self._z, z_end), torch.minimum(self._z, z_end)
        # the share of the way above zero is top / (top − bottom), which clipping makes 1 or 0 when no kink is crossed
        slopes = top.div_(bottom.neg_().add_(top).add_(torch.finfo(top.dtype).tiny)).clamp_(0, 1)
        activations = z_end.clamp_(min=0).add_(self._activations).mul_(0.5)
        return OneHiddenJacobian(slopes, activations, 0.5 * (self._params["beta"] + end["beta"]), self._x)


def _augmented(params: Params) -> Float[Tensor, "h d1"]:
    return torch.cat([params["omega"], params["b"][:, None]], dim=1)
