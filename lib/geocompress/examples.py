"""Two small nets as anyone would write and train them, to try `diagnosis` on: digits, and a motif in a sequence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geocompress import images
from geocompress.checks import Real, Whole, integer, real

CHANNELS, LENGTH = 3, 24  # of a sequence
MOTIF = (-2.0, -1.0, 0.0, 1.0, 2.0)  # a ramp


class Data(NamedTuple):
    """Points and labels ±1 to train and to test on, in float32."""

    x: Float[Tensor, "p ..."]
    y: Float[Tensor, " p"]
    x_test: Float[Tensor, "q ..."]
    y_test: Float[Tensor, " q"]


def digits(p: Whole, seed: Whole = 0) -> Data:
    """The digits of scikit-learn, 8 × 8, even (+1) or odd: p to train on, the others of the 1797 to test on.

    Raises:
        TypeError, ValueError: p outside [2, 1700].
    """
    p, seed = integer(p, "p", 2), integer(seed, "seed", 0)
    if p > 1700:
        raise ValueError(f"p: expected at most 1700 of 1797 digits, got {p}; some are to test on")
    pool = images.load("digits")
    order = torch.randperm(len(pool.x), generator=torch.Generator().manual_seed(seed))
    x, y = pool.x[order].float(), pool.y[order].float()
    return Data(x[:p], y[:p], x[p:], y[p:])


def motifs(p: Whole, q: Whole, seed: Whole = 0, *, height: Real = 2.0) -> Data:
    """Sequences (3, 24) of noise N(0, 1) that each hide ramps: the label is whether the one of channel 0 rises.

    Every channel has a ramp of five steps at a random place of its own, rising or falling by chance. Those of channels
    1 and 2 have nothing to do with the label, and no place has.

    Args:
        p: points to train on.
        q: points to test on.
        seed: of both.
        height: of the ramps, which go from −2 to 2 at height 1, in units of the noise.

    Raises:
        TypeError, ValueError: arguments out of range.
    """
    count, height = integer(p, "p", 2) + integer(q, "q"), real(height, "height", 0)
    generator = torch.Generator().manual_seed(integer(seed, "seed", 0))
    x = torch.randn(count, CHANNELS, LENGTH, generator=generator)
    signs = 2.0 * torch.randint(0, 2, (count, CHANNELS), generator=generator) - 1
    places = torch.randint(0, LENGTH - len(MOTIF) + 1, (count, CHANNELS), generator=generator)
    slots = places[..., None] + torch.arange(len(MOTIF))
    x.scatter_add_(2, slots, height * signs[..., None] * torch.tensor(MOTIF))
    y = signs[:, 0].clone()
    return Data(x[:p], y[:p], x[p:], y[p:])


def digits_net() -> nn.Module:
    """A perceptron for the digits: 64 pixels, two hidden layers of 64 ReLUs, one output."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def motif_net() -> nn.Module:
    """A convolution net for the sequences: two layers of 16 filters of five places, a mean over places, one output."""
    return nn.Sequential(
        nn.Conv1d(CHANNELS, 16, 5),
        nn.ReLU(),
        nn.Conv1d(16, 16, 5),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(16, 1),
    )


def train(
    module: nn.Module,
    data: Data,
    folder: str | os.PathLike,
    *,
    epochs: Whole,
    save_at: list[int],
    seed: Whole = 0,
    rate: Real = 1e-3,
    batch: Whole = 32,
) -> list[Path]:
    """Train with Adam on the logistic loss, and save the state after some of the epochs, 0 being the start.

    All of chance comes from `seed`: the module's parameters are drawn again before the first epoch.

    Returns:
        The files, `epoch_000.pt` and so on, in order.

    Raises:
        TypeError, ValueError: numbers out of range, or epochs to save at that do not ascend from 0 to `epochs` at most.
    """
    epochs, batch, rate = integer(epochs, "epochs"), integer(batch, "batch"), real(rate, "rate", 0)
    if not save_at or sorted(set(save_at)) != list(save_at) or save_at[0] < 0 or save_at[-1] > epochs:
        raise ValueError(f"save_at: expected ascending epochs from 0 to {epochs}, got {save_at}")
    generator = torch.Generator().manual_seed(integer(seed, "seed", 0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(seed, "seed", 0))
        for layer in module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    optimiser = torch.optim.Adam(module.parameters(), rate)
    files = []
    for epoch in range(epochs + 1):
        if epoch in save_at:
            files.append(Path(folder) / f"epoch_{epoch:03d}.pt")
            torch.save(module.state_dict(), files[-1])
        if epoch < epochs:
            for rows in torch.randperm(len(data.x), generator=generator).split(batch):
                optimiser.zero_grad()
                nn.functional.softplus(-data.y[rows] * module(data.x[rows]).reshape(-1)).mean().backward()
                optimiser.step()
    return files
