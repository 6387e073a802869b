"""The network of sixteen convolutions that arXiv:2007.11471 trains on MNIST, in NTK parametrisation."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from scipy.integrate import quad
from torch import Tensor, nn
from torch.nn import functional

from geocompress.checks import Whole, integer

SMALLEST = 8  # height and width of an image: four places are left where the head looks
EXPANSION = 3  # of channels inside an inverted residual
KERNEL = 5  # of every convolution that looks further than one place


def _gaussian_mean(function) -> float:
    """E g(z) for z ~ N(0, 1); beyond 40 the weight is below the smallest float64."""
    weight = 1 / math.sqrt(2 * math.pi)
    return quad(lambda z: weight * math.exp(-0.5 * z * z) * function(z), -40, 40, epsabs=1e-13, limit=200)[0]


# swish is z / (1 + e^−z); this makes its second moment under N(0, 1) one
SWISH_SCALE = _gaussian_mean(lambda z: (z / (1 + math.exp(-z))) ** 2) ** -0.5


def swish(z: Tensor) -> Tensor:
    """σ(z) = k z / (1 + e^−z) with k such that E σ(z)² = 1 for z ~ N(0, 1)."""
    return SWISH_SCALE * functional.silu(z)


class Convolution(NamedTuple):
    """A convolution without bias, zeros around the image, and whether σ follows.

    `groups` is 1, or the number of channels: then each sees itself only (depthwise).
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    active: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight: (outputs, inputs of a group, kernel, kernel)."""
        return (self.outputs, self.inputs // self.groups, self.kernel, self.kernel)

    @property
    def fan_in(self) -> int:
        """How many numbers an output is a sum of."""
        return math.prod(self.shape[1:])

    def __call__(self, weight: Tensor, x: Tensor) -> Tensor:
        """Pre-activations Σ w x / √fan_in."""
        scaled = weight / math.sqrt(self.fan_in)
        return functional.conv2d(x, scaled, None, self.stride, self.kernel // 2, 1, self.groups)


class Block(NamedTuple):
    """Convolutions one after the other; with `residual`, (x + r)/√2 of what goes in and what comes out."""

    layers: tuple[Convolution, ...]
    residual: bool = False


@dataclass(frozen=True)
class MnasCNN:
    """Sixteen convolutions, the mean over all places, and a linear readout.

    With c = `stages` = (3, 5) as in the paper and σ the `swish` of unit second moment:

    - a convolution 5 × 5 of stride 2 to 4h channels, σ;
    - a depthwise one 5 × 5, σ, and a pointwise one to 2h, σ;
    - four inverted residuals: pointwise to three times the channels, σ; depthwise 5 × 5, σ; pointwise, without σ, to
      c_1 h (stride 2), c_1 h, c_2 h (stride 2), c_2 h; where the shape stays the block gives (x + r)/√2;
    - a pointwise one to 20h, σ; the mean over places; f(x) = Σ_i a_i φ_i(x) / (20h) + b.

    Every convolution is divided by √fan_in, only the readout by its fan-in 20h (mean field). All weights are N(0, 1) at
    initialisation; the one bias b is 0, and F = α (f − f_0) does not depend on where it starts.

    Time: with `width` h as the unit of mean-field time, Ẇ = −(h/α) ∂L/∂W, the share of the weights in the kernel
    Θ(x, x) = h |∇f(x)|² keeps its size as h grows: 0.42 ± 0.20, 0.42 ± 0.11, 0.39 ± 0.07 for h = 10, 20, 40 at
    initialisation (MNIST, 6 seeds, standard errors). The bias, whose gradient is one, adds exactly h to every entry.

    Second moments: a layer that is fed σ(N(0, 1)) gives out one, but for the zeros around the image. Through all layers
    that is so on average only. On MNIST (h = 10, 256 images, 12 seeds) they go from 0.99 ± 0.02 to 3.2 ± 1.1, because
    the middle of a digit varies more than its rim and E σ(√q z)² outgrows q > 1; on white noise zeros prevail, and they
    fall to 0.4.

    Attributes:
        width: h.
        size: height and width of the images, at least 8.
        channels: of the images, 1 for grey and 3 for colours.
        stages: c_1, c_2.

    Raises:
        TypeError, ValueError: a number that is not an integer of at least 1 (size: 8).
    """

    width: Whole = 10
    size: Whole = 28
    channels: Whole = 1
    stages: tuple[int, ...] = (3, 5)

    def __post_init__(self) -> None:
        integer(self.width, "width")
        integer(self.size, "size", minimum=SMALLEST)
        integer(self.channels, "channels")
        if len(self.stages) != 2:
            raise ValueError(f"stages: expected two numbers, got {self.stages}; (3, 5) is the paper's choice")
        for stage in self.stages:
            integer(stage, "stages")

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The convolutions in the order in which an image meets them."""
        h, (first, second) = self.width, (stage * self.width for stage in self.stages)
        stem = Convolution("stem", self.channels, 4 * h, KERNEL, 2, 1, True)
        separable = (
            Convolution("separable_depthwise", 4 * h, 4 * h, KERNEL, 1, 4 * h, True),
            Convolution("separable_pointwise", 4 * h, 2 * h, 1, 1, 1, True),
        )
        inverted = [
            _inverted(f"inverted{number}", *sizes)
            for number, sizes in enumerate(
                [(2 * h, first, 2), (first, first, 1), (first, second, 2), (second, second, 1)], start=1
            )
        ]
        head = Convolution("head", second, 20 * h, 1, 1, 1, True)
        return (Block((stem,)), Block(separable), *inverted, Block((head,)))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter."""
        convolutions = {layer.name: layer.shape for block in self.blocks for layer in block.layers}
        return {**convolutions, "readout": (1, 20 * self.width), "bias": (1,)}

    def init(
        self, seed: int, *, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
    ) -> dict[str, Float[Tensor, "..."]]:
        """Standard normal weights and b = 0. Drawn in float64 on the CPU, so a seed means the same net everywhere."""
        generator = torch.Generator().manual_seed(seed)
        draws = {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in self.shapes.items()}
        draws["bias"].zero_()
        return {k: v.to(device=device, dtype=dtype) for k, v in draws.items()}

    def forward(self, params: dict[str, Tensor], x: Float[Tensor, "p c s s"]) -> Float[Tensor, " p"]:
        """Outputs f(x_μ), shape (p,): a function of `params` and `x` alone, which autograd can follow.

        Raises:
            ValueError: images or parameters of another shape.
        """
        for _, values in self._layers(params, x):
            output = values
        return output

    def preactivations(self, params: dict[str, Tensor], x: Float[Tensor, "p c s s"]) -> dict[str, Tensor]:
        """What each convolution gives out before σ, (p, channels, height, width), and the output, by name.

        Raises:
            ValueError: images or parameters of another shape.
        """
        return dict(self._layers(params, x))

    def module(self, params: dict[str, Tensor]) -> MnasModule:
        """The network as a `torch.nn.Module` with a copy of these parameters, under the same names.

        `modules.ModuleNetwork(net.module(params), net.width)` is what a flow trains.
        """
        return MnasModule(self, params)

    def table(self) -> pd.DataFrame:
        """The layers: name, shape of the weight, stride, places it gives out, and number of parameters."""
        rows, size = [], self.size
        for layer in (layer for block in self.blocks for layer in block.layers):
            size = -(-size // layer.stride)
            rows.append((layer.name, layer.shape, layer.stride, f"{size} × {size}", math.prod(layer.shape)))
        rows += [(name, self.shapes[name], 1, "1", math.prod(self.shapes[name])) for name in ("readout", "bias")]
        return pd.DataFrame(rows, columns=["layer", "shape", "stride", "places", "parameters"])

    def _layers(self, params: dict[str, Tensor], x: Tensor) -> Iterator[tuple[str, Tensor]]:
        self._check(params, x)
        for block in self.blocks:
            entered = x
            for layer in block.layers:
                z = layer(params[layer.name], x)
                z = _channels_last(z) if layer.name == "stem" else z  # the others pass the order on
                yield layer.name, z
                x = swish(z) if layer.active else z
            if block.residual:
                x = (entered + x) / math.sqrt(2)
        features = x.mean((2, 3))
        yield "readout", functional.linear(features, params["readout"] / features.shape[1], params["bias"])[:, 0]

    def _check(self, params: dict[str, Tensor], x: Tensor) -> None:
        if x.shape[1:] != (self.channels, self.size, self.size):
            raise ValueError(
                f"MnasCNN: expected images (p, {self.channels}, {self.size}, {self.size}), got {tuple(x.shape)}; set "
                "channels and size to those of the data"
            )
        shapes = {k: tuple(v.shape) for k, v in params.items()}
        if shapes != self.shapes:
            wrong = sorted(k for k in shapes.keys() | self.shapes.keys() if shapes.get(k) != self.shapes.get(k))
            raise ValueError(
                f"MnasCNN: expected parameters of h = {self.width}, got others in {', '.join(wrong)}; they belong to "
                "another network"
            )


class MnasModule(nn.Module):
    """`MnasCNN` with parameters of its own."""

    def __init__(self, network: MnasCNN, params: dict[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        for name, value in params.items():
            self.register_parameter(name, nn.Parameter(value.detach().clone()))

    def forward(self, x: Float[Tensor, "p c s s"]) -> Float[Tensor, " p"]:
        """Outputs f(x_μ), shape (p,)."""
        return self.network.forward(dict(self.named_parameters()), x)


def _channels_last(z: Tensor) -> Tensor:
    """The same numbers with the channels of a place side by side in memory: gradients are faster (`bench/cnn.py`).

    An image of one channel has either order, which convolutions read as channels first. Said by permutations, since
    `contiguous(memory_format=…)` is unknown to vmap.
    """
    return z.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _inverted(name: str, inputs: int, outputs: int, stride: int) -> Block:
    inside = EXPANSION * inputs
    return Block(
        (
            Convolution(f"{name}_expand", inputs, inside, 1, 1, 1, True),
            Convolution(f"{name}_depthwise", inside, inside, KERNEL, stride, inside, True),
            Convolution(f"{name}_project", inside, outputs, 1, 1, 1, False),
        ),
        residual=inputs == outputs and stride == 1,
    )
