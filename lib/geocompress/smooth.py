"""Gradient flow of smooth losses, by an adaptive explicit integrator; the states are those of `flow`.

A smooth loss has no surface to slide on, so an adaptive Runge–Kutta method does well where the hinge needs the
implicit step of `flow`; where fitted points relax much faster than the others learn, take `stiff`. The integrator is
one of scipy's, moved one step at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy import ndarray
from scipy.integrate import RK23, OdeSolver
from torch import Tensor

from geocompress.checks import integer, real, training_data
from geocompress.losses import Loss, checked, status
from geocompress.networks import Network, Params
from geocompress.states import State, Status
from geocompress.svc_checks import contradictions


def smooth_flow(
    network: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    alpha: float,
    loss: Loss,
    rtol: float = 1e-3,
    method: type[OdeSolver] = RK23,
    loss_tol: float = 1e-8,
    max_time: float = math.inf,
    max_steps: int = 100_000,
    start: State | None = None,
) -> Iterator[State]:
    """Follow Ẇ = −(h/α) ∂L/∂W with L = (1/p) Σ_μ ℓ(y_μ F(x_μ)), F = α (f − f_0), for a smooth convex loss ℓ.

    Yields the state at t = 0 and after every step; the last one carries the status that ended the run: FITTED (every
    margin is at least `loss.fitted_margin`), LOSS_REACHED, STATIONARY (every margin but those of contradicting points),
    MAX_TIME, MAX_STEPS, STALLED or DIVERGED. The caller may stop at any time and go on from a state, with the same
    `params`.

    What is integrated is the displacement W − W_0, in float64 on the CPU, with relative tolerance `rtol` per step and
    an absolute one of `rtol` times the smaller of two root-mean-square lengths: of W_0, and of the displacement that
    moves some margin by one at the initial velocity. So the tolerance holds in the lazy regime too, where margins move
    far while weights hardly do. The network is evaluated in the dtype and on the device of its parameters.

    Every ReLU that switches puts a kink into the velocity, where a high order is wasted. For margins right to 2.3e-4 on
    a net of 40 neurons (p = 14, soft hinge of sharpness 3, to t = 5) RK23 took 1268 evaluations; DOP853 took 6633 for
    3.3e-4. The default RK23 at 1e-3 took 167 for 4e-3. For kernels and nets without kinks choose DOP853. Sharp losses
    of strong kernels are stiff: steps are then limited by stability, to about 2.5 p / (ℓ'' ‖K‖) with RK23.

    Args:
        network: see `networks.Network`.
        params: initial parameters W_0; they are not changed.
        x: points, shape (p, d) or (p, channels, …), same dtype and device as the parameters.
        y: labels in {−1, +1}, shape (p,), both classes present.
        alpha: scale of the predictor, in (0, ∞).
        loss: `SoftHinge`, `Square` or anything like them.
        rtol: tolerance of a step, dimensionless; at least 100 times the rounding of the parameters' dtype.
        method: class of an explicit integrator of scipy: RK23, RK45 or DOP853.
        loss_tol: mean loss at which to stop, 0 for never.
        max_time: mean-field time at which to stop.
        max_steps: steps after which to stop.
        start: a state of an earlier run with the same network, data and parameters W_0 to go on from; also the last one
            of a run that ended at a limit.

    Raises:
        TypeError, ValueError: data as in `flow.hinge_flow`, or a setting out of its range. Raised at the call.
    """
    training_data(params, x, y, caller="smooth_flow")
    real(alpha, "alpha", 0)
    finest = 100 * torch.finfo(x.dtype).eps
    if not finest <= real(rtol, "rtol", 0) < 1:
        raise ValueError(f"smooth_flow: expected rtol in [{finest:.2g}, 1) for {x.dtype}, got {rtol:g}; see `dtype`")
    if not 0 <= loss_tol < math.inf:
        raise ValueError(f"smooth_flow: expected loss_tol in [0, ∞), got {loss_tol!r}; 0 never stops by the loss")
    if not max_time > 0:
        raise ValueError(f"smooth_flow: max_time must be a positive number, got {max_time!r}; inf for no limit")
    integer(max_steps, "max_steps")
    checked(loss)
    if start is not None and start.margins.shape != y.shape:
        raise ValueError(f"smooth_flow: `start` has {len(start.margins)} points, the data have {len(y)}")
    problem = _Problem(network, params, x, y, alpha, loss, rtol, loss_tol)
    return _states(problem, method, start, max_time, max_steps)


class _Problem:
    """The flow as scipy sees it: a velocity of flat displacements; and as the caller does: states."""

    def __init__(
        self, network: Network, params: Params, x: Tensor, y: Tensor, alpha: float, loss: Loss, rtol: float, tol: float
    ) -> None:
        self._network, self._params, self._x, self._y = network, params, x, y
        self._alpha, self._loss, self.rtol, self._loss_tol = alpha, loss, rtol, tol
        at = network.linearise(params, x)
        self.output_init = at.output
        velocity = at.pullback(self._push(self.margins(at.output)))
        rate = float((alpha * at.pushforward(velocity)).abs().max())
        lengths = [_rms(_flat(params)), *([_rms(_flat(velocity)) / rate] if rate > 0 else [])]
        self.atol = rtol * min((length for length in lengths if length > 0), default=1.0)
        self.finite = True
        self.conflicts = contradictions(x, y)

    def margins(self, output: Tensor) -> Tensor:
        return self._alpha * self._y * (output - self.output_init)

    def _push(self, margins: Tensor) -> Tensor:
        """Cotangent of Ẇ = (h/p) Σ_μ c_μ y_μ ∇f(x_μ), the factor α of ∇F and of mean-field time having cancelled."""
        return -self._loss.slope(margins) * self._y * (self._network.width / len(self._y))

    def velocity(self, _: float, displacement: ndarray) -> ndarray:
        at = self._network.linearise(self.params(displacement), self._x)
        velocity = _flat(at.pullback(self._push(self.margins(at.output))))
        self.finite = bool(np.isfinite(velocity).all())
        return velocity

    def params(self, displacement: ndarray) -> Params:
        parts = np.split(displacement, np.cumsum([value.numel() for value in self._params.values()])[:-1])
        pairs = zip(self._params.items(), parts, strict=True)
        return {k: v + torch.from_numpy(part).to(v).reshape(v.shape) for (k, v), part in pairs}

    def displacement(self, params: Params) -> ndarray:
        return _flat({k: params[k].double() - v.double() for k, v in self._params.items()})

    def state(self, params: Params, t: float, step: int, dt: float) -> State:
        margins = self.margins(self._network.forward(params, self._x))
        loss, c = float(self._loss.value(margins).mean()), -self._loss.slope(margins)
        output_init, conflicts, status = self.output_init, self.conflicts, self.status(margins)
        return State(t, params, margins, c, loss, step, dt, 0.0, output_init, status, conflicts=conflicts)

    def status(self, margins: Tensor) -> Status:
        """What margins say of the run."""
        return status(self._loss, margins, self.conflicts, self._loss_tol)


def _states(
    problem: _Problem, method: type[OdeSolver], start: State | None, max_time: float, max_steps: int
) -> Iterator[State]:
    if start is None:
        begin = problem.state(problem._params, 0.0, 0, 0.0)
    else:
        begin = replace(start, status=problem.status(start.margins), conflicts=problem.conflicts)
    settings = {"rtol": problem.rtol, "atol": problem.atol}
    if start is not None and start.dt > 0:
        settings["first_step"] = min(start.dt, max_time - start.t)
    solver = None
    if begin.status is Status.RUNNING and begin.t < max_time:
        solver = method(problem.velocity, begin.t, problem.displacement(begin.params), max_time, **settings)
    state = begin if start is not None or solver is None else replace(begin, dt=float(solver.h_abs))
    yield state
    while state.status is Status.RUNNING:
        if state.t >= max_time:
            state = replace(state, status=Status.MAX_TIME)
        elif state.step >= max_steps:
            state = replace(state, status=Status.MAX_STEPS)
        else:
            state = _advance(problem, solver, state)
        yield state


def _advance(problem: _Problem, solver: OdeSolver, state: State) -> State:
    """One step of the integrator; a failed one leaves the state where it was and names the reason."""
    with np.errstate(over="ignore", invalid="ignore"):  # a step into overflow is rejected, and named if it persists
        solver.step()
    if solver.status == "failed":
        return replace(state, status=Status.STALLED if problem.finite else Status.DIVERGED)
    return problem.state(problem.params(solver.y), float(solver.t), state.step + 1, float(solver.h_abs))


def _flat(params: Params) -> ndarray:
    return torch.cat([value.detach().flatten() for value in params.values()]).double().cpu().numpy()


def _rms(vector: ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(vector))))
