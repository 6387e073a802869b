"""A grid of configs becomes a table of rows: local processes, each finished row on disk at once, resumable.

A config is an instance of a frozen dataclass, a point of the sweep is `function(config) → row`. Rows lie in
NAME.jsonl under the key of their config. In the cache, where they lie unless told otherwise, each version of the
library has a folder of its own: rows that other code computed are never taken for this one's.
"""

import contextlib
import dataclasses
import itertools
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import threadpoolctl
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from geocompress import store
from geocompress.checks import Whole, integer
from geocompress.provenance import code_version

FAILED = "FAILED"  # status of a point whose function raised
DONE = "DONE"  # status of a point whose row has none of its own
REQUIRED = ("key", "status")

Point = Callable[[Any], Mapping[str, Any]]


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
    progress: bool = True,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Compute `function(config)` for each config that is not on disk yet; return one row per config, in their order.

    A row holds the fields of its config, overridden by what `function` returns, and the columns key, status and
    wall_s (seconds). A point that raises gets a row with status FAILED and the error; the others go on, and such points
    are computed again only with `retry_failed`. Configs that are equal are computed once. Whatever stops the sweep
    (an interrupt, a kill), finished rows are on disk and the same call goes on from there; lines of the file that
    cannot be trusted are moved aside and computed again.

    `jobs` processes (default: the processors, at most one per point; 1: in this process) with `threads` threads each.
    The default is 1 thread also for jobs = 1, since the number of threads changes the last digits of a sum.

    Raises:
        TypeError, ValueError: if a config is no frozen dataclass, or jobs or threads is not an integer ≥ 1.
        RuntimeError: if a process was killed, most often for memory.
    """
    jobs = joblib.cpu_count() if jobs is None else integer(jobs, "jobs")
    threads = 1 if threads is None else integer(threads, "threads")
    directory = store.cache_directory() / code_version() if directory is None else Path(directory)
    wanted = {store.key(config): config for config in configs}
    rows = _on_disk(name, directory)
    todo = {
        key: config
        for key, config in wanted.items()
        if key not in rows or (retry_failed and rows[key]["status"] == FAILED)
    }
    bar = tqdm(
        total=len(wanted), initial=len(wanted) - len(todo), desc=name, unit="run", disable=None if progress else True
    )
    with bar, contextlib.closing(_outcomes(function, todo, min(jobs, len(todo)), threads)) as outcomes:
        try:
            for row in outcomes:
                rows[row["key"]] = store.append(name, row, directory=directory, required=REQUIRED)
                bar.update()
        except TerminatedWorkerError as error:
            raise RuntimeError(
                f"sweep {name}: a process was killed, perhaps for memory; finished rows are in {directory}, "
                f"run again with fewer jobs than {jobs}"
            ) from error
    chosen = [rows[key] for key in wanted]
    _report_failures(name, chosen)
    return store.frame(chosen, columns=REQUIRED)


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


def _outcomes(function: Point, todo: dict[str, Any], jobs: int, threads: int) -> Iterator[dict]:
    """Rows as they finish, in any order."""
    if jobs <= 1:
        for key, config in todo.items():
            yield _outcome(function, config, key, threads)
        return
    with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
        # one point a batch: a finished row never waits for another
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    points = (joblib.delayed(_outcome)(function, config, key, threads) for key, config in todo.items())
    with contextlib.closing(parallel(points)) as finished:
        yield from finished


def _outcome(function: Point, config: Any, key: str, threads: int) -> dict:
    """Row of one point, as plain values that travel between processes; of a failure, too."""
    row = store.describe(config)
    started = time.perf_counter()
    try:
        with _limited(threads):
            row |= {"status": DONE} | store.plain(function(config))
    except Exception as error:  # whatever one point raises is recorded and shown; it may not end the others
        where = traceback.format_exception(error)[-2:]
        row |= {"status": FAILED, "error": f"{type(error).__name__}: {error}", "traceback": "".join(where)}
    return {"wall_s": time.perf_counter() - started} | row | {"key": key}


@contextlib.contextmanager
def _limited(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpoolctl.threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def _report_failures(name: str, rows: list[dict]) -> None:
    failures = [row for row in rows if row["status"] == FAILED]
    if failures:
        message = (
            f"sweep {name}: {len(failures)} of {len(rows)} points failed, the first with {failures[0].get('error')}; "
            "retry_failed=True computes them again"
        )
        warnings.warn(message, FailedPoints, stacklevel=3)
