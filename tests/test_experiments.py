"""Configurations, rows and recordings."""

import dataclasses
import math

import pandas as pd
import pytest
import torch

from geocompress import experiments, store
from geocompress.experiments import NetworkConfig

SMALL = NetworkConfig(d=3, p=24, width=60, test_size=500)


def test_a_row_carries_what_a_published_row_must(tmp_path):
    row = experiments.train_network(SMALL)
    stored = store.append("rows", row, directory=tmp_path)  # refuses a row that lacks a column
    assert stored["status"] == "FITTED"
    assert (stored["loss"], stored["regime"], stored["d_parallel"]) == (0.0, "feature", 1)
    assert 0 < stored["test_error"] < 0.5
    assert 0 < stored["t_star"] < stored["t_end"]
    assert stored["lambda_star"] <= stored["lambda_max"] >= stored["lambda_end"]


def test_an_output_that_is_no_number_is_an_error():
    replica = experiments.Replica(SMALL)
    assert replica.test_error({k: value * math.nan for k, value in replica.params.items()}) == 1


def test_the_same_configuration_gives_the_same_numbers():
    rows = [experiments.train_network(SMALL) for _ in range(2)]
    assert rows[0]["test_error"] == rows[1]["test_error"]
    assert rows[0]["lambda_max"] == rows[1]["lambda_max"]


def test_networks_trained_together_have_the_rows_of_networks_trained_alone():
    """Groups of two, two and one, at large α, where rounding is not amplified on the way."""
    configs = [
        dataclasses.replace(SMALL, alpha=1e4, seed=0),
        dataclasses.replace(SMALL, alpha=1e3, seed=1),
        dataclasses.replace(SMALL, alpha=1e4, seed=2, test_size=300),
        dataclasses.replace(SMALL, alpha=1e3, seed=3),
        dataclasses.replace(SMALL, alpha=1e4, seed=0, max_time=2.5),
    ]
    rows = experiments.train_networks([*configs, configs[1]])
    assert [row.pop("batch") for row in rows] == [2, 2, 2, 2, 1, 2]
    for row, config in zip(rows, configs, strict=False):
        alone = experiments.train_network(config)
        assert list(row) == list(alone)
        for name in set(row) - {"wall_s", "started"}:
            same = pytest.approx(alone[name], rel=1e-4) if isinstance(alone[name], float) else alone[name]
            assert row[name] == same, name
    assert experiments.train_networks([]) == []


def test_a_recording_shows_the_same_run_as_the_row():
    recording, row = experiments.record_network(SMALL, test_size=500), experiments.train_network(SMALL)
    assert experiments.milestones(recording.series).items() <= row.items()
    assert recording.series.test_error.iloc[-1] == row["test_error"]
    assert recording.planes.shape == (len(recording.series), 60, 2)
    assert recording.series.t.is_monotonic_increasing
    assert recording.series.unfitted.iloc[-1] == 0


def test_milestones_of_a_known_series():
    series = pd.DataFrame({"t": [0, 1, 2, 3], "amplification": [1, 4, 9, 5], "fitted": [0, 0.2, 0.5, 1.0]})
    found = experiments.milestones(series)
    assert found == {"t_star": 1, "lambda_star": 4, "t_lambda_max": 2, "lambda_max": 9, "lambda_end": 5}
    assert experiments.milestones(series.assign(fitted=0.0))["t_star"] is None


def test_three_seeds_are_made_of_one_and_do_not_depend_on_anything_else():
    seeds = SMALL.seeds
    assert len(set(seeds.values())) == 3
    assert NetworkConfig(width=7, seed=SMALL.seed).seeds == seeds
    assert NetworkConfig(seed=1).seeds != seeds


def test_a_task_without_ignored_directions_has_no_lambda():
    row = experiments.train_network(NetworkConfig(task="sphere", d=2, p=16, width=40, test_size=200))
    assert math.isnan(row["lambda_max"])
    assert row["status"] == "FITTED"


BAD = {
    "no points": ({"p": 0}, ValueError),
    "no dimension": ({"d": 0}, ValueError),
    "no width": ({"width": 0}, ValueError),
    "cylinder on a line": ({"task": "cylinder", "d": 1}, ValueError),
    "unknown task": ({"task": "strip"}, ValueError),
    "alpha": ({"alpha": 0.0}, ValueError),
    "alpha nan": ({"alpha": math.nan}, ValueError),
    "dtype": ({"dtype": "float16"}, ValueError),
    "device": ({"device": "abacus"}, ValueError),
    "time": ({"max_time": 0.0}, ValueError),
    "seed": ({"seed": -1}, ValueError),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case):
    settings, error = BAD[case]
    with pytest.raises(error, match="expected"):
        NetworkConfig(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="got 'cuda'"):
        NetworkConfig(device="cuda")
