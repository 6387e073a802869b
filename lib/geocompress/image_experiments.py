"""From a configuration about images to a row: the convolution net of arXiv:2007.11471 and the kernels it leaves behind.

One training gives the net, and the machines on its tangent kernel and on the part of the last layer alone, at
initialisation and at the end. All are tested on the same images.
"""

from __future__ import annotations

import copy
import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from geocompress import compression, deformations, images, spectrum, states, store
from geocompress.checks import Real, integer, real
from geocompress.experiments import FIT_SHARE
from geocompress.losses import SoftHinge
from geocompress.mnas import MnasCNN
from geocompress.modules import ModuleNetwork
from geocompress.networks import Params
from geocompress.provenance import check_device
from geocompress.states import State
from geocompress.stiff import stiff_flow
from geocompress.tangents import frozen_machine

TOP = 10  # eigenpairs that are looked at, as in arXiv:2007.11471
MOMENTS = ("init", "final")
LAST = ("readout", "bias")  # parameters of the last layer
DEFORMED = 512  # test images that deformations are tried on
CHECKPOINT_S = 60.0  # seconds between two checkpoints
# of one moment, without its suffix
COLUMNS = (
    *("svc", "svc_status", "svc_support", "last", "last_status"),
    *("eigenvalues", "projections", "information", "alignment", "effective_dimension", "stability"),
)
MACHINES = {"ntk": "svc", "last": "last"}  # name of a method and its machine


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """One training of `mnas.MnasCNN` on images: everything that decides its result, and nothing else.

    Attributes:
        task: name of the pool of images, see `images.by_name`: "digits[size=16]" needs nothing, "mnist" its files.
        p: training images.
        width: h.
        alpha: scale of the predictor; 2e-3 is the feature regime of arXiv:2007.11471.
        sharpness: of the soft hinge.
        seed: of the split and the initial weights, which are two numbers made from it.
        test_size: test images.
        margin_tol: accepted error of a step, see `stiff.stiff_flow`.
        order: of a step.
        inertia: τ, the time over which the gradient is averaged; 0 is gradient flow.
        device: "cpu" or "cuda".
        dtype: of network and training; machines are in float64.

    Raises:
        TypeError, ValueError: a setting of the wrong type or out of range; "cuda" where there is none.
    """

    task: str = "digits[size=16]"
    p: int = 200
    width: int = 10
    alpha: float = 2e-3
    sharpness: float = 3.0
    seed: int = 0
    test_size: int = 1000
    margin_tol: float = 0.5
    order: int = 1
    inertia: float = 0.0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "test_size", "order"):
            integer(getattr(self, name), name)
        integer(self.p, "p", minimum=2 * TOP)
        integer(self.seed, "seed", minimum=0)
        for name in ("alpha", "sharpness", "margin_tol"):
            real(getattr(self, name), name, 0)
        if self.inertia != 0:
            real(self.inertia, "inertia", 0)
        if not isinstance(self.task, str):
            raise TypeError(f"task: expected the name of a pool such as 'mnist', got {self.task!r}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected 'float64' or 'float32', got {self.dtype!r}")
        check_device(self.device)

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of `data` and `init`."""
        numbers = np.random.SeedSequence(self.seed).generate_state(2)
        return dict(zip(("data", "init"), (int(number) for number in numbers), strict=True))


class ImageReplica:
    """The images, network and initial weights that a configuration stands for.

    Raises:
        ValueError, OSError: images that are not there or do not suffice; see `images.by_name` and `Images.split`.
    """

    def __init__(self, config: ImageConfig, *, memory_gb: Real = 2.0) -> None:
        self.config, self.pool = config, _pool(config.task)
        place = {"device": check_device(config.device), "dtype": getattr(torch, config.dtype)}
        split = self.pool.split(config.p, config.test_size, config.seeds["data"])
        self.x, self.y, self.x_test, self.y_test = (part.to(**place) for part in split[:4])
        self.network = MnasCNN(config.width, size=self.x.shape[-1], channels=self.x.shape[1])
        self.params = self.network.init(config.seeds["init"], **place)
        module = self.network.module(self.params)
        self.module = ModuleNetwork(module, config.width, memory_gb=real(memory_gb, "memory_gb", 0))
        self._output_init_test = self.module.forward(self.params, self.x_test)

    def states(self, start: State | None = None) -> Iterator[State]:
        """The flow from the initial weights, or from a state of an earlier run, to margin 1 on every image."""
        config = self.config
        return stiff_flow(
            self.module,
            self.params,
            self.x,
            self.y,
            alpha=config.alpha,
            loss=SoftHinge(config.sharpness),
            margin_tol=config.margin_tol,
            order=config.order,
            inertia=config.inertia,
            start=start,
        )

    def test_error(self, params: Params) -> float:
        """Share of the test images with y F ≤ 0, F = α (f − f_0)."""
        return self.error(self.module.forward(params, self.x_test) - self._output_init_test)

    def error(self, output: Tensor) -> float:
        """Share of the test images on the wrong side."""
        return float((self.y_test * output <= 0).double().mean())

    def tangent(self, params: Params, *, last: bool = False) -> ImageKernel:
        """The tangent kernel at `params`, or the part of the last layer."""
        module = self.network.module(params)
        for name, value in module.named_parameters():
            value.requires_grad_(name in LAST or not last)
        return ImageKernel(ModuleNetwork(module, self.config.width, memory_gb=self.module.memory_gb), self.x)


class ImageKernel:
    """Θ(x, z) = h ⟨∇f(x), ∇f(z)⟩ of a module at its parameters, on training points.

    The Gram is of float64, whatever the network: rounded to float32 it has eigenvalues below zero.
    """

    def __init__(self, network: ModuleNetwork, x: Tensor) -> None:
        self._network, self._params, self._x = network, network.init(), x

    @functools.cached_property
    def gram(self) -> Float[Tensor, "p p"]:
        """Θ(x_μ, x_ν), float64."""
        network = replace(self._network, module=copy.deepcopy(self._network.module).double())
        return network.width * network.linearise(network.init(), self._x.double()).gram()

    @property
    def unit(self) -> float:
        """Mean of Θ(x_μ, x_μ)."""
        return float(self.gram.diagonal().mean())

    def function(self, charges: Float[Tensor, " p"], points: Tensor) -> Float[Tensor, " q"]:
        """Σ_ν q_ν Θ(x, x_ν) at new points, without any cross-Gram: by the products of the network, in its dtype."""
        scale = float(charges.abs().max())  # what is left is of order one
        way = self._network.linearise(self._params, self._x).pullback((charges / scale).to(points))
        return self._network.width * scale * self._network.linearise(self._params, points).pushforward(way).double()


@functools.lru_cache(maxsize=2)
def _pool(task: str) -> images.Images:
    return images.by_name(task)


def train_images(
    config: ImageConfig, *, memory_gb: Real = 2.0, checkpoint: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Train one network to margin 1 on every image; return the row of the net and of the kernels it had and has.

    `test_error` is the net's. For each moment M, init and final:

    - `svc_M`, `last_M`: test errors of the hard-margin machines on the tangent kernel and on the part of the last layer
      (readout and bias), with `svc_status_M`, `svc_support_M`, `last_status_M`.
    - `eigenvalues_M`, `projections_M`, `information_M`: lists of ten, as in `ntk_experiments.train_frozen`;
      `alignment_M` with the label; `effective_dimension_M`. All are of the centred Gram: the one bias adds the same
      large number to all of its entries, which changes no machine.
    - `stability_M`: relative stability of every layer to smooth deformations, a list in the order of the layers, on
      the first 512 test images; the last is that of the output.

    `wall_s` is that of training, `kernels_s` that of the rest.

    Args:
        config: what to train.
        memory_gb: for gradients, in 10⁹ bytes.
        checkpoint: a file that the state is kept in while training, and that a run begins from where it is there; gone
            when training has ended.

    Raises:
        ValueError, OSError: as `ImageReplica`; a checkpoint of another training.
    """
    about = store.provenance(device=config.device, dtype=config.dtype)
    replica = ImageReplica(config, memory_gb=memory_gb)
    start = time.perf_counter()
    end, t_star, wall_before = _trained(replica, None if checkpoint is None else Path(checkpoint))
    wall_s = wall_before + time.perf_counter() - start
    began = time.perf_counter()
    row = {
        "experiment": "image",
        "task": config.task,
        "d": replica.x[0].numel(),
        "d_parallel": None,
        "p": config.p,
        "width": config.width,
        "alpha": config.alpha,
        "regime": "feature" if config.alpha < 1 else "lazy",
        "method": "network",
        "seed": config.seed,
        "test_error": replica.test_error(end.params),
        "lambda_max": None,
        "lambda_end": None,
        "t_star": t_star,
        "t_end": end.t,
        "loss": end.loss,
        "steps": end.step,
        "status": end.status.value,
        "wall_s": wall_s,
        "images": replica.pool.source,
        **about,
    }
    for moment, params in zip(MOMENTS, (replica.params, end.params), strict=True):
        row |= {f"{name}_{moment}": value for name, value in _frozen(replica, params).items()}
    return row | {"kernels_s": time.perf_counter() - began}


def by_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `train_images` as one row per method: network, ntk_init, ntk_final, last_init, last_final.

    `test_error` and `status` are those of the method, and the regime of kernels is "kernel".

    Raises:
        ValueError: rows of another kind.
    """
    names = [f"{name}_{moment}" for name in COLUMNS for moment in MOMENTS]
    if missing := sorted(set(names) - set(rows.columns)):
        raise ValueError(f"by_method: expected rows of train_images, got a table without {', '.join(missing[:5])}")
    shared = rows.drop(columns=names)
    parts = [shared]
    for method, machine in MACHINES.items():
        for moment in MOMENTS:
            told = {"test_error": rows[f"{machine}_{moment}"], "status": rows[f"{machine}_status_{moment}"]}
            parts.append(shared.assign(**told, method=f"{method}_{moment}", regime="kernel"))
    return pd.concat(parts, ignore_index=True)


def _trained(replica: ImageReplica, checkpoint: Path | None) -> tuple[State, float | None, float]:
    """The end of the flow, t*, and the seconds spent before a checkpoint that it went on from."""
    start, t_star, before = None, None, 0.0
    recipe = repr(replica.config)
    if checkpoint is not None and checkpoint.exists():
        start, notes = states.load(checkpoint)
        if notes["recipe"] != recipe:
            raise ValueError(f"{checkpoint}: expected a training of {recipe}, got {notes['recipe']}; name another file")
        t_star, before = notes["t_star"], notes["wall_s"]
    began = written = time.perf_counter()
    for end in replica.states(start):
        if t_star is None and compression.fitted_fraction(end.margins) >= FIT_SHARE:
            t_star = end.t
        if checkpoint is not None and time.perf_counter() - written > CHECKPOINT_S:
            written = time.perf_counter()
            states.save(end, checkpoint, recipe=recipe, t_star=t_star, wall_s=before + written - began)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return end, t_star, before


def _frozen(replica: ImageReplica, params: Params) -> dict[str, Any]:
    """Columns about the kernels and layers at these parameters."""
    y = replica.y.double()
    full, last = replica.tangent(params), replica.tangent(params, last=True)
    errors = []
    for kernel in (full, last):
        machine, charges = frozen_machine(kernel.gram, y, unit=kernel.unit)
        output = kernel.function(charges, replica.x_test) + machine.bias
        errors.append((replica.error(output), machine.ending.value, len(machine.support)))
    centred = spectrum.centred(full.gram)
    found = spectrum.top_eigenpairs(centred, TOP, y=y)
    layers = functools.partial(replica.network.preactivations, params)
    values = (
        *errors[0],
        *errors[1][:2],
        found.values,
        spectrum.label_projections(found.vectors, y),
        spectrum.mutual_information(found.vectors, y),
        spectrum.label_alignment(full.gram, y),
        spectrum.effective_dimension(centred),
        list(deformations.relative_stability(layers, replica.x_test[:DEFORMED]).values()),
    )
    return dict(zip(COLUMNS, values, strict=True))
