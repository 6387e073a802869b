"""Learning curves side by side: rows of any method become a table of exponents and a pair of drawings.

A curve is what one method does on one task in one dimension. Exponents of all curves are fitted by one rule, chosen
before any was looked at: the `OCTAVES` largest octaves of p at which at least `REPLICAS` replicas were run, through the
replicas that are there at every p. The same rule serves the front page, the chapters and their figures.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from geocompress import exponents, figures
from geocompress.checks import Real, Whole, integer, real
from geocompress.fits import PowerLawFit, fit_power_law, local_slopes

OCTAVES = 3
REPLICAS = 3
WIDE = 0.2  # an interval of an exponent wider than this holds too much to agree with anything
FINISHED = ("FITTED", "SEPARATED")
COLUMNS = ("task", "d", "method", "p_low", "p_high", "seeds", "beta", "beta_low", "beta_high", "last", "predicted")


class Style(NamedTuple):
    """How the curve of a method looks, and its name in words."""

    label: str
    colour: str
    marker: str
    filled: bool = True


STYLES: Mapping[str, Style] = {
    "network": Style("net, feature regime", figures.COLOURS["blue"], "o"),
    "network_lazy": Style("net, lazy regime", figures.COLOURS["sky"], "o", False),
    "svc_laplace": Style("Laplace kernel", figures.COLOURS["vermilion"], "s"),
    "svc_laplace_compressed": Style("Laplace, compressed by $\\sqrt{p}$", figures.COLOURS["orange"], "s", False),
    "svc_laplace_measured": Style("Laplace, compressed by measured $\\lambda$", figures.COLOURS["green"], "D", False),
    "ntk_infinite": Style("infinite-width NTK", figures.COLOURS["purple"], "^"),
    "ntk_infinite_compressed": Style("NTK, compressed by $\\sqrt{p}$", figures.COLOURS["black"], "^", False),
    "ntk_init": Style("NTK at the start", figures.COLOURS["vermilion"], "v"),
    "ntk_star": Style("NTK at $t^*$", figures.COLOURS["orange"], "<", False),
    "ntk_final": Style("NTK at the end", figures.COLOURS["green"], "^"),
    "last_init": Style("last layer at the start", figures.COLOURS["purple"], "s", False),
    "last_final": Style("last layer at the end", figures.COLOURS["black"], "D", False),
}
KEPT = ("task", "d", "d_parallel", "p", "curve", "seed", "test_error")


def curves(rows: pd.DataFrame) -> dict[tuple[str, int, str], pd.DataFrame]:
    """Finished rows by (task, d, name of the curve), p ascending; repeated replicas count once, the last one.

    The name is the method, save for a network in the lazy regime (`network_lazy`) and for a kernel compressed by a
    given λ instead of √p (`…_measured`).
    """
    if not len(rows):
        return {}
    rows = rows[rows.status.isin(FINISHED)]
    rows = rows.assign(curve=names(rows))[list(KEPT)].drop_duplicates(["task", "d", "curve", "p", "seed"], keep="last")
    return {
        (str(task), int(d), str(name)): group.sort_values(["p", "seed"])
        for (task, d, name), group in rows.groupby(["task", "d", "curve"])
    }


def predicted_beta(d: Whole, d_parallel: Whole, name: str) -> float:
    """Exponent that theory gives to a curve: `beta_feature` where directions are compressed, else `beta_lazy`.

    Raises:
        ValueError: for kernels that training made or took from a last layer, of which the theory says nothing; as
            `exponents.beta_feature`.
    """
    if name.startswith(("ntk_star", "ntk_final", "last_")):
        raise ValueError(f"{name}: expected a curve with a prediction, got one that theory says nothing about")
    compressed = name == "network" or name.endswith(("_compressed", "_measured"))
    return exponents.beta_feature(d, d_parallel) if compressed else exponents.beta_lazy(d)


def window(curve: pd.DataFrame, octaves: Real = OCTAVES, replicas: Whole = REPLICAS) -> pd.DataFrame:
    """The part of a curve that its exponent is fitted to: the rule of this module.

    Raises:
        ValueError: when fewer than two p have so many replicas in common.
    """
    octaves, replicas = real(octaves, "octaves", 0), integer(replicas, "replicas")
    runs = curve.groupby("p").seed.nunique()
    enough = runs.index[runs >= replicas]
    if not len(enough):
        raise ValueError(f"expected a p with at least {replicas} replicas, got at most {runs.max()}; run more seeds")
    top = enough.max()
    chosen = curve[curve.p.isin(enough) & (curve.p >= top / 2**octaves * (1 - 1e-9))]
    chosen = complete(chosen)
    if chosen.p.nunique() < 2 or chosen.seed.nunique() < replicas:
        raise ValueError(
            f"expected {replicas} replicas at two p at least below p = {top:g}, got fewer; run more of them"
        )
    return chosen


def fit(curve: pd.DataFrame) -> PowerLawFit:
    """The power law of a curve over its `window`, with a 95 % interval over whole replicas."""
    part = window(curve)
    return fit_power_law(part.p, part.test_error, replica=part.seed)


def slopes(curve: pd.DataFrame) -> pd.DataFrame:
    """`exponents.local_slopes`, octave by octave, each through the replicas that are there at both of its ends."""
    grid = np.sort(curve.p.unique())
    pairs = [curve[curve.p.isin(pair)] for pair in itertools.pairwise(grid) if pair[1] >= 2 * pair[0]]
    found = [local_slopes(pair.p, pair.test_error, replica=pair.seed) for pair in map(complete, pairs) if len(pair)]
    if not found:
        raise ValueError(f"expected two p an octave apart with a replica in common, got p = {grid.tolist()}")
    return pd.concat(found, ignore_index=True)


def exponent_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each curve of the rows: fitted β with its interval, slope of the last octave, prediction, verdict.

    Columns: task, d, method (name of the curve), p_low and p_high of the window, seeds (replicas in it), beta,
    beta_low, beta_high (95 %), last (local slope of the last octave), predicted (nan where theory says nothing),
    off (β minus the prediction) and its `verdict`. Curves too short for a fit are left out.
    """
    lines = []
    for (task, d, name), curve in curves(rows).items():
        try:
            part, law = window(curve), fit(curve)
        except ValueError:  # too few p or replicas for an exponent: no line
            continue
        span, seeds = (int(part.p.min()), int(part.p.max())), part.seed.nunique()
        last = float(slopes(part).beta.iloc[-1])
        try:
            expected = predicted_beta(d, int(curve.d_parallel.iloc[0]), name)
        except ValueError:
            expected = np.nan
        lines.append((task, d, name, *span, seeds, law.beta, law.beta_low, law.beta_high, last, expected))
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    intervals = zip(table.beta, table.beta_low, table.beta_high, table.predicted, strict=True)
    return table.assign(off=table.beta - table.predicted, verdict=[verdict(*line) for line in intervals])


def verdict(value: float, low: float, high: float, expected: float) -> str:
    """What an interval says about a prediction; the one rule for every exponent in the book.

    "above" or "below" when the interval does not hold the prediction, however wide it is; else "agrees", or "undecided"
    when it is wider than `WIDE`; "–" where there is no prediction, or no interval.
    """
    if np.isnan(expected) or np.isnan(low):
        return "–"
    if not low <= expected <= high:
        return "above" if value > expected else "below"
    return "agrees" if high - low <= WIDE else "undecided"


def names(rows: pd.DataFrame) -> list[str]:
    """Name of the curve that each row belongs to; see `curves`."""
    amplification = rows["amplification"] if "amplification" in rows else pd.Series(np.nan, index=rows.index)
    return [_name(*row) for row in zip(rows.method, rows.regime, amplification, strict=True)]


def apart(methods: Sequence[str], spread: Real) -> dict[str, float]:
    """The factor by which the dots of each method are moved: `spread` from the first to the last, 1 in the middle."""
    count = len(methods)
    return {name: spread ** ((n - (count - 1) / 2) / max(count - 1, 1)) for n, name in enumerate(methods)}


def draw_errors(ax: Axes, rows: pd.DataFrame, methods: Sequence[str], *, spread: Real = 1.0) -> None:
    """Learning curves of one task and dimension: means over replicas with 95 % intervals, and the fits as full lines.

    A fit is drawn over its `window`. Methods that the rows have not are left out.

    Args:
        ax: where to draw.
        rows: of any methods.
        methods: which to draw.
        spread: factor in p from the dots of the first method to those of the last, for curves that lie on each other;
            fits stay where they are.

    Raises:
        ValueError: when the rows hold more than one task or dimension, or none of the methods.
    """
    moved = apart(methods, spread)
    for name, curve in _chosen(rows, methods).items():
        look, whole = STYLES[name], fit_power_law(curve.p, curve.test_error)
        bars = np.stack([whole.mean_error - whole.mean_low, whole.mean_high - whole.mean_error])
        ax.errorbar(moved[name] * whole.p, whole.mean_error, np.maximum(bars, 0), label=look.label, **_marks(look))
        with contextlib.suppress(ValueError):  # too short for a fit: dots only
            law = fit(curve)
            ax.plot(law.p, law.predict(law.p), color=look.colour, linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="number of training points $p$", ylabel="test error $\\varepsilon$")


def draw_slopes(ax: Axes, rows: pd.DataFrame, methods: Sequence[str]) -> None:
    """Their local exponents, octave by octave with 95 % intervals; the predictions are dashed, in the same colours.

    Raises:
        ValueError: as `draw_errors`.
    """
    for name, curve in _chosen(rows, methods).items():
        look, found = STYLES[name], slopes(curve)
        middle = np.sqrt(found.p_low * found.p_high)
        bars = np.stack([found.beta - found.beta_low, found.beta_high - found.beta])
        ax.errorbar(middle, found.beta, np.maximum(bars, 0), linewidth=1, **_marks(look, line="-"))
        with contextlib.suppress(ValueError):  # theory says nothing about some
            expected = predicted_beta(int(curve.d.iloc[0]), int(curve.d_parallel.iloc[0]), name)
            ax.axhline(expected, color=look.colour, linestyle="--", linewidth=1.2)
    ax.set(xscale="log", xlabel="number of training points $p$", ylabel="local exponent $\\beta$")


def _chosen(rows: pd.DataFrame, methods: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The curves of some methods, in their order."""
    found = curves(rows)
    kinds = {(task, d) for task, d, _ in found}
    present = {name: curve for (_, _, name), curve in found.items()}
    chosen = {name: present[name] for name in methods if name in present}
    if len(kinds) != 1 or not chosen:
        raise ValueError(f"expected rows of one task and d with a method of {list(methods)}, got {sorted(found)}")
    return chosen


def _marks(look: Style, line: str = "") -> dict[str, Any]:
    filling = look.colour if look.filled else "none"
    return {"color": look.colour, "mfc": filling, "capsize": 3, "fmt": look.marker + line}


def _name(method: str, regime: str, amplification: float | None) -> str:
    if method == "network" and regime == "lazy":
        return "network_lazy"
    if method.endswith("_compressed") and not pd.isna(amplification):
        return method.removesuffix("_compressed") + "_measured"
    return method


def complete(curve: pd.DataFrame) -> pd.DataFrame:
    """The runs of the replicas that are there at every p."""
    runs = curve.groupby("seed").p.nunique()
    return curve[curve.seed.isin(runs.index[runs == curve.p.nunique()])]
