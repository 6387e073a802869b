"""What of a grid is done, in words and a small table."""

import collections
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from geocompress import sweep
from geocompress.grids import Grid

SHOWN = 3  # errors


def show(grid: Grid, path: Path) -> bool:
    """Print how many points are done, missing and failed, by p, and the first errors; return whether all are done."""
    table = sweep.status(grid.configs, name=path.name, directory=path.parent)
    success = grid.experiment.success
    done = table.status == success
    others = collections.Counter(table.status[~done])
    words = {sweep.FAILED: "failed", sweep.MISSING: "missing"}
    counts = "".join(f", {count} {words.get(status, f'ended {status}')}" for status, count in sorted(others.items()))
    print(f"{path.stem}: {done.sum()} of {len(table)} points done{counts} ({path})")
    if done.all():
        return True
    if "p" in table:
        statuses = sorted(set(table.status), key=lambda status: (status != success, status))
        counts = pd.crosstab(table.p, table.status)[statuses].rename(columns=words | {success: "done"}).reset_index()
        print(textwrap.indent(counts.to_string(index=False), "  "))
    failed = table[table.status == sweep.FAILED]
    errors = failed.groupby("error", sort=False)
    for error, points in list(errors)[:SHOWN]:
        print(f"  {len(points)} × {error}, first at {_point(points.iloc[0], table)}")
    if len(failed):
        print("  --retry-failed computes failed points again")
    return False


def _point(row: pd.Series, table: pd.DataFrame) -> str:
    """The fields that tell a point from the others."""
    fields: dict[str, Any] = row.drop(["key", "status", "error"]).to_dict()
    return ", ".join(f"{name} = {value}" for name, value in fields.items() if table[name].nunique() > 1)
