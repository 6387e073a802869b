"""Grids: every point of the parts once, under the experiment that the file names; what is wrong is named."""

import dataclasses
import itertools
import re

import pytest

from geocompress import curves, experiments, grids, image_experiments, kernel_experiments, store
from geocompress.experiments import NetworkConfig
from geocompress.image_replicas import ImageConfig
from geocompress.kernel_experiments import KernelConfig
from geocompress.provenance import code_version


def written(folder, text):
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def test_without_parts_every_combination_of_a_network(tmp_path):
    grid = grids.read(written(tmp_path, "task: stripe\nd: 3\np: [16, 8]\nalpha: [1.0e-6, 2.0]\n"))
    expected = [(16, 1e-6), (16, 2.0), (8, 1e-6), (8, 2.0)]
    assert grid.configs == [NetworkConfig(task="stripe", d=3, p=p, alpha=alpha) for p, alpha in expected]
    assert grid.experiment == grids.EXPERIMENTS["network"]
    assert grid.experiment.point is experiments.train_network


KERNELS = """
experiment: kernel
method: [svc_laplace, ntk_infinite]
amplification: null
grids:
  - {p: [8, 16], seed: [0, 1]}
  - {p: [16, 32], seed: [1, 2]}      # (16, 1) again
  - {p: 64, method: [svc_laplace_compressed], amplification: [2.5, null]}
"""


def test_parts_are_added_up_and_equal_points_count_once(tmp_path):
    grid = grids.read(written(tmp_path, KERNELS))
    pairs = [(8, 0), (8, 1), (16, 0), (16, 1), (16, 2), (32, 1), (32, 2)]
    raw = {KernelConfig(method=m, p=p, seed=s) for m in ("svc_laplace", "ntk_infinite") for p, s in pairs}
    own = {KernelConfig(method="svc_laplace_compressed", p=64, amplification=a) for a in (2.5, None)}
    assert set(grid.configs) == raw | own  # the field of a part wins
    assert len(grid.configs) == 16
    assert grid.experiment.point is kernel_experiments.train_kernel


def test_points_of_two_parts_that_are_equal_count_once(tmp_path):
    configs = grids.read(written(tmp_path, "p: 16\ngrids: [{width: [8, 9]}, {width: 9}]\n")).configs
    assert [store.key(config) for config in configs] == [store.key(NetworkConfig(p=16, width=w)) for w in (8, 9)]


def test_a_grid_of_images(tmp_path):
    text = "experiment: image\ntask: mnist\nalpha: [2.0e-3]\ngrids:\n  - p: [40, 70]\n  - {p: [40], inertia: [10.0]}\n"
    grid = grids.read(written(tmp_path, text))
    plain = [ImageConfig(task="mnist", p=p, alpha=2e-3) for p in (40, 70)]
    assert grid.configs == [*plain, ImageConfig(task="mnist", p=40, alpha=2e-3, inertia=10.0)]
    assert grid.experiment.point is image_experiments.train_images
    assert (grid.experiment.together, grid.experiment.success) == (None, "FITTED")
    budget, point = grid.experiment.within(0.5)
    assert (budget, point.point.keywords) == (0.5, {"memory_gb": 0.5})
    assert grid.experiment.within(None) == (2.0, grids.Resumed(image_experiments.train_images))


@dataclasses.dataclass(frozen=True)
class Kept:
    """A configuration, and what its point is told."""

    p: int = 1


def told(config, *, checkpoint=None):
    return {"checkpoint": checkpoint and (checkpoint, checkpoint.parent.is_dir())}


def test_a_checkpoint_lies_in_the_cache_under_the_key_of_its_point(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOCOMPRESS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / code_version() / "checkpoints"
    assert grids.Resumed(told)(Kept()) == {"checkpoint": (folder / f"{store.key(Kept())}.pt", True)}
    assert grids.Resumed(told)(Kept(2))["checkpoint"][0].stem == store.key(Kept(2))


def test_without_a_folder_to_write_to_no_checkpoint_is_kept_and_one_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GEOCOMPRESS_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="no checkpoints are kept: .*file.*; name a folder by GEOCOMPRESS_CACHE"):
        assert grids.Resumed(told)(Kept()) == {"checkpoint": None}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("p: [", ValueError, "expected YAML"),
        ("\x01", ValueError, "expected YAML"),
        ("[1, 2]", ValueError, "expected lines `name: value`, got list"),
        ("", ValueError, "expected lines `name: value`, got NoneType"),
        ("1: 2", ValueError, "expected lines `name: value`, got the names [1]"),
        ("{}", ValueError, "expected at least one field, got none"),
        ("experiment: kernels\np: 8", ValueError, "experiment: expected one of network, kernel"),
        ("experiment: image\np: 19", ValueError, "p: expected an integer ≥ 20, got 19"),
        ("experiment: [kernel]\np: 8", ValueError, "got ['kernel']"),
        ("points: 8", TypeError, "NetworkConfig: expected fields among task, d,"),
        ("experiment: kernel\nwidth: 8", TypeError, "KernelConfig: expected fields among"),
        ("p: []", ValueError, "p: expected at least one value, got none"),
        # types: while testing, jaxtyping says so in its own words before the configuration does
        ("p: 64.0", TypeError, "'p'"),
        ("p: [64, -1]", ValueError, "p: expected an integer ≥ 1, got -1"),
        ("p: [[64]]", TypeError, "'p'"),
        ("p: {a: 1}", ValueError, "p: expected {result: …, column: …, where: …}"),
        ("alpha: 1e-6", ValueError, "alpha: expected a number, got the text '1e-6'; in YAML write 1.0e-06"),
        ("max_time: inf", ValueError, "max_time: expected a number, got the text 'inf'; in YAML write .inf"),
        ("p: [8, '16']", ValueError, "p: expected a number, got the text '16'; in YAML write 16.0"),
        ("task: spiral", ValueError, "got 'spiral'"),
        ("grids: []", ValueError, "grids: expected a list of parts"),
        ("grids: {p: 8}", ValueError, "grids: expected a list of parts"),
        ("grids: [8]", ValueError, "grids: expected a list of parts"),
        ("grids: [{1: 2}]", TypeError, "expected text as the name of a field, got 1"),
        ("grids: [{p: 8}, {p: []}]", ValueError, "p: expected at least one value, got none"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, error, message):
    path = written(tmp_path, text)
    with pytest.raises(error, match=f"(?s){re.escape(str(path))}.*{re.escape(message)}"):
        grids.read(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        grids.read(tmp_path / "absent.yaml")


def test_a_budget_reaches_what_takes_one():
    row = grids.EXPERIMENTS["kernel"].within(0.5)[1](KernelConfig(d=2, p=32, test_size=10))
    assert row == grids.EXPERIMENTS["kernel"].point(KernelConfig(d=2, p=32, test_size=10)) | {
        name: row[name] for name in ("wall_s", "test_s", "started")
    }
    with pytest.raises(ValueError, match="memory_gb: expected none, for train_network takes no budget, got 1"):
        grids.EXPERIMENTS["network"].within(1.0)
    assert grids.EXPERIMENTS["network"].within(None) == (None, experiments.train_network)
    assert grids.EXPERIMENTS["kernel"].within(None) == (kernel_experiments.MEMORY_GB, kernel_experiments.train_kernel)


LOOKED_UP = """
experiment: kernel
method: svc_laplace_compressed
amplification: {result: nets, column: lambda_star, where: {alpha: 1.0e-6}}
d: 2
p: [16, 32]
seed: [0, 1]
"""


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Two networks a sample, one of them lazy, with λ(t*) = p + seed in the feature regime."""
    monkeypatch.setenv("GEOCOMPRESS_RESULTS", str(tmp_path))
    for p, seed, alpha in itertools.product((16, 32), (0, 1), (1e-6, 1e6)):
        row = dict.fromkeys(store.COLUMNS) | {"task": "stripe", "d": 2, "p": p, "seed": seed, "alpha": alpha}
        store.append("nets", row | {"lambda_star": float(p + seed) if alpha < 1 else 1.0, "key": f"{p} {seed} {alpha}"})


@pytest.mark.usefixtures("published")
def test_a_field_takes_what_a_published_result_has_for_the_same_sample(tmp_path):
    configs = grids.read(written(tmp_path, LOOKED_UP)).configs
    assert {(c.p, c.seed): c.amplification for c in configs} == {(16, 0): 16, (16, 1): 17, (32, 0): 32, (32, 1): 33}


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", where: {alpha: 1.0e-6}", "", "expected one row with .* got 2"),
        ("seed: [0, 1]", "seed: 5", "expected one row with .* got 0"),
        ("lambda_star", "lambda_moon", "expected columns lambda_moon"),
        ("result: nets", "result: absent", "run its sweep first"),
        ("column: lambda_star, ", "", "expected {result"),
        ("amplification:", "lambda:", "expected a field, got 'lambda'"),
    ],
)
def test_a_lookup_that_finds_nothing_is_refused(tmp_path, old, new, message):
    with pytest.raises((TypeError, ValueError), match=message):
        grids.read(written(tmp_path, LOOKED_UP.replace(old, new)))


def test_curves_are_made_of_the_rows_that_reached_their_end():
    assert set(curves.FINISHED) == {experiment.success for experiment in grids.EXPERIMENTS.values()}
