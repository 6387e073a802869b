"""Results on disk: one JSON object a line, appended so that a crash loses at most the row being written.

A line that cannot be trusted (half written, corrupt, of another schema, with columns missing) is never used and never
deleted. `load` reads the others and names it in a warning; `repair` moves it to NAME.jsonl.rejected-HASH, next to the
file and byte for byte; `append` does so with an unfinished last line only. Published rows lie in results/, computed
ones in results/cache/; the variables GEOCOMPRESS_RESULTS and GEOCOMPRESS_CACHE move them.
"""

import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from geocompress import jsonl
from geocompress.jsonl import RejectedLines, plain
from geocompress.provenance import describe, key, provenance, repository

__all__ = [
    "COLUMNS",
    "SCHEMA",
    "RejectedLines",
    "append",
    "cache_directory",
    "describe",
    "frame",
    "key",
    "load",
    "locate",
    "origin",
    "plain",
    "provenance",
    "read",
    "repair",
    "results_directory",
]

SCHEMA = 1  # raise it when the meaning of a column changes: rows of another schema are set aside
# fmt: off
COLUMNS = (
    "experiment", "task", "d", "d_parallel", "p", "width", "alpha", "regime", "method", "seed",
    "test_error", "lambda_max", "lambda_end", "t_star", "steps", "status", "wall_s",
    "device", "dtype", "commit", "dirty", "versions", "started",
)
# fmt: on


def results_directory() -> Path:
    """Folder of published rows: GEOCOMPRESS_RESULTS, or results/ in the repository this library runs from.

    Raises:
        FileNotFoundError: if there is neither.
    """
    if told := os.environ.get("GEOCOMPRESS_RESULTS"):
        return Path(told)
    if (root := repository()) is None:
        raise FileNotFoundError(
            "expected geocompress to run from its repository (pip install -e .), got an installation elsewhere; "
            "set GEOCOMPRESS_RESULTS to a folder, or pass directory=…"
        )
    return root / "results"


def cache_directory() -> Path:
    """Folder of computed rows, ignored by git: GEOCOMPRESS_CACHE, or cache/ in the folder of published rows."""
    told = os.environ.get("GEOCOMPRESS_CACHE")
    return Path(told) if told else results_directory() / "cache"


def locate(name: str | Path, directory: str | Path | None = None) -> Path:
    """File of a result: a path that ends in .jsonl is itself, NAME is NAME.jsonl in `directory` (default: results).

    Raises:
        ValueError: if a name holds anything but letters, digits, dots, dashes and underscores.
    """
    if str(name).endswith(".jsonl"):
        return Path(name) if directory is None else Path(directory) / name
    if not re.fullmatch(r"\w[\w.-]*", str(name)):
        raise ValueError(f"name: expected letters, digits, '.', '-' or '_', or a path to a .jsonl file, got {name!r}")
    return (results_directory() if directory is None else Path(directory)) / f"{name}.jsonl"


def append(
    name: str | Path,
    row: Mapping[str, Any],
    *,
    directory: str | Path | None = None,
    required: Iterable[str] = COLUMNS,
) -> dict:
    """Write one row to the end of its file, on disk when this returns, and return it as `read` will give it.

    The line goes out in one write under a lock, so rows of several processes do not mix. numpy and torch values become
    numbers and lists; nan and ±inf become null, which `load` shows as nan.

    Raises:
        TypeError, ValueError: if a value is no JSON, a required column is missing, or the row claims another schema.
        OSError: if the disk refuses the row; the file is then as before.
    """
    path = locate(name, directory)
    stored = {"schema": SCHEMA} | plain(row)
    if reason := _distrust(stored, tuple(required)):
        raise ValueError(f"row for {path.name}: {reason}; complete it, or pass required=…")
    jsonl.append_line(path, jsonl.encode(stored))
    return stored


def read(
    name: str | Path,
    *,
    directory: str | Path | None = None,
    required: Iterable[str] = COLUMNS,
    missing_ok: bool = False,
) -> list[dict]:
    """Trusted rows of a file, in the order they were written; the other lines are named in a `RejectedLines` warning.

    Reading changes nothing on disk.

    Raises:
        FileNotFoundError: if there is no such file, unless `missing_ok`.
    """
    path = locate(name, directory)
    if not path.exists():
        if missing_ok:
            return []
        raise FileNotFoundError(f"{path}: expected a file of results, got none; compute it first, or check the name")
    return jsonl.read_rows(path, functools.partial(_distrust, required=tuple(required)))


def load(
    name: str | Path,
    *,
    directory: str | Path | None = None,
    required: Iterable[str] = COLUMNS,
    missing_ok: bool = False,
) -> pd.DataFrame:
    """Trusted rows of a file as a data frame, null as nan; see `read`. With `missing_ok`, no file is an empty frame.

    Of rows with the same `key` only the last counts: it is the retry of a failed point, or a point computed again.

    Raises:
        FileNotFoundError: if there is no such file, unless `missing_ok`.
    """
    required = tuple(required)
    rows = read(name, directory=directory, required=required, missing_ok=missing_ok)
    last = {row.get("key", number): row for number, row in enumerate(rows)}
    return frame(list(last.values()), columns=required)


def origin(table: pd.DataFrame) -> str:
    """When, from which code and where published rows were made: "2026-11-21, commit 1a2b3c4, cpu (…)"."""
    days = sorted({str(started)[:10] for started in table.started})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    commits = {str(c)[:7] + ("+" if dirty else "") for c, dirty in zip(table.commit, table.dirty, strict=True)}
    return f"{span}, commit {', '.join(sorted(commits))}, {', '.join(sorted(set(table.device)))}"


def frame(rows: list[dict], columns: Iterable[str] = ()) -> pd.DataFrame:
    """Rows as a data frame with nan where a number is null; `columns` are those of an empty one."""
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(columns))
    # a column of nulls only has no type of its own: it is a number that was never measured
    unknown = [column for column in table if len(table) and table[column].isna().all()]
    return table.astype(dict.fromkeys(unknown, "float64"))


def repair(name: str | Path, *, directory: str | Path | None = None, required: Iterable[str] = COLUMNS) -> Path | None:
    """Move every line that is not trusted to NAME.jsonl.rejected-HASH and return that path; None if there is none.

    The lines are on disk there before the file is replaced, so a crash in between loses nothing.
    """
    path = locate(name, directory)
    if not path.exists():
        return None
    return jsonl.move_aside(path, functools.partial(_distrust, required=tuple(required)))


def _distrust(row: dict, required: tuple[str, ...]) -> str | None:
    """Why an object is not a row of this library; None if it is."""
    if row.get("schema") != SCHEMA:
        return f"expected schema {SCHEMA}, got {row.get('schema')!r}"
    missing = [column for column in required if column not in row]
    return f"lacks {', '.join(missing)}" if missing else None
