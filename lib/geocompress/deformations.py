"""How stable a network is to smooth deformations of images, relative to noise: a measure that looks into every layer.

Moving the strokes of a digit a little does not change what it is; noise of the same size does not either, but a net
that has learned which directions do not matter is much less sensitive to the first than to the second
(Petrini, Favero, Geiger and Wyart, NeurIPS 2021, arXiv:2105.02468).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from geocompress.checks import Real, Whole, integer, real

Layers = Mapping[str, Tensor]
FREQUENCIES = 3  # c: sines along each side whose i² + j² ≤ c² make a displacement


def deformed(
    x: Float[Tensor, "n c h w"], displacement: Real, seed: Whole, *, frequencies: Whole = FREQUENCIES
) -> Float[Tensor, "n c h w"]:
    """Every image under a smooth random displacement field of its own, by bilinear interpolation: shape of x.

    Each of the two components is Σ C_ij sin(iπs) sin(jπt) over i² + j² ≤ c² with C_ij ~ N(0, T/(i² + j²)), the
    distribution of largest entropy for its mean squared gradient; it vanishes at the rim. T is chosen so that the
    root-mean-square displacement is `displacement`.

    Args:
        x: images.
        displacement: root mean square over places, fields and images, in pixels.
        seed: of the fields, drawn in float64 on the CPU.
        frequencies: c, at least 2.

    Raises:
        TypeError, ValueError: no images (n, c, h, w), or a number out of its range.
    """
    displacement, c = real(displacement, "displacement", 0), integer(frequencies, "frequencies", 2)
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"deformed: expected floating-point images (n, c, h, w), got {tuple(x.shape)} of {x.dtype}")
    n, (height, width) = len(x), x.shape[2:]
    i = torch.arange(1, c + 1, dtype=torch.float64)
    square = i[:, None] ** 2 + i**2
    spread = torch.where(square <= c**2, square, math.inf) ** -0.5
    generator = torch.Generator().manual_seed(integer(seed, "seed", 0))
    amplitudes = spread * torch.randn(n, 2, c, c, generator=generator, dtype=torch.float64)
    down, right = (torch.sin(math.pi * i[:, None] * (torch.arange(m) + 0.5) / m) for m in (height, width))
    fields = torch.einsum("nkij,ih,jw->nhwk", amplitudes, down, right)
    fields = fields * (displacement / math.sqrt(float(fields.square().sum(-1).mean())))
    sides = torch.tensor([2 / width, 2 / height], dtype=torch.float64)  # the image spans [−1, 1]
    still = functional.affine_grid(torch.eye(2, 3, dtype=torch.float64)[None], [1, 1, height, width], False)
    grid = (still + fields * sides).to(x)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def relative_stability(
    layers: Callable[[Tensor], Layers],
    x: Float[Tensor, "n c h w"],
    *,
    displacement: Real = 1.0,
    seed: Whole = 0,
    block: Whole = 256,
) -> dict[str, float]:
    """R = E|φ(τx) − φ(x)|² / E|φ(x + η) − φ(x)|² of every layer: below one, deformations matter less than noise.

    η is white noise, scaled for each image to |η| = |τx − x|, so the images themselves have R = 1.

    Args:
        layers: maps images to what each layer gives out, by name, first dimension that of the images.
        x: images that the network has not been trained on.
        displacement: root mean square, in pixels; see `deformed`.
        seed: of deformations and noise.
        block: images worked on at a time.

    Raises:
        TypeError, ValueError: as `deformed`; or a layer that noise does not change.
    """
    moved = deformed(x, displacement, seed)
    generator = torch.Generator().manual_seed(integer(seed, "seed", 0) + 1)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    sizes = ((moved - x).flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1))[:, None, None, None]
    noisy = x + noise * sizes
    totals: dict[str, list[float]] = {}
    with torch.no_grad():
        for parts in zip(*(images.split(integer(block, "block")) for images in (x, moved, noisy)), strict=True):
            still, *others = (layers(part) for part in parts)
            for name, value in still.items():
                changes = (float((other[name].double() - value).square().sum()) for other in others)
                totals[name] = [a + b for a, b in zip(totals.get(name, [0.0, 0.0]), changes, strict=True)]
    if dead := sorted(name for name, (_, noise_change) in totals.items() if noise_change == 0):
        raise ValueError(f"relative_stability: expected layers that noise changes, got none in {', '.join(dead)}")
    return {name: deformation / noise_change for name, (deformation, noise_change) in totals.items()}
