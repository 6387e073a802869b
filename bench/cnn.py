"""What does a gradient of the network of sixteen convolutions cost, and is there a faster way to write it?

One evaluation is Σ_μ ∇f(x_μ) over p images of 28 × 28, h = 10, float32, in blocks of images. Contenders: the library's
own form (`conv2d` with groups for depthwise layers, channels last in memory); the same with channels first; with
depthwise layers as products with unfolded patches or as sums of shifted images; with pointwise layers as matrix
products; compiled by `torch.compile` (with `--full`: compiling alone takes a minute). All are checked against the
library's gradient.
"""

import math
import unittest.mock
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional

from common import arguments, check, interleaved, paired_ratio, report, seconds
from geocompress import images, mnas

NET = mnas.MnasCNN()
PLAIN = mnas.Convolution.__call__
LIBRARY = "library"


def channels_first(layer: mnas.Convolution, weight: Tensor, x: Tensor) -> Tensor:
    """The order of torch's default, kept from layer to layer."""
    return PLAIN(layer, weight, x.contiguous())


def unfolded(layer: mnas.Convolution, weight: Tensor, x: Tensor) -> Tensor:
    """Depthwise: every window as a column, times the filters."""
    if layer.groups == 1:
        return PLAIN(layer, weight, x)
    size = -(-x.shape[2] // layer.stride)
    windows = functional.unfold(x, layer.kernel, padding=layer.kernel // 2, stride=layer.stride)
    windows = windows.reshape(*x.shape[:2], layer.fan_in, size**2)
    scaled = weight.flatten(1) / math.sqrt(layer.fan_in)
    return torch.einsum("pcks,ck->pcs", windows, scaled).reshape(*x.shape[:2], size, size)


def shifted(layer: mnas.Convolution, weight: Tensor, x: Tensor) -> Tensor:
    """Depthwise: for every entry of the filters, the image moved there."""
    if layer.groups == 1:
        return PLAIN(layer, weight, x)
    reach = layer.stride * (-(-x.shape[2] // layer.stride) - 1) + 1
    scaled = (weight / math.sqrt(layer.fan_in))[:, 0, :, :, None, None]
    padded, side = functional.pad(x, [layer.kernel // 2] * 4), range(layer.kernel)
    views = (
        (i, j, padded[:, :, i : i + reach : layer.stride, j : j + reach : layer.stride]) for i in side for j in side
    )
    return sum(scaled[:, i, j] * view for i, j, view in views)


def multiplied(layer: mnas.Convolution, weight: Tensor, x: Tensor) -> Tensor:
    """Pointwise: a matrix times the channels of every place."""
    if layer.kernel > 1:
        return PLAIN(layer, weight, x)
    return torch.einsum("oi,pihw->pohw", weight[:, :, 0, 0] / math.sqrt(layer.fan_in), x)


def gradient(forward: Callable, params: dict[str, Tensor], blocks: Iterable[Tensor]) -> list[Tensor]:
    """Σ_μ ∇f(x_μ), parameter by parameter."""
    leaves = [value.requires_grad_() for value in params.values()]
    parts = [torch.autograd.grad(forward(params, block).sum(), leaves) for block in blocks]
    return [sum(column) for column in zip(*parts, strict=True)]


def contenders(x: Tensor, blocks: tuple[int, ...], compiled: bool) -> dict[tuple[str, int], Callable[[], list[Tensor]]]:
    """Functions that return the gradient, by formulation and block."""
    params = NET.init(0, dtype=x.dtype)

    def one(forward: Callable, block: int, form: Callable | None = None) -> Callable:
        parts = x.split(block)

        def run() -> list[Tensor]:
            if form is None:
                return gradient(forward, params, parts)
            with unittest.mock.patch.object(mnas.Convolution, "__call__", form):
                return gradient(forward, params, parts)

        return run

    forms = {"unfolded": unfolded, "shifted": shifted, "multiplied": multiplied}
    found = {(LIBRARY, block): one(NET.forward, block) for block in blocks}
    found |= {("channels first", block): one(NET.forward, block, channels_first) for block in blocks}
    found |= {(name, min(blocks)): one(NET.forward, min(blocks), form) for name, form in forms.items()}
    if compiled:
        # dynamic=False: every block has the same shape
        found["compiled", min(blocks)] = one(torch.compile(NET.forward, dynamic=False), min(blocks))
    return found


def main() -> None:
    """Sum over p = 512 images (with `--full` p = 1000 and the compiled form)."""
    chosen = arguments(__doc__.splitlines()[0])
    p, blocks = (1000, (1000, 200, 100)) if chosen.full else (512, (512, 128))
    pool = images.load(size=NET.size)
    x = pool.split(p, 0, 0, dtype=torch.float32).x
    runs = contenders(x, blocks, chosen.full)
    expected = next(iter(runs.values()))()
    away = {key: max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(run(), expected, strict=True))
            for key, run in runs.items()}  # fmt: skip
    timed = {key: lambda run=run: seconds(run)[0] for key, run in runs.items()}
    walls = interleaved(timed, rounds=7 if chosen.full else 3, budget=300 if chosen.full else 25)
    library = min((key for key in walls if key[0] == LIBRARY), key=lambda key: sorted(walls[key])[len(walls[key]) // 2])
    rows = [
        {
            "formulation": name,
            "block": block,
            "ms_per_image": 1e3 * sorted(wall)[len(wall) // 2] / p,
            "ratio_to_library": paired_ratio(wall, walls[library]),
            "away": away[name, block],
        }
        for (name, block), wall in walls.items()
    ]
    fastest = min(row["ratio_to_library"] for row in rows)
    checks = [
        check("the library's form, in its best block, over the fastest", 1 / fastest, at_most=1.5),
        check("largest relative difference of gradients", max(away.values()), at_most=1e-4),
    ]
    report("cnn", rows, chosen, checks, p=p, width=NET.width, size=NET.size, dtype="float32", images=pool.source)


if __name__ == "__main__":
    main()
