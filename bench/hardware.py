"""How much of what the machine can do do the Gram and the products of a step use?

First the machine: the rate of a square matrix product (GEMM), best of several, by numpy and torch in both precisions,
and the rate of a copy between arrays far larger than its caches (bytes read plus bytes written).

Gram among |S| points: 4 |S|² h flops nominal, two products of h columns for every pair and neuron, though the result is
symmetric and half of them would do. `gemm_share` is the nominal rate over that of the faster GEMM, above 1 only where
the symmetry is used; `half_share` counts the flops of the half.

Products of a step: nominally 2 (d + 1) flops for each entry, a pair of a point and a neuron. `copy_share` compares with
a copy that touches one number an entry once: above 1, the product makes numbers again rather than fetch them. Each
product is measured on a linearisation that was made for it, as in a run, where nearly every one is used once or twice.

All shares are medians over rounds in which the machine and the product are measured in turn.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from common import NOT_MEASURED, arguments, check, interleaved, paired_ratio, report, seconds
from geocompress.networks import OneHidden

D = 5
COPIED = 2**29  # bytes, beyond the caches of any processor
GRAM_SHARE = 0.6
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def timed(function: Callable[[], object], device: str) -> float:
    """Seconds of one call; on a GPU those between two events around it."""
    if device == "cpu":
        return seconds(function)[0]
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


class Machine:
    """Speeds of one device in one precision."""

    def __init__(self, device: str, dtype: str, size: int) -> None:
        self.device, self.dtype, self.size = device, dtype, size
        self.place = {"device": device, "dtype": DTYPES[dtype]}
        self.left, self.right = (torch.randn(size, size, **self.place) for _ in range(2))
        self.source = torch.ones(COPIED // self.left.element_size(), **self.place)
        self.target = torch.zeros_like(self.source)
        self.left_numpy, self.right_numpy = (part.cpu().numpy() for part in (self.left, self.right))

    def gemms(self) -> dict[str, float]:
        """Flops a second of a product by torch and, on a CPU, by numpy."""
        flops = 2 * self.size**3
        rates = {"torch GEMM": flops / timed(lambda: self.left @ self.right, self.device)}
        if self.device == "cpu":
            rates["numpy GEMM"] = flops / seconds(lambda: self.left_numpy @ self.right_numpy)[0]
        return rates

    def gemm(self) -> float:
        """Flops a second of the faster one."""
        return max(self.gemms().values())

    def copy(self) -> float:
        """Bytes a second, those read and those written."""
        return 2 * COPIED / timed(lambda: self.target.copy_(self.source), self.device)

    def rows(self, rounds: int) -> list[dict]:
        """The machine by itself."""
        about = {"table": "machine", "device": self.device, "dtype": self.dtype}
        measured = pd.DataFrame([self.gemms() | {"copy": self.copy()} for _ in range(rounds + 1)])
        units, best = {"copy": "GB/s"}, measured.max()
        return [
            {**about, "what": name, "size": COPIED if name == "copy" else self.size, "best": rate / 1e9}
            | {"unit": units.get(name, "Gflop/s")}
            for name, rate in best.items()
        ]


def network_at(points: int, width: int, machine: Machine):
    """A network, its parameters now and a step later, points, and multipliers that are all at work."""
    network = OneHidden(D, width)
    params = network.init(1, **machine.place)
    end = {k: v + 0.1 * w for (k, v), w in zip(params.items(), network.init(2, **machine.place).values(), strict=True)}
    draws = np.random.default_rng(3)
    x, v = (torch.from_numpy(draws.standard_normal(shape)).to(**machine.place) for shape in ((points, D), points))
    return network, params, end, x, v


def gram_row(points: int, width: int, machine: Machine, rounds: int) -> dict:
    """The Gram of a step, among all of its points."""
    network, params, end, x, _ = network_at(points, width, machine)
    every = torch.arange(points, device=machine.device)

    def gram() -> float:
        mean = network.linearise(params, x).secant(end)
        return 4 * points**2 * width / timed(lambda: mean.gram(every), machine.device)

    gram()
    rates = interleaved({"gemm": machine.gemm, "gram": gram}, rounds)
    share = paired_ratio(rates["gram"], rates["gemm"])
    about = {"table": "Gram", "device": machine.device, "dtype": machine.dtype, "points": points, "width": width}
    nominal = float(np.median(rates["gram"])) / 1e9
    return {**about, "Gflop/s nominal": nominal, "gemm_share": share, "half_share": share / 2}


def product_rows(points: int, width: int, machine: Machine, rounds: int) -> list[dict]:
    """Every product that a step asks of the network."""
    network, params, end, x, v = network_at(points, width, machine)

    def at():
        return network.linearise(params, x)

    # what is prepared before the clock starts, and what is timed
    products = {
        "output": (lambda: None, lambda _: at().output),
        "forward": (lambda: None, lambda _: network.forward(params, x)),
        "pullback": (at, lambda made: made.pullback(v)),
        "pushforward": (at, lambda made: made.pushforward(end)),
        "secant": (at, lambda made: made.secant(end)),
        "secant pullback": (lambda: at().secant(end), lambda made: made.pullback(v)),
        "secant pushforward": (lambda: at().secant(end), lambda made: made.pushforward(end)),
    }

    def clock(prepare: Callable, run: Callable) -> Callable[[], float]:
        def measure() -> float:
            made = prepare()
            return timed(lambda: run(made), machine.device)

        return measure

    clocks = {name: clock(*parts) for name, parts in products.items()}
    interleaved(clocks, 1)  # warms up
    speeds = interleaved({"gemm": machine.gemm, "copy": machine.copy, **clocks}, rounds)
    about = {"table": "products", "device": machine.device, "dtype": machine.dtype, "points": points, "width": width}
    rows = []
    for name in products:
        per_entry = np.array(speeds[name]) / (points * width)
        row = {"product": name, "ns_per_entry": 1e9 * float(np.median(per_entry))}
        row["gemm_share"] = paired_ratio(2 * (D + 1) / per_entry, speeds["gemm"])
        row["copy_share"] = paired_ratio(v.element_size() / per_entry, speeds["copy"])
        rows.append({**about, **row})
    return rows


def main() -> None:
    """Sizes up to |S| = 2000, h = 2000 in five rounds (with `--full` h = 4000 and fifteen)."""
    chosen = arguments(__doc__.splitlines()[0])
    rounds, widths = (15, (2000, 4000)) if chosen.full else (5, (2000,))
    rows, shares, tables = [], [], ("machine", "Gram", "products")
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            rows += [{"table": table, "device": device, "note": NOT_MEASURED} for table in tables]
            continue
        for dtype in DTYPES:
            machine = Machine(device, dtype, 2000 if device == "cpu" else 8192)
            rows += machine.rows(rounds)
            grams = [gram_row(s, h, machine, rounds) for s in (1000, 2000) for h in widths]
            rows += grams
            shares += [row["gemm_share"] for row in grams if dtype == "float64" and device == "cpu"]
            rows += product_rows(1024, widths[-1], machine, rounds)
    rows.sort(key=lambda row: tables.index(row["table"]))
    smallest = min(shares, default=math.nan)
    checks = [check("Gram of 1000 points or more, float64, CPU: share of the GEMM rate", smallest, at_least=GRAM_SHARE)]
    report("hardware", rows, chosen, checks, d=D, copied_bytes=COPIED, rounds=rounds)


if __name__ == "__main__":
    main()
