"""What the benchmarks share: the clock, the machine, checks, and JSON results that say where they come from."""

import argparse
import contextlib
import itertools
import json
import math
import os
import sys
import time
import unittest.mock
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import threadpoolctl
import torch

from geocompress import exponents, provenance

RESULTS = Path(__file__).resolve().parent / "results"
NOT_MEASURED = "not measured"  # what a table says of a device that this machine has not

UNPRINTED = ["table", "commit", "dirty", "started"]  # columns for the file only


class OutOfTime(Exception):
    """A contender has used up its time."""


def arguments(description: str, **options: Mapping[str, Any]) -> argparse.Namespace:
    """Parse `--full` (published sizes; without it a version of minutes), `--threads`, and the `options` of a script.

    An option NAME is given as the settings of `add_argument("--NAME")`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help="published sizes; takes long")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all processors")
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    chosen = parser.parse_args()
    limit_threads(chosen.threads)
    return chosen


def limit_threads(threads: int) -> None:
    """Let torch and numpy of this process use so many threads from now on."""
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of one call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def interleaved(
    functions: Mapping[Any, Callable[[], float]], rounds: int, budget: float = math.inf
) -> dict[Any, list[float]]:
    """What each function returns, all of them in turn and again for `rounds` rounds, one value a function and round.

    Neighbours in time share the load of the machine, so entries of one round may be compared. After the first round
    none is begun that would end after `budget` seconds.
    """
    results = {name: [] for name in functions}
    start = time.perf_counter()
    for done in itertools.count(1):
        for name, function in functions.items():
            results[name].append(function())
        used = time.perf_counter() - start
        if done >= rounds or used * (done + 1) / done > budget:
            return results


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of one round."""
    return float(np.median(np.divide(above, below)))


@contextlib.contextmanager
def substituted(original: Callable, replacement: Callable) -> Iterator[None]:
    """Put `replacement` wherever a module knows the function `original` by its own name."""
    name = original.__name__
    with contextlib.ExitStack() as stack:
        for module in [module for module in list(sys.modules.values()) if vars(module).get(name) is original]:
            stack.enter_context(unittest.mock.patch.object(module, name, replacement))
        yield


def growth(size: Sequence[float], cost: Sequence[float], replica: Sequence[int]) -> dict[str, Any]:
    """Exponent of cost ~ size^exponent with its 95 % interval (nan for one replica), by `exponents.fit_power_law`."""
    fit = exponents.fit_power_law(size, cost, replica=replica)
    return {
        "exponent": -fit.beta,
        "low": -fit.beta_high,
        "high": -fit.beta_low,
        "from": fit.p[0],
        "to": fit.p[-1],
        "replicas": int(fit.n_runs.min()),
    }


def check(claim: str, measured: float, *, at_most: float = math.inf, at_least: float = -math.inf) -> dict[str, Any]:
    """A number that has to keep within bounds, and whether it does."""
    bounds = {"at_most": at_most, "at_least": at_least}
    bounds = {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
    return {"claim": claim, "measured": measured, **bounds, "holds": bool(at_least <= measured <= at_most)}


def report(
    name: str, rows: Iterable[dict], chosen: argparse.Namespace, checks: Iterable[dict] = (), **about: Any
) -> None:
    """Print rows and checks as tables and write them to `results/NAME-short.json` (NAME-full.json with `--full`).

    Rows with a column `table` are printed as one table for each of its values.
    """
    rows, checks = list(rows), list(checks)
    frame = pd.DataFrame(rows)
    for title, part in frame.groupby("table", sort=False) if "table" in frame else [("", frame)]:
        print(f"\n{title}" if title else "")
        part = part.drop(columns=UNPRINTED, errors="ignore").dropna(axis=1, how="all").convert_dtypes()
        print(part.to_string(index=False).replace("<NA>", "    "))
    for one in checks:
        bounds = [f"{bound.replace('_', ' ')} {one[bound]:g}" for bound in ("at_least", "at_most") if bound in one]
        verdict = "holds " if one["holds"] else "MISSED"
        print(f"{verdict} {one['claim']}: {one['measured']:.4g}, asked {' and '.join(bounds)}")
    print(f"written: bench/results/{save(name, rows, chosen, checks, **about).name}")


def save(
    name: str, rows: Iterable[dict], chosen: argparse.Namespace, checks: Iterable[dict] = (), **about: Any
) -> Path:
    """Write what `report` writes, printing nothing; a file is replaced as a whole or not at all."""
    made = provenance.provenance(dtype=about.get("dtype", "float64"))
    environment = {**made, "threads": chosen.threads, "load_average": os.getloadavg()[0]}
    content = {"about": about, "environment": environment, "checks": list(checks), "rows": list(rows)}
    path = results_file(name, chosen)
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
    unfinished.replace(path)
    return path


def results_file(name: str, chosen: argparse.Namespace) -> Path:
    """Where the results of a script lie."""
    return RESULTS / f"{name}-{'full' if chosen.full else 'short'}.json"


def _plain(value: Any) -> Any:
    """The same with null for nan and infinity, which JSON does not know, and Python's numbers for numpy's."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
