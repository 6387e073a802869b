"""How much memory does a run take, and how does it grow with the points p and the width h?

Every training (stripe, d = 5, α = 1e-6, to zero loss) has a process of its own, which reports the most memory that was
resident. `peak_mib` is that of the whole process; `own_mib` is without the peak of a process that trained the smallest
net there is, which pays for the interpreter, the libraries and their compiled loops; `import_mib` is that of a process
that only imported the library. The exponents are those of own_mib ~ size^exponent, with 95 % intervals over seeds.

The peak is read from the system's own record where there is one (VmHWM): `ru_maxrss` of a child is never below
the memory of the process that started it. The data of the test set are left out (`test_size=1`).
"""

import json
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from common import arguments, check, growth, limit_threads, report
from geocompress import experiments

MIB = 2**20
SMALLEST = (2, 1)
GOALS = {(4096, 4000): 6 * 1024}  # (p, h): MiB allowed, d = 5


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(kib)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def train_here(p: int, width: int, seed: int) -> str:
    """Train in this process; the name of the status at the end."""
    config = experiments.NetworkConfig(d=5, p=p, width=width, seed=seed, test_size=1)
    for end in experiments.Replica(config).states():
        status = end.status.value
    return status


def child(*arguments: int) -> dict:
    """Peak memory and status of a training in a new process; with no arguments, of one that only imports."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def be_child(numbers: list[int]) -> None:
    limit_threads(1)
    status = train_here(*numbers) if numbers else None
    print(json.dumps({"peak": peak_bytes(), "status": status}))


def main() -> None:
    """Up to p = 1024 and h = 4000 with one seed (with `--full` to 4096 and 8000, three)."""
    chosen = arguments(
        __doc__.splitlines()[0], child={"type": int, "nargs": "*", "help": "p, h and seed: train and say the peak"}
    )
    if chosen.child is not None:
        return be_child(chosen.child)
    if chosen.full:
        lines = {"p": [(2**k, 2000) for k in range(8, 13)], "width": [(1024, 1000 * 2**k) for k in range(4)]}
    else:
        lines = {"p": [(2**k, 1000) for k in range(8, 11)], "width": [(256, 1000 * 2**k) for k in range(3)]}
    goals = [goal for goal in GOALS if chosen.full]
    seeds = range(1, 4 if chosen.full else 2)
    sizes = list(dict.fromkeys([*lines["p"], *lines["width"], *goals]))
    child(*SMALLEST, 0)  # leaves compiled loops on disk
    imported, smallest = child()["peak"] / MIB, child(*SMALLEST, 0)["peak"] / MIB
    jobs = [(*size, seed) for seed in seeds for size in sizes]
    with ThreadPoolExecutor(min(chosen.threads, 2)) as pool:  # few at a time: they share the machine's memory
        found = list(pool.map(lambda job: child(*job), jobs))
    runs = pd.DataFrame(
        [
            {"p": p, "width": h, "seed": seed, "peak_mib": one["peak"] / MIB, "status": one["status"]}
            for (p, h, seed), one in zip(jobs, found, strict=True)
        ]
    )
    runs["own_mib"] = runs.peak_mib - smallest
    largest = runs.groupby(["p", "width"])[["peak_mib", "own_mib"]].max()
    rows = [{"table": "memory, most over seeds", **row} for row in largest.reset_index().to_dict("records")]
    rows.append({"table": "for comparison, MiB", "import_mib": imported, "smallest_net_mib": smallest})
    for name, line in lines.items():
        part = runs.merge(pd.DataFrame(line, columns=["p", "width"]))
        rows.append({"table": "growth of own_mib", "with": name, **growth(part[name], part.own_mib, part.seed)})
    checks = [check(f"p = {p}, h = {h}: peak in MiB", largest.peak_mib[p, h], at_most=GOALS[p, h]) for p, h in goals]
    report("memory", rows, chosen, checks, d=5, alpha=1e-6, runs=runs.to_dict("records"))


if __name__ == "__main__":
    main()
