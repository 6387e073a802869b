"""The hinge flow by explicit Euler with a fixed step: slow, obvious and chattering; the implicit step is held to it."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from torch import Tensor

from geocompress.checks import real, training_data
from geocompress.networks import Network, Params


def hinge_flow(
    network: Network, params: Params, x: Tensor, y: Tensor, *, alpha: float, dt: float, max_time: float
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, "steps p"]]:
    """Times and margins of W ← W + dt (h/p) Σ_μ c_μ y_μ ∇f(x_μ) with c = 1 below margin 1 and 0 from there on.

    A point that reaches the margin is switched on and off at every other step. As dt → 0 the switching averages to the
    sliding motion of the differential inclusion, with an error of order dt. Runs to
    `max_time` (mean-field time): chattering, it never has all points on the margin at once.

    Args:
        network: see `networks.Network`.
        params: initial parameters; they are not changed.
        x: points, shape (p, d).
        y: labels in {−1, +1}, shape (p,).
        alpha: scale of the predictor.
        dt: step, in mean-field time.
        max_time: mean-field time at which to stop.

    Raises:
        TypeError, ValueError: as `flow.hinge_flow`, or a dt or max_time that is not a positive number.
    """
    training_data(params, x, y, caller="explicit.hinge_flow")
    alpha, dt, max_time = (
        real(value, name, 0) for name, value in (("alpha", alpha), ("dt", dt), ("max_time", max_time))
    )
    at = network.linearise(params, x)
    output_init, path = at.output, []
    for _ in range(math.ceil(max_time / dt) + 1):
        margins = alpha * y * (at.output - output_init)
        path.append(margins.cpu().numpy())
        slope = at.pullback((margins < 1) * y * (network.width / len(y)))
        params = {k: value + dt * slope[k] for k, value in params.items()}
        at = network.linearise(params, x)
    return dt * np.arange(len(path)), np.stack(path)
