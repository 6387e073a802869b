"""Gradient flow of the hinge loss, solved as the differential inclusion it is.

The flow Ẇ = (h/p) Σ_μ c_μ y_μ ∇f(x_μ) has multipliers c_μ = 1 below margin 1, 0 above, and anything in [0, 1] exactly
on it, where fitted points slide (a Filippov inclusion). Explicit integrators chatter across that surface. Here the
multipliers of a step are chosen so that they are consistent with the margins at its *end*, a convex quadratic program
(`boxqp`); no step is spent on chattering.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.boxqp import boxqp
from geocompress.networks import Linearisation, Network, Params

# Margins are driven to 1 + OVERSHOOT, so that a finished run has every margin at 1 or above and a loss of exactly 0.
OVERSHOOT = 1e-6
# Residual of the optimality conditions asked of each step, in margin units; far below OVERSHOOT.
KKT_TOL = 1e-8


class Status(enum.Enum):
    """How a run stands: RUNNING, or the reason why it ended."""

    RUNNING = "RUNNING"
    FITTED = "FITTED"  # every margin is at least 1: the loss is zero and the flow has stopped by itself
    MAX_TIME = "MAX_TIME"
    MAX_STEPS = "MAX_STEPS"
    STALLED = "STALLED"  # no step, however short, meets the tolerances
    DIVERGED = "DIVERGED"  # margins are no longer finite numbers


@dataclass(frozen=True)
class State:
    """The flow at one time; also all that is needed to go on from there.

    Attributes:
        t: mean-field time.
        params: parameters of the network.
        margins: y_μ F(x_μ), shape (p,).
        multipliers: c_μ averaged over the step that led here, shape (p,), in [0, 1].
        loss: mean of max(0, 1 − margin).
        step: accepted steps so far.
        dt: length of the next step to try, in mean-field time.
        kkt: largest violation of the optimality conditions in the step that led here, in margin units.
        output_init: f_0(x_μ), shape (p,), the outputs that F is measured from.
        status: how the run stands.
    """

    t: float
    params: Params
    margins: Float[Tensor, " p"]
    multipliers: Float[Tensor, " p"]
    loss: float
    step: int
    dt: float
    kkt: float
    output_init: Float[Tensor, " p"]
    status: Status


def hinge_flow(
    network: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    alpha: float,
    margin_tol: float = 0.1,
    state_tol: float = 0.05,
    max_time: float = math.inf,
    max_steps: int = 20_000,
    start: State | None = None,
) -> Iterator[State]:
    """Follow Ẇ = −(h/α) ∂L/∂W with L = (1/p) Σ_μ max(0, 1 − y_μ F(x_μ)), F = α (f − f_0), until every margin is 1.

    Yields the state at t = 0 and after every accepted step; the last one carries the status that ended the run. The
    caller may stop at any time, and may go on later by passing a state as `start`: the trajectory is the same.

    One step of length dt goes to the midpoint with the multipliers of the last step, linearises there, and asks for
    multipliers that are consistent with the margins at the end of the step: margins are m + (dt/p) K c with
    K_{μν} = y_μ y_ν h α ⟨∇f(x_μ), ∇f(x_ν)⟩, and c = 1 below the margin, 0 above, in between on it. Only points whose
    multiplier is in doubt enter the quadratic program; the conditions are then checked on all points. The step is
    accepted when the true margins agree with the predicted ones and the two slopes of the midpoint rule agree.

    Args:
        network: see `networks.Network`.
        params: initial parameters W_0; they are not changed.
        x: points, shape (p, d), same dtype and device as the parameters. float64 unless you have measured otherwise.
        y: labels in {−1, +1}, shape (p,), both classes present.
        alpha: scale of the predictor, in (0, ∞); small is the feature regime, large the lazy one.
        margin_tol: accepted error of a step in the margins (counted up to margin 1.5), in margin units.
        state_tol: accepted relative difference of the slopes at the start and the middle of a step, times dt.
        max_time: mean-field time at which to stop.
        max_steps: accepted steps after which to stop.
        start: a state of an earlier run on the same network and data to go on from.

    Raises:
        TypeError: x, y or the parameters are not floating-point tensors of one dtype.
        ValueError: wrong shapes, labels other than ±1, one class only, values that are not finite, or a setting out of
            its range. Raised at the call, before the first step.
    """
    _check_data(params, x, y)
    settings = {"alpha": alpha, "margin_tol": margin_tol, "state_tol": state_tol, "max_time": max_time}
    for name, value in settings.items():
        finite = math.isfinite(value) or name == "max_time"
        if not (finite and value > 0):
            raise ValueError(f"hinge_flow: {name} must be a positive number, got {value!r}")
    if max_steps < 1:
        raise ValueError(f"hinge_flow: max_steps must be at least 1, got {max_steps!r}")
    if start is not None and start.margins.shape != y.shape:
        raise ValueError(f"hinge_flow: `start` has {len(start.margins)} points, the data have {len(y)}")
    output_init = network.linearise(params, x).output if start is None else start.output_init
    problem = _Problem(network, x, y, alpha, output_init, margin_tol, state_tol)
    return _states(problem, start or _first_state(problem, params), max_time, max_steps)


def _check_data(params: Params, x: object, y: object) -> None:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise TypeError(f"hinge_flow: x and y must be torch tensors, got {type(x).__name__} and {type(y).__name__}")
    dtypes = {x.dtype, y.dtype, *(value.dtype for value in params.values())}
    if len(dtypes) != 1 or not x.dtype.is_floating_point:
        raise TypeError(f"hinge_flow: x, y and parameters must share one floating-point dtype, got {dtypes}")
    if x.ndim != 2 or y.shape != x.shape[:1] or len(x) < 1:
        raise ValueError(f"hinge_flow: expected x (p, d) and y (p,) with p ≥ 1, got {tuple(x.shape)}, {tuple(y.shape)}")
    if not all(bool(value.isfinite().all()) for value in (x, y, *params.values())):
        raise ValueError("hinge_flow: x, y and parameters must be finite; remove nan and inf first")
    labels = set(y.unique().tolist())
    if not labels <= {-1.0, 1.0}:
        raise ValueError(f"hinge_flow: labels must be −1 or +1, got {sorted(labels)[:5]}; map your classes to ±1")
    if len(labels) < 2:
        raise ValueError(f"hinge_flow: both classes must be present, all {len(y)} labels are {labels.pop():+.0f}")


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
    speed = _norm(problem.velocity(at, c))
    dt = problem.state_tol * _norm(params) / speed if speed > 0 else 1.0
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
        c, slope, predicted, kkt = _consistent_multipliers(problem, middle, state.margins, c, dt)
        params = _move(state.params, slope, dt)
        end = problem.linearise(params)
        margins = problem.margins(end)
        error = _step_error(problem, margins, predicted, slope_start, slope, params, dt)
        if error <= 1 and kkt <= 0.01 * problem.margin_tol:
            factor = min(growth, 0.8 * max(error, 1e-3) ** -0.5)
            status = _status(margins)
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
) -> tuple[Tensor, Params, Tensor, float]:
    """Multipliers consistent with the margins they lead to, the slope and margins that follow, and the residual.

    A working set holds the points in doubt. Those that the last answer leaves inconsistent join it until there are
    none: what is returned solves the quadratic program of all p points, though only a small Gram was ever formed.
    """
    target = 1 + OVERSHOOT
    inside = torch.zeros_like(c, dtype=torch.bool)
    while True:
        slope = problem.velocity(middle, c)
        predicted = margins + dt * problem.margin_rate(middle, slope)
        gap = predicted - target
        residual = torch.where(c <= 0, -gap, torch.where(c >= 1, gap, gap.abs())).clamp(min=0)
        joining = (residual > KKT_TOL) & ~inside
        if not bool(joining.any()):
            return c, slope, predicted, float(residual.max())
        inside |= joining | ((c > 0) & (c < 1))
        rows = inside.nonzero()[:, 0]
        start = c[rows].double().cpu().numpy()
        gram = dt * problem.rate_gram(middle, rows)
        solution = boxqp(gram, gram @ start - gap[rows].double().cpu().numpy(), start, tol=0.1 * KKT_TOL)
        c = c.index_put((rows,), torch.from_numpy(solution.c).to(c))


def _step_error(
    problem: _Problem, margins: Tensor, predicted: Tensor, start: Params, middle: Params, params: Params, dt: float
) -> float:
    """Error of a step relative to its tolerances; margins count up to 1.5, since beyond they pull on nothing."""
    margin_error = float((margins.clamp(max=1.5) - predicted.clamp(max=1.5)).abs().max())
    slope_change = _norm({k: middle[k] - start[k] for k in start})
    error = max(margin_error / problem.margin_tol, dt * slope_change / (problem.state_tol * _norm(params)))
    return error if bool(margins.isfinite().all()) else math.inf


def _status(margins: Tensor) -> Status:
    return Status.FITTED if bool((margins >= 1).all()) else Status.RUNNING


def _hinge(margins: Tensor) -> float:
    return float((1 - margins).clamp(min=0).mean())


def _move(params: Params, direction: Params, length: float) -> Params:
    return {k: torch.add(params[k], direction[k], alpha=length) for k in params}


def _norm(params: Params) -> float:
    return math.sqrt(sum(float(value.square().sum()) for value in params.values()))
