"""Where the early dynamics of a neuron leads on the stripe: directions that only grow, and the amplification they set.

For p → ∞ a neuron of direction ŵ = (ω_1, b)/r, ω_⊥ = 0, feels the potential G(ŵ) = √2 E[y (ω_1 x_1/√d + b)_+], which is
homogeneous of degree one: ẇ = β ∇G, β̇ = G. By balance |β| → |w|, and then the direction climbs sign(β) G on the circle.
Its maxima are directions in which a neuron grows as e^{γt}, γ = |G|, and turns no more (arXiv:2007.11471 argues with
first moments over all points; the half space and the force across x_1 are worked out here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2

from geocompress import tasks
from geocompress.checks import Real, Whole, integer, real
from geocompress.neuron import PopulationField

GRID = 2001  # angles at which a change of sign is looked for; directions lie far apart compared with its spacing
FEWEST = 1e-6  # active mass below which a half space is empty for any sample in reach, and G is rounding error


@dataclass(frozen=True)
class Direction:
    """A direction (ω_1, b), ω_1² + b² = 1, ω_⊥ = 0, which the population field of a stripe does not turn.

    Attributes:
        sign: of β; with the other sign neurons of this direction shrink.
        omega_1, b: the direction.
        threshold: x_b = −b√d/ω_1, where the neuron's ReLU has its kink.
        active_mass: P(H), the share of points that the neuron sees.
        rate: γ = |G|, growth per unit of mean-field time once |β| = |w|.
        force: D, the rate at which ω_⊥/ω_1 forgets its past, in units of √2 |β|/(√d |ω_1|); negative where it grows.
        stable: whether neighbouring directions with ω_⊥ = 0 turn towards it.
    """

    sign: int
    omega_1: float
    b: float
    threshold: float
    active_mass: float
    rate: float
    force: float
    stable: bool

    @property
    def prefactor(self) -> float:
        """C = D/√P(H): the ratio ω_1/ω_⊥ at which a growing neuron settles is C √p in the mean square."""
        return self.force / math.sqrt(self.active_mass)


def potential(task: tasks.Task, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """G(ŵ) and its derivative along the circle at ŵ = (cos, sin)(angle), both of the shape of `angle`.

    Raises:
        ValueError: if the label of the task depends on anything but x_1.
    """
    omega = np.zeros((len(angle), task.d))
    omega[:, 0] = np.cos(angle)
    moments = PopulationField(task)(omega, np.sin(angle))
    along, lift = math.sqrt(2 / task.d) * moments.yx[:, 0], math.sqrt(2) * moments.y
    return omega[:, 0] * along + np.sin(angle) * lift, omega[:, 0] * lift - np.sin(angle) * along


def fixed_directions(task: tasks.Task) -> list[Direction]:
    """All directions of a stripe task that the population field does not turn, fastest growth first.

    They are the zeros of ∂G/∂θ on the circle (ω_1, b) = (cos θ, sin θ). The amplification they lead to follows from
    u = ω_⊥/ω_1, whose noise has variance P(H)/p per component and whose relaxation is linear:

        D = |E[y x_1 1_H]| − sign(β) y(x_b) φ(x_b) = sign(β) sign(ω_1) Σ_{edges e in H} Δy(e) φ(e).

    The first form is pull minus push at the kink; they join into the second because E[y x_1 1_H] = E[∂_1 (y 1_H)]:
    only the edges of the label inside H count, and the kink itself drops out. D is positive on the stripe; with more
    edges it may be negative, and then a tilt grows.

    Raises:
        ValueError: if the label of the task depends on anything but x_1.
    """
    angles = np.linspace(-math.pi, math.pi, GRID) + 1e-4  # off the axes, where ω_1 or b would be exactly 0
    slopes = potential(task, angles)[1]
    turns = np.nonzero(np.sign(slopes[:-1]) * np.sign(slopes[1:]) < 0)[0]
    slope = lambda angle: float(potential(task, np.array([angle]))[1][0])
    roots = [brentq(slope, angles[k], angles[k + 1], xtol=1e-13) for k in turns]
    found = [_direction(task, root) for root in roots]
    return sorted((one for one in found if one.active_mass > FEWEST), key=lambda one: -one.rate)


def dominant_direction(task: tasks.Task) -> Direction:
    """The stable direction that grows fastest, which dominates Σ_n ω_n² as α → 0.

    Raises:
        ValueError: if the label of the task depends on anything but x_1.
    """
    return next(one for one in fixed_directions(task) if one.stable)


def amplification_prediction(p: Whole, task: tasks.Task, quantile: Real | None = None) -> float:
    """Amplification λ of a stripe when the fastest direction has taken over: C √p in the mean square, or a quantile.

    All neurons of one direction share the noise of the sample, so λ differs from one sample to the next however wide
    the net is: λ = C √p / √(χ²/d_⊥), with χ² of d_⊥ degrees of freedom. Without `quantile`, C √p; with it, that
    quantile of λ over samples (0.5: the median).

    Raises:
        TypeError, ValueError: if p < 1, quantile is outside (0, 1), d_⊥ = 0, or the label of the task depends on
            anything but x_1.
    """
    if task.d_perp < 1:
        raise ValueError(f"task: expected a dimension the label ignores, got d_perp = {task.d_perp}; raise d")
    root_mean_square = dominant_direction(task).prefactor * math.sqrt(integer(p, "p"))
    if quantile is None:
        return root_mean_square
    noise = chi2.ppf(1 - real(quantile, "quantile", 0, 1), task.d_perp) / task.d_perp
    return root_mean_square / math.sqrt(noise)


def _direction(task: tasks.Task, angle: float) -> Direction:
    g = potential(task, angle + np.array([0.0, -1e-5, 1e-5]))
    growth, sign = float(abs(g[0][0])), int(np.sign(g[0][0]))
    omega_1, b = math.cos(angle), math.sin(angle)
    threshold = -b * math.sqrt(task.d) / omega_1
    active = [edge for edge in task.edges if omega_1 * (edge - threshold) > 0]
    jumps = [2.0 * (-1) ** (task.edges.index(edge) + 1) for edge in active]
    density = [math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi) for edge in active]
    pull = sign * math.copysign(1.0, omega_1) * float(np.dot(jumps, density))
    mass = float(ndtr(-math.copysign(1.0, omega_1) * threshold))
    stable = bool(sign * (g[1][2] - g[1][1]) < 0)
    return Direction(sign, omega_1, b, threshold, mass, growth, pull, stable)
