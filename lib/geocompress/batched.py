"""Many hinge flows at once, in one set of tensors on any device: `flow.hinge_flow` for replicas that train together.

Every replica takes its own steps, of its own length; what differs between them is a mask. The steps are those of
`flow`: the same to rounding until rounding is amplified. Written for a GPU, where one small net leaves most of the
machine idle. All of it runs on CPU tensors, too, and that is how it is tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from geocompress.checks import Real, Whole, integer, real, training_data
from geocompress.implicit_batched import Problems, norm
from geocompress.lockstep import BatchedState, Run, hinge_losses
from geocompress.networks import OneHidden, Params
from geocompress.networks_batched import OneHiddenBatch, tile_cells
from geocompress.states import Status

TILES = 0.25  # share of the memory budget for tiles of pre-activations; the rest is for quadratic programs


def hinge_flows(
    network: OneHidden,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    alpha: Real,
    margin_tol: Real = 0.1,
    state_tol: Real = 0.05,
    max_time: Real = math.inf,
    max_steps: Whole = 20_000,
    memory_gb: Real = 12,
    start: BatchedState | None = None,
) -> Iterator[BatchedState]:
    """Follow Ẇ = −(h/α) ∂L/∂W of B nets, each on its own points, until every run has ended; see `flow.hinge_flow`.

    Yields the state at t = 0 and after every round. In a round each running replica tries one step; those that fail
    the tolerances try a shorter one in the next, the others have moved on: compare `step`. Replicas that have ended no
    longer move, and no longer cost once half of the batch has ended. B = 1 is one run on a GPU.

    The host waits for the device in a round only: once for the size of the padded set of points in doubt; for each set
    of points that join the quadratic programs, once for its size and as often as `boxqp_batched` looks whether it is
    done; once for the outcome, eight numbers a replica.

    Args:
        network: shape of the nets.
        params: initial parameters `omega` (B, h, d), `b` (B, h), `beta` (B, h); they are not changed.
        x: points, shape (B, p, d), same dtype and device as the parameters.
        y: labels in {−1, +1}, shape (B, p), both classes present in each replica.
        alpha: scale of the predictor; this and the next four are as in `flow.hinge_flow`, the same for all replicas.
        margin_tol: accepted error of a step in the margins.
        state_tol: accepted relative difference of the slopes within a step, times dt.
        max_time: mean-field time at which to stop.
        max_steps: accepted steps of a replica after which it stops.
        memory_gb: budget for what is held besides states and data, in 10⁹ bytes: pre-activations in tiles of neurons
            and quadratic programs, of some of the replicas at a time when not all fit. A program of n points needs
            10⁻⁷ n², so 10 are enough for any set of 10⁴ points.
        start: a state of an earlier run on the same networks and data to go on from. Replicas that ended MAX_TIME or
            MAX_STEPS go on, too, when the new limits allow; those that ended otherwise stay where they are.

    Raises:
        TypeError: as `flow.hinge_flow`, for any replica.
        ValueError: as `flow.hinge_flow`, or shapes without a common batch axis, or a budget that does not hold the
            smallest tile. Raised at the call, before the first step. Later only when the points in doubt of a replica
            have become so many that their quadratic program does not fit into the budget.
    """
    _checked(network, params, x, y)
    alpha, margin_tol = real(alpha, "alpha", 0), real(margin_tol, "margin_tol", 0)
    state_tol, max_time = (
        value if value == math.inf else real(value, name, 0)
        for name, value in (("state_tol", state_tol), ("max_time", max_time))
    )
    max_steps, budget = integer(max_steps, "max_steps"), real(memory_gb, "memory_gb", 0) * 1e9
    if start is not None and start.margins.shape != y.shape:
        raise ValueError(f"hinge_flows: `start` has margins {tuple(start.margins.shape)}, the data {tuple(y.shape)}")
    nets = OneHiddenBatch(network, tile_cells(x, network, TILES * budget))
    x = nets.augment(x)
    output_init = nets.forward(params, x) if start is None else start.output_init
    programs = (1 - TILES) * budget
    problems = Problems(nets, x, y, alpha, output_init, state_tol, y.shape[1], programs)
    return Run(problems, start or _first_state(problems, params), margin_tol, max_time, max_steps).states()


def _checked(network: OneHidden, params: Params, x: Tensor, y: Tensor) -> None:
    for name, value in {"x": x, "y": y, **params}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"hinge_flows: {name} must be a torch tensor, got {type(value).__name__}; convert it first")
    batch, d, h = len(x), network.d, network.width
    shapes = {k: tuple(v.shape) for k, v in params.items()} | {"x": tuple(x.shape), "y": tuple(y.shape)}
    p = x.shape[1] if x.ndim > 1 else 1
    expected = {"omega": (batch, h, d), "b": (batch, h), "beta": (batch, h), "x": (batch, p, d), "y": (batch, p)}
    if shapes != expected or batch < 1:
        raise ValueError(f"hinge_flows: expected B ≥ 1 and {expected}, got {shapes}; stack the replicas in front")
    for i in range(batch):
        training_data({k: v[i] for k, v in params.items()}, x[i], y[i], caller=f"hinge_flows, replica {i}")


def _first_state(problems: Problems, params: Params) -> BatchedState:
    at = problems.nets.linearise(params, problems.x)
    margins = problems.margins(problems.output_init)
    c = (margins < 1).to(margins)
    velocity = problems.velocity(at, c)
    speed, size = norm(velocity).cpu().numpy(), norm(params).cpu().numpy()
    reach = problems.margin_rate(at, velocity).abs().amax(1).double().cpu().numpy()
    with np.errstate(divide="ignore"):
        first_meeting = np.where(reach > 0, 1 / reach, 1.0)  # no point meets the margin before
        by_state = problems.state_tol * size / speed
    dt = np.fmin(np.where(speed > 0, by_state, math.inf), first_meeting)
    zeros, loss = np.zeros(len(dt)), hinge_losses(margins).cpu().numpy()
    status = tuple(Status.FITTED if done else Status.RUNNING for done in (margins >= 1).all(1).tolist())
    step = np.zeros(len(dt), dtype=np.int64)
    return BatchedState(zeros, dt, loss, zeros, step, params, margins, c, problems.output_init, status)
