"""One step of the hinge flow, implicit in the multipliers: they are consistent with the margins at its end."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geocompress.boxqp import boxqp, kkt_residual
from geocompress.networks import Jacobian, Linearisation, Network, Params
from geocompress.screening import CAP

# Margins are driven to 1 + OVERSHOOT, so that a finished run has every margin at 1 or above and a loss of exactly 0.
OVERSHOOT = 1e-6
# Residual of the optimality conditions asked of each step, in margin units; far below OVERSHOOT.
KKT_TOL = 1e-8
# A step does not know in which order its points met the margin. The bound on the error of that is many times the error
# itself: held to this many tolerances, lazy runs stay within about two of the exact path (see `frozen.kernel_flow`).
ORDER_BOUND = 10.0


@dataclass(frozen=True)
class Problem:
    """The data of a flow, and the products that a step needs, in margin units and mean-field time.

    `count` is p, the number of points that the loss is a mean over. x, y and output_init may hold some of them only.
    """

    network: Network
    x: Tensor
    y: Tensor
    alpha: float
    output_init: Tensor
    margin_tol: float
    state_tol: float
    count: int

    def among(self, rows: Tensor) -> Problem:
        """The same problem, looked at on some of its points: the others are known to pull on nothing."""
        if len(rows) == len(self.y):
            return self
        return replace(self, x=self.x[rows], y=self.y[rows], output_init=self.output_init[rows])

    def linearise(self, params: Params) -> Linearisation:
        """The network at `params`."""
        return self.network.linearise(params, self.x)

    def margins(self, output: Tensor) -> Tensor:
        """Margins α y (f − f_0)."""
        return self.alpha * self.y * (output - self.output_init)

    def velocity(self, at: Jacobian, c: Tensor) -> Params:
        """Ẇ = (h/p) Σ_μ c_μ y_μ ∇f(x_μ), the factor α of ∇F and of mean-field time having cancelled."""
        return at.pullback(c * self.y * (self.network.width / self.count))

    def margin_rate(self, at: Jacobian, velocity: Params) -> Tensor:
        """ṁ = α y J Ẇ."""
        return self.alpha * self.y * at.pushforward(velocity)

    def rate_gram(self, at: Jacobian, rows: Tensor) -> np.ndarray:
        """K/p among the points `rows`: the rate of each margin for a unit multiplier of each, float64 on the CPU."""
        y, gram = _array(self.y[rows]), _array(at.gram(rows))
        return (self.network.width * self.alpha / self.count) * gram * np.outer(y, y)


class Step(NamedTuple):
    """A try of a step: where it leads, the margins that it foresees there, and what its error is judged by."""

    params: Params
    multipliers: Tensor
    predicted: Tensor
    kkt: float
    state_error: float
    order_error: float

    def error(self, problem: Problem, margins: Tensor) -> float:
        """Error relative to the tolerances, at most 1 for a good step, given the true margins at its end.

        Margins count up to `CAP`, since beyond they pull on nothing.
        """
        true, predicted = _array(margins), _array(self.predicted)
        if not np.isfinite(true).all() or self.kkt == math.inf:
            return math.inf
        margin_error = float(np.abs(np.minimum(true, CAP) - np.minimum(predicted, CAP)).max())
        by_margin = max(margin_error, self.order_error / ORDER_BOUND) / problem.margin_tol
        return max(by_margin, self.state_error / problem.state_tol)


def attempt(problem: Problem, at: Linearisation, params: Params, margins: Tensor, c: Tensor, dt: float) -> Step:
    """A step of length dt from `params`, where the network is `at`, with the multipliers c of the step before.

    An explicit step with c says roughly where the step leads. The Jacobian averaged over the way there (`secant`)
    makes the step of second order, kinks included. The multipliers are then those of the quadratic program on it.
    """
    start = problem.velocity(at, c)
    mean = at.secant(move(params, start, dt))
    c, slope, predicted, kkt, stiffness = _consistent_multipliers(problem, mean, margins, c, dt)
    params_end = move(params, slope, dt)
    if kkt == math.inf:
        return Step(params_end, c, predicted, kkt, math.inf, math.inf)
    state_error = 0.0
    if problem.state_tol < math.inf:
        state_error = dt * norm({k: slope[k] - start[k] for k in start}) / norm(params_end)
    order_error = _order_error(problem, margins, predicted, c, stiffness)
    return Step(params_end, c, predicted, kkt, state_error, order_error)


def _consistent_multipliers(
    problem: Problem, mean: Jacobian, margins: Tensor, c: Tensor, dt: float
) -> tuple[Tensor, Params, Tensor, float, float]:
    """Multipliers consistent with the margins they lead to, the slope and margins that follow, and the residual.

    A working set holds the points in doubt. Those that the last answer leaves inconsistent join it until there are
    none: what is returned solves the quadratic program of all points, though only a small Gram was ever formed. Its
    largest diagonal element, dt K_μμ, comes last.
    """
    slope = problem.velocity(mean, c)
    predicted = margins + dt * problem.margin_rate(mean, slope)
    c = c.cpu().numpy().copy()  # arrays of numpy: most are so short that the number of calls counts
    looked, inside, stiffness = np.zeros(len(c), dtype=bool), (c > 0) & (c < 1), 0.0
    while True:
        gap = _array(predicted) - (1 + OVERSHOOT)
        if not np.isfinite(gap).all():  # the step has overflown: to be refused, and tried shorter
            return torch.from_numpy(c).to(margins), slope, predicted, math.inf, stiffness
        residual = kkt_residual(gap, c)
        joining = (residual > KKT_TOL) & ~looked
        if not joining.any():
            return torch.from_numpy(c).to(margins), slope, predicted, float(residual.max()), stiffness
        looked |= joining | inside
        rows = looked.nonzero()[0]
        start = c[rows].astype(float)
        gram = dt * problem.rate_gram(mean, torch.from_numpy(rows).to(margins.device))
        stiffness = problem.count * float(gram.diagonal().max())
        solution = boxqp(gram, gram @ start - gap[rows], start, tol=0.1 * KKT_TOL, check_convex=False)
        change = np.zeros_like(c)
        c[rows], change[rows] = solution.c, solution.c - start
        turn = problem.velocity(mean, torch.from_numpy(change).to(margins))
        slope = move(slope, turn, 1.0)
        predicted = predicted + dt * problem.margin_rate(mean, turn)


def _order_error(problem: Problem, before: Tensor, after: Tensor, multipliers: Tensor, stiffness: float) -> float:
    """Bound on what is lost, in margin units, by one multiplier a point and step, whatever the order of events.

    For a constant kernel the step is implicit Euler on a convex loss. In function space it errs by at most √(dt excess)
    with excess = mean[ℓ(m) − ℓ(m') − c (m' − m)], each term ≥ 0 since c is a slope of ℓ at m' (Nochetto, Savaré and
    Verdi, Comm. Pure Appl. Math. 53, 525 (2000)); a margin moves by at most √K_μμ times that. Points that stay on their
    side of the margin, or on it, add nothing. `stiffness` is dt max K_μμ.
    """
    target = 1 + OVERSHOOT
    start, end, c = _array(before), _array(after), _array(multipliers)
    drop = np.maximum(target - start, 0) - np.maximum(target - end, 0)
    excess = float((drop - c * (end - start)).sum()) / problem.count
    return math.sqrt(stiffness * max(0.0, excess))


def move(params: Params, direction: Params, length: float) -> Params:
    """W + length · direction."""
    return {k: torch.add(params[k], direction[k], alpha=length) for k in params}


def norm(params: Params) -> float:
    """|W|, the Euclidean norm of all parameters."""
    return math.hypot(*(float(torch.linalg.vector_norm(value)) for value in params.values()))


def _array(values: Tensor) -> np.ndarray:
    """The numbers in float64 on the CPU; shared where they are that already."""
    return values.double().cpu().numpy()
