"""How long does a hard-margin classifier take, and how much memory? The working set against scikit-learn on a Gram.

Stripe in d = 5, Laplace kernel of bandwidth 100. Each fit runs in a process of its own, so that the peak of its memory
is its own (the libraries alone take the amount of the row "imports only"). scikit-learn gets a C of 1e10, its default
tolerance of 1e-3 and a cache of 2 GB; its seconds include the Gram, which it cannot do without, and are also given
without it. The violation of margin 1 is measured over all points. Ratios are of processor time, which other work on the
machine disturbs less than the clock.
"""

import concurrent.futures
import functools
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC

from common import arguments, check, report, seconds
from geocompress import classifiers, kernels, tasks

DIMENSION, SCALE, SEED = 5, 100.0, 1
CACHE_MB = 2000

RATIO, RATIO_AT = 20, 32_768  # times faster than scikit-learn, and at how many points
MINUTES, GIB, LARGE = 5, 6, 131_072  # what so many points may take
MEMORY_GB = 4, 8  # budget of the working set for up to as many, and for more: 262 144 points have 12 000 at the margin

laplace = functools.partial(kernels.laplace, scale=SCALE)


def timed(fit: Callable[[], Any]) -> tuple[dict, Any]:
    """Seconds by the clock and of the processor, and what was returned."""
    start = time.process_time()
    wall, result = seconds(fit)
    return {"seconds": wall, "cpu_seconds": time.process_time() - start}, result


def working_set(p: int) -> dict:
    """Time a fit of this library."""
    x, y = tasks.stripe(DIMENSION).sample(p, SEED)
    spent, svc = timed(lambda: classifiers.hard_margin_svc(laplace, x, y, memory_gb=MEMORY_GB[p > LARGE]))
    solved = {"support": len(svc.support), "rounds": svc.rounds, "violation": svc.violation, "gap": svc.gap}
    return {**spent, "outcome": svc.ending.value.lower(), **solved}


def precomputed(p: int) -> dict:
    """Time a fit of scikit-learn on the Gram, and the making of the Gram."""
    x, y = (array.numpy() for array in tasks.stripe(DIMENSION).sample(p, SEED))
    points = torch.from_numpy(x)
    before, gram = timed(lambda: laplace(points, points).numpy())
    svc = SVC(kernel="precomputed", C=1e10, cache_size=CACHE_MB)
    after, _ = timed(lambda: svc.fit(gram, y))
    margins = y * (gram[:, svc.support_] @ svc.dual_coef_[0] + svc.intercept_[0])
    spent = {name: before[name] + after[name] for name in before} | {"cpu_seconds_fit": after["cpu_seconds"]}
    return {**spent, "outcome": "solved", "support": len(svc.support_), "violation": max(0.0, 1 - float(margins.min()))}


def nothing(p: int) -> dict:
    return {"seconds": 0.0, "outcome": "imports only"}


def measured(fit: Callable[[int], dict], p: int, threads: int) -> dict:
    """What a fit says, and the peak of the memory of its process."""
    torch.set_num_threads(threads)
    return {"p": p, **fit(p), "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def alone(fit: Callable[[int], dict], p: int, threads: int) -> dict:
    """Measure in a fresh process, forked from one that has imported the libraries and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["geocompress.classifiers"])
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measured, fit, p, threads).result()


def room(p: int) -> bool:
    """True when the Gram and the copies made of parts of it fit into the memory of this machine."""
    return 1.2 * 8 * p**2 + CACHE_MB * 1e6 < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Compare for p = 2048 to 32768 (with `--full` to 262144, by the working set alone where no Gram fits)."""
    chosen = arguments(__doc__.splitlines()[0])
    rows = [{"solver": "none", **alone(nothing, 0, chosen.threads)}]
    for p in 2 ** np.arange(11, 19 if chosen.full else 16):
        p = int(p)
        own = alone(working_set, p, chosen.threads)
        if room(p):
            other = alone(precomputed, p, chosen.threads)
            other["ratio"] = other["cpu_seconds"] / own["cpu_seconds"]
        else:
            other = {"p": p, "outcome": f"not run: a Gram of {8 * p**2 / 1e9:.0f} GB"}
        for row in ({"solver": "working set", **own}, {"solver": "scikit-learn", **other}):
            rows.append(row)
            print(row, flush=True)
    report("svc", rows, chosen, checks(rows), d=DIMENSION, scale=SCALE, seed=SEED, cache_mb=CACHE_MB)


def checks(rows: list[dict]) -> list[dict]:
    """What is asked of the working set."""
    found = []
    for row in rows:
        p = row.get("p")
        if p == RATIO_AT and row.get("ratio"):
            found.append(check(f"p = {p}: time of scikit-learn over ours", row["ratio"], at_least=RATIO))
        if p == LARGE and row["solver"] == "working set":
            found.append(check(f"p = {p}: minutes", row["seconds"] / 60, at_most=MINUTES))
            found.append(check(f"p = {p}: GiB at the peak", row["peak_gib"], at_most=GIB))
    return found


if __name__ == "__main__":
    main()
