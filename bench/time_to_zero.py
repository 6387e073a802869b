"""How long until every point is fitted? The implicit flow against general ODE solvers, from the same weights and data.

Every contender gets the same right-hand side (float64, closed-form gradients, one pass over a 0/1 matrix) and is
stopped at its first evaluation with every margin at 0.95 or above, since an explicit integrator never rests on 1; the
implicit flow has to reach 1 itself. A contender that runs out of time is reported with the mean-field time it reached:
its seconds are then a lower bound.
"""

import functools
import itertools
import time

import numpy as np
import scipy.integrate
import torch
import torchdiffeq

from common import OutOfTime, arguments, report, seconds
from geocompress import experiments, flow

NEAR = 0.95  # margin at which the contenders are released
RTOL, ATOL = 1e-2, 1e-5  # weights are of order 1 at the end and 1e-3 at the start (α = 1e-6 in its other units)


class Fitted(Exception):
    """Every margin has come near 1."""


class RightHandSide:
    """Ẇ of the hinge flow at α = 1 from weights scaled by √α, as a function of one flat vector, with a stopwatch."""

    def __init__(self, replica: experiments.Replica, limit: float) -> None:
        self.replica, self.limit = replica, limit
        scale = replica.config.alpha**0.5
        self.params = {k: scale * v for k, v in replica.params.items()}
        self.output_init = replica.network.linearise(self.params, replica.x).output
        self.start, self.calls, self.t = time.perf_counter(), 0, 0.0

    def flat(self, params: dict) -> torch.Tensor:
        return torch.cat([params[k].flatten() for k in self.params])

    def unflat(self, vector: torch.Tensor) -> dict:
        parts = vector.split([v.numel() for v in self.params.values()])
        return {k: part.view_as(v) for (k, v), part in zip(self.params.items(), parts, strict=True)}

    def __call__(self, t: float, vector: torch.Tensor) -> torch.Tensor:
        self.calls, self.t, self.vector = self.calls + 1, float(t), vector
        at = self.replica.network.linearise(self.unflat(vector), self.replica.x)
        self.margins = self.replica.y * (at.output - self.output_init)
        if bool((self.margins >= NEAR).all()):
            raise Fitted
        if time.perf_counter() - self.start > self.limit:
            raise OutOfTime
        pull = (self.margins < 1) * self.replica.y * (self.replica.network.width / len(self.replica.y))
        return self.flat(at.pullback(pull))

    def numpy(self, t: float, vector: np.ndarray) -> np.ndarray:
        return self(t, torch.from_numpy(vector)).numpy()


def by_torchdiffeq(method: str, rhs: RightHandSide) -> None:
    times = torch.tensor([0.0, 1e6], dtype=torch.float64)
    torchdiffeq.odeint(rhs, rhs.flat(rhs.params), times, method=method, rtol=RTOL, atol=ATOL)


def by_scipy(method: str, rhs: RightHandSide) -> None:
    start = rhs.flat(rhs.params).numpy()
    scipy.integrate.solve_ivp(rhs.numpy, (0, 1e6), start, method=method, rtol=RTOL, atol=ATOL, t_eval=[1e6])


def by_published_scheme(rhs: RightHandSide) -> None:
    """Explicit Euler; a step stands when the gradient turned by at most 1e-4 (relative) and no output by over 0.1."""
    vector, dt, t = rhs.flat(rhs.params), 1e-3, 0.0
    slope = rhs(t, vector)
    margins = rhs.margins
    while True:
        trial = vector + dt * slope
        trial_slope = rhs(t + dt, trial)
        change = float((trial_slope - slope).square().sum() / (trial_slope.norm() * slope.norm()))
        if change < 1e-4 and float((rhs.margins - margins).abs().max()) < 0.1:
            vector, slope, margins, t = trial, trial_slope, rhs.margins, t + dt
            dt *= 1.1
        else:
            dt /= 10


CONTENDERS = {
    "torchdiffeq dopri5": functools.partial(by_torchdiffeq, "dopri5"),
    "torchdiffeq bosh3": functools.partial(by_torchdiffeq, "bosh3"),
    "torchdiffeq adaptive_heun": functools.partial(by_torchdiffeq, "adaptive_heun"),
    "scipy LSODA": functools.partial(by_scipy, "LSODA"),
    "scipy BDF": functools.partial(by_scipy, "BDF"),
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
    params = {k: v / replica.config.alpha**0.5 for k, v in rhs.unflat(rhs.vector).items()}
    error = replica.test_error(params)
    return {"solver": name, "outcome": outcome, "seconds": wall, "t": rhs.t, "evaluations": rhs.calls, "error": error}


def implicit(replica: experiments.Replica, runs: int) -> dict:
    """The flow of this library; median of several runs after one that warms up."""

    def run() -> flow.State:
        *_, end = replica.states()
        return end

    run()
    timed = [seconds(run) for _ in range(runs)]
    end = timed[0][1]
    wall = float(np.median([wall for wall, _ in timed]))
    error = replica.test_error(end.params)
    about = {"outcome": end.status.value.lower(), "seconds": wall, "t": end.t, "evaluations": end.step, "error": error}
    return {"solver": "implicit in the multipliers", **about}


def main() -> None:
    """Compare for p = 256 (with `--full` also 64 and 1024)."""
    chosen = arguments(__doc__.splitlines()[0])
    limit, rows = (600.0 if chosen.full else 40.0), []
    for p, width in ((64, 1000), (256, 1000), (1024, 2000)) if chosen.full else ((256, 1000),):
        replica = experiments.Replica(experiments.NetworkConfig(d=5, p=p, width=width, seed=1))
        own = implicit(replica, runs=5)
        others = (contend(name, replica, limit) for name in CONTENDERS)
        for row in itertools.chain([own], others):  # one at a time, so that each is seen when it is done
            rows.append({"p": p, "width": width, **row, "ratio": row["seconds"] / own["seconds"]})
            print(rows[-1], flush=True)
    report("time_to_zero", rows, chosen, d=5, alpha=1e-6, rtol=RTOL, atol=ATOL, near=NEAR, limit_s=limit)


if __name__ == "__main__":
    main()
