"""Of what order is the step, does it follow the same flow as brute force, and does the tolerance show in the result?

Smooth: a net whose neurons are switched on or off for good by large biases, so that no kink of a ReLU is crossed (an
initialisation that crosses one after all is left out), over six points that meet the margin, leave it and slide on it.
Error of the weights at a fixed time, from that of a run with a far smaller tolerance, against the number of steps:
`order` is minus the slope in logarithms, one fit an initialisation, and should be near 2.

Brute force: small nets with all their kinks against explicit Euler at a tiny step. `error` is the largest difference of
any margin at any step up to the end, margins counted up to the cap of 1.5 as the flow promises them. Euler's own error
is of first order in its step: `own_error` is the difference from a run with twice the step, about that of the shorter;
an `error` near it says nothing of the flow.

Test error: trainings at several tolerances, the same seeds at each. `difference` is the mean of the paired differences
from the smallest tolerance, `standard_error` that of this mean: where the first is within about two of the second, the
tolerance does not show.

`tolerance` is that in margins; that of the weights is the same, or half of it, as by default, for the test error.
"""

import itertools

import joblib
import numpy as np
import pandas as pd
import torch

from common import arguments, check, limit_threads, report
from geocompress import experiments, explicit, flow, networks, screening, tasks

D = 3
SMALL = ((14, 40), (30, 60))  # points and width of the nets that brute force can follow


def all_on_one_side(network: networks.OneHidden, params: networks.Params, x: torch.Tensor) -> torch.Tensor:
    """Which neurons are active on which points."""
    return (x @ params["omega"].T / network.d**0.5 + params["b"]) > 0


def smooth(init: int, tolerances: tuple[float, ...], exact: float) -> list[dict]:
    """Weights' error at time 8 for each tolerance, by one initialisation; nothing when it crosses a kink."""
    network = networks.OneHidden(D, 40)
    params = network.init(init)
    params["b"] = 8 * params["b"].sign()
    x, _ = tasks.stripe(D).sample(6, 104)
    y = torch.sign(x[:, 0] + 0.2 * x[:, 1])
    sides, ends = all_on_one_side(network, params, x), []
    for tol in (exact, *tolerances):
        settings = {"alpha": 1.0, "margin_tol": tol, "state_tol": tol, "max_time": 8.0}
        for end in flow.hinge_flow(network, params, x, y, **settings):
            if not torch.equal(all_on_one_side(network, end.params, x), sides):
                return []
        ends.append(end)
    truth, *others = ends
    on_margin = int(((truth.multipliers > 0) & (truth.multipliers < 1)).sum())
    rows = []
    for tol, end in zip(tolerances, others, strict=True):
        error = max(float((end.params[k] - truth.params[k]).abs().max()) for k in params)
        rows.append({"init": init, "tolerance": tol, "steps": end.step, "error": error, "on_margin": on_margin})
    return rows


def orders(rows: list[dict]) -> list[dict]:
    """Observed order of each initialisation."""
    found = []
    for init, part in pd.DataFrame(rows).groupby("init"):
        slope = np.polyfit(np.log(part.steps), np.log(part.error), 1)[0]
        found.append({"init": init, "order": -float(slope)})
    return found


def brute_force(
    p: int, width: int, alpha: float, dt: float, max_time: float, tolerances: tuple[float, ...]
) -> list[dict]:
    """Largest error of the margins at any step, for each tolerance."""
    network = networks.OneHidden(D, width)
    params = network.init(0)
    x, y = tasks.stripe(D).sample(p, 101)
    paths = [
        explicit.hinge_flow(network, params, x, y, alpha=alpha, dt=step, max_time=max_time) for step in (dt, 2 * dt)
    ]

    def at(times: np.ndarray, path: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        margins = np.stack([np.interp(times, path[0], column) for column in path[1].T], axis=1)
        return np.minimum(margins, screening.CAP)

    rows = []
    for tol in tolerances:
        settings = {"alpha": alpha, "margin_tol": tol, "state_tol": tol, "max_time": max_time}
        states = list(flow.hinge_flow(network, params, x, y, **settings))
        times = np.array([state.t for state in states])
        margins = np.minimum(np.stack([state.margins.numpy() for state in states]), screening.CAP)
        truth, coarse = (at(times, path) for path in paths)
        about = {"p": p, "width": width, "alpha": alpha, "dt": dt, "tolerance": tol, "steps": states[-1].step}
        about |= {"t": states[-1].t, "status": states[-1].status.value}
        rows.append({**about, "error": np.abs(margins - truth).max(), "own_error": np.abs(truth - coarse).max()})
    return rows


def test_error(p: int, seed: int, tol: float) -> dict:
    """One training to the end, in a process of its own with one thread."""
    limit_threads(1)
    config = experiments.NetworkConfig(p=p, seed=seed, margin_tol=tol, state_tol=tol / 2)
    replica = experiments.Replica(config)
    *_, end = replica.states()
    error = replica.test_error(end.params)
    return {"p": p, "seed": seed, "tolerance": tol, "test_error": error, "steps": end.step, "status": end.status.value}


def paired_differences(runs: list[dict]) -> list[dict]:
    """Mean difference of the test error from that at the smallest tolerance, over the same seeds."""
    rows = []
    for p, part in pd.DataFrame(runs).groupby("p"):
        errors = part.pivot(index="seed", columns="tolerance", values="test_error")
        steps = part.groupby("tolerance").steps.median()
        for tol in errors:
            difference = errors[tol] - errors[errors.columns.min()]
            row = {"p": p, "tolerance": tol, "seeds": len(errors), "steps": steps[tol]}
            row |= {"test_error": errors[tol].mean(), "difference": difference.mean()}
            rows.append({**row, "standard_error": difference.sem()})
    return rows


def main() -> None:
    """Three initialisations, Euler at 5e-4, eight seeds (with `--full` ten, 5e-5 and 64)."""
    chosen = arguments(__doc__.splitlines()[0])
    full = chosen.full
    tolerances, exact = ((3e-3, 1e-3, 3e-4, 1e-4, 3e-5), 1e-7) if full else ((3e-3, 1e-3, 3e-4, 1e-4), 1e-6)
    without_kinks = filter(None, (smooth(init, tolerances, exact) for init in itertools.count()))
    smooth_rows = [row for rows in itertools.islice(without_kinks, 10 if full else 3) for row in rows]
    found = orders(smooth_rows)

    dt, max_time = (5e-5, 40.0) if full else (5e-4, 20.0)
    tolerances = (1e-1, 1e-2, 1e-3, 1e-4) if full else (1e-1, 1e-2, 1e-3)
    problems = itertools.product(SMALL if full else SMALL[:1], (1.0, 1e-2))
    brute = [row for (p, h), alpha in problems for row in brute_force(p, h, alpha, dt, max_time, tolerances)]

    sizes, tolerances_test = ((128, 256), (0.02, 0.05, 0.1, 0.2)) if full else ((128,), (0.05, 0.1, 0.2))
    jobs = itertools.product(sizes, range(64 if full else 8), tolerances_test)
    runs = joblib.Parallel(n_jobs=chosen.threads)(joblib.delayed(test_error)(*job) for job in jobs)
    paired = paired_differences(runs)

    rows = [{"table": "smooth: error of the weights", **row} for row in smooth_rows]
    rows += [{"table": "smooth: observed order", **row} for row in found]
    rows += [{"table": "brute force: error of the margins", **row} for row in brute]
    rows += [{"table": "test error, paired over seeds", **row} for row in paired]
    finest = max(row["error"] for row in brute if row["tolerance"] == tolerances[-1])
    allowed = 1e-3 if full else 5 * tolerances[-1]  # Euler's own error is larger in the short version
    surprise = max(abs(row["difference"]) / row["standard_error"] for row in paired if row["difference"])
    checks = [
        check("order where no kink is crossed, median", float(np.median([r["order"] for r in found])), at_least=1.8),
        check(f"margins at tolerance {tolerances[-1]:g} against brute force", finest, at_most=allowed),
        check("difference of test errors, in standard errors", surprise, at_most=2.5),
    ]
    report("order", rows, chosen, checks, d_small=D, cap=screening.CAP, exact=exact, runs=runs)


if __name__ == "__main__":
    main()
