"""Networks as pure functions of a dictionary of tensors.

What a network offers to the flow is its linearisation at a point of parameter space: the outputs, the two products
with the Jacobian, and Gram blocks of the gradients. Nothing here knows about losses, training or kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.checks import integer

Params = dict[str, Tensor]


@runtime_checkable
class Linearisation(Protocol):
    """First-order picture of a network at fixed parameters on fixed points: f(W + δ) ≈ output + pushforward(δ)."""

    output: Tensor

    def pullback(self, cotangent: Tensor) -> Params:
        """Jᵀ v: Σ_μ v_μ ∇f(x_μ), in the shape of the parameters."""

    def pushforward(self, tangent: Params) -> Tensor:
        """J δ: ⟨∇f(x_μ), δ⟩ for every point, shape (p,)."""

    def gram(self, rows: Tensor) -> Tensor:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ for the points numbered in `rows`, shape (s, s)."""


@runtime_checkable
class Network(Protocol):
    """What `flow` asks of a network. `width` sets the unit of mean-field time: Ẇ = −(width/α) ∂L/∂W."""

    width: int

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """Outputs f(x_μ), shape (p,)."""

    def linearise(self, params: Params, x: Tensor) -> Linearisation:
        """The linearisation at `params` on the points `x`."""


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

    def linearise(self, params: Params, x: Tensor) -> OneHiddenLinearisation:
        """The linearisation at `params` on `x` (p, d): one (p, d+1) × (d+1, h) product and one pass over its result."""
        shapes = {k: tuple(v.shape) for k, v in params.items()}
        expected = {"omega": (self.width, self.d), "b": (self.width,), "beta": (self.width,)}
        if shapes != expected:
            raise ValueError(f"OneHidden: expected parameters {expected}, got {shapes}; they belong to another network")
        return OneHiddenLinearisation(params, self._augment(x))

    def forward(self, params: Params, x: Float[Tensor, "p d"], *, block: int = 4096) -> Float[Tensor, " p"]:
        """Outputs f(x_μ), shape (p,); `block` points at a time, so that memory stays at block × h numbers."""
        return torch.cat([self.linearise(params, part).output for part in x.split(block)])

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


class OneHiddenLinearisation:
    """Outputs and Jacobian products of `OneHidden` from its activation pattern alone.

    With x̃ = (x/√d, 1), w̃_n = (ω_n, b_n) and M_{μn} = 1[w̃_n·x̃_μ > 0], everything is a product of the 0/1 matrix M
    with a thin matrix of d+1 columns: f = k Σ_n M β_n w̃_n·x̃, and likewise both Jacobian products (k = √2/h). So one
    (p, h) array is kept, and no pass over it is element-wise but the comparison that makes it.
    """

    def __init__(self, params: Params, x_augmented: Float[Tensor, "p d1"]) -> None:
        self._x = x_augmented
        self._beta = params["beta"][:, None]
        self._w = torch.cat([params["omega"], params["b"][:, None]], dim=1)
        self._scale = math.sqrt(2) / len(self._w)
        self._active = (self._x @ self._w.T).gt_(0)
        self.output = self._contract(self._beta * self._w)

    def _contract(self, v: Float[Tensor, "h d1"]) -> Float[Tensor, " p"]:
        return self._scale * ((self._active @ v) * self._x).sum(1)

    def pullback(self, cotangent: Float[Tensor, " p"]) -> dict[str, Float[Tensor, "..."]]:
        """Σ_μ v_μ ∇f(x_μ) for multipliers v of shape (p,)."""
        # Written with the thin factor on the left, so that M is read along its rows: twice as fast as Mᵀ @ (…).
        moment = self._scale * ((cotangent[:, None] * self._x).T @ self._active).T
        grad_w = self._beta * moment
        return {"omega": grad_w[:, :-1], "b": grad_w[:, -1], "beta": (moment * self._w).sum(1)}

    def pushforward(self, tangent: Params) -> Float[Tensor, " p"]:
        """⟨∇f(x_μ), δ⟩ for every point, shape (p,)."""
        delta_w = torch.cat([tangent["omega"], tangent["b"][:, None]], dim=1)
        return self._contract(tangent["beta"][:, None] * self._w + self._beta * delta_w)

    def gram(self, rows: Tensor | None = None) -> Float[Tensor, "s s"]:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ among the points numbered in `rows` (all by default)."""
        block = self._features(rows)
        return self._inner(block, block)

    def gram_with(self, other: OneHiddenLinearisation) -> Float[Tensor, "p q"]:
        """⟨∇f(x_μ), ∇f(z_ν)⟩ against the points of another linearisation at the same parameters."""
        return self._inner(self._features(None), other._features(None))

    def _features(self, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x = self._x if rows is None else self._x[rows]
        active = self._active if rows is None else self._active[rows]
        return active * (x @ self._w.T), active * self._beta[:, 0], x

    def _inner(self, left: tuple[Tensor, Tensor, Tensor], right: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        readout = left[0] @ right[0].T
        hidden = (left[1] @ right[1].T) * (left[2] @ right[2].T)
        return self._scale**2 * (readout + hidden)
