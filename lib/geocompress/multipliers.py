"""What a frozen kernel makes of the margins in a time: p equations, stiff as they may be.

It is what a step of `stiff` knows before it looks at the network again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.losses import Loss

GAMMA = 1 - 1 / math.sqrt(2)  # of the singly diagonally implicit Runge–Kutta method of two stages: order 2, L-stable
NEWTON_TOL = 1e-9  # residual of a stage, in margin units; its square, of the function that a stage minimises
NEWTON_STEPS = 60
SPLITS = 12  # how often a time is halved at most


class Integral(NamedTuple):
    """What the multipliers did over a time dt, and where the margins are.

    With inertia τ, weights that start with the velocity V move by τ (1 − e^{−dt/τ}) V + Σ_μ a_μ y_μ ∇f(x_μ) h/p, and
    their velocity becomes e^{−dt/τ} V + Σ_μ b_μ y_μ ∇f(x_μ) h/p. Without, a = ∫ c dt and b is the last mean c.

    Attributes:
        pushes: a, in mean-field time.
        pulls: b.
        margins: m at the end.
        drift: ṁ at the end, or None where there is no inertia.
    """

    pushes: Float[Tensor, " p"]
    pulls: Float[Tensor, " p"]
    margins: Float[Tensor, " p"]
    drift: Float[Tensor, " p"] | None


def coasting(dt: float, inertia: float) -> tuple[float, float]:
    """For how long a velocity left alone carries on, τ (1 − e^{−dt/τ}), and its share that is left, e^{−dt/τ}."""
    return (-inertia * math.expm1(-dt / inertia), math.exp(-dt / inertia)) if inertia else (0.0, 0.0)


def integrate(
    loss: Loss,
    rate: Float[Tensor, "p p"],
    margins: Float[Tensor, " p"],
    dt: float,
    tol: float,
    drift: Float[Tensor, " p"] | None = None,
    inertia: float = 0.0,
    *,
    splits: int = SPLITS,
) -> Integral | None:
    """ṁ = R c(m) over a time dt, c = −ℓ'(m); with inertia τ, τ m̈ = R c(m) − ṁ.

    The two-stage diagonally implicit Runge–Kutta method of order two that is L-stable (γ = 1 − 1/√2; Alexander, SIAM J.
    Numer. Anal. 14, 1006 (1977)); with inertia, one mean multiplier for the time and its exact consequences. A time too
    long is halved, at most `splits` times over.

    Args:
        loss: ℓ.
        rate: R = K/p, shape (p, p), float64.
        margins: m at the start, shape (p,).
        dt: mean-field time.
        tol: accepted distance of the stages' two answers, of second and of first order, in margins below `loss.cap`.
        drift: ṁ at the start, shape (p,), with inertia only.
        inertia: τ, in mean-field time.
        splits: see above.

    Returns:
        None where a stage has no solution to be found, as for a `rate` that rounding has made indefinite.
    """
    coast, decay = coasting(dt, inertia)
    coast_first, _ = coasting(GAMMA * dt, inertia)
    early, ahead = (margins if drift is None else margins + time * drift for time in (coast_first, coast))
    first = stage(loss, (GAMMA * dt - coast_first) * rate, early)
    if first is None:
        return None
    gram = (dt - coast) * rate
    second = stage(loss, GAMMA * gram, ahead + (1 - GAMMA) * (gram @ first))
    if second is None:
        return None
    mean = (1 - GAMMA) * first + GAMMA * second
    end, single = ahead + gram @ mean, ahead + gram @ first  # the latter is of first order
    if splits == 0 or float((end.clamp(max=loss.cap) - single.clamp(max=loss.cap)).abs().max()) <= tol:
        after = None if drift is None else decay * drift + (1 - decay) * (rate @ mean)
        return Integral((dt - coast) * mean, (1 - decay) * mean, end, after)
    begun = integrate(loss, rate, margins, dt / 2, tol, drift, inertia, splits=splits - 1)
    if begun is None:
        return None
    ended = integrate(loss, rate, begun.margins, dt / 2, tol, begun.drift, inertia, splits=splits - 1)
    if ended is None:
        return None
    coast, decay = coasting(dt / 2, inertia)
    pushes = begun.pushes + coast * begun.pulls + ended.pushes
    return Integral(pushes, decay * begun.pulls + ended.pulls, ended.margins, ended.drift)


def stage(loss: Loss, gram: Tensor, margins: Tensor) -> Tensor | None:
    """C = −ℓ'(m + A c) by Newton's method on ½ cᵀ A c + Σ ℓ(m + A c), which is convex; `gram` is A, None if lost.

    Where A is as large as 10⁶ and ℓ bends, the steps of Newton's method may creep; a shorter time helps.

    With D = diag ℓ'' the direction solves (I + D A) δ = −(c + ℓ'), by the symmetric I + √D A √D.
    """
    c = -loss.slope(margins)
    image = gram @ c
    for _ in range(NEWTON_STEPS):
        at = margins + image
        residual = c + loss.slope(at)
        pull = gram @ residual
        if float(pull.abs().max()) <= NEWTON_TOL:
            return -loss.slope(at)
        root = loss.curvature(at).sqrt()
        matrix = root[:, None] * gram * root
        matrix.diagonal().add_(1)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed):
            return None
        direction = root * torch.cholesky_solve((root * pull)[:, None], factor)[:, 0] - residual
        step = gram @ direction
        slope = float(pull @ direction)
        if slope > NEWTON_TOL**2:  # uphill: A has an eigenvalue below zero that is felt
            return None
        if -slope <= NEWTON_TOL**2:  # what is left of cᵀ A c is rounding, which `pull` has A² times over
            return c
        value, share = float(0.5 * c @ image + loss.value(at).sum()), 1.0
        while True:
            trial, moved = c + share * direction, image + share * step
            reached = float(0.5 * trial @ moved + loss.value(margins + moved).sum())
            if reached <= value + 1e-4 * share * slope + 1e-12 * abs(value):
                break
            share /= 2
            if share < 1e-6:
                return None
        c, image = trial, moved
    return None
