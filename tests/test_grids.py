"""Grids: every point of the parts once, under the experiment that the file names; what is wrong is named."""

import re

import pytest

from geocompress import experiments, grids, kernel_experiments, store
from geocompress.experiments import NetworkConfig
from geocompress.kernel_experiments import KernelConfig


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
        ("experiment: [kernel]\np: 8", ValueError, "got ['kernel']"),
        ("points: 8", TypeError, "NetworkConfig: expected fields among task, d,"),
        ("experiment: kernel\nwidth: 8", TypeError, "KernelConfig: expected fields among"),
        ("p: []", ValueError, "p: expected at least one value, got none"),
        # types: while testing, jaxtyping says so in its own words before the configuration does
        ("p: 64.0", TypeError, "'p'"),
        ("p: [64, -1]", ValueError, "p: expected an integer ≥ 1, got -1"),
        ("p: [[64]]", TypeError, "'p'"),
        ("p: {a: 1}", TypeError, "'p'"),
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
    row = grids.EXPERIMENTS["kernel"].within(0.5)(KernelConfig(d=2, p=32, test_size=10))
    assert row == grids.EXPERIMENTS["kernel"].point(KernelConfig(d=2, p=32, test_size=10)) | {
        name: row[name] for name in ("wall_s", "test_s", "started")
    }
    with pytest.raises(ValueError, match="memory_gb: expected None, for train_network takes no budget, got 1"):
        grids.EXPERIMENTS["network"].within(1.0)
    assert grids.EXPERIMENTS["network"].within(None) is experiments.train_network
