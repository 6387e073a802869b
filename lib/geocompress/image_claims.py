"""What the published rows on images say: exponents, and the claims of arXiv:2007.11471 with a verdict each, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from geocompress import comparisons, curves, tables
from geocompress.checks import Real
from geocompress.fits import PowerLawFit, fit_power_law

METHODS = ("network", "ntk_init", "ntk_final", "last_init", "last_final")
CLAIMED = ("network", "ntk_init", "ntk_final")  # methods that arXiv:2007.11471 says something about
NOT_RUN = "not yet run"
MOMENTS = ("init", "final")


def error_by_method(every: pd.DataFrame) -> pd.DataFrame:
    """Mean test error with its 95 % interval (Student's, over seeds) for each p, α, inertia and method.

    Columns: p, alpha, inertia, method, seeds, error, low, high (nan for a single seed).

    Args:
        every: rows of `image_experiments.by_method`.
    """
    keys = ["p", "alpha", "inertia", "method"]
    found = every.groupby(keys).test_error.agg(["mean", "sem", "size"]).reset_index()
    half = stdtrit(np.maximum(found["size"] - 1, 1), 0.975) * found["sem"]
    ends = {"seeds": found["size"], "error": found["mean"], "low": found["mean"] - half, "high": found["mean"] + half}
    return found[keys].assign(**ends)


def error_in_words(line: pd.Series) -> str:
    """A line of `error_by_method` as text."""
    return tables.interval(line.error, line.low, line.high, digits=4)


def exponents_in_words(every: pd.DataFrame, methods: Sequence[str] = METHODS) -> pd.DataFrame:
    """Fitted β with its 95 % interval over seeds, one line a method, as text.

    Two fits: over all p that have three seeds, and over the largest octaves (`curves.window`), where that is possible.

    Args:
        every: rows of `image_experiments.by_method` of one α and inertia.
        methods: which to fit, in this order.
    """
    lines = []
    for name in methods:
        rows = every[every.method == name]
        whole = _common(rows)
        if whole.p.nunique() < 2 or whole.seed.nunique() < curves.REPLICAS:
            continue
        law, part = fit_power_law(whole.p, whole.test_error, replica=whole.seed), curves.window(rows)
        span = f"{whole.p.min()} – {whole.p.max()}"
        lines.append((curves.STYLES[name].label, span, _exponent(law), f"{part.p.min()} – {part.p.max()}"))
        lines[-1] += (_exponent(curves.fit(rows)),)
    return pd.DataFrame(lines, columns=["method", "$p$", "$\\beta$ (95 %)", "larger $p$", "$\\beta$ there (95 %)"])


def claims(every: pd.DataFrame, *, at: Real = 1000, beyond: Real = 200) -> pd.DataFrame:
    """The three claims of arXiv:2007.11471 on MNIST, what was measured, and whether they hold, as text.

    1. At p = `at` the net errs less than the machine on its initial kernel; the 95 % intervals over seeds are disjoint.
       Beside them stands the ratio of the two on the same images, two standard errors in brackets.
    2. β of the net is larger than that of its initial kernel: the slope of their ratio over all p, with its interval.
    3. The final kernel errs less than the initial one at every p ≥ `beyond`: geometric mean of the ratio on the same
       images, two standard errors in brackets, below 1 with its interval at each of them.

    Columns: claim, measured, verdict ("holds", "does not hold", "undecided" where an interval holds both answers, or
    "not yet run").

    Args:
        every: rows of `image_experiments.by_method` of one α and inertia.
        at: p of the first claim.
        beyond: least p of the third.
    """
    parts = {name: every[every.method == name] for name in CLAIMED}
    found = [_below_at(parts, at), _steeper(parts), _better_frozen(parts, beyond)]
    return pd.DataFrame(found, columns=["claim", "measured", "verdict"])


def verdicts_in_words(table: pd.DataFrame) -> str:
    """The verdicts of `claims` as text, each beside a name of its claim; "not yet run" for an empty table."""
    names = ("lower error", "larger exponent", "better final kernel")
    told = zip(names, table.verdict, strict=True) if len(table) else ()
    return "; ".join(f"{name}: {verdict}" for name, verdict in told) or NOT_RUN


def left_out(every: pd.DataFrame, methods: Sequence[str] = METHODS) -> str:
    """Which machines have no result and why, as text: method, how many of how many, from which p, and their endings.

    Args:
        every: rows of `image_experiments.by_method`, with all endings.
        methods: which to look at.
    """
    told = []
    for name in methods:
        rows = every[every.method == name]
        lost = rows[~rows.status.isin(curves.FINISHED)]
        if len(lost):
            ends = ", ".join(sorted(lost.status.str.lower().unique()))
            label = curves.STYLES[name].label
            told.append(f"{label}, {len(lost)} of {len(rows)} ({ends}), from $p$ = {lost.p.min()} on")
    return "; ".join(told) if told else "none"


def stability_in_words(stability: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """What training did to the relative stability of the output, and in how many layers R fell, as text.

    `stability` has "init" and "final", each one line a run, as `image_figures.layers` takes it; empty if not yet run.
    """
    if not stability:
        return NOT_RUN
    before, after = (np.mean(np.asarray(stability[moment]), axis=0) for moment in ("init", "final"))
    fell = int((after < before).sum())
    word = "more" if after[-1] < before[-1] else "less"
    return f"training made the output {word} stable to deformations, and {fell} of {len(before)} layers more stable"


def similarities(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What training did to the kernel at the largest p, one line a set of rows, as text: means over seeds.

    Args:
        tables: by title, rows of `image_experiments.train_images` or `ntk_experiments.train_frozen`.
    """
    lines = []
    for title, rows in tables.items():
        last = rows[rows.p == rows.p.max()]
        line = {"": title, "seeds": f"{len(last)}"}
        for name, (before, after) in _changes(rows).items():
            digits = 3 if "error" in name else 2
            line[name] = f"{before:.{digits}f} → {after:.{digits}f}"
        lines.append(line | {"net": f"{last.test_error.mean():.3f}"})
    return pd.DataFrame(lines)


def similarities_in_words(tables: Mapping[str, pd.DataFrame]) -> str:
    """Which of the `similarities` change the same way in all sets, and by which factors, in the order of the sets."""
    changes = [_changes(rows) for rows in tables.values()]
    told: dict[bool, list[str]] = {True: [], False: []}
    for name in changes[0] if changes else ():
        factors = [after / before for before, after in (change[name] for change in changes)]
        alike = all(factor > 1 for factor in factors) or all(factor < 1 for factor in factors)
        told[alike].append(f"{name} (× {', × '.join(f'{factor:.1f}' for factor in factors)})")
    said = {"change the same way": told[True], "do not": told[False]}
    return "; ".join(f"{title}: {', '.join(names)}" for title, names in said.items() if names) or NOT_RUN


def _changes(rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """What training did to the kernel at the largest p: means over seeds, before and after, by name."""
    last, found = rows[rows.p == rows.p.max()], {}
    for column, name in (("projections", "largest label projection"), ("information", "best information (nats)")):
        found[name] = tuple(float(np.mean([max(values) for values in last[f"{column}_{m}"]])) for m in MOMENTS)
    for column, name in (("alignment", "alignment"), ("svc", "error of its machine")):
        found[name] = tuple(float(last[f"{column}_{moment}"].mean()) for moment in MOMENTS)
    return found


def _below_at(parts: Mapping[str, pd.DataFrame], at: Real) -> tuple[str, str, str]:
    claim = f"at $p$ = {at:g} the net errs less than its initial kernel, intervals over seeds disjoint"
    nets, kernels = (parts[name][parts[name].p == at] for name in ("network", "ntk_init"))
    if len(set(nets.seed) & set(kernels.seed)) < 2:
        return claim, NOT_RUN, NOT_RUN
    table = error_by_method(pd.concat([nets, kernels])).set_index("method")
    net, kernel = table.loc["network"], table.loc["ntk_init"]
    told = " against ".join(error_in_words(line) for line in (net, kernel))
    below, above = bool(net.high < kernel.low), bool(net.low > kernel.high)
    pair = comparisons.paired_ratio(nets, kernels).iloc[0]
    told += f", {net.seeds:.0f} seeds; on the same images {tables.interval(pair.ratio, pair.low, pair.high)} times"
    return claim, told, _verdict(below, above)


def _steeper(parts: Mapping[str, pd.DataFrame]) -> tuple[str, str, str]:
    claim = "the exponent of the net is larger than that of its initial kernel"
    both = parts["network"].merge(parts["ntk_init"], on=["p", "seed"], suffixes=("", "_init"))
    both = _common(both)
    if both.p.nunique() < 2 or both.seed.nunique() < curves.REPLICAS:
        return claim, NOT_RUN, NOT_RUN
    gap = fit_power_law(both.p, both.test_error / both.test_error_init, replica=both.seed)
    told = f"difference {_exponent(gap)}, $p$ = {both.p.min()} to {both.p.max()}, {both.seed.nunique()} seeds"
    return claim, told, _verdict(bool(gap.beta_low > 0), bool(gap.beta_high < 0))


def _better_frozen(parts: Mapping[str, pd.DataFrame], beyond: Real) -> tuple[str, str, str]:
    claim = f"the final kernel errs less than the initial one at every $p$ ≥ {beyond:g}"
    large = {name: parts[name][parts[name].p >= beyond] for name in ("ntk_final", "ntk_init")}
    if not len(large["ntk_final"]):
        return claim, NOT_RUN, NOT_RUN
    ratio = comparisons.paired_ratio(large["ntk_final"], large["ntk_init"])
    verdict = _verdict(bool((ratio.high < 1).all()), bool((ratio.low > 1).any()))
    return claim, f"ratio {tables.ratio_by_p(ratio)}", verdict


def _verdict(holds: bool, fails: bool) -> str:
    return "holds" if holds else "does not hold" if fails else "undecided"


def _exponent(law: PowerLawFit) -> str:
    return tables.interval(law.beta, law.beta_low, law.beta_high)


def _common(rows: pd.DataFrame) -> pd.DataFrame:
    """The p with at least `curves.REPLICAS` seeds, through the seeds that are there at all of them."""
    return curves.complete(rows[rows.groupby("p").seed.transform("nunique") >= curves.REPLICAS])
