"""What α, momentum, order and tolerance change in trainings on images, on the same images, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from geocompress import comparisons, curves, tables
from geocompress.checks import Real
from geocompress.image_claims import CLAIMED, NOT_RUN, error_by_method, error_in_words

FEWEST = 5  # nets that a correlation takes
# columns of rows, as readers know them
SETTINGS = {"p": "$p$", "alpha": "$\\alpha$", "inertia": "$\\tau$", "order": "order", "margin_tol": "tolerance"}


def trainings_in_words(rows: pd.DataFrame, by: Sequence[str] = ("alpha", "inertia")) -> pd.DataFrame:
    """Trainings by some of their settings, as text: errors with 95 % intervals, class gap, steps, time, how they ended.

    The gap is a mean over runs, – where one of them did not keep it.

    Args:
        rows: of `image_experiments.train_images`.
        by: settings that tell lines apart, of p, alpha, inertia, order and margin_tol; the others do not differ.
    """
    lines = []
    for settings, runs in rows.groupby(list(by)):
        parts = [runs.assign(test_error=runs[c], method="") for c in ("test_error", "svc_init", "svc_final")]
        errors = [error_in_words(error_by_method(part).iloc[0]) for part in parts]
        ends = ", ".join(f"{count} {status.lower()}" for status, count in runs.status.value_counts().items())
        gap = runs.class_gap.mean(skipna=False) if "class_gap" in runs else np.nan
        gap = "–" if np.isnan(gap) else f"{gap:.2f}"
        cells = (*errors, gap, f"{runs.steps.mean():.0f}", f"{runs.t_end.mean():.3g}", ends)
        lines.append([f"{value:g}" for value in settings] + list(cells))
    names = ("net", "NTK at the start", "NTK at the end", "class gap", "steps", "$t$ of the end", "ended")
    return pd.DataFrame(lines, columns=[SETTINGS[name] for name in by] + list(names))


def on_common_seeds(every: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds that were run at every α and inertia, so that curves against α are of the same images."""
    runs = every[["alpha", "inertia", "seed"]].drop_duplicates()
    counts = runs.groupby("seed").size()
    return every[every.seed.isin(counts.index[counts == len(runs[["alpha", "inertia"]].drop_duplicates())])]


def momentum_in_words(every: pd.DataFrame) -> str:
    """Errors with momentum over those without on the same images, by method, as text: geometric means, two errors.

    Args:
        every: rows of `image_experiments.by_method` of one p and α.
    """
    told = []
    for name in CLAIMED:
        rows = every[every.method == name]
        with_, without = rows[rows.inertia > 0], rows[rows.inertia == 0]
        if name == "ntk_init" or not len(with_.merge(without, on=["p", "seed"])):
            continue  # the initial kernel knows nothing of a path
        line = comparisons.paired_ratio(with_, without).iloc[0]
        ratio = tables.interval(line.ratio, line.low, line.high)
        told.append(f"{curves.STYLES[name].label.split(',')[0]} {ratio}")
    return "; ".join(told) if told else NOT_RUN


def crossover_in_words(every: pd.DataFrame, usual: Real) -> str:
    """Errors of the net at each α over those at the usual one, on the same images, as text; and where they are least.

    Geometric means, two standard errors in brackets.

    Args:
        every: rows of `image_experiments.by_method` of one p.
        usual: the α that the others are held against.
    """
    nets = every[(every.method == "network") & (every.inertia == 0)]
    base, least, told = nets[nets.alpha == usual], (1.0, usual), []
    for alpha, runs in nets[nets.alpha != usual].groupby("alpha"):
        if not len(runs.merge(base, on=["p", "seed"])):
            continue
        line = comparisons.paired_ratio(runs, base).iloc[0]
        least = min(least, (line.ratio, alpha))
        told.append(f"{tables.interval(line.ratio, line.low, line.high)} at α = {alpha:g}")
    return f"{', '.join(told)}; least at α = {least[1]:g}" if told else NOT_RUN


def against_in_words(above: pd.DataFrame, below: pd.DataFrame) -> str:
    """Errors of the net in some rows over those in others, on the same images at each p, as text.

    Geometric means, two standard errors in brackets.

    Args:
        above: rows of `image_experiments.by_method`.
        below: those that they are held against.
    """
    above, below = (rows[rows.method == "network"] if len(rows) else rows for rows in (above, below))
    shared = len(above) and len(below) and len(above.merge(below, on=["p", "seed"]))
    return tables.ratio_by_p(comparisons.paired_ratio(above, below)) if shared else NOT_RUN


def seeds_in_words(every: pd.DataFrame) -> str:
    """How many seeds there are at each p, as text; "none" for no rows.

    Args:
        every: rows of `image_experiments.by_method`.
    """
    counts = every.groupby("p").seed.nunique() if len(every) else {}
    return ", ".join(f"{count} seeds at p = {p}" for p, count in counts.items()) or "none"


def gains(every: pd.DataFrame) -> pd.DataFrame:
    """What each net gains over its initial kernel, and what its path was like, one line a training.

    Columns: p, alpha, inertia, seed, steps, class_gap, ratio (error of the net over that of the machine on its initial
    kernel, on the same images). Rows of versions that did not keep `class_gap` are left out.

    Args:
        every: rows of `image_experiments.by_method`.
    """
    names, parts = ["p", "alpha", "inertia", "seed"], {}
    for method in ("network", "ntk_init"):
        parts[method] = every[every.method == method] if len(every) else pd.DataFrame(columns=[*names, "test_error"])
    nets = parts["network"].reindex(columns=[*names, "steps", "class_gap", "test_error"]).dropna(subset="class_gap")
    both = nets.merge(parts["ntk_init"][[*names, "test_error"]], on=names, suffixes=("", "_init"))
    ratio = both.test_error / both.test_error_init
    return both.drop(columns=["test_error", "test_error_init"]).assign(ratio=ratio)


def gains_in_words(table: pd.DataFrame, column: str = "class_gap") -> str:
    """Whether nets with more of a column gain less, as text: Spearman's rank correlation with `ratio` at each α.

    In brackets how often chance alone would give one as large in modulus (two-sided), and the number of nets. An α with
    fewer than five nets, or where the column is the same for all, is left out.

    Args:
        table: of `gains`, of one p and inertia.
        column: "class_gap" or "steps".
    """
    told = []
    for alpha, nets in table.groupby("alpha"):
        if len(nets) >= FEWEST and nets[column].nunique() > 1:
            found = spearmanr(nets[column], nets.ratio)
            told.append(f"{tables.signed(found.statistic)} at α = {alpha:g} ({found.pvalue:.3f}; {len(nets)} nets)")
    return "; ".join(told) if told else NOT_RUN
