"""Is float32 enough? The same nets trained in single and in double precision, paired.

Both start from the same weights (rounded) and data. The quadratic program is solved in float64 either way. Shown: how
the runs end, their time, and the test error, single against double, in per cent of its mean with the standard error
over seeds. The feature regime grows its weights from nothing and forgives rounding; in the lazy regime margins are
small differences of large outputs, and float32 cannot resolve them.
"""

import numpy as np

from common import arguments, interleaved, paired_ratio, report, seconds
from geocompress import experiments


def train(config: experiments.NetworkConfig):
    """Wall time, last state and test error of one run."""
    replica = experiments.Replica(config)
    wall, states = seconds(lambda: list(replica.states()))
    return wall, states[-1], replica.test_error(states[-1].params)


def compare(p: int, alpha: float, seeds: range) -> dict:
    """One line: single against double precision over the seeds."""
    found = {dtype: [] for dtype in ("float64", "float32")}
    for seed in seeds:
        for dtype, runs in found.items():
            config = experiments.NetworkConfig(p=p, width=1000, alpha=alpha, seed=seed, dtype=dtype, max_time=1e6)
            runs.append(interleaved({dtype: lambda c=config: train(c)}, 1)[dtype][0])
    walls, ends, errors = ({dtype: [run[i] for run in runs] for dtype, runs in found.items()} for i in range(3))
    shift = np.subtract(errors["float32"], errors["float64"]) / np.mean(errors["float64"])
    return {
        "p": p,
        "alpha": alpha,
        "seeds": len(seeds),
        "fitted64": sum(end.status.value == "FITTED" for end in ends["float64"]),
        "fitted32": sum(end.status.value == "FITTED" for end in ends["float32"]),
        "seconds64": float(np.median(walls["float64"])),
        "time_ratio": paired_ratio(walls["float32"], walls["float64"]),
        "steps64": float(np.median([end.step for end in ends["float64"]])),
        "steps32": float(np.median([end.step for end in ends["float32"]])),
        "error_shift_percent": 100 * float(shift.mean()),
        "standard_error_percent": 100 * float(shift.std(ddof=1) / len(seeds) ** 0.5),
        "largest_kkt32": max(end.kkt for end in ends["float32"]),
    }


def main() -> None:
    """Feature regime at two sizes, and one line of the lazy regime."""
    chosen = arguments(__doc__.splitlines()[0])
    seeds = range(20 if chosen.full else 6)
    sizes = ((64, 1e-6), (256, 1e-6), (64, 1e3)) + (((1024, 1e-6),) if chosen.full else ())
    rows = [compare(p, alpha, seeds) for p, alpha in sizes]
    report("precision", rows, chosen, d=5, width=1000)


if __name__ == "__main__":
    main()
