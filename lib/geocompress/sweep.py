"""A grid of configs becomes a table of rows, in processes or in batches; what is finished is on disk, resumable.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from geocompress.shares import choose

FAILED = "FAILED"  # status of a point whose function raised
DONE = "DONE"  # status of a point whose row has none of its own
REQUIRED = ("key", "status")

Point = Callable[[Any], Mapping[str, Any]]
Points = Callable[[list[Any]], Sequence[Mapping[str, Any]]]
Group = list[tuple[str, Any]]  # keys and configs


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

    Raises:
        TypeError, ValueError: if a config is no frozen dataclass; jobs, threads or batch is not an integer ≥ 1; or
            batch is more than 1 without `together`.
        RuntimeError: if a process was killed, most often for memory.
    """
    told = {"jobs": jobs, "threads": threads, "batch": batch}
    told = {name: None if value is None else integer(value, name) for name, value in told.items()}
    if together is None and (told["batch"] or 1) > 1:
        raise ValueError(f"batch: expected 1 without `together`, got {batch}; pass a function of a list of configs")
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
    chosen = choose(list(todo.values()), **told, batches=together is not None)
    groups = _groups(todo, chosen.batch)
    jobs = min(chosen.jobs, len(groups))
    with bar, contextlib.closing(_outcomes(function, together, groups, jobs, chosen.threads)) as outcomes:
        try:
            for row in outcomes:
                rows[row["key"]] = store.append(name, row, directory=directory, required=REQUIRED)
                bar.update()
        except TerminatedWorkerError as error:
            raise RuntimeError(
                f"sweep {name}: a process was killed, perhaps for memory; finished rows are in {directory}, "
                f"run again with fewer jobs than {jobs}"
            ) from error
    asked = [rows[key] for key in wanted]
    _report_failures(name, asked)
    return store.frame(asked, columns=REQUIRED)


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


def _outcomes(function: Point, together: Points | None, groups: list[Group], jobs: int, threads: int) -> Iterator[dict]:
    """Rows as they finish, in any order."""
    if jobs <= 1:
        for group in groups:
            yield from _group_outcomes(function, together, group, threads)
        return
    with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
        # one group at a time for each process: a finished row never waits for another
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    work = (joblib.delayed(_group_outcomes)(function, together, group, threads) for group in groups)
    with contextlib.closing(parallel(work)) as finished:
        yield from itertools.chain.from_iterable(finished)


def _group_outcomes(function: Point, together: Points | None, group: Group, threads: int) -> Iterable[dict]:
    """Rows of points that are computed together, or one by one where that fails or there is only one."""
    told = {}
    if together is not None and len(group) > 1:
        started = time.perf_counter()
        try:
            with _limited(threads):
                found = [store.plain(row) for row in together([config for _, config in group])]
            wall_s = (time.perf_counter() - started) / len(group)
            return [
                {"wall_s": wall_s} | store.describe(config) | {"status": DONE} | row | {"key": key}
                for (key, config), row in zip(group, found, strict=True)
            ]
        except Exception as error:  # one bad point may not take the others with it
            told = {"batch_error": f"{type(error).__name__}: {error}"}
    return [_outcome(function, config, key, threads) | told for key, config in group]


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
