"""Gradient flow of smooth losses where it is stiff: by steps that are implicit in the multipliers.

Fitted points relax much faster than the others learn, and in a deep net faster than the net moves at all, so an
explicit integrator (`smooth`) creeps. Here the tangent kernel is frozen for the length of a step and the p equations of
the margins are integrated by a method that may take any step; the weights then follow the multipliers found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geocompress.checks import Real, Whole, integer, real, training_data
from geocompress.implicit import Problem, move, norm
from geocompress.losses import Loss, checked, status
from geocompress.multipliers import coasting, integrate
from geocompress.networks import Jacobian, Network, Params
from geocompress.states import State, Status
from geocompress.svc_checks import contradictions

GROWTH = 3.0  # of a step over the last one, at most
ROUNDING = 1e-6  # least margin that relative errors are measured by
AT_REST = 1e-8  # change of margins over half the time of a run that counts as none


def stiff_flow(
    network: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    alpha: Real,
    loss: Loss,
    margin_tol: Real = 0.1,
    order: int = 2,
    inertia: Real = 0.0,
    loss_tol: Real = 1e-8,
    max_time: Real = math.inf,
    max_steps: Whole = 20_000,
    start: State | None = None,
) -> Iterator[State]:
    """Follow Ẇ = −(h/α) ∂L/∂W with L = (1/p) Σ_μ ℓ(y_μ F(x_μ)), F = α (f − f_0), for a smooth convex loss ℓ.

    Yields the state at t = 0 and after every accepted step, with the endings of `smooth.smooth_flow`, whose path it
    follows. The caller may stop at any time and go on from a state.

    A step of length dt linearises the network where it stands and integrates ṁ = K c(m)/p, c = −ℓ'(m), with
    K_{μν} = y_μ y_ν h α ⟨∇f(x_μ), ∇f(x_ν)⟩ frozen there, by the two-stage diagonally implicit Runge–Kutta method of
    order two that is L-stable (γ = 1 − 1/√2; Alexander, SIAM J. Numer. Anal. 14, 1006 (1977)), halving the time until
    it is right (`multipliers.integrate`). The weights move by the multipliers, W' = W + (h/p) Σ_μ ∫c_μ dt y_μ ∇f(x_μ),
    with the gradients half-way (order 2) or at the start (order 1). The step is accepted when the margins at W' are
    those foreseen, to `margin_tol` or, while all are below one, to that share of the largest. It costs one Gram of all
    p points and one forward pass; shorter tries after one that failed need no new Gram.

    Order 1 is no cheaper copy of order 2. Nets of many layers leave small weights by a sudden burst of growth. Order 1
    jumps into it and comes out with all of the net awake; order 2 goes through it, and on the convolution net of
    arXiv:2007.11471 comes out on a plateau, one class fitted and the other dark, that takes thousands of short steps.

    With `inertia` τ > 0 the weights follow Ẇ = V, τ V̇ = −(h/α) ∂L/∂W − V instead, V(0) = 0: the gradient averaged over
    the last τ of mean-field time, as arXiv:2007.11471 has it in its deep nets with τ = h. It delays, damps what turns
    faster than τ, and tends to the plain flow as τ → 0; the loss then need not fall at every moment.

    Args:
        network: see `networks.Network`.
        params: initial parameters W_0; they are not changed.
        x: points, shape (p, d) or (p, channels, …), same dtype and device as the parameters.
        y: labels in {−1, +1}, shape (p,), both classes present.
        alpha: scale of the predictor, in (0, ∞).
        loss: `losses.SoftHinge`, `losses.Square` or anything like them.
        margin_tol: accepted error of a step in the margins, counted up to `loss.cap`, in margin units.
        order: 2, or 1, which saves a forward and a backward pass a step; see above.
        inertia: τ, in mean-field time.
        loss_tol: mean loss at which to stop, 0 for never.
        max_time: mean-field time at which to stop.
        max_steps: accepted steps after which to stop.
        start: a state of an earlier run with the same network and data to go on from; also the last one of a run that
            ended at a limit.

    Raises:
        TypeError, ValueError: data as in `flow.hinge_flow`, or a setting out of its range. Raised at the call.
    """
    training_data(params, x, y, caller="stiff_flow")
    alpha, margin_tol = real(alpha, "alpha", 0), real(margin_tol, "margin_tol", 0)
    max_time = max_time if max_time == math.inf else real(max_time, "max_time", 0)
    if order not in (1, 2):
        raise ValueError(f"order: expected 1 or 2, got {order!r}")
    inertia, loss_tol = (
        value if value == 0 else real(value, name, 0) for name, value in (("inertia", inertia), ("loss_tol", loss_tol))
    )
    max_steps = integer(max_steps, "max_steps")
    checked(loss)
    if start is not None and start.margins.shape != y.shape:
        raise ValueError(f"stiff_flow: `start` has {len(start.margins)} points, the data have {len(y)}")
    if start is not None and (start.velocity is None) == (inertia > 0):
        expected, got = ("a velocity", "none") if inertia else ("no velocity", "one")
        raise ValueError(
            f"stiff_flow: with inertia {inertia:g} expected a `start` with {expected}, got {got}; it is of another flow"
        )
    output_init = network.forward(params, x) if start is None else start.output_init
    problem = Problem(network, x, y, alpha, output_init, margin_tol, math.inf, len(y))
    run = _Run(problem, loss, order, inertia, loss_tol, contradictions(x, y))
    return run.states(
        run.first(params) if start is None else replace(start, status=Status.RUNNING), max_time, max_steps
    )


class _Frozen(NamedTuple):
    """The network at the start of a step: products, K/p, and what the velocity of the weights does to the margins."""

    jacobian: Jacobian
    rate: Float[Tensor, "p p"]
    drift: Float[Tensor, " p"] | None


class _Tried(NamedTuple):
    """A try of a step: the weights it leads to, their velocity there, and the margins it foresees."""

    params: Params
    velocity: Params
    predicted: Tensor


@dataclass(frozen=True)
class _Run:
    problem: Problem
    loss: Loss
    order: int
    inertia: float
    loss_tol: float
    conflicts: Int[Tensor, "n 2"]

    def first(self, params: Params) -> State:
        """The state at t = 0, with a first step that moves no margin by more than one at the initial rate."""
        at, margins = self._frozen(params, None), self.problem.margins(self.problem.output_init)
        reach = float((at.rate @ -self.loss.slope(margins).double()).abs().max())
        dt = 1 / reach if reach > 0 else 1.0
        dt = max(dt, math.sqrt(self.inertia * dt))  # at rest, one moves by dt²/2τ
        velocity = {k: torch.zeros_like(value) for k, value in params.items()} if self.inertia else None
        return self._state(params, velocity, margins, 0.0, 0, dt)

    def states(self, state: State, max_time: float, max_steps: int) -> Iterator[State]:
        """The state now and after every step; the last one says why it is the last."""
        state = replace(state, status=self._status(state.margins), conflicts=self.conflicts)
        yield state
        while state.status is Status.RUNNING:
            if state.t >= max_time:
                state = replace(state, status=Status.MAX_TIME)
            elif state.step >= max_steps:
                state = replace(state, status=Status.MAX_STEPS)
            else:
                state = self._advance(state, max_time)
            yield state

    def _advance(self, state: State, max_time: float) -> State:
        """One accepted step, to `max_time` at most; shorter tries use the same Gram."""
        longest, growth = max_time - state.t, GROWTH
        dt = min(state.dt, longest)
        shortest = min(1e-10 * (state.t or state.dt), dt / 2)  # however little is left, it is tried
        at = self._frozen(state.params, state.velocity)
        finite = state.dt > 0 and bool(at.rate.isfinite().all())  # or the rate has overflown
        while dt > shortest:
            tried = self._attempt(state, at, dt)
            margins = None if tried is None else self.problem.margins(self._forward(tried.params))
            if margins is not None:  # a step that leads nowhere says nothing of them
                finite = bool(margins.isfinite().all())
            error = self._error(tried, margins) if margins is not None and finite else math.inf
            if error <= 1:
                longer = dt * min(growth, 0.8 * max(error, 1e-3) ** -0.5)
                longer = max(longer, state.dt) if dt == longest < state.dt else longer
                t = max_time if dt == longest else state.t + dt
                after = self._state(tried.params, tried.velocity, margins, t, state.step + 1, longer)
                if after.status is Status.RUNNING and dt >= state.t / 2 > 0 and self._at_rest(state, after):
                    after = replace(after, status=Status.STATIONARY)
                return after
            dt *= max(0.2, 0.8 * error**-0.5) if math.isfinite(error) else 0.2
            growth = 1.0
        return replace(state, status=Status.STALLED if finite else Status.DIVERGED)

    def _frozen(self, params: Params, velocity: Params | None) -> _Frozen:
        problem = self.problem
        at = problem.linearise(params)
        rate = at.gram(torch.arange(len(problem.y), device=problem.y.device)).double()
        signs = problem.y.double() * (problem.network.width * problem.alpha / problem.count)
        rate = rate.mul_(signs[:, None]).mul_(problem.y.double())
        return _Frozen(at, rate, None if velocity is None else problem.margin_rate(at, velocity).double())

    def _attempt(self, state: State, at: _Frozen, dt: float) -> _Tried | None:
        """A step of length dt: what the velocity carries over it, and what the multipliers add."""
        problem, velocity, margins = self.problem, state.velocity, state.margins
        found = integrate(self.loss, at.rate, margins.double(), dt, problem.margin_tol, at.drift, self.inertia)
        if found is None:
            return None
        pushes, pulls = found.pushes.to(margins), found.pulls.to(margins)
        coast, decay = coasting(dt, self.inertia)
        params = state.params if velocity is None else move(state.params, velocity, coast)
        jacobian, way = at.jacobian, problem.velocity(at.jacobian, pushes)
        if self.order == 2:
            jacobian = at.jacobian.secant(move(params, way, 1.0))
            way = problem.velocity(jacobian, pushes)
        if velocity is not None:
            turn = problem.velocity(jacobian, pulls)
            velocity = {k: torch.add(turn[k], v, alpha=decay) for k, v in velocity.items()}
        return _Tried(move(params, way, 1.0), velocity, found.margins)

    def _error(self, tried: _Tried, margins: Tensor) -> float:
        """Error relative to the tolerance, at most 1 for a good step."""
        end, foreseen = (m.double().clamp(max=self.loss.cap) for m in (margins, tried.predicted))
        missed, size = float((end - foreseen).abs().max()), float(foreseen.abs().max())
        return missed / (self.problem.margin_tol * max(min(1.0, size), ROUNDING))

    def _at_rest(self, before: State, after: State) -> bool:
        """True if a step moves neither margins nor weights (which may grow where no output feels it)."""
        if float((after.margins - before.margins).abs().max()) > AT_REST:
            return False
        moved = norm({k: after.params[k] - before.params[k] for k in after.params})
        return moved <= AT_REST * norm(after.params)

    def _forward(self, params: Params) -> Tensor:
        return self.problem.network.forward(params, self.problem.x)

    def _state(self, params: Params, velocity: Params | None, margins: Tensor, t: float, step: int, dt: float) -> State:
        loss, c = float(self.loss.value(margins).mean()), -self.loss.slope(margins)
        status, output_init = self._status(margins), self.problem.output_init
        return State(t, params, margins, c, loss, step, dt, 0.0, output_init, status, velocity, self.conflicts)

    def _status(self, margins: Tensor) -> Status:
        return status(self.loss, margins, self.conflicts, self.loss_tol)
