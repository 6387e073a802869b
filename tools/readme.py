"""Make what the README and the front page show of the results: `assets/summary.png` and the table of figures.

The figure is drawn from the published rows. The table says what makes each figure and how long that took: chapters in
their last run by `make book`, sweeps by `serial_seconds` of their rows. `make readme` calls this; no number of it is
typed.
"""

import json
import re
from pathlib import Path

import matplotlib as mpl
import nbformat
import pandas as pd

from geocompress import curves, directions, exponents, figures, provenance, store, tasks, timelines

mpl.use("agg")
import matplotlib.pyplot as plt  # after the choice of backend

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED, DIMENSION = "stripe-network", 5
CLOCKS = ("wall_s", "test_s", "kernels_s")  # training, testing, machines on frozen kernels
ALIKE = ("task", "d", "p", "method", "width", "alpha", "margin_tol", "inertia", "amplification", "test_size", "device")
NOTE = """
Seconds of a chapter are those on the clock, with the rest of the book built beside it. Seconds of published rows are
serial ones: training and testing on one core of that device, without what pauses of the machine added (runs times their
median, over runs that differ in the seed only). A sweep over two cores needs about half.
"""
TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


def summary_figure() -> plt.Figure:
    """Amplification and learning curve of the published stripe runs, predictions beside them."""
    rows = store.load(PUBLISHED)
    rows = rows[(rows.d == DIMENSION) & (rows.regime == "feature")]
    task = tasks.stripe(DIMENSION)
    figures.use_style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    timelines.amplification_scaling(left, rows, "trained")
    constant = directions.amplification_prediction(1, task)
    figures.guide(left, rows.p, 0.5, (1, constant), label=f"predicted {constant:.2f}$\\sqrt{{p}}$")
    ((_, curve),) = curves.curves(rows).items()
    means, law = exponents.fit_power_law(curve.p, curve.test_error), curves.fit(curve)  # replicas differ between p
    style = {"label": "trained", "fit": law.predict, "fit_label": f"largest octaves, $\\beta = {law.beta:.2f}$"}
    beta = exponents.beta_feature(task.d, task.d_parallel)
    figures.learning_curve(right, means.p, means.mean_error, means.mean_low, means.mean_high, prediction=beta, **style)
    lazy = exponents.beta_lazy(task.d)
    start = (means.p[0], 1.5 * means.mean_error[0])
    figures.guide(
        right, means.p, -lazy, start, label=f"a kernel's slope −{lazy:.3f}", colour=figures.COLOURS["vermilion"]
    )
    for ax in (left, right):
        figures.plain_powers(ax, means.p)
        ax.legend()
    return fig


def figure_table() -> str:
    """The README's table: figure, command, seconds, device."""
    lines = ["| figures | command | seconds | device |", "|---|---|---|---|"]
    for run in sorted((ROOT / "_build" / "executed").glob("*.json")):
        said = json.loads(run.read_text())
        cells = nbformat.read(run.with_suffix(".ipynb"), 4).cells
        count = sum("figure" in cell.metadata.get("mystnb", {}) or "{glue:figure}" in cell.source for cell in cells)
        made = f"the {count} figures of `chapters/{run.stem}.py`"
        lines.append(f"| {made} | `make book` | {said['seconds']:.0f} | {said['device']} |")
    for path in sorted((ROOT / "results").glob("*.jsonl")):
        rows = store.load(path.stem)
        device = ", ".join(sorted(rows.device.unique()))
        command = f"`python -m geocompress sweep {path.stem}`"
        seconds = f"{serial_seconds(rows):.0f}"
        lines.append(f"| published rows `{path.stem}`, {len(rows)} runs | {command} | {seconds} | {device} |")
    return "\n".join(lines) + "\n" + NOTE


def serial_seconds(rows: pd.DataFrame) -> float:
    """Seconds that one process needs for the rows: over runs that differ in the seed only, runs times their median.

    The machine was paused during some runs, which then took many times what their like did; a sum would count that.
    A setting that hardly repeats, as a compression that was measured run by run, does not tell runs apart.
    """
    clock = sum(rows[name].astype(float).fillna(0) for name in CLOCKS if name in rows)
    alike = [name for name in ALIKE if name in rows and rows[name].nunique() <= len(rows) / 3]
    return float(
        clock.groupby([rows[name] for name in alike], dropna=False).agg(lambda run: len(run) * run.median()).sum()
    )


if __name__ == "__main__":
    summary_figure().savefig(ROOT / "assets" / "summary.png", dpi=110, metadata={"Software": None})
    readme = ROOT / "README.md"
    readme.write_text(TABLE.sub(lambda _: figure_table(), readme.read_text()))
    print(f"assets/summary.png and the table of README.md, at {provenance.provenance()['commit']}")
