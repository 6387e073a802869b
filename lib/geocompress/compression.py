"""Measures of geometric compression: how strongly a net amplifies the directions its label depends on."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from geocompress.networks import Params


def amplification(params: Params, d_parallel: int) -> float:
    """Amplification factor λ: root-mean-square first-layer weight along x_∥ over that along x_⊥.

    λ = √( Σ_n |ω_{n,∥}|² / d_∥ ÷ Σ_n |ω_{n,⊥}|² / d_⊥ ) (arXiv:2007.11471). It is 1 in expectation at initialisation,
    grows to order √p in the feature regime and stays 1 in the lazy one. Informative directions are the first d_∥.

    Args:
        params: parameters of a `OneHidden` net; `omega` has shape (h, d).
        d_parallel: number of informative directions, 1 ≤ d_∥ ≤ d.

    Returns:
        λ, dimensionless; inf when every weight along x_⊥ is zero.

    Raises:
        ValueError: d_∥ outside [1, d], or d_∥ = d, where there is nothing to compress and λ is not defined.
    """
    parallel, perpendicular = (float(block.square().mean()) for block in _blocks(params, d_parallel))
    return math.sqrt(parallel / perpendicular) if perpendicular > 0 else math.inf


def fitted_fraction(margins: Tensor) -> float:
    """Share of the points with margin of at least 1. The compressing period ends, at t*, when it first reaches 0.1.

    The flow holds points on the margin to within its tolerance, so a point counts from 1 − 1e-3 on.
    """
    return float((margins >= 1 - 1e-3).double().mean())


def class_gap(margins: Tensor, y: Tensor) -> float:
    """How much more of one class is fitted than of the other: modulus of the difference of the two `fitted_fraction`s.

    1 when one label is fitted on every point that has it and the other on none.

    Args:
        margins: y F, shape (p,).
        y: labels ±1, shape (p,), both there.
    """
    return abs(fitted_fraction(margins[y > 0]) - fitted_fraction(margins[y < 0]))


def balance(params: Params) -> Float[Tensor, " h"]:
    """|ω_n|² + b_n² − β_n² of every neuron: conserved by the flow of any loss, since σ is homogeneous of degree one."""
    return params["omega"].square().sum(1) + params["b"].square() - params["beta"].square()


def neuron_plane(params: Params, axes: tuple[int, int] = (0, 1)) -> Float[Tensor, "h 2"]:
    """β_n ω_n projected on two input directions, shape (h, 2): the arrows of the moving-neurons picture.

    A neuron's length is its weight in the function, its direction the one it is sensitive to, and the sign of β_n
    flips it: two neurons that push the output the same way across the same line point the same way.
    """
    return params["beta"][:, None] * params["omega"][:, list(axes)]


def neuron_amplification(params: Params, d_parallel: int) -> Float[Tensor, " h"]:
    """λ_n of each neuron alone, shape (h,), as in `amplification` without the sums over n.

    Raises:
        ValueError: as `amplification`.
    """
    parallel, perpendicular = (block.square().mean(1) for block in _blocks(params, d_parallel))
    return (parallel / perpendicular).sqrt()


def neuron_threshold(params: Params, axis: int = 0) -> Float[Tensor, " h"]:
    """Where each neuron's kink −b_n √d / ω_n crosses the input axis `axis`, shape (h,), in units of x."""
    omega = params["omega"]
    return -params["b"] * math.sqrt(omega.shape[1]) / omega[:, axis]


def _blocks(params: Params, d_parallel: int) -> tuple[Tensor, Tensor]:
    """First-layer weights along x_∥ and along x_⊥."""
    omega = params["omega"]
    d = omega.shape[1]
    if not 1 <= d_parallel < d:
        raise ValueError(f"amplification: expected 1 ≤ d_parallel < d = {d}, got {d_parallel}; λ compares two blocks")
    return omega[:, :d_parallel], omega[:, d_parallel:]
