"""When a run is over though none of its steps is long: nothing has moved while its time grew a thousandfold.

Where pulls cancel, margins rest on differences of numbers that grow with the length of the step. Rounding then keeps
steps short, and a run whose points contradict each other would go on for ever. So each state is compared with an older
one, and where something has moved between them it takes its place.

The tolerances lie between what was seen of both kinds (stripe, d = 5, p = 64, h = 200, α = 10⁻⁶, two points twice with
opposite labels). At rest, rounding moved margins by up to 0.02 tolerances and weights by up to 7 · 10⁻⁵ of their norm
while time grew by 2¹⁴ to 2²⁸. On a plateau that ended in a new burst of growth, weights took 2⁵ in time to move by
10⁻⁴, though no margin had moved by 10⁻⁶. A step may triple the last: a run that is merely slow passes in twenty.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from geocompress import implicit, implicit_batched
from geocompress.networks import Params
from geocompress.screening import CAP
from geocompress.states import State

TIME = 1000.0  # growth of the time in which nothing may have moved
STUCK = 30.0  # the same for a run that no step, however short, takes further: rounding has the last word there
STEPS = 100  # accepted steps in it, at least; none for a run that has no step left to take
MARGINS = 0.03  # change of a margin, counted up to `CAP`, that counts as none, in tolerances of a step
WEIGHTS = 1e-4  # change of the weights that counts as none, relative to their norm


class Anchor:
    """The state since which a run stands still."""

    def __init__(self, state: State, margin_tol: float, state_tol: float) -> None:
        self.since, self.margin_tol, self.weights_count = state, margin_tol, state_tol < math.inf

    def still(self, state: State) -> bool:
        """True if all has stood still for long enough; to be asked at each step."""
        since = self.since
        if since.t == 0 or self._moved(state):
            self.since = state
            return False
        return state.t >= TIME * since.t and state.step - since.step >= STEPS

    def rested(self, state: State) -> bool:
        """True if all has stood still for long enough for a run that no step takes further."""
        return state.t >= STUCK * self.since.t > 0

    def _moved(self, state: State) -> bool:
        since = self.since
        if float((state.margins.clamp(max=CAP) - since.margins.clamp(max=CAP)).abs().max()) > MARGINS * self.margin_tol:
            return True
        way = {k: value - since.params[k] for k, value in state.params.items()} if self.weights_count else {}
        return bool(way) and implicit.norm(way) > WEIGHTS * implicit.norm(state.params)


class Anchors:
    """The same for the replicas of a batch: numbers on the host for all, tensors of those that are worked with."""

    def __init__(
        self, t: ndarray, step: ndarray, params: Params, margins: Tensor, margin_tol: float, state_tol: float
    ) -> None:
        self.t, self.step, self.params, self.margins = t, step, params, margins
        self.margin_tol, self.weights_count = margin_tol, state_tol < math.inf

    def compact(self, rows: Tensor) -> None:
        """Drop the replicas that are not in `rows`."""
        self.params, self.margins = {k: v[rows] for k, v in self.params.items()}, self.margins[rows]

    def moved(self, params: Params, margins: Tensor) -> Bool[Tensor, " b"]:
        """Which replicas are elsewhere than at their anchors."""
        moved = (margins.clamp(max=CAP) - self.margins.clamp(max=CAP)).abs().amax(1) > MARGINS * self.margin_tol
        if self.weights_count:
            way = implicit_batched.norm({k: value - self.params[k] for k, value in params.items()})
            moved |= way > WEIGHTS * implicit_batched.norm(params)
        return moved

    def still(self, t: Float[ndarray, " B"], step: ndarray, moved: ndarray, accepted: ndarray) -> Bool[ndarray, " B"]:
        """Which of the `accepted` replicas have stood still for long enough, with their times and steps now."""
        self.leaving = accepted & ((moved == 1) | (self.t == 0))
        self.t, self.step = np.where(self.leaving, t, self.t), np.where(self.leaving, step, self.step)
        return accepted & (t >= TIME * self.t) & (self.t > 0) & (step - self.step >= STEPS)

    def rested(self, t: Float[ndarray, " B"]) -> Bool[ndarray, " B"]:
        """Which replicas have stood still for long enough for a run that no step takes further."""
        return (t >= STUCK * self.t) & (self.t > 0)

    def follow(self, live: ndarray, params: Params, margins: Tensor) -> None:
        """New anchors, at the states now, for the replicas that the last call of `still` found to have moved."""
        leaving = torch.from_numpy(self.leaving[live]).to(margins.device)[:, None]
        self.margins = torch.where(leaving, margins, self.margins)
        self.params = {
            k: torch.where(leaving.view(-1, *[1] * (v.ndim - 1)), v, self.params[k]) for k, v in params.items()
        }
