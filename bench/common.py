"""What the benchmarks share: the clock, the machine, and JSON results that say where they come from."""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from geocompress import provenance

RESULTS = Path(__file__).resolve().parent / "results"


class OutOfTime(Exception):
    """A contender has used up its time."""


def arguments(description: str) -> argparse.Namespace:
    """Parse `--full` (published sizes; without it a version of minutes) and `--threads`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help="published sizes; takes long")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all processors")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    return chosen


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of one call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def report(name: str, rows: Iterable[dict], chosen: argparse.Namespace, **about: Any) -> None:
    """Print the rows as a table and write them to `results/NAME.json` (NAME-short.json without `--full`)."""
    rows = list(rows)
    print(pd.DataFrame(rows).to_string(index=False))
    RESULTS.mkdir(exist_ok=True)
    environment = {**provenance.provenance(), "threads": chosen.threads, "load_average": os.getloadavg()[0]}
    path = RESULTS / f"{name}{'' if chosen.full else '-short'}.json"
    path.write_text(json.dumps({"about": about, "environment": environment, "rows": rows}, indent=1) + "\n")
    print(f"written: bench/results/{path.name}")
