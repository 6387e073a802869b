"""Runs against other runs: what features add to an exponent, how compression grows, errors on the same samples.

Every exponent here is fitted over the window of `curves.window`, as those of learning curves are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from geocompress import exponents
from geocompress.checks import Real
from geocompress.curves import FINISHED, curves, verdict, window
from geocompress.fits import PowerLawFit, exponent_difference, fit_amplification, fit_power_law

LAZY = ("svc_laplace", "ntk_infinite")  # raw kernels that a network is held against
GAP_TOLERANCE = 0.08  # a gap closer to its prediction than this is counted as predicted
READINGS = {
    "star": "lambda_star",
    "max": "lambda_max",
    "end": "lambda_end",
}  # when λ is read: at t*, largest, at the end
GAPS = ("task", "d", "kernel", "p_low", "p_high", "seeds", "network", "network_low", "network_high")
GAPS += ("lazy", "lazy_low", "lazy_high", "gap", "gap_low", "gap_high", "predicted")

# of a network with its kernels, the error that should fall faster and that which should fall more slowly
FROZEN_GAPS = {"kept": ("svc_star", "svc_init"), "lost": ("svc_final", "svc_star")}
FROZEN_GAPS |= {"rest": ("test_error", "svc_final"), "gap": ("test_error", "svc_init")}

GROWTH = ("task", "d", "p_low", "p_high", "seeds", "prefactor")
GROWTH += tuple(name + end for name in READINGS for end in ("", "_low", "_high", "_first", "_last"))
GROWTH += ("predicted", "off", "verdict")


def gap_table(rows: pd.DataFrame, kernels: Sequence[str] = LAZY) -> pd.DataFrame:
    """What features add to the exponent: β of the network minus β of raw kernels over the same p and replicas.

    The window is that of the network, as far as the kernel was run there. Columns: task, d, kernel (its method), p_low,
    p_high, seeds, the two β as network and lazy with their 95 % intervals …_low and …_high, gap with its interval
    (`fits.exponent_difference`: replicas are shared), predicted (`beta_feature` − `beta_lazy`), off (gap minus
    predicted), network_off and lazy_off (each β minus its own prediction), disjoint (whether the interval of the
    network lies above that of the kernel). One line for each task, dimension and kernel that was run beside a network.
    """
    found, lines = curves(rows), []
    kinds = sorted({(task, d) for task, d, name in found if name == "network"})
    for task, d, kernel in ((*kind, kernel) for kind in kinds for kernel in kernels):
        pair = [found.get((task, d, name), pd.DataFrame(columns=["p", "seed"])) for name in ("network", kernel)]
        both = pair[0].merge(pair[1], on=["p", "seed"], suffixes=("", "_kernel"))
        try:
            part = window(both)
        except ValueError:  # too few in common: no line
            continue
        net, other = (
            fit_power_law(part.p, part[name], replica=part.seed) for name in ("test_error", "test_error_kernel")
        )
        d_parallel = int(part.d_parallel.iloc[0])
        gap = exponent_difference(part.p, part.test_error, part.test_error_kernel, replica=part.seed)
        fits = (value for law in (net, other) for value in (law.beta, law.beta_low, law.beta_high))
        span = int(part.p.min()), int(part.p.max()), part.seed.nunique()
        expected = exponents.beta_feature(d, d_parallel) - exponents.beta_lazy(d)
        lines.append((task, d, kernel, *span, *fits, *gap, expected))
    table = pd.DataFrame(lines, columns=list(GAPS))
    lazy_off = table.lazy - [exponents.beta_lazy(d) for d in table.d]
    table = table.assign(
        off=table.gap - table.predicted, lazy_off=lazy_off, disjoint=table.network_low > table.lazy_high
    )
    return table.assign(network_off=table.off + table.lazy_off)


def frozen_table(rows: pd.DataFrame) -> pd.DataFrame:
    """When a network wins and loses its gap: exponents of machines on its kernel of the start, of t* and of the end.

    Differences of β over the window of learning curves, on the same samples, one line for each task and d of networks
    in the feature regime, of one α. Columns: task, d, p_low, p_high, seeds; kept, kernel of t* minus kernel of the
    start; lost, kernel of the end minus kernel of t*; rest, network minus kernel of the end; gap, the sum of the three:
    network minus kernel of the start; each with its 95 % interval …_low and …_high (`fits.exponent_difference`) and a
    verdict, kept_verdict and gap_verdict against predicted (`beta_feature` − `beta_lazy`), the others against 0.

    Raises:
        ValueError: rows of another kind than those of `ntk_experiments.train_frozen`.
    """
    parts = [name + end for name in FROZEN_GAPS for end in ("", "_low", "_high", "_verdict")]
    names = ["task", "d", "p_low", "p_high", "seeds", "predicted", *parts]
    if not len(rows):
        return pd.DataFrame(columns=names)
    if "svc_star" not in rows:
        found = "a table without svc_star; load those of a sweep with `experiment: ntk`"
        raise ValueError(f"frozen_table: expected rows of experiment ntk, got {found}")
    nets, lines = rows[(rows.regime == "feature") & rows.status.isin(FINISHED) & rows.svc_star.notna()], []
    for (task, d), group in nets.groupby(["task", "d"]):
        try:
            part = window(group.drop_duplicates(["p", "seed"], keep="last"))
        except ValueError:  # too few p or replicas for an exponent: no line
            continue
        expected = exponents.beta_feature(int(d), int(part.d_parallel.iloc[0])) - exponents.beta_lazy(int(d))
        line = {"task": task, "d": int(d), "p_low": int(part.p.min()), "p_high": int(part.p.max())}
        line |= {"seeds": part.seed.nunique(), "predicted": expected}
        for name, (above, below) in FROZEN_GAPS.items():
            found = exponent_difference(part.p, part[above], part[below], replica=part.seed)
            line |= dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
            line[f"{name}_verdict"] = verdict(*found, expected if name in ("kept", "gap") else 0.0)
        lines.append(line)
    return pd.DataFrame(lines, columns=names)


def amplification_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How compression grows with p: exponents of λ at t*, at its largest and at the end, of nets in the feature regime.

    Averages are those of `fit_amplification`, the window is that of learning curves. Columns: task, d, p_low, p_high,
    seeds; for each of star, max and end the exponent of λ ~ p^exponent with its 95 % interval …_low, …_high, and the
    average λ at both ends of the window, …_first and …_last; the prefactor λ(t*)/√p; predicted (½), off and verdict,
    those of star.
    """
    lines = []
    nets = rows[rows.status.isin(FINISHED) & (rows.method == "network") & (rows.regime == "feature")]
    nets = nets.drop_duplicates(["task", "d", "p", "seed"], keep="last")
    for (task, d), group in nets.groupby(["task", "d"]):
        try:
            part = window(group)
        except ValueError:  # too few p or replicas for an exponent: no line
            continue
        line = {"task": task, "d": int(d), "p_low": int(part.p.min()), "p_high": int(part.p.max())}
        line |= {"seeds": part.seed.nunique(), "prefactor": float((part.p / part.lambda_star**2).mean() ** -0.5)}
        for name, column in READINGS.items():
            law = fit_amplification(part.p, part[column], replica=part.seed)
            values = {"": -law.beta, "_low": -law.beta_high, "_high": -law.beta_low}
            values |= {"_first": law.mean_error[0], "_last": law.mean_error[-1]}
            line |= {f"{name}{end}": float(value) for end, value in values.items()}
        judged = verdict(line["star"], line["star_low"], line["star_high"], 0.5)
        lines.append(line | {"predicted": 0.5, "off": line["star"] - 0.5, "verdict": judged})
    return pd.DataFrame(lines, columns=list(GROWTH))


def paired_ratio(above: pd.DataFrame, below: pd.DataFrame, column: str = "test_error") -> pd.DataFrame:
    """Ratio of the test errors of two methods on the same samples, one line for each p that both have.

    Runs are paired by p and seed. Columns: p, pairs, ratio (geometric mean), low and high (twice the standard error of
    the mean log ratio; nan for a single pair). `column` says what else than the test error to compare.

    Raises:
        ValueError: when the two share no sample, or a run made no error at all.
    """
    both = _paired(above, below, column, "paired_ratio")
    logs = np.log(both.ratio)
    found = logs.groupby(both.p).agg(["mean", "sem", "size"]).reset_index()
    ends = {"low": found["mean"] - 2 * found["sem"], "high": found["mean"] + 2 * found["sem"]}
    values = {name: np.exp(value) for name, value in ({"ratio": found["mean"]} | ends).items()}
    return pd.DataFrame({"p": found.p, "pairs": found["size"], **values})


def ratio_law(above: pd.DataFrame, below: pd.DataFrame, column: str = "test_error") -> PowerLawFit:
    """The power of p by which the ratio of two methods on the same samples falls (β < 0: it grows), over all p of both.

    Raises:
        ValueError: as `paired_ratio` and `fit_power_law`.
    """
    both = _paired(above, below, column, "ratio_law")
    return fit_power_law(both.p, both.ratio, replica=both.seed)


def setting_table(runs: pd.DataFrame, usual: Mapping[str, Real]) -> pd.DataFrame:
    """What one changed setting does to networks on the same samples: ratios to those with all settings as `usual`.

    A line for each other value of each setting, the rest as usual. Columns: setting, value, pairs, and for error (of
    the test) and star (λ at t*) the mean ratio with twice its standard error, …_low and …_high, as `paired_ratio`.

    Raises:
        ValueError: as `paired_ratio`: runs at the usual settings are missing, or on other samples.
    """
    same = {name: runs[name] == value for name, value in usual.items()}
    base, lines = runs[np.logical_and.reduce(list(same.values()))], []
    for setting in usual:
        rest = np.logical_and.reduce([kept for name, kept in same.items() if name != setting])
        for value, part in runs[rest & ~same[setting]].groupby(setting):
            ratios = {"error": "test_error", "star": "lambda_star"}
            found = {name: paired_ratio(part, base, column) for name, column in ratios.items()}
            for error, star in zip(found["error"].itertuples(), found["star"].itertuples(), strict=True):
                line = {"setting": setting, "value": value, "pairs": error.pairs}
                for name, ratio in (("error", error), ("star", star)):
                    line |= {name: ratio.ratio, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
                lines.append(line)
    return pd.DataFrame(lines)


def metric_table(nets: pd.DataFrame, machines: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Whether a kernel machine that is told a network's compression errs as the network does, sample by sample.

    `machines` are their runs by the name of what they were told, as those of `READINGS`. One line for each d of each.
    Columns: d, told, p_low, p_high and seeds of the window; lowest and highest ratio (network over machine) in it; the
    ratio at p_high, last, with last_low and last_high; held, the number of p whose interval of the ratio holds 1, among
    the points of the window; trend, the exponent of the mean ratio in p, with its 95 % interval trend_low, trend_high,
    and its verdict against 0.
    """
    lines = []
    for told, every in machines.items():
        for d, group in every.groupby("d"):
            try:
                part = window(_paired(nets, group, "test_error", "metric_table"))
            except ValueError:  # no samples in common, or too few: no line
                continue
            law = fit_power_law(part.p, part.ratio, replica=part.seed)
            ratio = paired_ratio(nets, group[group.p.isin(part.p)]).set_index("p")
            line = {"d": int(d), "told": told, "p_low": int(part.p.min()), "p_high": int(part.p.max())}
            line |= {"seeds": part.seed.nunique(), "lowest": ratio.ratio.min(), "highest": ratio.ratio.max()}
            line |= {"last": ratio.ratio.iloc[-1], "last_low": ratio.low.iloc[-1], "last_high": ratio.high.iloc[-1]}
            line |= {"held": int(((ratio.low <= 1) & (ratio.high >= 1)).sum()), "points": len(ratio)}
            trend = {"trend": -law.beta, "trend_low": -law.beta_high, "trend_high": -law.beta_low}
            lines.append(line | trend | {"verdict": verdict(*trend.values(), 0.0)})
    return pd.DataFrame(lines)


def _paired(above: pd.DataFrame, below: pd.DataFrame, column: str, who: str) -> pd.DataFrame:
    """Runs on the same samples, and the ratio of what they have in a column."""
    both = above.merge(below, on=["task", "d", "p", "seed"], suffixes=("_above", "_below"))
    if not len(both):
        raise ValueError(f"{who}: expected runs of the same task, d, p and seed in both, got none")
    ratio = both[f"{column}_above"].to_numpy(float), both[f"{column}_below"].to_numpy(float)
    if not all(np.isfinite(values).all() and (values > 0).all() for values in ratio):
        what = "errors above 0, got a run without any; test on more points"
        raise ValueError(f"{who}: expected {what if column == 'test_error' else f'{column} finite and above 0'}")
    return both.assign(ratio=ratio[0] / ratio[1])
