"""A grid of configs becomes a table of rows, here or on a cluster; what is finished is on disk, resumable.

A config is an instance of a frozen dataclass, a point of the sweep is `function(config) → row`. Rows lie in
NAME.jsonl under the key of their config. In the cache, where they lie unless told otherwise, each version of the
library has a folder of its own: rows that other code computed are never taken for this one's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from geocompress import store
from geocompress.checks import Real, Whole, integer, real
from geocompress.progress import Forecast
from geocompress.provenance import check_device, code_version
from geocompress.workers import DONE, FAILED, Group, Local, Point, Points, Work, Workers, WorkersLost

__all__ = ["DONE", "FAILED", "MISSING", "FailedPoints", "Point", "Points", "WorkersLost", "grid", "run", "status"]

MISSING = "MISSING"  # status of a point without a row
REQUIRED = ("key", "status")


class FailedPoints(UserWarning):
    """Points of a sweep that raised; their rows say FAILED and why."""


def grid(config_type: type, **values: Any) -> list[Any]:
    """Every combination of the values of the fields as configs, the last field varying fastest.

    A list, tuple, range or one-axis array holds alternatives; anything else is the one value of its field (put a tuple
    that is a value into a list).

    Raises:
        TypeError: if `config_type` is not a frozen dataclass or has no such field.
        ValueError: if a field is given no alternatives.
    """
    if not dataclasses.is_dataclass(config_type) or not config_type.__dataclass_params__.frozen:
        raise TypeError(f"config_type: expected a frozen dataclass, got {config_type!r}; add frozen=True")
    names = [field.name for field in dataclasses.fields(config_type) if field.init]
    if unknown := sorted(set(values) - set(names)):
        raise TypeError(f"{config_type.__name__}: expected fields among {', '.join(names)}, got {', '.join(unknown)}")
    alternatives = [_alternatives(name, value) for name, value in values.items()]
    return [config_type(**dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*alternatives)]


def run(
    function: Point,
    configs: Iterable[Any],
    *,
    name: str,
    directory: str | Path | None = None,
    jobs: Whole | None = None,
    threads: Whole | None = None,
    together: Points | None = None,
    batch: Whole | None = None,
    device: str | None = None,
    memory_gb: Real | None = None,
    cluster: Workers | None = None,
    progress: bool = True,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Compute `function(config)` for each config that is not on disk yet; return one row per config, in their order.

    A row holds the fields of its config, overridden by what `function` returns, and the columns key, status and
    wall_s (seconds). A point that raises gets a row with status FAILED and the error; the others go on, and such points
    are computed again only with `retry_failed`. Configs that are equal are computed once. Whatever stops the sweep
    (an interrupt, a kill), finished rows are on disk and the same call goes on from there; lines of the file that
    cannot be trusted are moved aside and computed again.

    `jobs` processes (1: this one) with `threads` threads each compute `batch` points at a time, those that differ in
    `seed` alone, by `together(configs) → rows`. What is not told is chosen by `shares.choose`. Rows are the same
    however they are computed, up to wall_s, the last digits of sums, and what comes of those. Rows of a batch are on
    disk when all of it is done. If `together` raises, its points are computed one by one, and their rows say why under
    `batch_error`.

    With `device`, points are computed there instead of on the `device` of their configs, and are the same points: they
    keep their keys. `memory_gb` says what budget each point keeps to, in 10⁹ bytes. With `cluster`, see
    `cluster.connect`, its workers compute, however many there are, and this process alone writes.

    Raises:
        TypeError, ValueError: if a config is no frozen dataclass; jobs, threads or batch is not an integer ≥ 1; batch
            is more than 1 without `together`; there is no such device; jobs are told to a cluster, or it is no match.
        WorkersLost: a RuntimeError, if processes that computed are gone.
        OSError: if the disk refuses a row.
    """
    told = {"jobs": jobs, "threads": threads, "batch": batch}
    told = {name: None if value is None else integer(value, name) for name, value in told.items()}
    if together is None and (told["batch"] or 1) > 1:
        raise ValueError(f"batch: expected 1 without `together`, got {batch}; pass a function of a list of configs")
    if cluster is not None and jobs is not None:
        raise ValueError(f"jobs: expected None with a cluster, which has workers of its own, got {jobs}")
    if device is not None and cluster is None:  # those of a cluster are not here
        check_device(device)
    told["memory_gb"] = None if memory_gb is None else real(memory_gb, "memory_gb", 0)
    directory = store.cache_directory() / code_version() if directory is None else Path(directory)
    wanted = {store.key(config): config for config in configs}
    rows = _on_disk(name, directory)
    todo = {
        key: config
        for key, config in wanted.items()
        if key not in rows or (retry_failed and rows[key]["status"] == FAILED)
    }
    place = cluster if cluster is not None and todo else Local()
    share = place.choose(list(todo.values()), **told, batches=together is not None, device=device)
    groups = _groups(todo, share.batch)
    jobs = min(share.jobs, len(groups))
    with contextlib.closing(place.outcomes(Work(function, together, share.threads, device), groups, jobs)) as outcomes:
        try:
            for row in _shown(outcomes, Forecast(wanted, rows, todo), name, progress):
                rows[row["key"]] = store.append(name, row, directory=directory, required=REQUIRED)
        except WorkersLost as error:
            raise WorkersLost(f"sweep {name}: {error}; finished rows are in {directory}") from error
    asked = [rows[key] for key in wanted]
    _report_failures(name, asked)
    return store.frame(asked, columns=REQUIRED)


def status(configs: Iterable[Any], *, name: str, directory: str | Path) -> pd.DataFrame:
    """One line per config, in their order: its fields, `key`, `status` (MISSING without a row) and `error`.

    Reading changes nothing on disk.

    Raises:
        TypeError: if a config is no frozen dataclass.
    """
    rows = {row["key"]: row for row in store.read(name, directory=directory, required=REQUIRED, missing_ok=True)}
    wanted = {store.key(config): config for config in configs}
    return store.frame(
        [
            store.describe(config)
            | {"key": key, "status": rows.get(key, {}).get("status", MISSING), "error": rows.get(key, {}).get("error")}
            for key, config in wanted.items()
        ],
        columns=(*REQUIRED, "error"),
    )


def _alternatives(name: str, value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()  # plain numbers, as the fields of a config are
    alternatives = list(value) if isinstance(value, list | tuple | range) else [value]
    if not alternatives:
        raise ValueError(f"{name}: expected at least one value, got none; leave the field out for its default")
    return alternatives


def _on_disk(name: str, directory: Path) -> dict[str, dict]:
    """Trusted rows by key; the last one wins, for a failed point may have been computed again."""
    store.repair(name, directory=directory, required=REQUIRED)
    rows = store.read(name, directory=directory, required=REQUIRED, missing_ok=True)
    return {row["key"]: row for row in rows}


def _groups(todo: dict[str, Any], batch: int) -> list[Group]:
    """Points that are computed at a time: at most `batch` of those that differ in `seed` alone."""
    alike: dict[str, Group] = {}
    for number, (key, config) in enumerate(todo.items()):
        kind = repr({k: v for k, v in store.describe(config).items() if k != "seed"}) if batch > 1 else str(number)
        alike.setdefault(kind, []).append((key, config))
    return [group[i : i + batch] for group in alike.values() for i in range(0, len(group), batch)]


def _shown(outcomes: Iterable[dict], forecast: Forecast, name: str, progress: bool) -> Iterator[dict]:
    """Pass rows on, and show how far a sweep is once they are taken."""
    bar = tqdm(
        total=forecast.total,
        initial=forecast.total - forecast.left,
        desc=name,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} runs [{elapsed}{postfix}]",
        disable=None if progress else True,
    )
    with bar:
        for row in outcomes:
            yield row
            forecast.add(row)
            bar.set_postfix_str(forecast.text(), refresh=False)
            bar.update()


def _report_failures(name: str, rows: list[dict]) -> None:
    failures = [row for row in rows if row["status"] == FAILED]
    if failures:
        message = (
            f"sweep {name}: {len(failures)} of {len(rows)} points failed, the first with {failures[0].get('error')}; "
            "retry_failed=True computes them again"
        )
        warnings.warn(message, FailedPoints, stacklevel=3)
