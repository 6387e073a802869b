"""From a configuration of a network to a row that says how its weight is spread over the angles of x_∥ = (x_1, x_2)."""

from __future__ import annotations

from typing import Any

from geocompress import compression, experiments, store, tasks
from geocompress.angles import isotropy
from geocompress.experiments import NetworkConfig


def train_to_the_end(config: NetworkConfig) -> dict[str, Any]:
    """Train one network to the end of its flow; the row of `experiments.train_network`, with the isotropy as well.

    The columns are those that learning curves and amplifications are drawn from (without steps and wall time), and
    `isotropy_init`, `isotropy_star`, `isotropy_end` of the arrows β_n ω_n in the plane of x_1 and x_2, at the start, at
    t* (nan if no tenth of the points was ever fitted) and at the end.

    Raises:
        ValueError: a task whose label does not depend on two directions.
    """
    _check(config)
    about = store.provenance(device=config.device, dtype=config.dtype)
    recording = experiments.record_network(config, test_size=1)
    marks = experiments.milestones(recording.series)
    at_star = recording.planes[(recording.series.t == marks["t_star"]).to_numpy()]
    return {
        "d_parallel": recording.replica.task.d_parallel,
        "regime": "feature" if config.alpha < 1 else "lazy",
        "method": "network",
        "test_error": recording.replica.test_error(recording.end.params),
        **marks,
        "isotropy_init": isotropy(recording.planes[0]),
        "isotropy_star": isotropy(at_star[0]) if len(at_star) else None,
        "isotropy_end": isotropy(recording.planes[-1]),
        "status": recording.end.status.value,
        **about,
    }


def train_to_fitting(config: NetworkConfig) -> dict[str, Any]:
    """Train one network to t*, when a tenth of the points is fitted, which is cheap at any p.

    The row has `t_star`, `lambda_first` (λ when the first point is fitted), `lambda_star`, `isotropy_star` and
    `isotropy_init`; `test_size` has no effect.

    Raises:
        ValueError: a task whose label does not depend on two directions.
        RuntimeError: the flow ended before.
    """
    _check(config)
    about = store.provenance(device=config.device, dtype=config.dtype)
    replica = experiments.Replica(config)
    lambda_first = None
    for state in replica.states():
        fitted = compression.fitted_fraction(state.margins)
        if lambda_first is None and fitted > 0:
            lambda_first = replica.amplification(state.params)
        if fitted >= experiments.FIT_SHARE:
            return {
                "d_parallel": replica.task.d_parallel,
                "t_star": state.t,
                "lambda_first": lambda_first,
                "lambda_star": replica.amplification(state.params),
                "isotropy_init": _isotropy(replica.params),
                "isotropy_star": _isotropy(state.params),
                **about,
            }
    raise RuntimeError(
        f"expected a tenth of the points to be fitted, got {fitted:.0%} at t = {state.t:g}; raise max_time"
    )


def _isotropy(params: dict) -> float:
    return isotropy(compression.neuron_plane(params).cpu().numpy())


def _check(config: NetworkConfig) -> None:
    d_parallel = tasks.by_name(config.task, config.d).d_parallel
    if d_parallel != 2:
        raise ValueError(
            f"task: expected a label of two directions, got {config.task!r} with d_parallel = {d_parallel}"
        )
