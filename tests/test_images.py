"""Image sets: normalisation and splits on the digits; files and downloads on small sets made here; MNIST itself."""

import errno
import functools
import gzip
import hashlib
import http.server
import math
import os
import pickle
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from geocompress import image_files, images
from geocompress.images import Groups

DIGITS = images.load()


# --- what is made of the pixels -----------------------------------------------------------------------------------


def test_digits_are_centred_and_scaled():
    raw = load_digits().images
    centred = raw - raw.mean(axis=0)
    expected = 8 * centred / np.linalg.norm(centred.reshape(len(raw), -1), axis=1)[:, None, None]
    assert (DIGITS.x.shape, DIGITS.x.dtype, DIGITS.y.dtype) == ((1797, 1, 8, 8), torch.float32, torch.float64)
    np.testing.assert_allclose(DIGITS.x[:, 0].numpy(), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(DIGITS.y.numpy(), np.where(load_digits().target % 2 == 0, 1, -1))


def test_resized_digits_are_the_same_digits():
    large = images.load(size=28)
    assert large.x.shape == (1797, 1, 28, 28)
    torch.testing.assert_close(large.x.flatten(1).norm(dim=1), torch.full((1797,), 28.0))
    assert torch.equal(large.y, DIGITS.y)
    seen = functools.partial(torch.nn.functional.interpolate, size=28, mode="bilinear")
    alike = torch.cosine_similarity(seen(DIGITS.x).flatten(1), large.x.flatten(1))
    assert alike.min() > 1 - 1e-6  # resizing is linear, so centring commutes with it
    assert images.load(size=8).x.equal(DIGITS.x)


def test_colours_and_many_parts():
    pixels = torch.randint(0, 256, (images.PART + 7, 3, 4, 5), dtype=torch.uint8)
    raw = pixels.double().numpy()
    centred = raw - raw.mean(axis=0)
    expected = math.sqrt(60) * centred / np.sqrt((centred**2).sum(axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(images.normalised(pixels).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_image_without_direction_is_refused():
    pixels = torch.tensor([0.0, 1.0, 2.0])[:, None, None, None].expand(3, 1, 2, 2)
    with pytest.raises(ValueError, match="differ from their mean"):
        images.normalised(pixels)


def test_chosen_classes():
    pool = images.load(groups=Groups(plus=(3,), minus=(5, 8)))
    target = load_digits().target
    assert len(pool.y) == np.isin(target, (3, 5, 8)).sum()
    assert torch.equal(pool.y == 1, pool.classes == 3)
    assert "plus=3,minus=5+8" in pool.source
    assert DIGITS.source == "the digits embedded in scikit-learn, 1797 images of 8 × 8, parity of the class"


@pytest.mark.parametrize(
    "name", ["digits", "digits[size=9]", "digits[plus=3,minus=5+8]", "digits[size=9,plus=0,minus=1]"]
)
def test_the_name_is_the_recipe(name):
    pool = images.by_name(name)
    assert pool.name == name
    groups = Groups((3,), (5, 8)) if "5+8" in name else Groups((0,), (1,)) if "plus" in name else images.PARITY
    again = images.load(groups=groups, size=9 if "size" in name else None)
    assert again.name == name
    assert torch.equal(again.x, pool.x)


# --- splits -------------------------------------------------------------------------------------------------------

POOLS = [DIGITS, images.load(groups=Groups((3,), (5, 8))), images.load(groups=Groups((0, 1, 2), (9,)))]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(POOLS), st.integers(2, 200), st.integers(0, 150), st.integers(0, 2**31))
def test_splits_are_balanced_disjoint_and_nested(pool, p, n_test, seed):
    split = pool.split(p, n_test, seed)
    assert split.x.dtype == split.y.dtype == torch.float64
    assert len(set(split.rows.tolist()) | set(split.rows_test.tolist())) == p + n_test
    for x, y, rows in ((split.x, split.y, split.rows), (split.x_test, split.y_test, split.rows_test)):
        assert torch.equal(x, pool.x[rows].double())
        assert torch.equal(y, pool.y[rows])
        assert abs(y.sum()) <= 1
        for sign in (1, -1):
            members = pool.classes[pool.y == sign].unique()
            counts = [int((pool.classes[rows] == one).sum()) for one in members]
            assert max(counts) - min(counts) <= 1
    smaller = pool.split(max(2, p // 2), n_test // 2, seed)
    assert torch.equal(smaller.rows, split.rows[: len(smaller.rows)])
    assert torch.equal(smaller.rows_test, split.rows_test[: len(smaller.rows_test)])


def test_the_seed_alone_decides_the_split():
    torch.manual_seed(0)
    first = DIGITS.split(50, 50, 3)
    torch.manual_seed(1)
    again, other = DIGITS.split(50, 50, np.int64(3)), DIGITS.split(50, 50, 4)
    assert torch.equal(first.rows, again.rows)
    assert not torch.equal(first.rows, other.rows)
    # every image is drawn by some seed, and the class that has one image more changes too
    drawn = torch.cat([DIGITS.split(870, 870, seed).rows for seed in range(8)])
    assert len(drawn.unique()) > 0.98 * len(DIGITS.y)
    assert len({int(DIGITS.classes[DIGITS.split(2, 0, seed).rows[0]]) for seed in range(20)}) == 5
    assert DIGITS.split(4, 2, 0, dtype=torch.float32).x_test.dtype == torch.float32


def test_a_split_may_take_all_that_balance_allows_and_no_more():
    counts = np.bincount(load_digits().target)
    assert DIGITS.largest == 10 * counts.min()
    split = DIGITS.split(DIGITS.largest - 100, 100, 0)
    assert (DIGITS.classes[split.rows].bincount() + DIGITS.classes[split.rows_test].bincount()).tolist() == [174] * 10
    with pytest.raises(ValueError, match=r"p \+ n_test ≤ 1740, the most that balanced classes allow, got 1640 \+ 101"):
        DIGITS.split(DIGITS.largest - 100, 101, 0)


BAD = {
    "unknown set": (lambda: images.load("imagenet"), ValueError, "one of digits, mnist, .*'imagenet'"),
    "unknown name": (lambda: images.by_name("digits[size=big]"), ValueError, "expected a name such as"),
    "unknown set by name": (lambda: images.by_name("svhn[size=8]"), ValueError, "one of digits"),
    "no size": (lambda: images.load(size=0), ValueError, "size"),
    "broken size": (lambda: images.load(size=2.5), TypeError, "size"),
    "empty group": (lambda: Groups((), (1,)), ValueError, "at least one class"),
    "class twice": (lambda: Groups((1, 2), (2,)), ValueError, "no class twice"),
    "no such class": (lambda: Groups((1,), (10,)), ValueError, "among 0…9"),
    "one image": (lambda: DIGITS.split(1, 0, 0), ValueError, "p: expected an integer ≥ 2"),
    "negative test set": (lambda: DIGITS.split(2, -1, 0), ValueError, "n_test"),
    "negative seed": (lambda: DIGITS.split(2, 1, -1), ValueError, "seed"),
    "half an image": (lambda: DIGITS.split(2.5, 1, 0), TypeError, "p: "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


# --- files --------------------------------------------------------------------------------------------------------


def md5(data):
    return hashlib.md5(data).hexdigest()


def idx(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return b"\0\0\x08" + bytes([array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def small(tmp_path):
    """A set of 20 + 10 images in MNIST's format below `tmp_path/published`, packed and not, and its pixels."""
    generator = np.random.default_rng(0)
    names = [file.name for file in image_files.MNIST.files]
    arrays = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((20, 28, 28), (20,), (10, 28, 28), (10,))]
    files, folder = [], tmp_path / "published" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in zip(names, arrays, strict=True):
        data = idx(array)
        packed = gzip.compress(data, mtime=0)
        (folder / name).write_bytes(data)
        (folder / f"{name}.gz").write_bytes(packed)
        files.append(image_files.File(name, md5(data), md5(packed), array.shape))
    return replace(image_files.MNIST, files=tuple(files)), tmp_path / "published", arrays


def without_plain_sums(images):
    return replace(images, files=tuple(replace(file, md5=None) for file in images.files))


@pytest.mark.parametrize("form", ["plain", "packed", "packed alone has a checksum"])
def test_idx_files_are_read_in_either_form(small, form):
    expected, root, arrays = small
    for file in (root / "MNIST" / "raw").iterdir():
        if (file.suffix == ".gz") == (form == "plain"):
            file.unlink()
    expected = without_plain_sums(expected) if form.endswith("checksum") else expected
    pixels, classes = expected.read(root)
    np.testing.assert_array_equal(pixels[:, 0].numpy(), np.concatenate(arrays[::2]))
    np.testing.assert_array_equal(classes.numpy(), np.concatenate(arrays[1::2]))


def rewritten(path, change):
    path.write_bytes(change(path.read_bytes()))


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
DAMAGE = {
    "cut": (IMAGES, lambda data: data[:-1], "15695 bytes instead of 15696"),
    "cut to nothing": (LABELS, lambda data: b"", "got 0 bytes"),
    "one bit": (LABELS, lambda data: data[:-1] + bytes([data[-1] ^ 1]), "got 28 bytes, md5 .*cut off or altered"),
    "wrong count": (LABELS, lambda data: idx(np.zeros(19, np.uint8)), "19 images instead of 20"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_named_with_the_remedy(small, case):
    expected, root, _ = small
    name, change, message = DAMAGE[case]
    rewritten(root / "MNIST" / "raw" / name, change)
    with pytest.raises(ValueError, match=f"{name}: expected the published file .*{message}.*download=True"):
        image_files.load(expected, root, download=False)


def test_a_damaged_archive_is_named(small):
    expected, root, _ = small
    rewritten(root / "MNIST" / "raw" / f"{LABELS}.gz", lambda data: data[:-4])
    with pytest.raises(ValueError, match=rf"{LABELS}.gz: expected the published file with md5"):
        without_plain_sums(expected).read(root)


def test_files_that_are_missing_or_cannot_be_checked(small):
    expected, root, _ = small
    with pytest.raises(FileNotFoundError, match=r"MNIST: expected .*train-images-idx3-ubyte \(or .gz\).*download=True"):
        expected.read(root / "elsewhere")
    (root / "MNIST" / "raw" / f"{IMAGES}.gz").unlink()
    with pytest.raises(ValueError, match="whose checksum is published, got the unpacked file alone"):
        without_plain_sums(expected).read(root)


class OldType:
    """A numpy type in the words of numpy under Python 2."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


def test_batches_of_colour_images_are_read(tmp_path):
    generator = np.random.default_rng(0)
    folder, files, arrays, classes = tmp_path / image_files.CIFAR10.folder, [], [], []
    folder.mkdir()
    for name in ("data_batch_1", "test_batch"):
        arrays.append(generator.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))
        classes.append(generator.integers(0, 10, 4).tolist())
        batch = {b"data": arrays[-1].reshape(4, -1), b"labels": classes[-1], b"type": OldType()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        files.append(image_files.File(name, md5((folder / name).read_bytes()), None, (4, 3, 32, 32)))
    small = replace(image_files.CIFAR10, files=tuple(files))
    pixels, labels = small.read(tmp_path)
    np.testing.assert_array_equal(pixels.numpy(), np.concatenate(arrays))
    assert labels.tolist() == [*classes[0], *classes[1]]
    rewritten(folder / "test_batch", lambda data: data[:-1])
    with pytest.raises(ValueError, match="test_batch: expected the published file"):
        small.read(tmp_path)


def test_checksums_are_those_of_torchvision():
    datasets = pytest.importorskip("torchvision.datasets")
    for ours in (image_files.MNIST, image_files.FASHION_MNIST):
        theirs = getattr(datasets, ours.dataset)
        assert [(f"{file.name}.gz", file.md5_packed) for file in ours.files] == theirs.resources
    theirs = datasets.CIFAR10.train_list + datasets.CIFAR10.test_list
    assert [[file.name, file.md5] for file in image_files.CIFAR10.files] == theirs


# --- downloads: torchvision's own, from a server on this machine ----------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(small, monkeypatch):
    """The small set as what torchvision takes for MNIST, served from this machine; and the folder that is served."""
    datasets = pytest.importorskip("torchvision.datasets")
    expected, root, _ = small
    folder = root / "MNIST" / "raw"
    for file in expected.files:
        (folder / file.name).unlink()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(datasets.MNIST, "resources", [(f"{f.name}.gz", f.md5_packed) for f in expected.files])
        yield expected, folder
        server.shutdown()


def test_a_download_is_read_and_stays(mirror, small, tmp_path):
    expected, _ = mirror
    home = tmp_path / "new" / "data"
    pixels, _ = image_files.load(expected, home, download=True)
    np.testing.assert_array_equal(pixels[:, 0].numpy(), np.concatenate(small[2][::2]))
    assert [path.name for path in home.iterdir()] == ["MNIST"]
    assert image_files.load(expected, home, download=False)[0].equal(pixels)


def test_what_lies_there_is_not_downloaded_again(mirror, tmp_path, monkeypatch):
    expected, _ = mirror
    image_files.load(expected, tmp_path / "data", download=True)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    image_files.load(expected, tmp_path / "data", download=True)


def test_damaged_files_are_set_aside_by_a_download(mirror, tmp_path):
    expected, _ = mirror
    home = tmp_path / "data"
    pixels, _ = image_files.load(expected, home, download=True)
    for number in (1, 2):
        rewritten(home / "MNIST" / "raw" / LABELS, lambda data: data[:-1])
        with pytest.warns(UserWarning, match=rf"did not hold the published files; it is now .*raw.set-aside-{number}"):
            assert image_files.load(expected, home, download=True)[0].equal(pixels)
    assert {path.name for path in (home / "MNIST").iterdir()} == {"raw", "raw.set-aside-1", "raw.set-aside-2"}
    assert len((home / "MNIST" / "raw.set-aside-1" / LABELS).read_bytes()) == 27


def test_a_mirror_that_sends_something_else_leaves_nothing(mirror, tmp_path):
    expected, folder = mirror
    rewritten(folder / f"{LABELS}.gz", lambda data: data[:-4])
    with pytest.raises(ConnectionError, match=r"MNIST: expected to download it into .*put the files into .*MNIST/raw"):
        image_files.load(expected, tmp_path / "data", download=True)
    assert list((tmp_path / "data").iterdir()) == []


def test_without_network_nothing_is_left(mirror, tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(ConnectionError, match="check the network"):
        image_files.load(mirror[0], tmp_path / "data", download=True)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_that_cannot_be_written_to(mirror, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PermissionError, match="data_dir: expected a folder that can be written to"):
        image_files.load(mirror[0], tmp_path / "file" / "data", download=True)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_is_there_and_cannot_be_written_to(mirror, tmp_path, monkeypatch):
    home, make = tmp_path / "data", os.mkdir
    home.mkdir(mode=0o555)
    if os.access(home, os.W_OK):  # root may write anywhere: as the system would answer others

        def refused(path, *rest, **settings):
            if Path(path).parent == home:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return make(path, *rest, **settings)

        monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(PermissionError, match=r"data_dir: expected a folder that can be written to, got .*Permission"):
        image_files.load(mirror[0], home, download=True)
    assert list(home.iterdir()) == []


def test_missing_torchvision_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"expected torchvision.*geocompress\[images\]"):
        image_files.load(small[0], tmp_path / "data", download=True)
    assert not (tmp_path / "data").exists()


def test_the_folder_comes_from_the_call_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(images.DATA_VARIABLE, raising=False)
    with pytest.raises(ValueError, match=r"expected a folder for mnist, got none; .*GEOCOMPRESS_DATA"):
        images.load("mnist")
    monkeypatch.setenv(images.DATA_VARIABLE, str(tmp_path / "of the environment"))
    with pytest.raises(FileNotFoundError, match="of the environment"):
        images.load("cifar10")
    with pytest.raises(FileNotFoundError, match="of the call"):
        images.load("fashion_mnist", data_dir=tmp_path / "of the call")


# --- the real thing -------------------------------------------------------------------------------------------------

DATA = Path(os.environ.get(images.DATA_VARIABLE, "/nonexistent"))


@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason="GEOCOMPRESS_DATA names no folder with MNIST")
def test_mnist():
    pool = images.load("mnist")
    assert (pool.name, pool.x.shape, pool.largest) == ("mnist", (70_000, 1, 28, 28), 10 * 6313)
    assert pool.source == "MNIST, 70000 images of 28 × 28, parity of the class"
    torch.testing.assert_close(pool.x.flatten(1).norm(dim=1), torch.full((70_000,), 28.0))
    assert pool.classes.bincount().tolist() == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    split = pool.split(6944, 10_000, 0)
    assert pool.classes[split.rows_test].bincount().tolist() == [1000] * 10
    # images and labels belong together: the nearest class mean finds most digits
    means = torch.stack([pool.x[split.rows][pool.classes[split.rows] == k].mean(0) for k in range(10)]).flatten(1)
    nearest = torch.cdist(split.x_test.float().flatten(1), means).argmin(1)
    assert (nearest == pool.classes[split.rows_test]).float().mean() > 0.75
