"""From a frozen configuration to a row of results: the one room that joins tasks, networks, flow and measures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from geocompress import batched, compression, flow, store, tasks
from geocompress.checks import integer, real
from geocompress.networks import OneHidden, Params
from geocompress.provenance import check_device

FIT_SHARE = 0.1  # t* is the first time at which this share of the points has reached the margin (arXiv:2007.11471)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One training of one network: everything that decides its result, and nothing else.

    `seed` numbers the replica. The seeds of data, initialisation and test set are three independent numbers made from
    it, so two configurations with the same seed share their data whatever their width or α.

    Raises:
        TypeError, ValueError: a setting of the wrong type or out of range; "cuda" where there is none.
    """

    task: str = "stripe"
    d: int = 5
    p: int = 256
    width: int = 1000
    alpha: float = 1e-6
    seed: int = 0
    test_size: int = 20_000
    margin_tol: float = 0.1
    state_tol: float = 0.05
    max_time: float = math.inf
    device: str = "cpu"
    dtype: str = "float64"

    def __post_init__(self) -> None:
        for name in ("d", "p", "width", "test_size"):
            integer(getattr(self, name), name)
        integer(self.seed, "seed", minimum=0)
        for name in ("alpha", "margin_tol", "state_tol"):
            real(getattr(self, name), name, 0)
        if self.max_time != math.inf:  # which trains to the end
            real(self.max_time, "max_time", 0)
        if not isinstance(self.task, str):
            raise TypeError(f"task: expected a name such as 'stripe', got {self.task!r}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected 'float64' or 'float32', got {self.dtype!r}")
        tasks.by_name(self.task, self.d)
        check_device(self.device)

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of `data`, `init` and `test`."""
        state = np.random.SeedSequence(self.seed).generate_state(3)
        return dict(zip(("data", "init", "test"), (int(number) for number in state), strict=True))


class Replica:
    """The data, network and initial parameters that a configuration stands for."""

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.task = tasks.by_name(config.task, config.d)
        self._place = {"device": check_device(config.device), "dtype": getattr(torch, config.dtype)}
        self.network = OneHidden(config.d, config.width)
        self.params = self.network.init(config.seeds["init"], **self._place)
        self.x, self.y = self._sample(config.p, config.seeds["data"])
        self.x_test, self.y_test = self._sample(config.test_size, config.seeds["test"])
        self._output_init_test = self.network.forward(self.params, self.x_test)

    def _sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        x, y = self.task.sample(n, seed)
        return x.to(**self._place), y.to(**self._place)

    def states(self, *, all_margins: bool = False) -> Iterator[flow.State]:
        """The flow from the initial parameters to its end; see `flow.hinge_flow` on `all_margins`."""
        config = self.config
        return flow.hinge_flow(
            self.network,
            self.params,
            self.x,
            self.y,
            alpha=config.alpha,
            margin_tol=config.margin_tol,
            state_tol=config.state_tol,
            max_time=config.max_time,
            all_margins=all_margins,
        )

    def test_error(self, params: Params, size: int | None = None) -> float:
        """Share of the first `size` test points (all by default) without y F > 0, F = α (f − f_0)."""
        part = slice(0, size)
        change = self.network.forward(params, self.x_test[part]) - self._output_init_test[part]
        return float((~(self.y_test[part] * change > 0)).double().mean())

    def amplification(self, params: Params) -> float:
        """λ, or nan for a task that depends on every direction."""
        d_parallel = self.task.d_parallel
        return compression.amplification(params, d_parallel) if d_parallel < self.task.d else math.nan


def train_network(config: NetworkConfig) -> dict[str, Any]:
    """Train one network to the end of its flow; return the row that a published result carries.

    Beside the configuration and the provenance: `test_error` at the end; `lambda_star` (λ at t*), `lambda_max` with the
    time `t_lambda_max` at which it is reached, `lambda_end`; `t_star`, the first time at which a tenth of the points
    has margin 1; `t_end`, `loss`, `steps`, `status`, `wall_s` (training only, seconds).
    """
    about = store.provenance(device=config.device, dtype=config.dtype)
    replica = Replica(config)
    start = time.perf_counter()
    path = []
    for end in replica.states():
        path.append(observed(replica, end))
    return network_row(replica, path, end, time.perf_counter() - start, about)


def train_networks(configs: Sequence[NetworkConfig]) -> list[dict[str, Any]]:
    """Train many networks, those that differ in seed and test set alone together (`batched.hinge_flows`).

    Rows are those of `train_network`, in the order of the configurations, and have a column `batch`: the number of
    networks that were trained together. `wall_s` is the time of all of them divided by that number.
    """
    groups: dict[NetworkConfig, list[NetworkConfig]] = {}
    for config in dict.fromkeys(configs):
        groups.setdefault(replace(config, seed=0, test_size=1), []).append(config)
    rows = {config: row for group in groups.values() for config, row in zip(group, _together(group), strict=True)}
    return [dict(rows[config]) for config in configs]


def _together(configs: list[NetworkConfig]) -> list[dict[str, Any]]:
    """Rows of configurations that differ in seed and test set alone."""
    common, count = configs[0], len(configs)
    about = store.provenance(device=common.device, dtype=common.dtype)
    replicas = [Replica(config) for config in configs]
    paths: list[list[dict[str, float]]] = [[] for _ in replicas]
    start = time.perf_counter()
    states = batched.hinge_flows(
        replicas[0].network,
        {k: torch.stack([replica.params[k] for replica in replicas]) for k in replicas[0].params},
        torch.stack([replica.x for replica in replicas]),
        torch.stack([replica.y for replica in replicas]),
        alpha=common.alpha,
        margin_tol=common.margin_tol,
        state_tol=common.state_tol,
        max_time=common.max_time,
    )
    for end in states:
        for i, path in enumerate(paths):
            if end.step[i] >= len(path):  # it has moved: one line for each step
                path.append(observed(replicas[i], end.replica(i)))
    wall_s = (time.perf_counter() - start) / count
    finished = [(replica, path, end.replica(i)) for i, (replica, path) in enumerate(zip(replicas, paths, strict=True))]
    return [network_row(*training, wall_s, about) | {"batch": count} for training in finished]


def network_row(
    replica: Replica, path: list[dict], end: flow.State, wall_s: float, about: dict[str, Any]
) -> dict[str, Any]:
    """The row of a finished training, with the columns of `train_network`.

    Args:
        replica: what was trained.
        path: `observed` at each step.
        end: the last state.
        wall_s: seconds of the training.
        about: columns of `store.provenance`.
    """
    config = replica.config
    return {
        "experiment": "network",
        "task": config.task,
        "d": config.d,
        "d_parallel": replica.task.d_parallel,
        "p": config.p,
        "width": config.width,
        "alpha": config.alpha,
        "regime": "feature" if config.alpha < 1 else "lazy",
        "method": "network",
        "seed": config.seed,
        "test_error": replica.test_error(end.params),
        **milestones(pd.DataFrame(path)),
        "t_end": end.t,
        "loss": end.loss,
        "steps": end.step,
        "status": end.status.value,
        "wall_s": wall_s,
        **about,
    }


def milestones(series: pd.DataFrame) -> dict[str, float | None]:
    """λ at t*, at its maximum and at the end, with the times, from a series with columns t, amplification, fitted.

    The three periods of training lie between them: compressing until `t_star`, fitting until `t_lambda_max`,
    over-fitting after. `t_star` is None when a tenth of the points was never fitted.
    """
    started = series[series.fitted >= FIT_SHARE]
    peak = series.loc[series.amplification.fillna(0).idxmax()]
    return {
        "t_star": float(started.t.iloc[0]) if len(started) else None,
        "lambda_star": float(started.amplification.iloc[0]) if len(started) else None,
        "t_lambda_max": float(peak.t),
        "lambda_max": float(peak.amplification),
        "lambda_end": float(series.amplification.iloc[-1]),
    }


@dataclass(frozen=True)
class Recording:
    """One training, watched.

    Attributes:
        series: one line per step: t, amplification (λ), fitted (share of points), unfitted (number), loss, margin
            quantiles m10, m50, m90, balance_drift (largest change of |ω|² + b² − β² over any neuron, relative to the
            largest |ω_n|²) and test_error.
        planes: β_n ω_n along x_1 and x_2 at each step, shape (steps, h, 2), float32.
        replica: data, network and initial parameters.
        end: the last state.
    """

    series: pd.DataFrame
    planes: Float[np.ndarray, "steps h 2"]
    replica: Replica
    end: flow.State


def record_network(config: NetworkConfig, *, test_size: int = 4000) -> Recording:
    """Train one network and keep what there is to see at each step; `test_size` points for the error in time."""
    replica = Replica(config)
    balance_init = compression.balance(replica.params)
    lines, planes = [], []
    for state in replica.states(all_margins=True):
        quantiles = torch.quantile(state.margins, state.margins.new_tensor([0.1, 0.5, 0.9])).tolist()
        drift = (compression.balance(state.params) - balance_init).abs().max()
        size = state.params["omega"].square().sum(1).max()
        lines.append(
            {
                **observed(replica, state),
                **dict(zip(("m10", "m50", "m90"), quantiles, strict=True)),
                "balance_drift": float(drift / size),
                "test_error": replica.test_error(state.params, test_size),
            }
        )
        planes.append(compression.neuron_plane(state.params).float().cpu().numpy())
    return Recording(pd.DataFrame(lines), np.stack(planes), replica, state)


def observed(replica: Replica, state: flow.State) -> dict[str, float]:
    """One line of a series: t (mean-field time), amplification λ, share of points fitted, number unfitted, loss."""
    fitted = compression.fitted_fraction(state.margins)
    return {
        "t": state.t,
        "amplification": replica.amplification(state.params),
        "fitted": fitted,
        "unfitted": round((1 - fitted) * len(state.margins)),
        "loss": state.loss,
    }
