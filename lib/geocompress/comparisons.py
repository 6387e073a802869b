"""Two methods on the same samples: ratio of their errors, and what one adds to the exponent of the other."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from geocompress import exponents
from geocompress.curves import curves, window
from geocompress.fits import fit_power_law


def gap_table(rows: pd.DataFrame, kernel: str = "svc_laplace") -> pd.DataFrame:
    """What features add to the exponent: β of the network minus β of a raw kernel over the same p and replicas.

    The window is that of the network, as far as the kernel was run there. Columns: task, d, p_low, p_high, seeds,
    network, kernel (the two β), gap with its interval gap_low, gap_high (half-widths added in quadrature), predicted
    (`beta_feature` − `beta_lazy`). One line for each task and dimension that has both.
    """
    found, lines = curves(rows), []
    for task, d in sorted({(task, d) for task, d, name in found if name == "network"}):
        pair = [found.get((task, d, name), pd.DataFrame(columns=["p", "seed"])) for name in ("network", kernel)]
        both = pair[0].merge(pair[1], on=["p", "seed"], suffixes=("", "_kernel"))
        try:
            part = window(both)
        except ValueError:  # too few in common: no line
            continue
        net, other = (
            fit_power_law(part.p, part[name], replica=part.seed) for name in ("test_error", "test_error_kernel")
        )
        low = math.hypot(net.beta - net.beta_low, other.beta_high - other.beta)
        high = math.hypot(net.beta_high - net.beta, other.beta - other.beta_low)
        gap, d_parallel = net.beta - other.beta, int(part.d_parallel.iloc[0])
        expected = exponents.beta_feature(d, d_parallel) - exponents.beta_lazy(d)
        span = int(part.p.min()), int(part.p.max()), part.seed.nunique()
        lines.append((task, d, *span, net.beta, other.beta, gap, gap - low, gap + high, expected))
    names = ("task", "d", "p_low", "p_high", "seeds", "network", "kernel", "gap", "gap_low", "gap_high", "predicted")
    return pd.DataFrame(lines, columns=list(names))


def paired_ratio(above: pd.DataFrame, below: pd.DataFrame) -> pd.DataFrame:
    """Ratio of the test errors of two methods on the same samples, one line for each p that both have.

    Runs are paired by p and seed. Columns: p, pairs, ratio (geometric mean), low and high (twice the standard error of
    the mean log ratio; nan for a single pair).

    Raises:
        ValueError: when the two share no sample, or a run made no error at all.
    """
    both = above.merge(below, on=["task", "d", "p", "seed"], suffixes=("_above", "_below"))
    if not len(both):
        raise ValueError("paired_ratio: expected runs of the same task, d, p and seed in both, got none")
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(both.test_error_above / both.test_error_below)
    if not np.isfinite(logs).all():
        raise ValueError("paired_ratio: expected errors above 0, got a run without any; test on more points")
    found = logs.groupby(both.p).agg(["mean", "sem", "size"]).reset_index()
    ends = {"low": found["mean"] - 2 * found["sem"], "high": found["mean"] + 2 * found["sem"]}
    values = {name: np.exp(value) for name, value in ({"ratio": found["mean"]} | ends).items()}
    return pd.DataFrame({"p": found.p, "pairs": found["size"], **values})
