"""Images, the convolution net of arXiv:2007.11471 and its tangent kernel, as a frozen configuration names them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geocompress import images
from geocompress.checks import Real, integer, real
from geocompress.losses import SoftHinge
from geocompress.mnas import MnasCNN
from geocompress.modules import ModuleNetwork
from geocompress.networks import Params
from geocompress.provenance import check_device
from geocompress.states import State
from geocompress.stiff import stiff_flow

TOP = 10  # eigenpairs that are looked at, as in arXiv:2007.11471
ROUNDING = 0.05  # accepted error of the function of a machine, at worst; its margins are 1
LAST = ("readout", "bias")  # parameters of the last layer


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
        for name in ("width", "test_size"):
            integer(getattr(self, name), name)
        if self.order not in (1, 2):
            raise ValueError(f"order: expected 1 or 2, got {self.order!r}")
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
        """Share of the test images that are not on the right side."""
        return float((~(self.y_test * output > 0)).double().mean())

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
        self._network, self._x = network, x

    @functools.cached_property
    def _precise(self) -> ModuleNetwork:
        return replace(self._network, module=copy.deepcopy(self._network.module).double())

    @functools.cached_property
    def gram(self) -> Float[Tensor, "p p"]:
        """Θ(x_μ, x_ν), float64."""
        network = self._precise
        return network.width * network.linearise(network.init(), self._x.double()).gram()

    @property
    def unit(self) -> float:
        """Mean of Θ(x_μ, x_μ)."""
        return float(self.gram.diagonal().mean())

    def function(self, charges: Float[Tensor, " p"], points: Tensor) -> Float[Tensor, " q"]:
        """Σ_ν q_ν Θ(x, x_ν) at new points, without any cross-Gram: by the products of the network.

        In the dtype of the points, unless that might be off by `ROUNDING`: a machine on few features has charges
        of 10⁹ and more, whose effects cancel. Convolutions in float64 are several times slower.
        """
        off = torch.finfo(points.dtype).eps * self.unit * float(charges.abs().sum())
        network, dtype = (self._network, points.dtype) if off < ROUNDING else (self._precise, torch.float64)
        params, scale = network.init(), float(charges.abs().max())  # what is left is of order one
        way = network.linearise(params, self._x.to(dtype)).pullback((charges / scale).to(dtype))
        return network.width * scale * network.linearise(params, points.to(dtype)).pushforward(way).double()


@functools.lru_cache(maxsize=2)
def _pool(task: str) -> images.Images:
    return images.by_name(task)
