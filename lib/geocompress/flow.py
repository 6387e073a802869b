"""Gradient flow of the hinge loss, solved as the differential inclusion it is.

The flow Ẇ = (h/p) Σ_μ c_μ y_μ ∇f(x_μ) has multipliers c_μ = 1 below margin 1, 0 above, and anything in [0, 1] exactly
on it, where fitted points slide (a Filippov inclusion). Explicit integrators chatter across that surface. Here the
multipliers of a step are chosen so that they are consistent with the margins at its *end*, a convex quadratic program
(`boxqp`); no step is spent on chattering.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from geocompress.boxqp import boxqp
from geocompress.checks import Real, Whole, integer, real, training_data
from geocompress.networks import Linearisation, Network, Params
from geocompress.states import State, Status

# Margins are driven to 1 + OVERSHOOT, so that a finished run has every margin at 1 or above and a loss of exactly 0.
OVERSHOOT = 1e-6
# Residual of the optimality conditions asked of each step, in margin units; far below OVERSHOOT.
KKT_TOL = 1e-8
# A step does not know in which order its points met the margin. The bound on the error of that is many times the error
# itself: held to this many tolerances, lazy runs stay within about two of the exact path (see `frozen.kernel_flow`).
ORDER_BOUND = 10.0


def hinge_flow(
    network: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    alpha: Real,
    margin_tol: Real = 0.1,
    state_tol: Real = 0.05,
    max_time: Real = math.inf,
    max_steps: Whole = 20_000,
    start: State | None = None,
) -> Iterator[State]:
    """Follow Ẇ = −(h/α) ∂L/∂W with L = (1/p) Σ_μ max(0, 1 − y_μ F(x_μ)), F = α (f − f_0), until every margin is 1.

    Yields the state at t = 0 and after every accepted step; the last one carries the status that ended the run. The
    caller may stop at any time, and may go on later by passing a state as `start`: the trajectory is the same.

    One step of length dt goes to the midpoint with the multipliers of the last step, linearises there, and asks for
    multipliers that are consistent with the margins at the end of the step: margins are m + (dt/p) K c with
    K_{μν} = y_μ y_ν h α ⟨∇f(x_μ), ∇f(x_ν)⟩, and c = 1 below the margin, 0 above, in between on it. Only points whose
    multiplier is in doubt enter the quadratic program; the conditions are then checked on all points. The step is
    accepted when the true margins agree with the predicted ones, the two slopes of the midpoint rule agree, and little
    depends on the order in which points met the margin within it (a single step to the end would find the hard-margin
    classifier of the kernel, which the flow is not).

    Args:
        network: see `networks.Network`.
        params: initial parameters W_0; they are not changed.
        x: points, shape (p, d), same dtype and device as the parameters. float64 unless you have measured otherwise.
        y: labels in {−1, +1}, shape (p,), both classes present.
        alpha: scale of the predictor, in (0, ∞); small is the feature regime, large the lazy one.
        margin_tol: accepted error of a step in the margins (counted up to margin 1.5), in margin units.
        state_tol: accepted relative difference of the slopes at the start and the middle of a step, times dt; inf asks
            nothing of it, which is right where the output is linear in the parameters.
        max_time: mean-field time at which to stop.
        max_steps: accepted steps after which to stop.
        start: a state of an earlier run on the same network and data to go on from.

    Raises:
        TypeError: x, y or the parameters are not floating-point tensors of one dtype.
        ValueError: wrong shapes, labels other than ±1, one class only, values that are not finite, or a setting out of
            its range. Raised at the call, before the first step.
    """
    training_data(params, x, y, caller="hinge_flow")
    alpha, margin_tol = real(alpha, "alpha", 0), real(margin_tol, "margin_tol", 0)
    # these two may be infinite: no bound
    state_tol, max_time = (
        value if value == math.inf else real(value, name, 0)
        for name, value in (("state_tol", state_tol), ("max_time", max_time))
    )
    max_steps = integer(max_steps, "max_steps")
    if start is not None and start.margins.shape != y.shape:
        raise ValueError(f"hinge_flow: `start` has {len(start.margins)} points, the data have {len(y)}")
    output_init = network.linearise(params, x).output if start is None else start.output_init
    problem = _Problem(network, x, y, alpha, output_init, margin_tol, state_tol)
    return _states(problem, start or _first_state(problem, params), max_time, max_steps)


@dataclass(frozen=True)
class _Problem:
    """The data of a flow, and the four products that a step needs, in margin units and mean-field time."""

    network: Network
    x: Tensor
    y: Tensor
    alpha: float
    output_init: Tensor
    margin_tol: float
    state_tol: float

    def linearise(self, params: Params) -> Linearisation:
        return self.network.linearise(params, self.x)

    def margins(self, at: Linearisation) -> Tensor:
        return self.alpha * self.y * (at.output - self.output_init)

    def velocity(self, at: Linearisation, c: Tensor) -> Params:
        """Ẇ = (h/p) Σ_μ c_μ y_μ ∇f(x_μ), the factor α of ∇F and of mean-field time having cancelled."""
        return at.pullback(c * self.y * (self.network.width / len(self.y)))

    def margin_rate(self, at: Linearisation, velocity: Params) -> Tensor:
        return self.alpha * self.y * at.pushforward(velocity)

    def rate_gram(self, at: Linearisation, rows: Tensor) -> np.ndarray:
        """K/p among the points `rows`: the rate of each margin for a unit multiplier of each, float64 on the CPU."""
        y = self.y[rows].double().cpu().numpy()
        gram = at.gram(rows).double().cpu().numpy()
        return (self.network.width * self.alpha / len(self.y)) * gram * np.outer(y, y)


def _first_state(problem: _Problem, params: Params) -> State:
    at = problem.linearise(params)
    margins = problem.margins(at)
    c = (margins < 1).to(margins)
    velocity = problem.velocity(at, c)
    speed, reach = _norm(velocity), float(problem.margin_rate(at, velocity).abs().max())
    by_state = problem.state_tol * _norm(params) / speed if speed > 0 and problem.state_tol < math.inf else math.inf
    dt = min(by_state, 1 / reach if reach > 0 else 1.0)  # no point meets the margin before 1 / reach
    return State(0.0, params, margins, c, _hinge(margins), 0, dt, 0.0, problem.output_init, _status(margins))


def _states(problem: _Problem, state: State, max_time: float, max_steps: int) -> Iterator[State]:
    yield state
    at = problem.linearise(state.params)
    while state.status is Status.RUNNING:
        if state.t >= max_time:
            ended = Status.MAX_TIME
        elif state.step >= max_steps:
            ended = Status.MAX_STEPS
        else:
            state, at = _advance(problem, state, at, max_time - state.t)
            yield state
            continue
        state = replace(state, status=ended)
        yield state


def _advance(problem: _Problem, state: State, at: Linearisation, longest: float) -> tuple[State, Linearisation]:
    """One accepted step, at most `longest`; a rejected try lends its multipliers to the next, shorter one."""
    dt, c, growth = min(state.dt, longest), state.multipliers, 3.0
    shortest = 1e-10 * (state.t or state.dt)  # steps that shrink towards a wall add up to nothing
    while dt > shortest:
        slope_start = problem.velocity(at, c)
        middle = problem.linearise(_move(state.params, slope_start, dt / 2))
        c, slope, predicted, kkt, stiffness = _consistent_multipliers(problem, middle, state.margins, c, dt)
        params = _move(state.params, slope, dt)
        end = problem.linearise(params)
        margins = problem.margins(end)
        error = max(
            _step_error(problem, margins, predicted, slope_start, slope, params, dt),
            _order_error(state.margins, predicted, c, stiffness) / (ORDER_BOUND * problem.margin_tol),
        )
        if error <= 1 and kkt <= max(0.01 * problem.margin_tol, KKT_TOL):
            factor = min(growth, 0.8 * max(error, 1e-3) ** -0.5)
            status = _status(margins)
            if status is Status.RUNNING and dt >= state.t / 2 and _at_rest(problem, state, margins, params):
                status = Status.STATIONARY
            # The flow stops by itself when the last point is fitted: that is the share of the step for which the
            # largest multiplier was on.
            elapsed = dt * float(c.max()) if status is Status.FITTED else dt
            # A step that was cut to land on a requested time says nothing about how long the next one may be.
            dt_next = max(dt * factor, state.dt) if dt == longest < state.dt else dt * factor
            loss, step = _hinge(margins), state.step + 1
            new = State(state.t + elapsed, params, margins, c, loss, step, dt_next, kkt, state.output_init, status)
            return new, end
        dt *= max(0.2, 0.8 * error**-0.5) if math.isfinite(error) and error > 1 else 0.2
        growth = 1.0
    ended = Status.STALLED if math.isfinite(error) else Status.DIVERGED
    return replace(state, status=ended), at


def _consistent_multipliers(
    problem: _Problem, middle: Linearisation, margins: Tensor, c: Tensor, dt: float
) -> tuple[Tensor, Params, Tensor, float, float]:
    """Multipliers consistent with the margins they lead to, the slope and margins that follow, and the residual.

    A working set holds the points in doubt. Those that the last answer leaves inconsistent join it until there are
    none: what is returned solves the quadratic program of all p points, though only a small Gram was ever formed. Its
    largest diagonal element, dt K_μμ, comes last.
    """
    target = 1 + OVERSHOOT
    inside = torch.zeros_like(c, dtype=torch.bool)
    stiffness = 0.0
    while True:
        slope = problem.velocity(middle, c)
        predicted = margins + dt * problem.margin_rate(middle, slope)
        gap = predicted - target
        residual = torch.where(c <= 0, -gap, torch.where(c >= 1, gap, gap.abs())).clamp(min=0)
        joining = (residual > KKT_TOL) & ~inside
        if not bool(joining.any()):
            return c, slope, predicted, float(residual.max()), stiffness
        inside |= joining | ((c > 0) & (c < 1))
        rows = inside.nonzero()[:, 0]
        start = c[rows].double().cpu().numpy()
        gram = dt * problem.rate_gram(middle, rows)
        stiffness = len(c) * float(gram.diagonal().max())
        solution = boxqp(gram, gram @ start - gap[rows].double().cpu().numpy(), start, tol=0.1 * KKT_TOL)
        c = c.index_put((rows,), torch.from_numpy(solution.c).to(c))


def _step_error(
    problem: _Problem, margins: Tensor, predicted: Tensor, start: Params, middle: Params, params: Params, dt: float
) -> float:
    """Error of a step relative to its tolerances; margins count up to 1.5, since beyond they pull on nothing."""
    margin_error = float((margins.clamp(max=1.5) - predicted.clamp(max=1.5)).abs().max())
    slope_change = _norm({k: middle[k] - start[k] for k in start})
    state_error = 0.0
    if problem.state_tol < math.inf:
        state_error = dt * slope_change / (problem.state_tol * _norm(params))
    return max(margin_error / problem.margin_tol, state_error) if bool(margins.isfinite().all()) else math.inf


def _order_error(before: Tensor, after: Tensor, c: Tensor, stiffness: float) -> float:
    """Bound on what is lost, in margin units, by one multiplier a point and step, whatever the order of events.

    For a constant kernel the step is implicit Euler on a convex loss. In function space it errs by at most √(dt excess)
    with excess = mean[ℓ(m) − ℓ(m') − c (m' − m)], each term ≥ 0 since c is a slope of ℓ at m' (Nochetto, Savaré and
    Verdi, Comm. Pure Appl. Math. 53, 525 (2000)); a margin moves by at most √K_μμ times that. Points that stay on their
    side of the margin, or on it, add nothing. `stiffness` is dt max K_μμ.
    """
    target = 1 + OVERSHOOT
    drop = (target - before).clamp(min=0) - (target - after).clamp(min=0)
    return math.sqrt(stiffness * max(0.0, float((drop - c * (after - before)).mean())))


def _status(margins: Tensor) -> Status:
    return Status.FITTED if bool((margins >= 1).all()) else Status.RUNNING


def _at_rest(problem: _Problem, before: State, margins: Tensor, params: Params) -> bool:
    """True when a step moved neither margins nor weights (kernel coefficients may grow where no margin feels it)."""
    if float((margins - before.margins).abs().max()) > KKT_TOL:
        return False
    moved = _norm({k: params[k] - before.params[k] for k in params})
    return problem.state_tol == math.inf or moved <= KKT_TOL * _norm(params)


def _hinge(margins: Tensor) -> float:
    return float((1 - margins).clamp(min=0).mean())


def _move(params: Params, direction: Params, length: float) -> Params:
    return {k: torch.add(params[k], direction[k], alpha=length) for k in params}


def _norm(params: Params) -> float:
    return math.sqrt(sum(float(value.square().sum()) for value in params.values()))
