"""What a flow yields: the state at one time, and how the run stands."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from geocompress.networks import Params


class Status(enum.Enum):
    """How a run stands: RUNNING, or the reason why it ended."""

    RUNNING = "RUNNING"
    FITTED = "FITTED"  # every margin is at least 1; with the hinge loss the flow has then stopped by itself
    LOSS_REACHED = "LOSS_REACHED"  # a smooth loss, which never stops by itself, is as small as was asked
    STATIONARY = "STATIONARY"  # nothing moves over a step of half the run's time: points below 1 contradict others
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
        multipliers: c_μ, shape (p,), averaged over the step that led here, in [0, 1]; for a smooth loss −ℓ'(margin).
        loss: mean of max(0, 1 − margin), or of the smooth loss of the run.
        step: accepted steps so far.
        dt: length of the next step to try, in mean-field time.
        kkt: largest violation of the optimality conditions in the step that led here, in margin units; 0 for
            smooth losses, which have none.
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
