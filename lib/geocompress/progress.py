"""How long a sweep still takes, when its points differ in cost by orders of magnitude, and who shows it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from geocompress.provenance import describe
from geocompress.workers import FAILED

EXPONENTS = (0.0, 3.0)  # of cost against size, in what a fit may find
UNKNOWN = 1.0  # the exponent until two sizes are done


class Forecast:
    """Time left of a sweep, from the rows that are done.

    A point costs what its twins did on average, those of other seeds. Without a twin, cost = c s^γ with s = p × width,
    or p for points without a width: c of its kind (all fields but p, width and seed; of all kinds where none of it is
    done), and one γ, fitted within kinds, where rows count by their cost. The time left is the cost that is left, over
    the cost that was done each second since this sweep started, by however many processes.
    """

    def __init__(
        self, configs: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], todo: Collection[str]
    ) -> None:
        """Configs by key, rows that are done by key, and the keys that are to be computed."""
        fields = [describe(config) for config in configs.values()]
        kinds = [repr({k: v for k, v in f.items() if k not in ("p", "width", "seed")}) for f in fields]
        twins = [repr({k: v for k, v in f.items() if k != "seed"}) for f in fields]
        self._index = {key: i for i, key in enumerate(configs)}
        self._log_size = np.log([_count(f.get("p")) * _count(f.get("width")) for f in fields])
        self._kinds, self._twins = (np.unique(each, return_inverse=True)[1] for each in (kinds, twins))
        self._cost = np.full(len(fields), np.nan)  # of points that are done and did not fail
        self._todo = np.array([key in todo for key in configs], dtype=bool)
        for row in rows.values():
            self._note(row)
        self._spent, self._started = 0.0, time.monotonic()

    @property
    def total(self) -> int:
        """Number of points."""
        return len(self._todo)

    @property
    def left(self) -> int:
        """Number of points that are to be computed."""
        return int(self._todo.sum())

    def add(self, row: Mapping[str, Any]) -> None:
        """Take note of a row that was computed now."""
        self._spent += cost(row)
        self._todo[self._index[row["key"]]] = False
        self._note(row)

    def seconds(self) -> float | None:
        """Time left; None as long as nothing was computed."""
        if not self._spent:
            return None
        return float(self._costs()[self._todo].sum()) * (time.monotonic() - self._started) / self._spent

    def text(self) -> str:
        """The time left, for a progress bar."""
        seconds = self.seconds()
        return "" if seconds is None else f"about {tqdm.format_interval(seconds)} left"

    def _note(self, row: Mapping[str, Any]) -> None:
        if row["status"] != FAILED and (i := self._index.get(row["key"])) is not None:
            self._cost[i] = cost(row)

    def _costs(self) -> Float[np.ndarray, " n"]:
        """Expected cost of each point."""
        done = np.isfinite(self._cost)
        if not done.any():
            return np.ones_like(self._cost)
        spent, x = np.maximum(self._cost[done], 1e-6), self._log_size[done]
        gamma = _slope(x, np.log(spent), self._kinds[done], spent)
        scale = _mean(spent / np.exp(gamma * x), self._kinds[done], self._kinds)
        law = np.where(np.isnan(scale), (spent / np.exp(gamma * x)).mean(), scale) * np.exp(gamma * self._log_size)
        alike = _mean(spent, self._twins[done], self._twins)
        return np.where(np.isnan(alike), law, alike)


def hidden() -> bool | None:
    """`disable` of a bar within a point of a sweep: processes that compute beside others would write over each other.

    None leaves the choice to tqdm, which shows a bar on a terminal only.
    """
    return None if multiprocessing.parent_process() is None else True


def cost(row: Mapping[str, Any]) -> float:
    """Seconds that a row took: training, and testing where that was timed."""
    return (row.get("wall_s") or 0.0) + (row.get("test_s") or 0.0)


def _count(value: object) -> float:
    """A size as a number; 1 for what is none."""
    return float(value) if isinstance(value, int | float) and value > 0 else 1.0


def _mean(values: np.ndarray, groups: np.ndarray, asked: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Weighted mean over the group of each one asked for; nan where a group has no values."""
    weights = np.ones_like(values) if weights is None else weights
    count = asked.max() + 1
    total = np.bincount(groups, weights, count)
    mean = np.bincount(groups, weights * values, count) / np.where(total > 0, total, np.nan)
    return mean[asked]


def _slope(x: np.ndarray, y: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> float:
    """Weighted least-squares slope of y against x with an intercept for each group."""
    x, y = (each - _mean(each, groups, groups, weights) for each in (x, y))
    spread = (weights * x * x).sum()
    return float(np.clip((weights * x * y).sum() / spread, *EXPONENTS)) if spread > 1e-9 * weights.sum() else UNKNOWN
