"""The rounds of many flows in one set of tensors: one try of a step for each, and what the host decides of it.

Lengths, times and decisions of the replicas are vectors of the host, which follow `flow` word for word; parameters,
margins and multipliers are tensors that stay on their device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from geocompress.implicit import KKT_TOL, ORDER_BOUND
from geocompress.implicit_batched import Problems, Steps, attempt, norm, padded, padded_size
from geocompress.networks import Params
from geocompress.screening import CAP
from geocompress.states import LIMITS, State, Status
from geocompress.stillness import Anchors
from geocompress.svc_checks import contradictions


@dataclass(frozen=True)
class BatchedState:
    """The flows at one time each; also all that is needed to go on from there. See `State` for the units.

    Numbers of a replica (t, dt, loss, kkt, step) lie on the host, tensors on the device; B comes first.

    Attributes:
        t: mean-field times.
        dt: lengths of the next steps to try.
        loss: hinge losses.
        kkt: largest violation of the optimality conditions in the last step, in margin units.
        step: accepted steps so far.
        params: parameters, each with a batch axis.
        margins: y_μ F(x_μ), all up to date.
        multipliers: c_μ, averaged over the last step.
        output_init: f_0(x_μ).
        statuses: how each run stands.
        conflicts: contradicting points of each, see `State`.
    """

    t: Float[ndarray, " B"]
    dt: Float[ndarray, " B"]
    loss: Float[ndarray, " B"]
    kkt: Float[ndarray, " B"]
    step: Int[ndarray, " B"]
    params: Params
    margins: Float[Tensor, "B p"]
    multipliers: Float[Tensor, "B p"]
    output_init: Float[Tensor, "B p"]
    statuses: tuple[Status, ...]
    conflicts: tuple[Tensor, ...] | None = None

    def replica(self, i: int) -> State:
        """The flow of one replica, as `flow.hinge_flow` yields it; its tensors are views."""
        t, dt, loss, kkt = (float(part[i]) for part in (self.t, self.dt, self.loss, self.kkt))
        params = {k: v[i] for k, v in self.params.items()}
        margins, c, output_init = self.margins[i], self.multipliers[i], self.output_init[i]
        conflicts = None if self.conflicts is None else self.conflicts[i]
        status, step = self.statuses[i], int(self.step[i])
        return State(t, params, margins, c, loss, step, dt, kkt, output_init, status, conflicts=conflicts)


class Tries:
    """The step that each replica is trying, on the host: one that fails lends its multipliers to a shorter one."""

    def __init__(self, state: BatchedState, max_time: float) -> None:
        self.dt, self.growth, self.error, self.longest, self.shortest = (np.full(len(state.t), 0.0) for _ in range(5))
        self.begin(np.ones(len(state.t), dtype=bool), state, max_time)

    def begin(self, some: ndarray, state: BatchedState, max_time: float) -> None:
        """A new step for `some` of the replicas."""
        longest = max_time - state.t
        # steps that shrink towards a wall add up to nothing; but however little time is left, it is tried
        shortest = np.minimum(1e-10 * np.where(state.t > 0, state.t, state.dt), longest / 2)
        fresh = {"dt": np.minimum(state.dt, longest), "growth": 3.0}
        fresh |= {"error": np.where(state.dt > 0, 0.0, math.inf)}  # a first step of no length has overflown
        for name, value in (fresh | {"longest": longest, "shortest": shortest}).items():
            setattr(self, name, np.where(some, value, getattr(self, name)))

    def shorten(self, some: ndarray) -> None:
        """A shorter step for those whose last one was rejected."""
        wrong = np.isfinite(self.error) & (self.error > 1)
        factor = np.full(len(wrong), 0.2)
        factor[wrong] = np.maximum(0.2, 0.8 * self.error[wrong] ** -0.5)
        self.dt, self.growth = np.where(some, factor * self.dt, self.dt), np.where(some, 1.0, self.growth)

    def following(self, dt_before: ndarray) -> ndarray:
        """Lengths of the steps after those that were accepted."""
        longer = self.dt * np.minimum(self.growth, 0.8 * np.maximum(self.error, 1e-3) ** -0.5)
        # a step that was cut to land on a requested time says nothing about how long the next one may be
        cut = (self.dt == self.longest) & (self.longest < dt_before)
        return np.where(cut, np.maximum(longer, dt_before), longer)


class Run:
    """Flows on their way.

    `live` numbers the replicas that are in the tensors below, of which some may have ended; the host's numbers are
    those of all. Points in `doubt` enter a step, as in `flow`; all others are looked at after it. `c` are the
    multipliers of the last try, which may have failed.
    """

    def __init__(
        self, problems: Problems, state: BatchedState, margin_tol: float, max_time: float, max_steps: int
    ) -> None:
        self.problems, self.margin_tol, self.max_time, self.max_steps = problems, margin_tol, max_time, max_steps
        margins = problems.margins(problems.nets.forward(state.params, problems.x))
        statuses = tuple(Status.RUNNING if status in LIMITS else status for status in state.statuses)
        conflicts = tuple(map(contradictions, problems.x, problems.y))
        self.state = replace(state, margins=margins, statuses=statuses, conflicts=conflicts)
        self._end_at_limits(self._running())
        self.live = np.arange(len(state.t))
        self.params, self.margins, self.multipliers = state.params, margins, state.multipliers
        self.c, self.doubt = self.multipliers, (margins < CAP) | (self.multipliers > 0)
        self.tries = Tries(self.state, max_time)
        self.anchors = Anchors(state.t, state.step, state.params, margins, margin_tol, problems.state_tol)
        self._end_stuck()

    def states(self) -> Iterator[BatchedState]:
        """The states now and after every round."""
        yield self.state
        while (running := self._running()).any():
            if 2 * running[self.live].sum() <= len(self.live):
                self._compact(running[self.live])
            self._round(running)
            yield self.state

    def _running(self) -> ndarray:
        return np.array([status is Status.RUNNING for status in self.state.statuses])

    def _end_stuck(self) -> None:
        """End the replicas whose steps have become too short."""
        stuck = np.where(self.anchors.rested(self.state.t), Status.STATIONARY, Status.STALLED)
        ended = np.where(np.isfinite(self.tries.error), stuck, Status.DIVERGED)
        self._end(self._running() & ~(self.tries.dt > self.tries.shortest), ended)

    def _end_at_limits(self, some: ndarray) -> None:
        """End those of `some` replicas that have come to a limit of the caller."""
        self._end(some & (self.state.step >= self.max_steps), np.array(Status.MAX_STEPS))
        self._end(some & (self.state.t >= self.max_time), np.array(Status.MAX_TIME))

    def _end(self, some: ndarray, statuses: ndarray) -> None:
        chosen = np.where(some, statuses, np.array(self.state.statuses))
        self.state = replace(self.state, statuses=tuple(chosen))

    def _compact(self, kept: ndarray) -> None:
        """Drop the replicas that have ended from the tensors that are worked with."""
        rows = torch.from_numpy(kept.nonzero()[0]).to(self.margins.device)
        self.live, self.problems = self.live[kept], self.problems.take(rows)
        self.anchors.compact(rows)
        self.params = {k: v[rows] for k, v in self.params.items()}
        self.margins, self.multipliers, self.c, self.doubt = (
            part[rows] for part in (self.margins, self.multipliers, self.c, self.doubt)
        )

    def _round(self, running: ndarray) -> None:
        """One try of a step of every running replica, and what comes of it."""
        going = torch.from_numpy(running[self.live]).to(self.doubt.device)[:, None]
        doubt = self.doubt & going
        rows, exists = padded(doubt, padded_size(int(doubt.sum(1).max()), doubt.shape[1]))
        part = self.problems.among(rows, exists)
        dt = torch.from_numpy(np.where(running, self.tries.dt, 0.0)[self.live]).to(self.margins.device)
        margins = self.margins.gather(1, rows).masked_fill(~exists, 2 * CAP)
        tried = attempt(part, self.params, margins, self.c.gather(1, rows) * exists, dt)
        c = self.c.scatter(1, rows, torch.where(exists, tried.multipliers, self.c.gather(1, rows)))
        margins = self.problems.margins(self.problems.nets.forward(tried.params, self.problems.x))
        fallen = (margins < 1) & ~doubt & going
        facts = self._facts(tried, margins, c, fallen, rows, exists)
        accepted = torch.from_numpy(self._decide(running, facts)[self.live]).to(self.doubt.device)[:, None]
        self.c = c
        # those that have fallen though they were left out: in with them, and again
        self.doubt = torch.where(accepted, (margins < CAP) | (c > 0), self.doubt | fallen)
        self.margins = torch.where(accepted, margins, self.margins)
        self.multipliers = torch.where(accepted, c, self.multipliers)
        self.params = {
            k: torch.where(accepted.view(-1, *[1] * (v.ndim - 1)), tried.params[k], v) for k, v in self.params.items()
        }
        self.anchors.follow(self.live, self.params, self.margins)
        self._publish()

    def _facts(
        self, tried: Steps, margins: Tensor, c: Tensor, fallen: Tensor, rows: Tensor, exists: Tensor
    ) -> dict[str, ndarray]:
        """What the host has to know of the tries, each (B,), in one transfer."""
        seen = margins.gather(1, rows).masked_fill(~exists, 2 * CAP)
        error = (seen.clamp(max=CAP) - tried.predicted.clamp(max=CAP)).abs().amax(1).double() / self.margin_tol
        error = torch.maximum(error, tried.order_error / (ORDER_BOUND * self.margin_tol))
        error = torch.maximum(error, tried.state_error / self.problems.state_tol)
        moved = norm({k: v - self.params[k] for k, v in tried.params.items()})
        rest = (margins - self.margins).abs().amax(1) <= KKT_TOL
        if self.problems.state_tol < math.inf:
            rest &= moved <= KKT_TOL * norm(tried.params)
        facts = {
            "error": error.masked_fill(~seen.isfinite().all(1), math.inf),
            "kkt": tried.kkt,
            "fallen": fallen.any(1),
            "fitted": (margins >= 1).all(1),
            "largest": c.amax(1),
            "loss": hinge_losses(margins),
            "rest": rest,
            "moved": self.anchors.moved(tried.params, margins),
        }
        numbers = torch.stack([fact.double() for fact in facts.values()]).cpu().numpy()
        everyone = np.full((len(facts), len(self.state.t)), math.nan)
        everyone[:, self.live] = numbers
        return dict(zip(facts, everyone, strict=True))

    def _decide(self, running: ndarray, facts: dict[str, ndarray]) -> ndarray:
        """Which replicas have moved; their numbers and all the next tries are brought up to date."""
        before, tries = self.state, self.tries
        judged = running & (facts["fallen"] == 0)
        tries.error = np.where(judged, facts["error"], tries.error)
        good = (tries.error <= 1) & (facts["kkt"] <= max(0.01 * self.margin_tol, KKT_TOL))
        accepted = judged & good
        fitted = facts["fitted"] == 1
        # The flow stops by itself when the last point is fitted: after the share of the step for which the largest
        # multiplier was on. Otherwise one that was cut to land on a time is to be there, whatever the rounding.
        landed = np.where(tries.dt == tries.longest, self.max_time, before.t + tries.dt)
        t = np.where(fitted, before.t + tries.dt * facts["largest"], landed)
        moved = {"t": t, "dt": tries.following(before.dt), "step": before.step + 1}
        moved |= {name: facts[name] for name in ("loss", "kkt")}
        moved = {k: np.where(accepted, v, getattr(before, k)) for k, v in moved.items()}
        self.state = replace(before, **moved)
        self._end_at_limits(accepted)
        stationary = accepted & (tries.dt >= before.t / 2) & (facts["rest"] == 1)
        stationary |= self.anchors.still(self.state.t, self.state.step, facts["moved"], accepted)
        self._end(stationary, np.array(Status.STATIONARY))
        self._end(accepted & fitted, np.array(Status.FITTED))
        tries.shorten(judged & ~good)
        tries.begin(accepted, self.state, self.max_time)
        self._end_stuck()
        return accepted

    def _publish(self) -> None:
        """The tensors of all replicas, those that have ended included."""
        tensors = {"margins": self.margins, "multipliers": self.multipliers}
        if len(self.live) == len(self.state.t):
            self.state = replace(self.state, params=self.params, **tensors)
            return
        live = (torch.from_numpy(self.live).to(self.margins.device),)
        params = {k: v.index_put(live, self.params[k]) for k, v in self.state.params.items()}
        tensors = {k: getattr(self.state, k).index_put(live, v) for k, v in tensors.items()}
        self.state = replace(self.state, params=params, **tensors)


def hinge_losses(margins: Tensor) -> Tensor:
    """Hinge loss of each replica, float64."""
    return (1 - margins).clamp(min=0).mean(1).double()
