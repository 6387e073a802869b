"""How long until the convolution net of arXiv:2007.11471 has margin 1 on every image? The implicit step against RK23.

Soft hinge of sharpness 3, α = 2e-3, h = 10, float32; MNIST where GEOCOMPRESS_DATA names its folder, else the digits of
scikit-learn at 28 × 28. The explicit integrator is that of `smooth.smooth_flow` (scipy's RK23 at a relative tolerance
of 1e-2); it is stopped after a time, and `at_least` is then a lower bound of the ratio. `loss` says how far it got: a
net that has learned nothing has 1.016.
"""

import math
import os
import time

from common import arguments, check, report
from geocompress import image_experiments, images, smooth
from geocompress.losses import SoftHinge
from geocompress.states import Status

GOALS = {300: 25.0, 1000: 300.0}  # p: seconds asked for on two cores
LIMIT_SHORT, LIMIT_FULL = 8.0, 600.0
RTOL = 1e-2


def explicit(replica: image_experiments.ImageReplica, limit: float) -> dict:
    """The same flow by RK23, for so long."""
    config, start = replica.config, time.perf_counter()
    loss = SoftHinge(config.sharpness)
    flow = smooth.smooth_flow(
        replica.module, replica.params, replica.x, replica.y, alpha=config.alpha, loss=loss, rtol=RTOL
    )
    for state in flow:
        if time.perf_counter() - start > limit:
            break
    return told(state, time.perf_counter() - start, replica)


def told(state, seconds: float, replica: image_experiments.ImageReplica) -> dict:
    """What a run has reached."""
    unfitted = int((state.margins < 1).sum())
    reached = {"steps": state.step, "t": state.t, "loss": state.loss, "unfitted": unfitted}
    return {"outcome": state.status.value, "seconds": seconds} | reached | {"error": replica.test_error(state.params)}


def rows(task: str, p: int, limit: float):
    """Ours, then the explicit integrator."""
    replica = image_experiments.ImageReplica(image_experiments.ImageConfig(task=task, p=p, test_size=500))
    start = time.perf_counter()
    for state in replica.states():
        pass
    ours = told(state, time.perf_counter() - start, replica)
    yield {"p": p, "solver": "implicit in the multipliers", **ours}
    other = explicit(replica, limit)
    ratio = other["seconds"] / ours["seconds"]
    done = other["outcome"] == Status.FITTED.value
    yield {"p": p, "solver": "RK23", **other, "ratio": ratio if done else None, "at_least": None if done else ratio}


def main() -> None:
    """Up to p = 300 (with `--full` up to 1000)."""
    chosen = arguments(
        __doc__.splitlines()[0],
        limit={"type": float, "help": f"seconds for RK23: {LIMIT_SHORT:g}, with --full {LIMIT_FULL:g}"},
    )
    task = "mnist" if os.environ.get(images.DATA_VARIABLE) else "digits[size=28]"
    limit = chosen.limit or (LIMIT_FULL if chosen.full else LIMIT_SHORT)
    measured = [row for p in (sorted(GOALS) if chosen.full else [min(GOALS)]) for row in rows(task, p, limit)]
    checks = []
    for row in measured:
        if row["solver"] != "RK23":
            taken = row["seconds"] if row["outcome"] == Status.FITTED.value else math.inf
            checks.append(check(f"p = {row['p']}: seconds to margin 1 on every image", taken, at_most=GOALS[row["p"]]))
    source = image_experiments.ImageReplica(image_experiments.ImageConfig(task=task, p=20, test_size=1)).pool.source
    report(
        "images",
        measured,
        chosen,
        checks,
        alpha=2e-3,
        width=10,
        dtype="float32",
        rtol=RTOL,
        limit_s=limit,
        images=source,
    )


if __name__ == "__main__":
    main()
