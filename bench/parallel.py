"""How should many runs share a machine: processes with one thread each, or threads within one process?

A fixed set of trainings (stripe, d = 5, α = 1e-6, so many seeds, to zero loss) is timed as a whole for every number of
processes (`jobs`) and of `threads` in each. Processes are started and warm before the clock starts, as in a long sweep.
All ways are timed in turn, round after round. `speed_up` is the median over rounds of the time of one process with one
thread over that of this row; `crossover` is the p where threads would begin to be faster than processes.

The last table is for the same on a GPU: seeds batched in one set of tensors against one after another.
"""

import functools
import math
import os
import time

import joblib
import numpy as np
import torch

from common import NOT_MEASURED, arguments, interleaved, limit_threads, paired_ratio, report, seconds
from geocompress import experiments, sweep

ONE = (1, 1)  # jobs and threads of the plain way
BUDGET = 5.0  # seconds for one p in the short version, after its first round


def train(p: int, width: int, seed: int, threads: int) -> int:
    """One training to its end, with so many threads; the number of steps."""
    limit_threads(threads)
    config = experiments.NetworkConfig(d=5, p=p, width=width, seed=seed, test_size=1)
    *_, end = experiments.Replica(config).states()
    return end.step


def warm_up(threads: int) -> int:
    """Load the library in this process, and wait long enough for the others to get work too; the process number."""
    train(8, 8, 0, threads)
    time.sleep(0.1)
    return os.getpid()


def train_all(p: int, width: int, seeds: int, jobs: int, threads: int) -> float:
    """Seconds for all seeds; with several jobs by the processes that joblib keeps."""
    if jobs == 1:
        return seconds(lambda: [train(p, width, seed, threads) for seed in range(seeds)])[0]
    with joblib.Parallel(n_jobs=jobs) as pool:
        warm = set()
        while len(warm) < jobs:  # until each has said that it is there
            warm.update(pool(joblib.delayed(warm_up)(threads) for _ in range(jobs)))
        return seconds(lambda: pool(joblib.delayed(train)(p, width, seed, threads) for seed in range(seeds)))[0]


def crossover(p: list[int], ratio: list[float]) -> float:
    """The p at which `ratio` falls through 1, by straight lines in logarithms between sizes; nan if it never does."""
    for k in range(1, len(p)):
        if ratio[k - 1] > 1 >= ratio[k]:
            share = math.log(ratio[k - 1]) / math.log(ratio[k - 1] / ratio[k])
            return float(math.exp(math.log(p[k - 1]) + share * math.log(p[k] / p[k - 1])))
    return math.nan


def cpu_rows(sizes: list[tuple[int, int, int]], many: int, rounds: int, budget: float) -> list[dict]:
    """Total time of each way at each size, and where one overtakes the other."""
    rows, slower = [], []
    for p, width, seeds in sizes:
        ways = dict.fromkeys((jobs, threads) for jobs in (1, many) for threads in (1, many))
        functions = {way: functools.partial(train_all, p, width, seeds, *way) for way in ways}
        walls = interleaved(functions, rounds, budget)
        for (jobs, threads), wall in walls.items():
            about = {"p": p, "width": width, "seeds": seeds, "jobs": jobs, "threads": threads, "rounds": len(wall)}
            row = {**about, "seconds": float(np.median(wall)), "speed_up": paired_ratio(walls[ONE], wall)}
            rows.append({"table": "CPU", **row})
            print(rows[-1], flush=True)
        slower.append(paired_ratio(walls[1, many], walls[many, 1]))  # time of threads over that of processes
    sizes_p = [p for p, _, _ in sizes]
    rows.append({"table": "crossover", "p": crossover(sizes_p, slower), "from": sizes_p[0], "to": sizes_p[-1]})
    rows[-1] |= {"threads_over_processes": [round(ratio, 3) for ratio in slower]}
    return rows


def gpu_rows(full: bool) -> list[dict]:
    """Seeds in one batch against one by one on a GPU, and the one large net that must fit; by `train_networks`."""
    title = "GPU, batched or one by one"
    if not torch.cuda.is_available():
        return [{"table": title, "device": "cuda", "note": NOT_MEASURED}]
    rows = []
    for p, width, d, seeds in ((256, 1000, 5, 8), (1024, 4096, 5, 32), (10_000, 10_000, 10, 1))[: 3 if full else 1]:
        grid = sweep.grid(experiments.NetworkConfig, d=d, p=p, width=width, device="cuda", seed=range(seeds))
        experiments.train_networks(grid[:1])  # to warm up
        torch.cuda.reset_peak_memory_stats()
        together, found = seconds(lambda grid=grid: experiments.train_networks(grid))
        peak = torch.cuda.max_memory_allocated() / 2**30
        alone = (
            seconds(lambda grid=grid: [experiments.train_network(config) for config in grid])[0] if seeds > 1 else None
        )
        ratio = {"one_by_one": alone, "ratio": alone / together} if alone else {}
        fitted = sum(row["status"] == "FITTED" for row in found)
        row = {"table": title, "device": torch.cuda.get_device_name(), "p": p, "width": width, "d": d, "seeds": seeds}
        rows.append(row | {"seconds": together, **ratio, "peak_gib": peak, "fitted": fitted})
    return rows


def main() -> None:
    """Sets of eight seeds, two at p = 1024 (with `--full` eight everywhere, and wider nets)."""
    chosen = arguments(__doc__.splitlines()[0])
    if chosen.full:
        sizes = [(16, 1000, 32), (64, 1000, 8), (256, 1000, 8), (1024, 2000, 8), (2048, 4000, 4)]
    else:
        sizes = [(64, 1000, 8), (256, 1000, 4), (1024, 1000, 2)]
    warm_up(1)
    rows = cpu_rows(sizes, chosen.threads, 3, math.inf if chosen.full else BUDGET) if chosen.threads > 1 else []
    report("parallel", rows + gpu_rows(chosen.full), chosen, d=5, alpha=1e-6)


if __name__ == "__main__":
    main()
