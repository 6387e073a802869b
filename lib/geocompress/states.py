"""What a flow yields: the state at one time, and how the run stands."""

from __future__ import annotations

import enum
import io
import os
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geocompress.networks import Params


class Status(enum.Enum):
    """How a run stands: RUNNING, or the reason why it ended."""

    RUNNING = "RUNNING"
    FITTED = "FITTED"  # every margin is at least 1; with the hinge loss the flow has then stopped by itself
    LOSS_REACHED = "LOSS_REACHED"  # a smooth loss, which never stops by itself, is as small as was asked
    # pulls cancel, see `State.pulling` and `State.conflicts`: nothing moves over a step of half the run's time, or,
    # with the hinge loss, while its time grows a thousandfold (`stillness`); or, with a soft hinge, every point is
    # fitted but those that contradict each other
    STATIONARY = "STATIONARY"
    MAX_TIME = "MAX_TIME"
    MAX_STEPS = "MAX_STEPS"
    STALLED = "STALLED"  # no step, however short, meets the tolerances
    DIVERGED = "DIVERGED"  # margins are no longer finite numbers


LIMITS = (Status.MAX_TIME, Status.MAX_STEPS)  # endings that the caller set: a run that starts from there goes on


@dataclass(frozen=True)
class State:
    """The flow at one time; also all that is needed to go on from there.

    Attributes:
        t: mean-field time.
        params: parameters of the network.
        margins: y_μ F(x_μ), shape (p,); see `flow.hinge_flow` on those at 1.5 or above.
        multipliers: c_μ, shape (p,), averaged over the step that led here, in [0, 1]; for a smooth loss −ℓ'(margin).
        loss: mean of max(0, 1 − margin), or of the smooth loss of the run.
        step: accepted steps so far.
        dt: length of the next step to try, in mean-field time.
        kkt: largest violation of the optimality conditions in the step that led here, in margin units; 0 for
            smooth losses, which have none.
        output_init: f_0(x_μ), shape (p,), the outputs that F is measured from.
        status: how the run stands.
        velocity: Ẇ, for flows with inertia (`stiff.stiff_flow`) only.
        conflicts: pairs of equal points with opposite labels, shape (n, 2), ascending; every such point is in one of
            them. No net fits both. None in files of earlier versions.
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
    velocity: Params | None = None
    conflicts: Int[Tensor, "n 2"] | None = None

    @property
    def pulling(self) -> Int[Tensor, " n"]:
        """Numbers of the points with a multiplier above 10⁻⁶, ascending.

        When a run ends STATIONARY their pulls cancel. Of two points that contradict each other one may be beyond the
        margin and pull no longer: for equal points see `conflicts`.
        """
        return (self.multipliers > 1e-6).nonzero()[:, 0]


def at_times(states: Iterable[State], times: Iterable[float]) -> Iterator[State]:
    """The flow at requested times, from the states around each: parameters, margins and loss in between.

    Multipliers are those of the step that the time falls into, over which they are a mean; `dt`, `step` and `kkt` are
    those at its end. The rest is linear in time between two accepted steps, so right to second order in the step, as
    the steps are. Times after the end of the run get its last state (a fitted net no longer moves). For a state on the
    very time, end a run there with `max_time` and go on from it as `start`.

    Args:
        states: what a flow yields; consumed only as far as needed.
        times: ascending, in mean-field time, none before the first state.

    Raises:
        ValueError: times that descend, or lie before the first state.
    """
    states = iter(states)
    before = after = next(states)
    latest = before.t
    for t in times:
        if not t >= latest:
            raise ValueError(f"at_times: expected ascending times from {before.t:g} on, got {t!r} after {latest:g}")
        latest = t
        while after.t < t and (following := next(states, None)) is not None:
            before, after = after, following
        yield _between(before, after, t) if before.t <= t < after.t else replace(after, t=t)


def _between(before: State, after: State, t: float) -> State:
    share = (t - before.t) / (after.t - before.t)
    margins = torch.lerp(before.margins, after.margins, share)
    return replace(
        after,
        t=t,
        params={k: torch.lerp(value, after.params[k], share) for k, value in before.params.items()},
        margins=margins,
        loss=before.loss + share * (after.loss - before.loss),
        status=Status.RUNNING,
    )


def save(state: State, path: Path, **notes: str | float | None) -> None:
    """Keep a state in a file, whole or not at all, with notes of your own; see `load`."""
    content = {field.name: getattr(state, field.name) for field in fields(state)} | {"status": state.status.value}
    partial = path.with_name(f".{path.name}.partial")
    torch.save({"state": content, "notes": notes}, partial)
    os.replace(partial, path)


def load(path: Path, device: str = "cpu") -> tuple[State, dict[str, str | float | None]]:
    """A state from a file of `save`, and the notes: what a flow takes as `start` to go on to the same trajectory.

    The tensors go to `device`, wherever they were: it has to be that of the data.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no such file.
    """
    written = io.BytesIO(path.read_bytes())
    try:
        content = torch.load(written, weights_only=True, map_location=device)
        state = content["state"] | {"status": Status(content["state"]["status"])}
        return State(**state), content["notes"]
    except (EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        got = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: expected a state written by states.save, got {got}; delete the file") from error
