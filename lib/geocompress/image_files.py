"""Files of published image sets: checked against their published checksums, read, and downloaded on request.

The layout is that of torchvision (`root/MNIST/raw/…`, `root/cifar-10-batches-py/…`), so one folder serves both. Reading
is done here: torchvision looks at no checksum of the unpacked files it reads, and who has the files needs no
torchvision. Downloads are left to it (the extra `images`), which knows the mirrors.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import itertools
import math
import pickle
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

Pixels = UInt8[Tensor, "n c h w"]
Classes = Int64[Tensor, " n"]


@dataclass(frozen=True)
class File:
    """One published file: its name, its md5, the md5 of its `.gz` where it is published packed, and what it holds.

    `shape` begins with the number of images. A file with `md5=None` has a checksum only while it is packed.
    """

    name: str
    md5: str | None
    md5_packed: str | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ImageSet:
    """A published image set: its title, its folder below the root, its files in order, and how they are decoded.

    `dataset` is the class of `torchvision.datasets` that downloads it; `decode` makes pixels and classes of the
    contents of all files.
    """

    title: str
    folder: str
    files: tuple[File, ...]
    dataset: str
    decode: Callable[[list[bytes], tuple[File, ...]], tuple[Pixels, Classes]]

    def read(self, root: Path) -> tuple[Pixels, Classes]:
        """Pixels 0…255 (n, c, h, w) and classes (n,) of all images, the published training set first.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: a file is not the published one; says in which way.
        """
        return self.decode([self._contents(root / self.folder, file) for file in self.files], self.files)

    def _contents(self, folder: Path, file: File) -> bytes:
        plain, packed = folder / file.name, folder / f"{file.name}.gz"
        if file.md5 is not None and plain.is_file():
            data = plain.read_bytes()
            self._check(plain, data, file.md5, _difference(data, file))
            return data
        if file.md5_packed is not None and packed.is_file():
            data = packed.read_bytes()
            self._check(packed, data, file.md5_packed, f"{len(data)} bytes")
            return gzip.decompress(data)
        if plain.is_file():
            raise ValueError(
                f"{plain}: expected {packed.name} beside it, whose checksum is published, got the unpacked file alone; "
                "add it, or load with download=True"
            )
        raise FileNotFoundError(
            f"{self.title}: expected {plain}{' (or .gz)' if file.md5_packed else ''}, found no such file; load with "
            "download=True, or name a folder that has it by data_dir or GEOCOMPRESS_DATA"
        )

    def _check(self, path: Path, data: bytes, md5: str, got: str) -> None:
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(
                f"{path}: expected the published file with md5 {md5}, got {got}, md5 {found}: it was cut off or "
                "altered; load with download=True to fetch it again (what is there is set aside)"
            )

    def download(self, root: Path) -> tuple[Pixels, Classes]:
        """Fetch the set into `root` by torchvision and read it; a folder that is there already is set aside.

        Everything happens in a temporary folder inside `root`, which takes its final name when all checksums hold.

        Raises:
            ImportError: torchvision is missing.
            PermissionError: nothing can be written to `root`.
            ConnectionError: the download failed.
            ValueError: what came is not the published set.
        """
        datasets = _torchvision_datasets()
        try:
            root.mkdir(parents=True, exist_ok=True)
            unfinished = tempfile.TemporaryDirectory(dir=root, prefix=".unfinished-")
        except OSError as error:
            raise PermissionError(
                f"data_dir: expected a folder that can be written to, got {root} ({error}); name another by data_dir "
                "or GEOCOMPRESS_DATA"
            ) from error
        with unfinished:
            fresh = Path(unfinished.name)
            try:
                getattr(datasets, self.dataset)(fresh, download=True)
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                names = ", ".join(file.name if file.md5 else f"{file.name}.gz" for file in self.files)
                raise ConnectionError(
                    f"{self.title}: expected to download it into {root}, got: {' '.join(str(error).split())}; check "
                    f"the network and the room on the disk, or put the files into {root / self.folder}: {names}"
                ) from error
            content = self.read(fresh)
            _put(fresh / self.folder, root / self.folder)
        return content


def load(images: ImageSet, root: Path, *, download: bool) -> tuple[Pixels, Classes]:
    """What lies in `root`; where that is nothing or not the published files, a download if one is asked for.

    Raises:
        FileNotFoundError, ValueError: as `ImageSet.read`, without `download`.
        ImportError, OSError, ValueError: as `ImageSet.download`, with it.
    """
    try:
        return images.read(root)
    except (FileNotFoundError, ValueError):
        if not download:
            raise
    return images.download(root)


def _torchvision_datasets():
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(
            f"download: expected torchvision, which fetches image sets, got: {error}; install it with "
            "`pip install geocompress[images]`, or load files that are there already with download=False"
        ) from error
    return datasets


def _put(fresh: Path, home: Path) -> None:
    """Give `fresh` its final name; what has that name already is renamed, never deleted."""
    home.parent.mkdir(parents=True, exist_ok=True)
    if home.exists():
        names = (home.with_name(f"{home.name}.set-aside-{k}") for k in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        home.rename(aside)
        warnings.warn(f"{home} did not hold the published files; it is now {aside}", stacklevel=5)
    fresh.rename(home)


def _difference(data: bytes, file: File) -> str:
    """In words, how an IDX file differs from the one expected: images, bytes, or neither."""
    header = 4 + 4 * len(file.shape)
    if data[:3] == b"\0\0\x08" and len(data) >= header:
        count = int.from_bytes(data[4:8], "big")
        if count != file.shape[0]:
            return f"{count} images instead of {file.shape[0]}"
        size = header + math.prod(file.shape)
        if len(data) != size:
            return f"{len(data)} bytes instead of {size}"
    return f"{len(data)} bytes"


def _idx(contents: list[bytes], files: tuple[File, ...]) -> tuple[Pixels, Classes]:
    """Images and labels in turn, in the IDX format: a header of 4 bytes and one number a dimension, then bytes."""
    arrays = [
        torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * len(file.shape)).reshape(file.shape).copy())
        for data, file in zip(contents, files, strict=True)
    ]
    return torch.cat(arrays[::2])[:, None], torch.cat(arrays[1::2]).long()


def _cifar(contents: list[bytes], files: tuple[File, ...]) -> tuple[Pixels, Classes]:
    """Batches of CIFAR-10, pickled by Python 2. Unpickling may run code, so it comes after the checksum."""
    with warnings.catch_warnings():  # numpy finds fault with how numpy wrote its types then
        warnings.filterwarnings("ignore", message=r".*align")
        batches = [pickle.loads(data, encoding="bytes") for data in contents]
    pixels = [torch.from_numpy(np.array(b[b"data"]).reshape(f.shape)) for b, f in zip(batches, files, strict=True)]
    return torch.cat(pixels), torch.tensor([one for batch in batches for one in batch[b"labels"]])


def _idx_set(title: str, dataset: str, checksums: list[tuple[str, str | None, str]], train: int, test: int) -> ImageSet:
    shapes = [(train, 28, 28), (train,), (test, 28, 28), (test,)]
    files = tuple(File(name, *sums, shape) for (name, *sums), shape in zip(checksums, shapes, strict=True))
    return ImageSet(title, f"{dataset}/raw", files, dataset, _idx)


MNIST = _idx_set(
    "MNIST",
    "MNIST",
    [
        ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
    ],
    60_000,
    10_000,
)
FASHION_MNIST = _idx_set(
    "Fashion-MNIST",
    "FashionMNIST",
    [
        ("train-images-idx3-ubyte", None, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte", None, "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte", None, "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte", None, "bb300cfdad3c16e7a12a480ee83cd310"),
    ],
    60_000,
    10_000,
)
_CIFAR_SUMS = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR10 = ImageSet(
    "CIFAR-10",
    "cifar-10-batches-py",
    tuple(File(name, md5, None, (10_000, 3, 32, 32)) for name, md5 in _CIFAR_SUMS.items()),
    "CIFAR10",
    _cifar,
)
