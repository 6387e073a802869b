"""Which solver for the multipliers? Box quadratic programs of real trainings, from n = 1 to several hundred unknowns.

The programs are recorded from trainings run here; every contender gets the same A, q and target. Sparse copies for the
solvers that want them are made before the clock starts; set-up and solution are timed, in turn on the same program, so
that `ratio`, the median of the times over that of `boxqp` on the same program, is meaningful on a busy machine.
`boxqp`, OSQP and L-BFGS-B start from the last multipliers of the flow, as it does; Clarabel and BVLS cannot.

Interior-point and splitting methods never sit exactly on a bound, so the residual that `boxqp` certifies would be
unfair to them. All are measured by the projected gradient, max |c − clip(c − g, 0, 1)| with g = A c − q (margin units),
after clipping c into the box. A program counts as failed where that exceeds `flow.KKT_TOL` · max(1, ‖q‖_∞): the flow
asks for a tenth of it.
"""

import contextlib
import itertools
import sys
import unittest.mock
from collections.abc import Callable
from typing import NamedTuple

import clarabel
import numpy as np
import osqp
import scipy.linalg
import scipy.optimize
import scipy.sparse
import threadpoolctl

from common import arguments, report, seconds
from geocompress import boxqp, experiments, flow

SIZES = ((1, 20), (21, 60), (61, 10_000))  # shapes told apart, smallest and largest n
ROUNDS = 3


class Program(NamedTuple):
    """One box quadratic program as the flow poses it."""

    matrix: np.ndarray
    q: np.ndarray
    start: np.ndarray
    tol: float

    @property
    def goal(self) -> float:
        return self.tol * max(1.0, np.abs(self.q).max())

    def residual(self, c: np.ndarray) -> float:
        c = np.clip(c, 0, 1)
        return float(np.abs(c - np.clip(c - self.matrix @ c + self.q, 0, 1)).max())


def record(p: int, width: int) -> list[Program]:
    """Every program of one training, in order."""
    programs, solve = [], boxqp.boxqp

    def recorder(matrix: np.ndarray, q: np.ndarray, c: np.ndarray, *, tol: float, **settings: bool):
        programs.append(Program(matrix.copy(), q.copy(), c.copy(), tol))
        return solve(matrix, q, c, tol=tol, **settings)

    with contextlib.ExitStack() as stack:
        for module in [module for module in sys.modules.values() if vars(module).get("boxqp") is solve]:
            stack.enter_context(unittest.mock.patch.object(module, "boxqp", recorder))
        *_, end = experiments.Replica(experiments.NetworkConfig(d=5, p=p, width=width, seed=1)).states()
    print(f"p = {p}: {len(programs)} programs, {end.step} steps, {end.status.value}", flush=True)
    return programs


def own(program: Program) -> Callable[[], np.ndarray]:
    return lambda: boxqp.boxqp(program.matrix, program.q, program.start, tol=program.tol, check_convex=False).c


def by_osqp(program: Program) -> Callable[[], np.ndarray]:
    n = len(program.q)
    upper, identity = scipy.sparse.csc_matrix(np.triu(program.matrix)), scipy.sparse.identity(n, format="csc")
    settings = {"eps_abs": program.goal, "eps_rel": 0.0, "max_iter": 20_000, "polishing": True, "verbose": False}

    def solve() -> np.ndarray:
        solver = osqp.OSQP()
        solver.setup(upper, -program.q, identity, np.zeros(n), np.ones(n), **settings)
        solver.warm_start(x=program.start)
        return solver.solve(raise_error=False).x

    return solve


def by_clarabel(program: Program) -> Callable[[], np.ndarray]:
    n = len(program.q)
    upper, identity = scipy.sparse.csc_matrix(np.triu(program.matrix)), scipy.sparse.identity(n, format="csc")
    bounds, limits = scipy.sparse.vstack([-identity, identity], format="csc"), np.repeat([0.0, 1.0], n)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    # The gap bounds c times its force; asked for this little, one of the two is small.
    settings.tol_feas, settings.tol_gap_abs, settings.tol_gap_rel = 0.1 * program.goal, 1e-14, 1e-14
    cones = [clarabel.NonnegativeConeT(2 * n)]
    return lambda: np.array(clarabel.DefaultSolver(upper, -program.q, bounds, limits, cones, settings).solve().x)


def by_lbfgsb(program: Program) -> Callable[[], np.ndarray]:
    def value_and_slope(c: np.ndarray) -> tuple[float, np.ndarray]:
        product = program.matrix @ c
        return 0.5 * c @ product - program.q @ c, product - program.q

    options = {"gtol": program.goal, "ftol": 0.0, "maxiter": 10_000, "maxfun": 10_000}
    box = scipy.optimize.Bounds(0, 1)

    def solve() -> np.ndarray:
        about = {"jac": True, "method": "L-BFGS-B", "bounds": box, "options": options}
        return scipy.optimize.minimize(value_and_slope, program.start, **about).x

    return solve


def by_bvls(program: Program) -> Callable[[], np.ndarray]:
    """Active-set least squares |Lᵀc − L⁻¹q|² with A + ridge = L Lᵀ; the ridge is that of rounding."""
    n = len(program.q)
    lifted = program.matrix + 1e-14 * n * program.matrix.diagonal().max() * np.eye(n)

    def solve() -> np.ndarray:
        lower = np.linalg.cholesky(lifted)
        right = scipy.linalg.solve_triangular(lower, program.q, lower=True)
        return scipy.optimize.lsq_linear(lower.T, right, bounds=(0, 1), method="bvls", tol=1e-14).x

    return solve


# scipy's trust-constr takes a second where these take milliseconds, and is left out.
CONTENDERS = {
    "boxqp": own,
    "osqp": by_osqp,
    "clarabel": by_clarabel,
    "scipy L-BFGS-B": by_lbfgsb,
    "scipy lsq_linear (BVLS)": by_bvls,
}


def compare(programs: list[Program]) -> list[dict]:
    """One row a contender: median time, median ratio to `boxqp`, largest residual, failures."""
    shape = (len(CONTENDERS), len(programs))
    wall, residual = np.empty(shape), np.full(shape, np.inf)
    for k, program in enumerate(programs):
        solvers = [contender(program) for contender in CONTENDERS.values()]
        timed = np.empty((ROUNDS, len(solvers)))
        for turn, (i, solve) in itertools.product(range(ROUNDS), enumerate(solvers)):
            try:
                timed[turn, i], c = seconds(solve)
                residual[i, k] = program.residual(c)
            except (ArithmeticError, ValueError, np.linalg.LinAlgError) as failure:
                timed[turn, i] = np.nan
                print(f"{list(CONTENDERS)[i]}, n = {len(program.q)}: {failure}", flush=True)
        wall[:, k] = np.median(timed, axis=0)
    residual = np.where(np.isfinite(residual), residual, np.inf)
    limit = np.array([10 * program.goal for program in programs])
    return [
        {
            "solver": name,
            "median_ms": 1e3 * float(np.nanmedian(wall[i])),
            "ratio": float(np.nanmedian(wall[i] / wall[0])),
            "residual": float(residual[i].max()),
            "failures": int((residual[i] > limit).sum()),
        }
        for i, name in enumerate(CONTENDERS)
    ]


def main() -> None:
    """Compare on p = 256 and 1024 (with `--full` on more programs, and p = 2048)."""
    chosen = arguments(__doc__.splitlines()[0])
    trainings = ((256, 1000), (1024, 2000), (2048, 2000)) if chosen.full else ((256, 1000), (1024, 1000))
    rows = []
    with threadpoolctl.threadpool_limits(chosen.threads):
        for p, width in trainings:
            recorded = record(p, width)
            for low, high in SIZES:
                programs = [program for program in recorded if low <= len(program.q) <= high]
                some = programs[:: -(-len(programs) // (100 if chosen.full else 12))]  # evenly over the training
                n = [len(program.q) for program in some]
                about = {"p": p, "recorded": len(programs), "programs": len(some), "n": int(np.median(n))}
                rows += [{**about, "n_max": max(n), **row} for row in compare(some)]
                print(rows[-len(CONTENDERS)], flush=True)
    report("box_qp", rows, chosen, d=5, alpha=1e-6, kkt_tol=flow.KKT_TOL, rounds=ROUNDS)


if __name__ == "__main__":
    main()
