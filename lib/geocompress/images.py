"""Labelled images: MNIST, Fashion-MNIST, CIFAR-10, and real digits that are at hand everywhere.

All images of a set are pooled, the mean image is subtracted, and each image is scaled to the norm √(number of pixel
values), as in arXiv:2007.11471. Labels ±1 join classes into two groups, by default by the parity of the digit.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

from geocompress import image_files
from geocompress.checks import Whole, integer

DATA_VARIABLE = "GEOCOMPRESS_DATA"
DIGITS = "digits"
FILED = {"mnist": image_files.MNIST, "fashion_mnist": image_files.FASHION_MNIST, "cifar10": image_files.CIFAR10}
NAMES = (DIGITS, *FILED)
CLASSES = 10  # of every set here
PART = 4096  # images worked on at a time


@dataclass(frozen=True)
class Groups:
    """Two groups of classes: y = +1 for a class in `plus`, −1 for one in `minus`; the others are left out.

    Raises:
        ValueError: an empty group, a class twice, or one that is not 0…9.
    """

    plus: tuple[int, ...]
    minus: tuple[int, ...]

    def __post_init__(self) -> None:
        chosen = (*self.plus, *self.minus)
        if not (self.plus and self.minus) or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(CLASSES)):
            raise ValueError(
                f"groups: expected two groups of different classes among 0…{CLASSES - 1}, got plus={self.plus}, "
                f"minus={self.minus}; give each group at least one class and no class twice"
            )

    def __str__(self) -> str:
        return ",".join(f"{k}={'+'.join(map(str, v))}" for k, v in (("plus", self.plus), ("minus", self.minus)))


PARITY = Groups(plus=(0, 2, 4, 6, 8), minus=(1, 3, 5, 7, 9))


class Split(NamedTuple):
    """Points and labels to train and to test on, and the numbers of both in the pool."""

    x: Float[Tensor, "p c h w"]
    y: Float[Tensor, " p"]
    x_test: Float[Tensor, "n_test c h w"]
    y_test: Float[Tensor, " n_test"]
    rows: Int64[Tensor, " p"]
    rows_test: Int64[Tensor, " n_test"]


@dataclass(frozen=True, eq=False)
class Images:
    """A pool of normalised images with two labels; see `load`.

    Attributes:
        name: the whole recipe, for rows: `by_name(images.name)` makes the same pool again.
        x: images (n, c, h, w), float32, minus their mean image, each of norm √(c h w).
        y: labels ±1, shape (n,).
        classes: the classes that the labels join, shape (n,).
        source: the data set and what was done to it in words, for captions and titles.
    """

    name: str
    x: Float32[Tensor, "n c h w"]
    y: Float64[Tensor, " n"]
    classes: Int64[Tensor, " n"]
    source: str

    @property
    def largest(self) -> int:
        """How many images balanced splits have room for, training and test set together."""
        return 2 * min(len(counts) * int(counts.min()) for counts in self._counts())

    def split(self, p: Whole, n_test: Whole, seed: Whole, *, dtype: torch.dtype = torch.float64) -> Split:
        """A training set of p images and a test set of n_test others, drawn by `seed`.

        Labels alternate, and the classes of a group take turns, so in each set the two labels, and the classes of one
        label, are equally frequent to within one image. For one seed a smaller training set is the head of a larger
        one, and so for test sets, which come from the other end of the same order.

        Raises:
            TypeError, ValueError: p < 2, n_test < 0, seed < 0, or more images in all than `largest`.
        """
        p, n_test = integer(p, "p", minimum=2), integer(n_test, "n_test", minimum=0)
        order = self._order(integer(seed, "seed", minimum=0))
        if p + n_test > len(order):
            raise ValueError(
                f"{self.name}: expected p + n_test ≤ {len(order)}, the most that balanced classes allow, got "
                f"{p} + {n_test}; choose fewer, or a larger data set"
            )
        rows, rows_test = order[:p], order.flip(0)[:n_test]
        pairs = ((part[which].to(dtype) for part in (self.x, self.y)) for which in (rows, rows_test))
        return Split(*next(pairs), *next(pairs), rows, rows_test)

    def _counts(self) -> list[Tensor]:
        return [self.classes[self.y == sign].unique(return_counts=True)[1] for sign in (1, -1)]

    def _order(self, seed: int) -> Int64[Tensor, " largest"]:
        """Numbers of images in an order in which the labels alternate and the classes of each take turns.

        Random numbers are ranked rather than permutations drawn: numpy promises the former for all versions.
        """
        generator = np.random.default_rng(seed)
        image_key, class_key = (torch.from_numpy(generator.random(n)) for n in (len(self.y), CLASSES))
        half, turns = self.largest // 2, []
        for sign in (1, -1):
            members = self.classes[self.y == sign].unique()
            members = members[class_key[members].argsort()]
            drawn = [(self.classes == one).nonzero()[:, 0] for one in members]
            drawn = [rows[image_key[rows].argsort()][: -(-half // len(members))] for rows in drawn]
            turns.append(torch.stack(drawn, dim=1).flatten()[:half])
        return torch.stack(turns, dim=1).flatten()


def load(
    name: str = DIGITS,
    *,
    groups: Groups = PARITY,
    size: Whole | None = None,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
) -> Images:
    """A data set, pooled, labelled, centred and scaled.

    "digits", the default, needs nothing: 1797 real digits of 8 × 8 that scikit-learn brings along. The others, "mnist",
    "fashion_mnist" and "cifar10", are read from a folder as torchvision leaves them and checked against the published
    checksums; nothing is downloaded unless asked for.

    Args:
        name: one of `NAMES`.
        groups: which classes get which label; images of other classes are no part of the pool.
        size: height and width to resize to (bilinear, smoothed when shrinking); as they are by default.
        data_dir: the folder; by default that in the environment variable GEOCOMPRESS_DATA.
        download: fetch the set into the folder by torchvision where it is missing or damaged.

    Raises:
        TypeError, ValueError: an unknown name, a size below 1, no folder named, or files that are not the published
            ones.
        FileNotFoundError: no such files, and no download asked for.
        ImportError, PermissionError, ConnectionError: a download without torchvision, into a folder that cannot be
            written to, or without network. Nothing half-done is left behind.
    """
    if name not in NAMES:
        raise ValueError(f"images: expected one of {', '.join(NAMES)}, got {name!r}")
    if name == DIGITS:
        digits = load_digits()
        pixels, classes = torch.from_numpy(digits.images)[:, None], torch.from_numpy(digits.target).long()
        source = "the digits embedded in scikit-learn"
    else:
        pixels, classes = image_files.load(FILED[name], _folder(name, data_dir), download=download)
        source = FILED[name].title
    chosen = torch.isin(classes, torch.tensor([*groups.plus, *groups.minus]))
    pixels, classes = pixels[chosen], classes[chosen]
    y = 2 * torch.isin(classes, torch.tensor(groups.plus)).double() - 1
    size = None if size is None else integer(size, "size")
    options = ([] if size is None else [f"size={size}"]) + ([] if groups == PARITY else [str(groups)])
    source += f", {len(y)} images of {pixels.shape[-2]} × {pixels.shape[-1]}"
    source += "" if size is None else f" resized to {size} × {size}"
    source += ", parity of the class" if groups == PARITY else f", classes {groups}"
    return Images(f"{name}[{','.join(options)}]" if options else name, normalised(pixels, size), y, classes, source)


def by_name(name: str, *, data_dir: str | os.PathLike | None = None, download: bool = False) -> Images:
    """The pool of a name such as "digits", "mnist[size=14]" or "cifar10[plus=0+1,minus=8+9]".

    Raises:
        ValueError: a name or options that do not read so, and everything that `load` raises.
    """
    number, several = r"\d+", r"\d(?:\+\d)*"
    parsed = re.fullmatch(rf"(\w+)(?:\[(?:size=({number}))?,?(?:plus=({several}),minus=({several}))?\])?", name)
    if parsed is None:
        raise ValueError(f"images: expected a name such as 'mnist' or 'mnist[size=14,plus=3,minus=5+8]', got {name!r}")
    base, size, *groups = parsed.groups()
    chosen = PARITY if groups[0] is None else Groups(*(tuple(map(int, group.split("+"))) for group in groups))
    return load(base, groups=chosen, size=size and int(size), data_dir=data_dir, download=download)


def normalised(pixels: Shaped[Tensor, "n c h w"], size: int | None = None) -> Float32[Tensor, "n c s t"]:
    """Images minus their mean image, each scaled to norm √(c h w); resized first if a size is given.

    Computed in float64 and rounded once.

    Raises:
        ValueError: an image that equals the mean of all, which no scale brings to that norm.
    """

    def part(rows: slice) -> Tensor:
        images = pixels[rows].double()
        if size is None:
            return images
        return functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)

    parts = [slice(start, start + PART) for start in range(0, len(pixels), PART)]
    mean = sum(part(rows).sum(0) for rows in parts) / len(pixels)
    result = torch.empty(len(pixels), *mean.shape)
    for rows in parts:
        centred = part(rows) - mean
        norms = centred.flatten(1).norm(dim=1)
        if bool((norms == 0).any()):
            raise ValueError(
                "images: expected images that differ from their mean, got one that equals it; leave it out"
            )
        result[rows] = centred * (math.sqrt(mean.numel()) / norms)[:, None, None, None]
    return result


def _folder(name: str, data_dir: str | os.PathLike | None) -> Path:
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    if not chosen:
        raise ValueError(
            f"images: expected a folder for {name}, got none; pass data_dir, set {DATA_VARIABLE}, or use {DIGITS!r}, "
            "which needs no files"
        )
    return Path(chosen).expanduser()
