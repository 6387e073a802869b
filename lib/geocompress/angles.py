"""Angles in x_∥ on a ball: how evenly a net's weight is spread over them, and what neurons do before the first fit.

Every direction in x_∥ is as good as any other to a label that depends on |x_∥| alone. A sample of p points prefers some
of them by chance. What follows takes the argument of arXiv:2007.11471 for the stripe (`directions`) to balls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import gamma
from scipy.stats import chi2

from geocompress import tasks
from geocompress.checks import Real, Whole, integer, real


def isotropy(arrows: Float[np.ndarray, "h k"]) -> float:
    """How round a cloud of arrows is: √(μ_min/μ_max), μ the eigenvalues of Σ_n v_n v_nᵀ/|v_n|; 1 is round, 0 a line.

    With v_n = β_n ω_n on x_∥ and |β_n| = |ω_n|, as after growth in the feature regime, the matrix is Σ_n ω_n ω_nᵀ, and
    its trace enters λ: the ratio says how much less the net feels the informative direction that it feels least. h
    arrows at random angles have 1 − O(1/√h). It is a second moment only: three arrows 120° apart are as round as many.

    Raises:
        ValueError: if there is no arrow, fewer than two components, or all of them are zero.
    """
    arrows = np.asarray(arrows, dtype=np.float64)
    if arrows.ndim != 2 or arrows.shape[1] < 2 or not arrows.any():
        raise ValueError(f"arrows: expected (h, k ≥ 2), not all zero, got shape {arrows.shape}")
    lengths = np.linalg.norm(arrows, axis=1)
    arrows, lengths = arrows[lengths > 0], lengths[lengths > 0]
    smallest, *_, largest = np.linalg.eigvalsh((arrows / lengths[:, None]).T @ arrows)
    return math.sqrt(max(smallest, 0.0) / largest)


def angular_shares(arrows: Float[np.ndarray, "h 2"], sectors: Whole = 24) -> Float[np.ndarray, " sectors"]:
    """Share of the total length Σ_n |v_n| in each of equal sectors of the plane, counter-clockwise from −180°.

    Raises:
        TypeError, ValueError: if sectors < 1 or all arrows are zero.
    """
    arrows, sectors = np.asarray(arrows, dtype=np.float64), integer(sectors, "sectors")
    lengths = np.linalg.norm(arrows, axis=1)
    if not lengths.any():
        raise ValueError(f"arrows: expected one that is not zero, got {len(arrows)} zeros")
    angles = np.arctan2(arrows[:, 1], arrows[:, 0])
    shares, _ = np.histogram(angles, np.linspace(-math.pi, math.pi, sectors + 1), weights=lengths)
    return shares / lengths.sum()


def directions_in_use(shares: Float[np.ndarray, " sectors"]) -> float:
    """Number of sectors that share the weight, 1/Σ s²: all of them when it is even, 1 when one holds everything."""
    return float(1 / np.square(np.asarray(shares, dtype=np.float64)).sum())


@dataclass(frozen=True)
class RadialNeuron:
    """A neuron of a ball that looks outwards from its centre, b = 0, ω_⊥ = 0, β < 0: the direction that grows, p → ∞.

    Its half space H = {n·x_∥ > 0} holds half of the points, whatever the unit vector n.

    Attributes:
        task: the ball.
        pull: |E[y n·x 1_H]| = D − φ(0) E[y | n·x = 0]; Gaussian integration by parts.
        force: D = 2 V_{d_∥−1} R^{d_∥−1} (2π)^{−d_∥/2} e^{−R²/2}, V_k the volume of the unit ball in R^k: the flux of
            the label's jump through the half of the surface that the neuron sees. R/π on the cylinder.
        rate: γ = √(2/d) pull, growth per unit of mean-field time once |β| = |ω|.
        scatter: s, such that the rates of different n differ by s/√p (standard deviation over samples of p points):
            √(2/d) √(½ − pull²).
    """

    task: tasks.Task
    pull: float
    force: float
    rate: float
    scatter: float

    @property
    def prefactor(self) -> float:
        """C such that λ = C √p in the mean square: D √(2/d_∥), since noise of variance 1/(2p) tilts by it over D."""
        return self.force * math.sqrt(2 / self.task.d_parallel)

    def even_from(self, t: Real) -> float:
        """Number of points above which angles are still even at mean-field time t: p = (2 s t)².

        |ω|² grows as e^{2γt}, so two angles whose rates differ by s/√p differ in weight by a factor e there.

        Raises:
            TypeError, ValueError: t ≤ 0 or not finite.
        """
        return (2 * self.scatter * real(t, "t", 0)) ** 2


def radial_neuron(task: tasks.Task) -> RadialNeuron:
    """The neuron that grows on a ball with d_∥ ≥ 2, from its radius alone.

    Raises:
        ValueError: if the label is not a ball, or d_∥ = 1.
    """
    k = task.d_parallel
    if task.rule.coordinate is not tasks.radius or len(task.edges) != 1 or k < 2:
        raise ValueError(f"task: expected a ball with d_parallel ≥ 2, got {task.name} with d_parallel = {k}")
    (radius,) = task.edges
    disk = math.pi ** ((k - 1) / 2) / gamma((k + 1) / 2)  # V_{k−1}: the half sphere as seen along n
    density = math.exp(-(radius**2) / 2) / (2 * math.pi) ** (k / 2)
    force = 2 * disk * radius ** (k - 1) * density
    at_kink = 2 * float(chi2.cdf(radius**2, k - 1)) - 1
    pull = force - at_kink / math.sqrt(2 * math.pi)
    unit = math.sqrt(2 / task.d)
    pull, force = float(pull), float(force)
    return RadialNeuron(task, pull, force, unit * pull, unit * math.sqrt(0.5 - pull**2))
