"""Gradient flow of the hinge loss, solved as the differential inclusion it is.

The flow Ẇ = (h/p) Σ_μ c_μ y_μ ∇f(x_μ) has multipliers c_μ = 1 below margin 1, 0 above, and anything in [0, 1] exactly
on it, where fitted points slide (a Filippov inclusion). Explicit integrators chatter across that surface. Here the
multipliers of a step are chosen so that they are consistent with the margins at its *end*, a convex quadratic program
(`boxqp`); no step is spent on chattering.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from geocompress import implicit, screening
from geocompress.checks import Real, Whole, integer, real, training_data
from geocompress.implicit import KKT_TOL, Problem, norm
from geocompress.networks import Linearisation, Network, Params
from geocompress.states import LIMITS, State, Status
from geocompress.stillness import Anchor
from geocompress.svc_checks import contradictions

# All points are looked at, and those that stay awake chosen anew, once the steps since the last time have worked with
# as many points as this number of steps on all of them would.
PATIENCE = 4


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
    all_margins: bool = True,
) -> Iterator[State]:
    """Follow Ẇ = −(h/α) ∂L/∂W with L = (1/p) Σ_μ max(0, 1 − y_μ F(x_μ)), F = α (f − f_0), until every margin is 1.

    Yields the state at t = 0 and after every accepted step; the last one carries the status that ended the run. The
    caller may stop at any time, and may go on later by passing a state as `start`: the trajectory is the same. Only how
    long nothing has moved is counted anew, so a run that never fits ends STATIONARY later if it is restarted.

    One step of length dt looks where the multipliers of the last step lead, takes the mean of the Jacobian on the way
    there (`Linearisation.secant`), and asks for multipliers that are consistent with the margins at the end of the
    step: margins are m + (dt/p) K c with K_{μν} = y_μ y_ν h α ⟨∇f(x_μ), ∇f(x_ν)⟩ of the mean gradients, and c = 1 below
    the margin, 0 above, in between on it. Only points whose multiplier is in doubt enter the quadratic program; the
    conditions are then checked on all points. The step is accepted when the true margins agree with the predicted ones,
    the slopes at its start and on average agree, and little depends on the order in which points met the margin within
    it (a single step to the end would find the hard-margin classifier of the kernel, which the flow is not).

    Args:
        network: see `networks.Network`.
        params: initial parameters W_0; they are not changed.
        x: points, shape (p, d), same dtype and device as the parameters. float64 unless you have measured otherwise.
        y: labels in {−1, +1}, shape (p,), both classes present.
        alpha: scale of the predictor, in (0, ∞); small is the feature regime, large the lazy one.
        margin_tol: accepted error of a step in the margins (counted up to margin 1.5), in margin units.
        state_tol: accepted relative difference of the slope at the start of a step and its mean, times dt; inf asks
            nothing of it, which is right where the output is linear in the parameters.
        max_time: mean-field time at which to stop.
        max_steps: accepted steps after which to stop.
        start: a state of an earlier run on the same network and data to go on from; also the last one of a run that
            ended MAX_TIME or MAX_STEPS, when the new limits allow.
        all_margins: bring all margins up to date for every state. When False, those at 1.5 or above (and provably
            still there) may be as old as `PATIENCE` p / (points awake) steps, save in the last state; nothing else
            changes.

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
    output_init = network.forward(params, x) if start is None else start.output_init
    problem = Problem(network, x, y, alpha, output_init, margin_tol, state_tol, len(y))
    return _Run(problem, start or _first_state(problem, params), all_margins).states(max_time, max_steps)


def _first_state(problem: Problem, params: Params) -> State:
    at = problem.linearise(params)
    margins = problem.margins(problem.output_init)
    c = (margins < 1).to(margins)
    velocity = problem.velocity(at, c)
    speed, reach = norm(velocity), float(problem.margin_rate(at, velocity).abs().max())
    by_state = problem.state_tol * norm(params) / speed if speed > 0 and problem.state_tol < math.inf else math.inf
    dt = min(by_state, 1 / reach if reach > 0 else 1.0)  # no point meets the margin before 1 / reach
    return State(0.0, params, margins, c, _hinge(margins), 0, dt, 0.0, problem.output_init, _status(margins))


class _Run:
    """A flow on its way.

    Three kinds of points. Those `in doubt`, below `screening.CAP` or with a multiplier, enter the step. The others
    that are awake are looked at after it: none may have fallen below the margin. Those asleep cannot have: their
    margins were seen at the parameters `seen`; until the weights have gone `reach` from there none is below the cap.
    """

    def __init__(self, problem: Problem, state: State, all_margins: bool) -> None:
        self.whole, self.all_margins = problem, all_margins
        self.sizes = problem.alpha * problem.network.sizes(problem.x)
        margins = problem.margins(problem.network.forward(state.params, problem.x))
        status = _status(margins) if state.status in LIMITS else state.status
        conflicts = contradictions(problem.x, problem.y)
        self.state = replace(state, margins=margins, status=status, conflicts=conflicts)
        self.anchor = Anchor(self.state, problem.margin_tol, problem.state_tol)
        self._wake(0.0)

    def states(self, max_time: float, max_steps: int) -> Iterator[State]:
        """The state now and after every step; the last one says why it is the last."""
        yield self.state
        while self.state.status is Status.RUNNING:
            if self.state.t >= max_time:
                self.state = replace(self.state, status=Status.MAX_TIME)
            elif self.state.step >= max_steps:
                self.state = replace(self.state, status=Status.MAX_STEPS)
            else:
                self._advance(max_time)
            if self.all_margins or self.state.status is not Status.RUNNING:
                self._look()
            yield self.state

    def _advance(self, max_time: float) -> None:
        """One accepted step, to `max_time` at most; a rejected try lends its multipliers to the next, shorter one."""
        state, c = self.state, self.state.multipliers
        longest, growth = max_time - state.t, 3.0
        dt = min(state.dt, longest)
        # steps that shrink towards a wall add up to nothing; but however little time is left, it is tried
        shortest = min(1e-10 * (state.t or state.dt), longest / 2)
        rows, part, at = self._in_doubt((state.margins < screening.CAP) | (c > 0))
        error = 0.0 if state.dt > 0 else math.inf  # a first step of no length has overflown
        while dt > shortest:
            tried = implicit.attempt(part, at, state.params, state.margins[rows], c[rows], dt)
            c = c.index_copy(0, rows, tried.multipliers)
            margins = self._margins(tried.params)
            fallen = (margins < 1).index_fill(0, rows, False)
            if bool(fallen.any()):  # though it was left out: in with it, and again
                rows, part, at = self._in_doubt(fallen.index_fill(0, rows, True))
                continue
            error = tried.error(part, margins[rows])
            if error <= 1 and tried.kkt <= max(0.01 * self.whole.margin_tol, KKT_TOL):
                # A step that was cut to land on a requested time says nothing about how long the next one may be.
                longer = dt * min(growth, 0.8 * max(error, 1e-3) ** -0.5)
                longer = max(longer, state.dt) if dt == longest < state.dt else longer
                # t + (max_time − t) need not be max_time in floating point
                self._accept(tried, margins, c, max_time if dt == longest else state.t + dt, longer)
                return
            dt *= max(0.2, 0.8 * error**-0.5) if math.isfinite(error) and error > 1 else 0.2
            growth = 1.0
        stuck = Status.STATIONARY if self.anchor.rested(state) else Status.STALLED
        self.state = replace(state, status=stuck if math.isfinite(error) else Status.DIVERGED)

    def _in_doubt(self, chosen: Tensor) -> tuple[Tensor, Problem, Linearisation]:
        """Numbers of the chosen points, the problem on them, and the network there at the parameters of the state."""
        rows = chosen.nonzero()[:, 0]
        part = self.whole.among(rows)
        return rows, part, part.linearise(self.state.params)

    def _accept(self, tried: implicit.Step, margins: Tensor, c: Tensor, t: float, longer: float) -> None:
        before, status = self.state, _status(margins)
        dt = t - before.t
        if status is Status.RUNNING and dt >= before.t / 2 and self._at_rest(tried.params, margins):
            status = Status.STATIONARY
        # The flow stops by itself when the last point is fitted: that is the share of the step for which the largest
        # multiplier was on.
        t = before.t + dt * float(c.max()) if status is Status.FITTED else t
        loss, step, params = _hinge(margins), before.step + 1, tried.params
        self.state = replace(
            before, t=t, params=params, margins=margins, multipliers=c, loss=loss, step=step, dt=longer, kkt=tried.kkt
        )
        if self.anchor.still(self.state) and status is Status.RUNNING:
            status = Status.STATIONARY
        self.state = replace(self.state, status=status)
        self.work += len(self.rows)
        if self.work >= PATIENCE * self.whole.count:
            self._look()
            self._wake(self.whole.network.distance(before.params, params))

    def _margins(self, params: Params) -> Tensor:
        """All margins at `params`; of points asleep, which cannot be below the cap there, the last that was seen."""
        if self.reach < math.inf and self.whole.network.distance(self.seen, params) > self.reach:
            self._look()
            self._wake(self.whole.network.distance(self.state.params, params))
        margins = self.awake.margins(self.whole.network.forward(params, self.awake.x))
        return self.state.margins.index_copy(0, self.rows, margins)

    def _look(self) -> None:
        """Bring the margins of all points up to date."""
        asleep = torch.ones_like(self.whole.y, dtype=torch.bool).index_fill(0, self.rows, False).nonzero()[:, 0]
        if len(asleep):
            part = self.whole.among(asleep)
            margins = part.margins(part.network.forward(self.state.params, part.x))
            self.state = replace(self.state, margins=self.state.margins.index_copy(0, asleep, margins))

    def _wake(self, speed: float) -> None:
        """Choose anew which points are awake, all margins being up to date; `speed` is the way of the last step."""
        self.seen, self.work = self.state.params, 0
        idle = self.state.margins.where(self.state.multipliers <= 0, 0.0)  # a point that pulls is never asleep
        self.rows, self.reach = screening.awake(idle, self.sizes, speed)
        self.awake = self.whole.among(self.rows)

    def _at_rest(self, params: Params, margins: Tensor) -> bool:
        """True if a step moves neither margins nor weights (kernel coefficients may grow where no margin feels it)."""
        if float((margins - self.state.margins).abs().max()) > KKT_TOL:
            return False
        moved = norm({k: params[k] - self.state.params[k] for k in params})
        return self.whole.state_tol == math.inf or moved <= KKT_TOL * norm(params)


def _status(margins: Tensor) -> Status:
    return Status.FITTED if bool((margins >= 1).all()) else Status.RUNNING


def _hinge(margins: Tensor) -> float:
    return float((1 - margins).clamp(min=0).mean())
