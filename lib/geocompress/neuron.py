"""Single neurons before the first point is fitted: each moves by itself, in a field that only the data make.

While every margin is below 1 all multipliers are exactly 1, and the flow of f(x) = (1/h) Σ_n β_n σ(z_n), with
z = ω·x/√d + b and σ(z) = √2 max(0, z), falls apart into one small system per neuron (arXiv:2007.11471):

    ω̇ = √2 β ⟨y x 1_H⟩/√d,    ḃ = √2 β ⟨y 1_H⟩,    β̇ = √2 ⟨y z 1_H⟩,    H = {x : z > 0}.

⟨⟩ is the mean over the p points: `EmpiricalField`. For p → ∞ it is the mean over the Gaussian, in closed form for
labels that depend on x_1 alone: `PopulationField`; `NoisyField` adds what is left of a finite sample across x_1. A
field is a callable (omega, b) → `Moments`. Times are in mean-field units. |ω|² + b² − β² is conserved in any field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.special import ndtr, owens_t
from torch import Tensor

from geocompress import tasks
from geocompress.checks import Real, Whole, integer, real

TINY = 1e-300  # stands in for an exact 0 in a denominator: quotients saturate at ±∞ and Φ and T at their limits


class Moments(NamedTuple):
    """Means over the active half space of each of h neurons: ⟨y 1_H⟩, shape (h,), and ⟨y x 1_H⟩, shape (h, d)."""

    y: Float64[np.ndarray, " h"]
    yx: Float64[np.ndarray, "h d"]


# What drives neurons: omega (h, d) and b (h,) → first moments of the labels over their active half spaces.
Field = Callable[[np.ndarray, np.ndarray], Moments]


@dataclass(frozen=True, eq=False)
class EmpiricalField:
    """Field of p points: ⟨y 1_H⟩ = (1/p) Σ_μ y_μ 1[z_μ > 0], and the same with y_μ x_μ. Exact, noise and all.

    Raises:
        ValueError: unless x is a finite (p, d) with p ≥ 1 and y holds p labels ±1.
    """

    x: ArrayLike
    y: ArrayLike
    _yx: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        x, y = np.asarray(self.x, dtype=np.float64), np.asarray(self.y, dtype=np.float64)
        if x.ndim != 2 or len(x) < 1 or y.shape != x.shape[:1]:
            raise ValueError(f"expected x (p, d) and y (p,) with p ≥ 1, got {x.shape} and {y.shape}")
        if not (np.isfinite(x).all() and np.isin(y, (-1, 1)).all()):
            raise ValueError("expected finite x and labels −1 or +1; drop nan and inf, and map the two classes to ±1")
        object.__setattr__(self, "_yx", y[:, None] * np.column_stack([np.ones(len(x)), x]) / len(x))
        object.__setattr__(self, "x", x)

    def __call__(self, omega: Float64[np.ndarray, "h d"], b: Float64[np.ndarray, " h"]) -> Moments:
        """Moments of h neurons; costs one (h, d) × (d, p) product and one (h, p) × (p, d + 1)."""
        active = omega @ self.x.T
        np.greater(active, -math.sqrt(self.x.shape[1]) * b[:, None], out=active)  # 0.0 or 1.0, ready for the product
        sums = active @ self._yx
        return Moments(sums[:, 0], sums[:, 1:])


@dataclass(frozen=True)
class PopulationField:
    """Field of infinitely many points of a task whose label depends on x_1 alone, for any (ω, b).

    y = 1 + 2 Σ_k (−1)^k 1[x_1 > e_k], k = 1, 2, …, so all that is needed are E[1_H] and E[x 1_H] restricted to x_1
    below an edge. With n = |ω|, q = |ω_⊥|, m = b√d/n and u the coordinate along ω_⊥:

        E[1_H; x_1 < e] = P(x_1 < e, ξ < m), bivariate Gaussian of correlation −ω_1/n, by Owen's T function;
        E[u 1_H; x_1 < e] = (q/n) φ(m) Φ((n e + ω_1 m)/q);
        E[x_1 1_H; x_1 < e] = (ω_1/n) φ(m) Φ((n e + ω_1 m)/q) − φ(e) Φ((ω_1 e + b√d)/q).

    Raises:
        ValueError: if the label of the task depends on anything but x_1.
    """

    task: tasks.Task

    def __post_init__(self):
        if self.task.rule.coordinate is not tasks.axis:
            raise ValueError(f"task: expected a label that depends on x_1 alone, got {self.task.name}; take a stripe")

    def __call__(self, omega: Float64[np.ndarray, "h d"], b: Float64[np.ndarray, " h"]) -> Moments:
        """Moments of h neurons, in O(h × edges)."""
        _check_directions(omega, self.task.d)
        n, q = np.linalg.norm(omega, axis=1), np.linalg.norm(omega[:, 1:], axis=1)
        plane = _Plane(omega[:, 0] / n, q / n, b * math.sqrt(self.task.d) / n)
        signs = [2.0 * (-1) ** k for k in range(len(self.task.edges))]
        y, along, across = (-1) ** len(signs) * plane.below(math.inf)
        for sign, edge in zip(signs, self.task.edges, strict=True):
            y, along, across = (y, along, across) + sign * plane.below(edge)
        return Moments(y, np.column_stack([along, (across / n)[:, None] * omega[:, 1:]]))


@dataclass(frozen=True, eq=False)
class NoisyField:
    """Population field plus the O(1/√p) noise of ⟨y x_⊥ 1_H⟩ in a sample of p points, drawn once from `seed`.

    For neurons along x_1 the half space is x_1 above or below the threshold −b√d/ω_1, and the noise of each component
    of x_⊥ is a Gaussian process with covariance P(H ∩ H')/p: a Brownian motion in the mass below the threshold. It is
    used for all neurons, though it is right only where |ω_⊥| ≪ |ω_1|, because that is where it matters: before,
    the field itself is O(1) across x_1. Noise along x_1 is left out: it corrects an O(1) field by O(1/√p).

    Raises:
        TypeError, ValueError: if p < 1, seed < 0, or the task is not one for `PopulationField`.
    """

    task: tasks.Task
    p: Whole
    seed: Whole
    _mean: PopulationField = field(init=False, repr=False)
    _walk: np.ndarray = field(init=False, repr=False)

    CELLS = 4096  # of the mass axis, on which the Brownian motion is sampled; linear in between

    def __post_init__(self):
        p, rng = integer(self.p, "p"), np.random.default_rng(integer(self.seed, "seed", minimum=0))
        steps = rng.standard_normal((self.CELLS, self.task.d_perp)) / math.sqrt(self.CELLS * p)
        object.__setattr__(self, "_mean", PopulationField(self.task))
        object.__setattr__(self, "_walk", np.concatenate([np.zeros((1, self.task.d_perp)), np.cumsum(steps, axis=0)]))

    def __call__(self, omega: Float64[np.ndarray, "h d"], b: Float64[np.ndarray, " h"]) -> Moments:
        """Moments of h neurons: the population's, with noise added to the components across x_1."""
        mean = self._mean(omega, b)
        with np.errstate(divide="ignore", over="ignore"):
            position = ndtr(-b * math.sqrt(self.task.d) / omega[:, 0]) * self.CELLS
        cell = np.minimum(position.astype(int), self.CELLS - 1)
        inside = (position - cell)[:, None]
        below = (1 - inside) * self._walk[cell] + inside * self._walk[cell + 1]
        noise = np.where(omega[:, :1] < 0, below, self._walk[-1] - below)
        return Moments(mean.y, np.column_stack([mean.yx[:, :1], mean.yx[:, 1:] + noise]))


def velocity(moments: Field, params: Mapping[str, ArrayLike]) -> dict[str, Float64[np.ndarray, "..."]]:
    """Time derivative of each neuron, per unit of mean-field time, in the shapes of `params`.

    `params` are those of `networks.OneHidden`: omega (h, d), b (h,), beta (h,). For `EmpiricalField(x, y)` it equals
    −(h/α) ∂L/∂W of the hinge loss wherever all margins are below 1.

    Raises:
        ValueError: if shapes disagree or a number is not finite.
    """
    omega, b, beta = _arrays(params)
    return dict(zip(("omega", "b", "beta"), _velocity(moments, omega, b, beta), strict=True))


def linear_dynamics(
    params: Mapping[str, ArrayLike], moments: Field, times: Sequence[float] | np.ndarray, *, rtol: Real = 1e-3
) -> list[dict[str, Float[Tensor, "..."]]]:
    """Integrate all neurons of a net from t = 0; one dictionary of float64 tensors, as of `OneHidden`, for each time.

    This is the trained net, exactly, until the first point reaches margin 1. Afterwards it goes on as if no point ever
    did. Integrator: scipy's RK45 with relative tolerance `rtol`; times are in mean-field units, increasing, from 0 on.
    An empirical field jumps wherever a half space gains or loses a point, so its steps grow in number like 1/rtol; the
    jumps are small and many, and λ is right to half a per cent at rtol = 1e-2 already.

    Raises:
        ValueError: if times are negative or do not increase, rtol is outside (0, 1), or `velocity` refuses the
            parameters.
        RuntimeError: if the integrator stops before the last time.
    """
    rtol, times = real(rtol, "rtol", 0, 1), np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
        raise ValueError(f"times: expected increasing finite numbers ≥ 0, got {times}; sort them and drop repetitions")
    omega, b, beta = _arrays(params)
    h, d = omega.shape

    def unpack(state):
        return state[: h * d].reshape(h, d), state[h * d : h * (d + 1)], state[h * (d + 1) :]

    def derivative(_, state):
        return np.concatenate([part.ravel() for part in _velocity(moments, *unpack(state))])

    start = np.concatenate([omega.ravel(), b, beta])
    span = (0.0, max(times[-1], TINY))
    solution = solve_ivp(derivative, span, start, method="RK45", t_eval=times, rtol=rtol, atol=rtol * 1e-3)
    if solution.status != 0:
        raise RuntimeError(f"the integrator stopped at t = {solution.t[-1:]} before {times[-1]}: {solution.message}")
    keys = ("omega", "b", "beta")
    return [
        dict(zip(keys, (torch.from_numpy(np.array(part)) for part in unpack(column)), strict=True))
        for column in solution.y.T
    ]


class _Plane(NamedTuple):
    """Half spaces ω_1 x_1 + q u + n m > 0 in the plane of x_1 and u, scaled to n² = ω_1² + q² = 1."""

    cos: np.ndarray  # ω_1/n
    sin: np.ndarray  # q/n
    m: np.ndarray  # b√d/n

    def below(self, edge: float) -> Float64[np.ndarray, "3 h"]:
        """E[1_H], E[x_1 1_H] and E[u 1_H]·n/q over x_1 < edge."""
        cos, sin, m = self.cos, np.maximum(self.sin, TINY), self.m
        density = np.exp(-(m**2) / 2) / math.sqrt(2 * math.pi)
        if edge == math.inf:
            return np.stack([ndtr(m), cos * density, density])
        with np.errstate(over="ignore"):
            share = density * ndtr((edge + cos * m) / sin)
            boundary = math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi) * ndtr((cos * edge + m) / sin)
        return np.stack([_bivariate(m, edge, -cos, sin), cos * share - boundary, share])


def _bivariate(h: np.ndarray, k: float, rho: np.ndarray, root: np.ndarray) -> np.ndarray:
    """P(X < h, Y < k) of standard Gaussians of correlation rho, root = √(1 − rho²) (Owen 1956)."""
    h, k = np.where(h == 0, TINY, h), k or TINY
    with np.errstate(over="ignore"):
        tails = owens_t(h, (k - rho * h) / h / root) + owens_t(k, (h - rho * k) / k / root)
    return (ndtr(h) + ndtr(k)) / 2 - tails - np.where(h * np.sign(k) > 0, 0.0, 0.5)


def _velocity(moments: Field, omega: np.ndarray, b: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, ...]:
    mean = moments(omega, b)
    pull = math.sqrt(2 / omega.shape[1]) * mean.yx
    lift = math.sqrt(2) * mean.y
    return beta[:, None] * pull, beta * lift, (pull * omega).sum(1) + lift * b


def _arrays(params: Mapping[str, ArrayLike]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return omega, b and beta as float64 arrays that fit together."""
    omega, b, beta = (np.asarray(params[name], dtype=np.float64) for name in ("omega", "b", "beta"))
    if omega.ndim != 2 or b.shape != omega.shape[:1] or beta.shape != b.shape or not omega.size:
        raise ValueError(f"expected omega (h, d), b (h,), beta (h,), got {omega.shape}, {b.shape}, {beta.shape}")
    if not all(np.isfinite(part).all() for part in (omega, b, beta)):
        raise ValueError("expected finite parameters, got nan or inf; look at the step before")
    return omega, b, beta


def _check_directions(omega: np.ndarray, d: int) -> None:
    if omega.ndim != 2 or omega.shape[1] != d:
        raise ValueError(f"omega: expected shape (h, {d}), the dimension of the task, got {omega.shape}")
    if not omega.any(axis=1).all():
        raise ValueError("omega: expected non-zero vectors; a neuron with ω = 0 has no half space")
