"""What does a run cost, where does the time go, and how do both grow with the points p, the width h, the dimension d?

Whole trainings (stripe, α = 1e-6, to zero loss) along three lines through the sizes, each seed once at every size, the
seeds in the outer loop. `wall_s` is the median over seeds; `tries` counts steps with those that were rejected;
`working_set` is the largest quadratic program and `in_doubt` the most points that a step worked with. A second table
has the exponents of wall ~ size^exponent with 95 % intervals from the spread over seeds.

Shares of the wall time are taken from outside, by wrapping the network and the solver of the quadratic program: `qp`;
`gram`; `products`, linearisation and secant with their products; `looks`, outputs at the end of a step, bounds on
distances included; `rest` is the flow's own arithmetic. The wrapping costs under one per cent.
"""

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from common import arguments, check, growth, report, seconds, substituted
from geocompress import boxqp, experiments
from geocompress.networks import Jacobian, Linearisation, Network, Params

BASE = {"p": 256, "width": 1000, "d": 5}
BUDGET = 40.0  # seconds after which the short version begins with no further seed
GOALS = {(256, 1000): 0.6, (1024, 2000): 6.0, (4096, 4000): 300.0}  # (p, h): seconds allowed, d = 5
QP_SHARE = 0.25
PARTS = ("qp", "gram", "products", "looks")


class Watch:
    """Seconds and calls of the parts of a run, and the largest number of points of each."""

    def __init__(self) -> None:
        self.seconds, self.calls, self.largest = Counter(), Counter(), Counter()

    def timed(self, part: str, function: Callable, *args, points: int = 0, **settings):
        start = time.perf_counter()
        result = function(*args, **settings)
        self.seconds[part] += time.perf_counter() - start
        self.calls[part] += 1
        self.largest[part] = max(self.largest[part], points)
        return result


class WatchedJacobian:
    """A Jacobian whose products are timed."""

    def __init__(self, inner: Jacobian, watch: Watch) -> None:
        self.inner, self.watch = inner, watch

    def pullback(self, cotangent: torch.Tensor) -> Params:
        return self.watch.timed("products", self.inner.pullback, cotangent)

    def pushforward(self, tangent: Params) -> torch.Tensor:
        return self.watch.timed("products", self.inner.pushforward, tangent)

    def gram(self, rows: torch.Tensor) -> torch.Tensor:
        return self.watch.timed("gram", self.inner.gram, rows, points=len(rows))


class WatchedLinearisation(WatchedJacobian):
    """A linearisation whose products are timed."""

    inner: Linearisation

    @property
    def output(self) -> torch.Tensor:
        return self.watch.timed("products", getattr, self.inner, "output")

    def secant(self, end: Params) -> WatchedJacobian:
        self.watch.calls["tries"] += 1
        return WatchedJacobian(self.watch.timed("products", self.inner.secant, end), self.watch)


class WatchedNetwork:
    """A network that knows what its calls cost."""

    def __init__(self, inner: Network, watch: Watch) -> None:
        self.inner, self.watch, self.width = inner, watch, inner.width

    def forward(self, params: Params, x: torch.Tensor) -> torch.Tensor:
        return self.watch.timed("looks", self.inner.forward, params, x)

    def linearise(self, params: Params, x: torch.Tensor) -> WatchedLinearisation:
        inner = self.watch.timed("products", self.inner.linearise, params, x, points=len(x))
        return WatchedLinearisation(inner, self.watch)

    def distance(self, before: Params, after: Params) -> float:
        return self.watch.timed("looks", self.inner.distance, before, after)

    def sizes(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner.sizes(x)


def train(size: dict, seed: int) -> dict:
    """One training to its end, watched."""
    replica = experiments.Replica(experiments.NetworkConfig(**size, seed=seed, test_size=1))
    watch, solve = Watch(), boxqp.boxqp
    replica.network = WatchedNetwork(replica.network, watch)

    def solve_watched(matrix: np.ndarray, *args, **settings):
        return watch.timed("qp", solve, matrix, *args, points=len(matrix), **settings)

    with substituted(solve, solve_watched):
        wall, states = seconds(lambda: [(s.step, s.status) for s in replica.states()])
    steps, status = states[-1]
    shares = {part: watch.seconds[part] / wall for part in PARTS}
    return {
        **size,
        "seed": seed,
        "wall_s": wall,
        "steps": steps,
        "tries": watch.calls["tries"],
        "working_set": watch.largest["qp"],
        "in_doubt": watch.largest["products"],
        **shares,
        "rest": 1 - sum(shares.values()),
        "status": status.value,
    }


def lines(full: bool) -> dict[str, list[dict]]:
    """Sizes along each line."""
    p_max, width = (4096, 2000) if full else (1024, 1000)
    doubling = [64 * 2**k for k in range((p_max // 64).bit_length())]
    goals = [goal for goal in GOALS if full or goal[0] <= p_max]
    return {
        "p": [{**BASE, "width": width, "p": p} for p in doubling],
        "width": [{**BASE, "width": h} for h in (500, 1000, 2000, 4000)],
        "d": [{**BASE, "d": d} for d in (2, 3, 5, 10, 20)],
        "goals": [{**BASE, "p": p, "width": h} for p, h in goals],
    }


def main() -> None:
    """Seeds 1 to 3 up to p = 1024 (with `--full` 1 to 5 up to 4096)."""
    chosen = arguments(__doc__.splitlines()[0])
    scans = lines(chosen.full)
    sizes = list({tuple(size.items()): size for scan in scans.values() for size in scan}.values())  # each once
    train({**BASE, "p": 16}, seed=0)  # warms up
    runs, begun = [], time.perf_counter()
    for seed in range(1, 6 if chosen.full else 4):
        for size in sizes:
            runs.append(train(size, seed))
            if chosen.full:
                print(runs[-1], flush=True)
        used = time.perf_counter() - begun
        if not chosen.full and used * (seed + 1) / seed > BUDGET:
            break
    frame = pd.DataFrame(runs)
    numbers = frame.columns.drop([*BASE, "seed", "status"])
    by_size = frame.groupby(list(BASE))
    medians = by_size[list(numbers)].median()
    medians["runs"] = by_size.size()
    medians["fitted"] = by_size.status.agg(lambda status: (status == "FITTED").sum())
    rows = [{"table": "cost, median over seeds", **row} for row in medians.reset_index().to_dict("records")]
    for name in BASE:
        line = frame.merge(pd.DataFrame(scans[name]))
        for cost in ("wall_s", "steps", "working_set"):
            fitted = growth(line[name], line[cost], line.seed)
            rows.append({"table": "growth", "quantity": cost, "with": name, **fitted})
    checks = []
    for p, width in [(size["p"], size["width"]) for size in scans["goals"]]:
        found = medians.loc[p, width, BASE["d"]]
        checks.append(check(f"p = {p}, h = {width}: seconds", found.wall_s, at_most=GOALS[p, width]))
        checks.append(check(f"p = {p}, h = {width}: share of the QP", found.qp, at_most=QP_SHARE))
    report("cost", rows, chosen, checks, alpha=1e-6, runs=runs)


if __name__ == "__main__":
    main()
