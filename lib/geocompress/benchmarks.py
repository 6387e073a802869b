"""Stored benchmark results: what `bench/` measured, for the pages that show it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from geocompress.provenance import repository


class Benchmark(NamedTuple):
    """Rows of a benchmark, what all of them share, the machine they were measured on, and what had been promised.

    `checks` has the columns claim, measured, at_most and at_least (nan: no such bound) and holds.
    """

    rows: pd.DataFrame
    about: dict[str, Any]
    environment: dict[str, Any]
    checks: pd.DataFrame

    @property
    def origin(self) -> str:
        """When, from which code and where it was measured, in the form of `store.origin`."""
        made = self.environment
        commit = str(made["commit"])[:7] + ("+" if made["dirty"] else "")
        threads = f"{made['threads']} thread" + ("" if made["threads"] == 1 else "s")
        return f"{str(made['started'])[:10]}, commit {commit}, {made['device']}, {threads}"


def load(name: str, *, directory: str | Path | None = None) -> Benchmark | None:
    """The results of `bench/NAME.py`: of its full version if there are any, else of the short one; None for neither.

    Args:
        name: of the script, without its ending.
        directory: folder of the results; default: bench/results of the repository.

    Raises:
        FileNotFoundError: the library does not run from its repository, and no directory was given.
        ValueError: a file that is not what `bench/` writes; it is named, and left as it is.
    """
    if directory is None:
        if (root := repository()) is None:
            raise FileNotFoundError("benchmarks: expected to run from the repository; pass directory=…")
        directory = root / "bench" / "results"
    for version in ("full", "short"):
        path = Path(directory) / f"{name}-{version}.json"
        if path.exists():
            return _read(path)
    return None


def _read(path: Path) -> Benchmark:
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}: expected JSON, got {error}; run the benchmark again") from error
    parts = ("rows", "about", "environment", "checks")
    if not isinstance(content, Mapping) or any(part not in content for part in parts):
        raise ValueError(f"{path.name}: expected an object with {', '.join(parts)}; run the benchmark again")
    checks = pd.DataFrame(content["checks"], columns=["claim", "measured", "at_most", "at_least", "holds"])
    return Benchmark(pd.DataFrame(content["rows"]), content["about"], content["environment"], checks)


def promises(names: Iterable[str], *, directory: str | Path | None = None) -> pd.DataFrame:
    """What the benchmarks of these names were to show and did, as text, a line a claim; those not run are left out.

    Columns: claim, asked, measured, verdict.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    found = [stored.checks for name in names if (stored := load(name, directory=directory)) is not None]
    found = [checks for checks in found if len(checks)]
    if not found:
        return pd.DataFrame(columns=["claim", "asked", "measured", "verdict"])
    table = pd.concat(found, ignore_index=True)
    bounds = table[["at_least", "at_most"]].astype(float)
    asked = [f"≥ {least:g}" if least == least else f"≤ {most:g}" for least, most in bounds.itertuples(index=False)]
    measured = [f"{value:.3g}" for value in table.measured.astype(float)]
    verdicts = np.where(table.holds.astype(bool), "holds", "missed")
    return pd.DataFrame({"claim": table.claim, "asked": asked, "measured": measured, "verdict": verdicts})
