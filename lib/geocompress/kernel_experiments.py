"""From a frozen configuration to a row of a kernel's learning curve: hard-margin machines, raw or compressed by hand.

The data of seed s are those of the network of seed s (`experiments.NetworkConfig`), so both can be compared pair by
pair. The training sets of one seed are nested: a smaller one is the head of a larger one. Errors at two p are
therefore not independent; fit them with `replica=` (`fits.fit_power_law`).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geocompress import classifiers, kernels, store, tasks
from geocompress.checks import Real, Whole, integer, real
from geocompress.classifiers import ErrorEstimate, HardMarginSVC
from geocompress.experiments import NetworkConfig
from geocompress.kernels import Kernel
from geocompress.provenance import check_device
from geocompress.tasks import Task

LAPLACE_SCALE = 100.0  # far above all distances of points: the machine is that of K = −|x − z|, without a length
LOOK = 10_000  # points an edge that tell how many the estimate of the error needs; above the floor of the strata
RELATIVE = 0.05  # standard error allowed to an estimate, as a share of the error: less than what seeds differ by
RESERVE = 1.2  # more points than the look asks for, since its own standard error is noisy
SPREAD = classifiers.PLAIN * (1 - classifiers.PILOT)  # share of stratified points that lie anywhere, not at the edges
MEMORY_GB = 8.0  # room for 17 000 support vectors: d = 5 to p = 262 144, d = 10 to about p = 131 072; two fit in 24 GB
CAP = 2.5  # test points per plain point at most: with those even a stratification that gains nothing is fine enough


class Method(NamedTuple):
    """A kernel, and whether x_⊥ is divided by λ in front of it."""

    kernel: Kernel
    compressed: bool


KERNELS: dict[str, Kernel] = {
    "svc_laplace": functools.partial(kernels.laplace, scale=LAPLACE_SCALE),
    "ntk_infinite": kernels.ntk_one_hidden,
}
METHODS: dict[str, Method] = {
    name + suffix: Method(kernel, bool(suffix)) for name, kernel in KERNELS.items() for suffix in ("", "_compressed")
}


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """One hard-margin machine: everything that decides its result, and nothing else. Always in float64.

    Attributes:
        task: name of a task, as `tasks.by_name` reads it.
        d: dimension of the points.
        p: number of training points, at least 2.
        method: a name in `METHODS`; the suffix _compressed divides x_⊥ by λ in front of the kernel.
        amplification: λ of a compressed method; None means √p, what feature learning reaches up to a prefactor
            (arXiv:2007.11471). None for a raw method.
        seed: number of the replica. It shares its training set with the `NetworkConfig` of that seed.
        test_size: plain test points whose standard error is to be matched; see `precise_error`.
        device: "cpu" or "cuda".

    Raises:
        TypeError, ValueError: a setting of the wrong type or out of range; a method that is not in `METHODS`; λ for a
            raw method; a compressed method for a task that ignores no direction; "cuda" where there is none.
    """

    task: str = "stripe"
    d: int = 5
    p: int = 256
    method: str = "svc_laplace"
    amplification: Real | None = None
    seed: int = 0
    test_size: int = 1_000_000
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, minimum in (("d", 1), ("p", 2), ("seed", 0), ("test_size", 1)):
            integer(getattr(self, name), name, minimum)
        for name in ("task", "method"):
            if not isinstance(value := getattr(self, name), str):
                raise TypeError(f"{name}: expected a name, got {value!r}; put it in quotes")
        task = tasks.by_name(self.task, self.d)
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}; add it to METHODS")
        compressed, raw = METHODS[self.method].compressed, self.method.removesuffix("_compressed")
        if self.amplification is not None:
            real(self.amplification, "amplification", 0)
            if not compressed:
                got = f"{self.amplification!r}; use '{raw}_compressed'"
                raise ValueError(f"amplification: expected None for {raw!r}, which compresses nothing, got {got}")
        if compressed and not task.d_perp:
            raise ValueError(
                f"method {self.method!r}: expected a task that ignores some directions, got {self.task!r} with "
                f"d_parallel = d = {self.d}; use {raw!r}, or a larger d where the task allows it"
            )
        check_device(self.device)

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of `data` and `test`, by the rule of networks."""
        return {name: seed for name, seed in NetworkConfig(seed=self.seed).seeds.items() if name != "init"}

    @property
    def imposed(self) -> float:
        """λ that divides x_⊥: 1 for a raw method."""
        default = math.sqrt(self.p) if METHODS[self.method].compressed else 1.0
        return default if self.amplification is None else float(self.amplification)

    def seen(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q d"]:
        """A copy of points of the task as the kernel sees them, x_⊥ divided by λ, on the device."""
        return kernels.compressed(x.to(self.device), tasks.by_name(self.task, self.d).d_parallel, self.imposed)


@dataclass(frozen=True, eq=False)
class KernelMachine:
    """A trained machine: `svc.x` are support vectors as the kernel sees them, `svc.support` their training rows."""

    config: KernelConfig
    svc: HardMarginSVC
    wall_s: float

    def decision(self, x: Float[Tensor, "q d"]) -> Float[Tensor, " q"]:
        """Values f(x) of points of the task, in margin units, on the device of the machine."""
        return self.svc.decision(self.config.seen(x))


def fit_kernel(config: KernelConfig, *, memory_gb: Real = MEMORY_GB) -> KernelMachine:
    """Train the machine of a configuration.

    Args:
        config: what to train.
        memory_gb: budget in 10⁹ bytes; it changes the result by rounding only.

    Raises:
        TypeError, ValueError: as `hard_margin_svc`: one class only (tiny p), or a budget too small.
    """
    x, y = tasks.by_name(config.task, config.d).sample(config.p, config.seeds["data"])
    x = config.seen(x)
    began = time.perf_counter()
    svc = classifiers.hard_margin_svc(METHODS[config.method].kernel, x, y.to(x.device), memory_gb=memory_gb)
    return KernelMachine(config, svc, time.perf_counter() - began)


def train_kernel(config: KernelConfig, *, memory_gb: Real = MEMORY_GB) -> dict[str, Any]:
    """Train one machine and measure its error; return the row that a published result carries.

    Beside the configuration and the provenance: `test_error` with its standard error `test_error_se` and the
    `test_points` drawn (`precise_error`); `lambda_max` and `lambda_end`, both the imposed λ (nan where the task ignores
    no direction); `status`, `violation`, `gap`, `rounds`, `pivots`, `bias` and the number `support` of support vectors
    (`HardMarginSVC`); `layer_width` Δ in the unit of the points, `layer_charge` in margin units over kernel units, and
    `layer_spacing` r_c between points as the kernel sees them, x_⊥ divided by λ; `wall_s` of training and `test_s` of
    testing, in seconds. `width`, `alpha`, `t_star` and `steps` are None: a kernel has none.

    Args:
        config: what to train.
        memory_gb: budget of the training in 10⁹ bytes; it changes the row by rounding only.

    Raises:
        TypeError, ValueError: as `fit_kernel`.
    """
    about = store.provenance(device=config.device, dtype=torch.float64)
    machine = fit_kernel(config, memory_gb=memory_gb)
    task, svc = tasks.by_name(config.task, config.d), machine.svc
    began = time.perf_counter()
    estimate = precise_error(task, machine.decision, config.test_size, config.seeds["test"])
    amplification = config.imposed if task.d_perp else math.nan
    return {
        "experiment": "kernel",
        **store.describe(config),
        "d_parallel": task.d_parallel,
        "regime": "kernel",
        **dict.fromkeys(("width", "alpha", "t_star", "steps"), None),
        "test_error": estimate.error,
        "test_error_se": estimate.standard_error,
        "test_points": estimate.points,
        **dict.fromkeys(("lambda_max", "lambda_end"), amplification),
        "support": len(svc.support),
        "layer_width": classifiers.layer_width(task, svc.x),  # compression leaves x_∥ as it is
        "layer_charge": classifiers.layer_charge(svc.a),
        "layer_spacing": classifiers.layer_spacing(svc.x),
        **{name: getattr(svc, name) for name in ("bias", "violation", "gap", "rounds", "pivots")},
        "status": svc.ending.value,
        "wall_s": machine.wall_s,
        "test_s": time.perf_counter() - began,
        **about,
    }


def precise_error(task: Task, decision: Callable[[Tensor], Tensor], plain_points: Whole, seed: Whole) -> ErrorEstimate:
    """Test error with a standard error of at most √(ε (1 − ε)/n), n = `plain_points`, and of 5 % of ε.

    So it is at least as sharp as n plain test points, and n = 10⁶, the default, is meant for every p. A look at 10⁴
    points an edge (`stratified_error`) tells how many stratified points that takes, and is thrown away; the estimate
    comes from fresh ones, so it stays unbiased. A look of m points may have missed rare errors far from the edges,
    which only the 45 % of the points that lie anywhere can meet: one more of them is added to its variance,
    σ² + 1/(0.45 m)². The bounds hold up to the noise of the look; 2.5 n points meet the first one in any case, and with
    more the second is given up.

    Raises:
        TypeError, ValueError: plain_points < 1, a seed below 0, or as `stratified_error`.
    """
    plain_points, seed = integer(plain_points, "plain_points"), integer(seed, "seed", minimum=0)
    look_seed, fresh_seed = (int(number) for number in np.random.SeedSequence(seed).generate_state(2))
    least = LOOK * len(task.edges)
    look = classifiers.stratified_error(task, decision, least, look_seed)
    points = CAP * plain_points
    if look.error > 0:  # without an error nothing is known of their place
        variance = look.standard_error**2 + (SPREAD * look.points) ** -2
        goal = min(look.error * (1 - look.error) / plain_points, (RELATIVE * look.error) ** 2)
        points = min(points, RESERVE * look.points * variance / goal)
    return classifiers.stratified_error(task, decision, math.ceil(max(least, points)), fresh_seed)
