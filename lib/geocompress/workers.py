"""Where the points of a sweep become rows: in this process, or in processes of this machine that end with it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import joblib
import threadpoolctl
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from geocompress import jsonl, provenance, shares
from geocompress.shares import Share

FAILED = "FAILED"  # status of a point whose function raised
DONE = "DONE"  # status of a point whose row has none of its own
WATCH_S = 1.0  # seconds between two looks of a process at its driver

Point = Callable[[Any], Mapping[str, Any]]
Points = Callable[[list[Any]], Sequence[Mapping[str, Any]]]
Group = list[tuple[str, Any]]  # keys and configs


class WorkersLost(RuntimeError):
    """Processes that computed points are gone; the points that they were at have no rows."""


class Work(NamedTuple):
    """What a process does with a group of points.

    Attributes:
        function: a config becomes a row.
        together: many configs become rows, on a GPU also one; None where there is no such function.
        threads: threads of the process.
        device: where to compute, instead of the `device` of the configs unless None.
    """

    function: Point
    together: Points | None
    threads: int
    device: str | None


@runtime_checkable
class Workers(Protocol):
    """What computes the points of a sweep: `Local` here, `cluster.Cluster` elsewhere."""

    def choose(self, configs: Sequence[Any], **told: Any) -> Share:
        """How the points are shared out; see `shares.choose`."""

    def outcomes(self, work: Work, groups: list[Group], jobs: int) -> Iterator[dict]:
        """Rows as they finish, in any order."""


class Local:
    """Processes of this machine, or this one alone."""

    def choose(self, configs: Sequence[Any], **told: Any) -> Share:
        """How this machine is shared out; see `shares.choose`."""
        return shares.choose(configs, **told)

    def outcomes(self, work: Work, groups: list[Group], jobs: int) -> Iterator[dict]:
        """Rows as they finish, in any order, by `jobs` processes (1: this one).

        Raises:
            WorkersLost: if a process was killed, most often for memory.
        """
        if jobs <= 1:
            for group in groups:
                yield from compute(work, group)
            return
        with joblib.parallel_config(backend="loky", inner_max_num_threads=work.threads):
            # one group at a time for each process: a finished row never waits for another
            parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        tasks = (joblib.delayed(_compute_while)(os.getpid(), work, group) for group in groups)
        with contextlib.closing(parallel(tasks)) as finished:
            try:
                yield from itertools.chain.from_iterable(finished)
            except TerminatedWorkerError as error:
                raise WorkersLost(
                    f"a process was killed, perhaps for memory; run again, with fewer jobs than {jobs} if it was"
                ) from error


def compute(work: Work, group: Group) -> Iterable[dict]:
    """Rows of points that are computed together, or one by one where that fails or there is only one on a CPU.

    A point that raises has a row with status FAILED.
    """
    told = {}
    on_gpu = any(shares.is_gpu(shares.device_of(config, work.device)) for _, config in group)
    if work.together is not None and (len(group) > 1 or on_gpu):
        started = time.perf_counter()
        try:
            moved = [_moved(config, work.device) for _, config in group]
            with _limited(work.threads):
                found = [jsonl.plain(row) for row in work.together(moved)]
            wall_s = (time.perf_counter() - started) / len(group)
            return [
                {"wall_s": wall_s} | provenance.describe(config) | {"status": DONE} | row | {"key": key}
                for (key, _), config, row in zip(group, moved, found, strict=True)
            ]
        except Exception as error:  # one bad point may not take the others with it
            told = {"batch_error": f"{type(error).__name__}: {error}"}
    return [_outcome(work, config, key) | told for key, config in group]


def _outcome(work: Work, config: Any, key: str) -> dict:
    """Row of one point, as plain values that travel between processes; of a failure, too."""
    row = provenance.describe(config)
    started = time.perf_counter()
    try:
        moved = _moved(config, work.device)
        with _limited(work.threads):
            row |= provenance.describe(moved) | {"status": DONE} | jsonl.plain(work.function(moved))
    except Exception as error:  # whatever one point raises is recorded and shown; it may not end the others
        where = traceback.format_exception(error)[-2:]
        row |= {"status": FAILED, "error": f"{type(error).__name__}: {error}", "traceback": "".join(where)}
    return {"wall_s": time.perf_counter() - started} | row | {"key": key}


def _moved(config: Any, device: str | None) -> Any:
    return config if device is None else dataclasses.replace(config, device=device)


@contextlib.contextmanager
def _limited(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpoolctl.threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def _compute_while(driver: int, work: Work, group: Group) -> Iterable[dict]:
    """`compute` in a process that ends when the driver, its parent, is gone."""
    _end_with(driver)
    return compute(work, group)


@functools.cache
def _end_with(driver: int) -> None:
    """Watch the parent of this process: one that was killed has told nobody, and its rows have no writer."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(WATCH_S)
        os._exit(1)

    if os.getppid() == driver:
        threading.Thread(target=watch, daemon=True).start()
