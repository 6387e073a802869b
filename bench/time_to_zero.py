"""How long until every point is fitted? The implicit flow against general ODE solvers, from the same weights and data.

Every contender gets the same right-hand side (float64, gradients by the products of the library) and is stopped at its
first evaluation with every margin at 0.95 or above, since an explicit integrator never rests on 1; the implicit flow
has to reach 1 itself. It is timed just before and just after each contender, and `ratio` is over the median of these.

How right is who? `t_off` compares the mean-field time of that first evaluation with the time at which the implicit flow
gets there at an eighth of its tolerances. `error` is the test error there, `error_near` the implicit flow's there. The
two fastest of torchdiffeq run at a tenth of the tolerances below too, and the implicit flow at twice its own
(`ratio_coarse`). The promise is about equal test errors, within the noise of the test points (two standard errors of a
difference, as if the points were not the same): a method counts by its fastest run that is so right, and if none is by
its longest, since what is more right takes longer still.

A contender that runs out of time has no ratio; `at_least` is then a lower bound of it, the time spent over that of the
implicit flow. How far it got is said by `time_share` (mean-field time of its last accepted step over that at which
the implicit flow ends), by `unfitted`, the points below 0.95 there, and by `loss` and the test error `error` there.

With `--full` each line is written as soon as it is measured, and lines that are there already are kept (`--again`
measures them anew), so that a long race may be run in parts: `--p 256 --solver bosh3 --limit 600`.
"""

import dataclasses
import functools
import json
import math
import os
import time

import numpy as np
import scipy.integrate
import torch
import torchdiffeq

from common import OutOfTime, arguments, check, interleaved, report, results_file, save, seconds
from geocompress import experiments, provenance

NEAR = 0.95  # margin at which the contenders are released
RTOL, ATOL = 1e-2, 1e-5  # weights are of order 1 at the end and 1e-3 at the start (α = 1e-6 in its other units)
FOREVER = 1e6  # mean-field time that no race comes near
SIZES = {64: 1000, 256: 1000, 1024: 2000}  # width for each p
LIMIT_SHORT, LIMIT_FULL = 2.0, 600.0  # seconds a contender
FINE, COARSE = 1 / 8, 2  # tolerances of the reference, and of the second run, in units of the default ones
TENTH = ", tolerances / 10"
OWN, OWN_COARSE = "implicit in the multipliers", "the same at twice the tolerances"


class Fitted(Exception):
    """Every margin has come near 1."""


class RightHandSide:
    """Ẇ of the hinge flow at α = 1 from weights scaled by √α, as a function of one flat vector, with a stopwatch.

    `reached` is the last accepted state (t, vector), as far as the contender tells.
    """

    def __init__(self, replica: experiments.Replica, limit: float) -> None:
        self.replica, self.limit = replica, limit
        scale = replica.config.alpha**0.5
        self.params = {k: scale * v for k, v in replica.params.items()}
        self.output_init = replica.network.linearise(self.params, replica.x).output
        self.reached = (0.0, self.flat(self.params))
        self.start, self.calls = time.perf_counter(), 0

    def flat(self, params: dict) -> torch.Tensor:
        return torch.cat([params[k].flatten() for k in self.params])

    def unflat(self, vector: torch.Tensor) -> dict:
        parts = vector.split([v.numel() for v in self.params.values()])
        return {k: part.view_as(v) for (k, v), part in zip(self.params.items(), parts, strict=True)}

    def margins_at(self, vector: torch.Tensor) -> torch.Tensor:
        return self.replica.y * (self.replica.network.forward(self.unflat(vector), self.replica.x) - self.output_init)

    def __call__(self, t: float, vector: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        at = self.replica.network.linearise(self.unflat(vector), self.replica.x)
        self.margins = self.replica.y * (at.output - self.output_init)
        if bool((self.margins >= NEAR).all()):
            self.reached = (float(t), vector)
            raise Fitted
        if time.perf_counter() - self.start > self.limit:
            raise OutOfTime
        pull = (self.margins < 1) * self.replica.y * (self.replica.network.width / len(self.replica.y))
        return self.flat(at.pullback(pull))

    def callback_accept_step(self, t: torch.Tensor, vector: torch.Tensor, dt: torch.Tensor) -> None:
        """What torchdiffeq calls with the state that an accepted step set out from."""
        self.reached = (float(t), vector)


def by_torchdiffeq(method: str, rhs: RightHandSide, tolerance: float = 1.0) -> None:
    times = torch.tensor([0.0, FOREVER], dtype=torch.float64)
    torchdiffeq.odeint(rhs, rhs.reached[1], times, method=method, rtol=tolerance * RTOL, atol=tolerance * ATOL)


def by_scipy(method: type[scipy.integrate.OdeSolver], rhs: RightHandSide) -> None:
    start = rhs.reached[1].numpy()
    solver = method(lambda t, w: rhs(t, torch.from_numpy(w)).numpy(), 0.0, start, FOREVER, rtol=RTOL, atol=ATOL)
    while solver.status == "running":
        failure = solver.step()
        rhs.reached = (solver.t, torch.from_numpy(solver.y.copy()))
    if solver.status == "failed":
        raise RuntimeError(failure)


def by_published_scheme(rhs: RightHandSide) -> None:
    """Explicit Euler; a step stands when the gradient turned by at most 1e-4 (relative) and no output by over 0.1."""
    (t, vector), dt = rhs.reached, 1e-3
    slope = rhs(t, vector)
    margins = rhs.margins
    while True:
        trial = vector + dt * slope
        trial_slope = rhs(t + dt, trial)
        change = float((trial_slope - slope).square().sum() / (trial_slope.norm() * slope.norm()))
        if change < 1e-4 and float((rhs.margins - margins).abs().max()) < 0.1:
            vector, slope, margins, t = trial, trial_slope, rhs.margins, t + dt
            rhs.reached = (t, vector)
            dt *= 1.1
        else:
            dt /= 10


CONTENDERS = {
    "torchdiffeq dopri5": functools.partial(by_torchdiffeq, "dopri5"),
    f"torchdiffeq dopri5{TENTH}": functools.partial(by_torchdiffeq, "dopri5", tolerance=0.1),
    "torchdiffeq bosh3": functools.partial(by_torchdiffeq, "bosh3"),
    f"torchdiffeq bosh3{TENTH}": functools.partial(by_torchdiffeq, "bosh3", tolerance=0.1),
    "torchdiffeq adaptive_heun": functools.partial(by_torchdiffeq, "adaptive_heun"),
    "scipy LSODA": functools.partial(by_scipy, scipy.integrate.LSODA),
    "scipy BDF": functools.partial(by_scipy, scipy.integrate.BDF),
    "published scheme": by_published_scheme,
}


def contend(name: str, replica: experiments.Replica, limit: float) -> dict:
    """Run one contender until it is done or out of time."""
    rhs = RightHandSide(replica, limit)
    outcome = "stopped"
    try:
        CONTENDERS[name](rhs)
    except Fitted:
        outcome = "fitted"
    except OutOfTime:
        outcome = "out of time"
    except (AssertionError, RuntimeError) as failure:  # a step size that underflows, in the solver's own words
        outcome = f"gave up: {failure}"[:60]
    wall = time.perf_counter() - rhs.start
    t, vector = rhs.reached
    margins = rhs.margins_at(vector)
    params = {k: v / replica.config.alpha**0.5 for k, v in rhs.unflat(vector).items()}
    return {
        "outcome": outcome,
        "seconds": wall,
        "t": t,
        "evaluations": rhs.calls,
        "unfitted": int((margins < NEAR).sum()),
        "loss": float((1 - margins).clamp(min=0).mean()),
        "error": replica.test_error(params),
    }


class Own:
    """The flow of this library at some tolerances, timed again and again."""

    def __init__(self, config: experiments.NetworkConfig, tolerance: float = 1.0) -> None:
        tolerances = {"margin_tol": tolerance * config.margin_tol, "state_tol": tolerance * config.state_tol}
        self.replica, self.times = experiments.Replica(dataclasses.replace(config, **tolerances)), []
        self.run()
        self.times.clear()  # that was to warm up

    def run(self) -> float:
        """Seconds of one more run."""
        wall, states = seconds(lambda: list(self.replica.states()))
        self.times.append(wall)
        self.end = states[-1]
        self.near = next(state for state in states if float(state.margins.min()) >= NEAR)
        return wall

    def row(self) -> dict:
        return {
            "outcome": self.end.status.value.lower(),
            "seconds": float(np.median(self.times)),
            "t": self.end.t,
            "t_near": self.near.t,
            "evaluations": self.end.step,
            "unfitted": int((self.end.margins < NEAR).sum()),
            "loss": self.end.loss,
            "error": self.replica.test_error(self.end.params),
            "error_near": self.replica.test_error(self.near.params),
        }


def race(p: int, solvers: list[str], limit: float, runs: int):
    """One row a contender, each as soon as it is done, then the implicit flow with all its times.

    Before and after each contender the implicit flow runs `runs` times.
    """
    config = experiments.NetworkConfig(d=5, p=p, width=SIZES[p], seed=1)
    own, coarse, t_true = Own(config), Own(config, COARSE), Own(config, FINE).near.t
    pair = {"own": own.run, "coarse": coarse.run}
    about = {"p": p, "width": config.width}
    after = interleaved(pair, runs)
    for name in solvers:
        before = after
        row = contend(name, own.replica, limit)
        after = interleaved(pair, runs)
        times = {which: float(np.median(before[which] + after[which])) for which in pair}
        finished = row["outcome"] == "fitted"
        row |= {"time_share": row["t"] / own.end.t, "limit_s": limit, "own_seconds": times["own"]}
        row |= {"ratio": row["seconds"] / times["own"] if finished else None}
        row |= {"ratio_coarse": row["seconds"] / times["coarse"] if finished else None}
        row |= {"at_least": row["seconds"] / times["own"] if row["outcome"] == "out of time" else None}
        yield about | {"solver": name, "t_off": row["t"] / t_true - 1 if finished else None} | row
    for name, line in ((OWN, own), (OWN_COARSE, coarse)):
        yield about | {"solver": name, "t_off": line.near.t / t_true - 1} | line.row()


def earlier(chosen) -> dict[tuple, dict]:
    """Lines measured before on this machine with these versions, by p and solver; with `--full` only."""
    path = results_file("time_to_zero", chosen)
    if not chosen.full or not path.exists():
        return {}
    stored, here = json.loads(path.read_text()), provenance.provenance()
    if any(stored["environment"][name] != here[name] for name in ("device", "versions")):
        print(f"{path.name} is of another machine or other versions: all lines are measured again")
        return {}
    return {(row["p"], row["solver"]): row for row in stored["rows"]}


def equal_errors(error: float, other: float) -> bool:
    """Whether two test errors differ by no more than twice the standard error of their difference."""
    size = experiments.NetworkConfig(d=5).test_size
    return abs(error - other) <= 2 * math.sqrt((error * (1 - error) + other * (1 - other)) / size)


def slower(rows: list[dict], error: float) -> float:
    """How many times longer one method takes to be as right as the implicit flow, or a bound of it; see above."""
    right = [row["ratio"] for row in rows if row["outcome"] == "fitted" and equal_errors(row["error"], error)]
    return min(right) if right else max(row["ratio"] or row["at_least"] or 0.0 for row in rows)


def checks(rows: list[dict]) -> list[dict]:
    """What the solver promises at p = 256, where the contenders had time enough to decide it."""
    at_256 = {row["solver"]: row for row in rows if row["p"] == 256}
    if "error_near" not in at_256.get(OWN, {}):
        return []
    found = []
    for start, goal in (("torchdiffeq", 100), ("published", 300)):
        methods = {name.removesuffix(TENTH) for name in at_256 if name.startswith(start)}
        ran = [[at_256[n] for n in (name, name + TENTH) if n in at_256] for name in methods]
        if ran:
            least = min(slower(part, at_256[OWN]["error_near"]) for part in ran)  # 0 where a method gave up
            claim = f"p = 256: time of the best {start} method to an equal test error over ours, or a bound of it"
            if least >= goal or all(row["outcome"] == "fitted" for part in ran for row in part):
                found.append(check(claim, least, at_least=goal))
            else:
                print(f"undecided: {claim}: at least {least:.3g}, {goal} promised; raise --limit")
    return found


def main() -> None:
    """Compare for p = 256 (with `--full` also 64 and 1024)."""
    chosen = arguments(
        __doc__.splitlines()[0],
        p={"type": int, "nargs": "+", "choices": sorted(SIZES), "help": "default: 256; with --full all"},
        limit={"type": float, "help": f"seconds a contender: {LIMIT_SHORT:g}, with --full {LIMIT_FULL:g}"},
        solver={"default": "", "help": "only contenders with this in their name"},
        again={"action": "store_true", "help": "measure lines again that are there already"},
    )
    limit = chosen.limit or (LIMIT_FULL if chosen.full else LIMIT_SHORT)
    lines = earlier(chosen)
    about = {"d": 5, "alpha": 1e-6, "rtol": RTOL, "atol": ATOL, "near": NEAR}
    order = [(p, solver) for p in SIZES for solver in (OWN, OWN_COARSE, *CONTENDERS)]
    for p in chosen.p or (sorted(SIZES) if chosen.full else [256]):
        solvers = [name for name in CONTENDERS if chosen.solver in name]
        if not chosen.again:  # a line stands unless it was cut off earlier than it would be now
            cut = {name: lines.get((p, name), {"outcome": "out of time", "limit_s": 0.0}) for name in solvers}
            solvers = [n for n in solvers if cut[n]["outcome"] == "out of time" and cut[n]["limit_s"] < limit]
        if not solvers and (p, OWN) in lines:
            continue
        runs = 1 if p > 1000 else 7 if chosen.full else 3
        for row in race(p, solvers, limit, runs):
            where = provenance.provenance()
            row |= {k: where[k] for k in ("commit", "dirty", "started")} | {"load_average": os.getloadavg()[0]}
            lines[p, row["solver"]] = row
            print({k: v for k, v in row.items() if k not in where}, flush=True)
            if chosen.full:
                rows = [lines[key] for key in order if key in lines]
                save("time_to_zero", rows, chosen, **about)
    rows = [lines[key] for key in order if key in lines]
    report("time_to_zero", rows, chosen, checks(rows), **about)


if __name__ == "__main__":
    main()
