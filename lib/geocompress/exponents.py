"""Predicted exponents of learning curves ε ~ p^{−β}; their measurement comes from `fits` and is offered here as well.

Predictions: kernels, arXiv:2006.09754; compression and the feature regime, arXiv:2007.11471.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from geocompress.checks import Real, Whole, integer, real
from geocompress.fits import PowerLawFit, exponent_difference, fit_amplification, fit_power_law, local_slopes

__all__ = [
    "LayerExponents",
    "PowerLawFit",
    "amplification_prefactor",
    "beta_feature",
    "beta_lazy",
    "compression_gain",
    "exponent_difference",
    "fit_amplification",
    "fit_power_law",
    "layer_exponents",
    "local_slopes",
    "table",
]


def beta_lazy(d: Whole, xi: Real = 1) -> float:
    """Exponent of a kernel without feature learning: β = (d − 1 + ξ)/(3d − 3 + ξ) (arXiv:2006.09754).

    ξ in (0, 2) is the cusp exponent of the kernel at the origin; ξ = 1 for the NTK of ReLU nets and for Laplace.

    Raises:
        TypeError, ValueError: if d is not an integer ≥ 1 or ξ is outside (0, 2).
    """
    d, xi = integer(d, "d"), real(xi, "xi", 0, 2)
    return (d - 1 + xi) / (3 * d - 3 + xi)


def beta_feature(d: Whole, d_parallel: Whole) -> float:
    """Exponent of a net that compresses d_⊥ = d − d_∥ directions by λ ~ √p (arXiv:2007.11471, NTK with ξ = 1).

    β = (2d − 1)/(3d − 2) for d_∥ = 1 and β = (d + d_⊥/2)/(3d − 2) for d_∥ > 1, which is ½ at d_∥ = 2, and `beta_lazy`
    when nothing can be compressed.

    Raises:
        TypeError, ValueError: unless d and d_parallel are integers with 1 ≤ d_parallel ≤ d.
    """
    d, d_parallel = integer(d, "d"), integer(d_parallel, "d_parallel")
    if d_parallel > d:
        raise ValueError(f"d_parallel: expected at most d = {d}, got {d_parallel}; raise d or lower d_parallel")
    return ((2 * d - 1) if d_parallel == 1 else (3 * d - d_parallel) / 2) / (3 * d - 2)


def compression_gain(d: Whole, xi: Real = 1) -> float:
    """Power of λ that divides a kernel's error when x_⊥ is divided by λ, on the stripe: 2(d − 1)/(3d − 3 + ξ).

    Source: arXiv:2007.11471. With λ ~ √p it lifts `beta_lazy` to `beta_feature(d, 1)`.

    Raises:
        TypeError, ValueError: if d is not an integer ≥ 1 or ξ is outside (0, 2).
    """
    d, xi = integer(d, "d"), real(xi, "xi", 0, 2)
    return 2 * (d - 1) / (3 * d - 3 + xi)


class LayerExponents(NamedTuple):
    """Powers of p in a kernel's layer of support vectors: Δ ~ p^width, r_c ~ p^spacing, charge of one ~ p^charge."""

    width: float
    spacing: float
    charge: float


def layer_exponents(d: Whole, xi: Real = 1) -> LayerExponents:
    """How the layer of support vectors scales: Δ ~ p^{−β}, r_c ~ (p Δ)^{−1/(d−1)}, charge ~ r_c^{−ξ} in its units.

    β is `beta_lazy`. The charge of one point changes the field at its neighbour, a distance r_c away, by of order one
    margin: that fixes it (arXiv:2006.09754, arXiv:2007.11471).

    Raises:
        TypeError, ValueError: if d is not an integer ≥ 2 (the layer of d = 1 is no surface) or ξ is outside (0, 2).
    """
    d, beta = integer(d, "d", minimum=2), beta_lazy(d, xi)
    spacing = -(1 - beta) / (d - 1)
    return LayerExponents(-beta, spacing, -xi * spacing)


def amplification_prefactor(x_min: Real, x_max: Real) -> float:
    """Prefactor c of λ* ≈ c √p on the stripe: c = √(2/π) |e^{−x_min²/2} − e^{−x_max²/2}|. A prediction, no measurement.

    It is |E[y x_1]|, the pull of all points on a neuron along x_1, over the sampling noise 1/√p of the same average
    along a coordinate that the label ignores (linearised neuron dynamics of arXiv:2007.11471). A trained net need not
    follow it: λ also depends on when it is read.

    Raises:
        TypeError, ValueError: unless x_min < x_max; either may be infinite.
    """
    x_min, x_max = float(x_min), float(x_max)
    if not x_min < x_max:
        raise ValueError(f"edges: expected x_min < x_max, got {x_min} and {x_max}; pass *task.edges")
    return math.sqrt(2 / math.pi) * abs(math.exp(-(x_min**2) / 2) - math.exp(-(x_max**2) / 2))


def table(dims: Iterable[Whole], d_parallels: Iterable[Whole] = (1, 2), xi: Real = 1) -> pd.DataFrame:
    """Predicted exponents, one row for each pair with d_∥ ≤ d: columns d, d_parallel, xi, beta_lazy, beta_feature.

    `beta_feature` is that of a net (ξ = 1) whatever `xi`, which enters `beta_lazy` only.

    Raises:
        TypeError, ValueError: as `beta_lazy` and `beta_feature`.
    """
    dims, d_parallels = list(dims), list(d_parallels)
    rows = [
        (d, d_parallel, xi, beta_lazy(d, xi), beta_feature(d, d_parallel))
        for d in dims
        for d_parallel in d_parallels
        if integer(d_parallel, "d_parallel") <= integer(d, "d")
    ]
    return pd.DataFrame(rows, columns=["d", "d_parallel", "xi", "beta_lazy", "beta_feature"])
