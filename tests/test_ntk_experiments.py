"""Rows and recordings of frozen tangent kernels: what they carry, the lazy limit, the feature regime, bad settings."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from geocompress import experiments, kernels, ntk_experiments, spectrum, store, sweep
from geocompress.experiments import NetworkConfig, Replica
from geocompress.ntk_experiments import MOMENTS, by_method, record_spectra, train_frozen
from geocompress.tangents import TangentKernel

SMALL = NetworkConfig(d=3, p=40, width=60, test_size=2000)
LAZY = dataclasses.replace(SMALL, alpha=1e6)
COMPRESSING = NetworkConfig(d=5, p=256, width=500, test_size=5000)


@pytest.fixture(scope="module")
def row():
    return train_frozen(SMALL)


@pytest.fixture(scope="module")
def watched():
    return record_spectra(SMALL, times=7, top=5, grid=9)


def test_an_output_that_is_no_number_is_an_error():
    replica = Replica(dataclasses.replace(SMALL, test_size=4))
    assert ntk_experiments._error(replica, replica.y_test.clone()) == 0
    assert ntk_experiments._error(replica, replica.y_test * torch.tensor([1, math.nan, 1, -1])) == 0.5


def test_a_row_carries_what_a_published_row_must_and_is_json(row, tmp_path):
    stored = store.append("rows", row, directory=tmp_path)  # refuses a row that lacks a column
    json.dumps(stored, allow_nan=False)
    assert (stored["experiment"], stored["method"], stored["status"]) == ("ntk", "network", "FITTED")
    for moment in MOMENTS:
        assert 0 < stored[f"svc_{moment}"] < 0.5
        assert 0 < stored[f"flow_{moment}"] < 0.5
        assert stored[f"svc_status_{moment}"] == "SEPARATED"
        assert stored[f"flow_status_{moment}"] == "FITTED"
        assert 1 < stored[f"svc_support_{moment}"] <= 40
        assert 0 < stored[f"alignment_{moment}"] < 1
        assert 1 < stored[f"effective_dimension_{moment}"] < 40
        assert 0 < stored[f"readout_share_{moment}"] < 1
        assert stored[f"energy_{moment}"] == pytest.approx(sum(stored[f"projections_{moment}"]))
        assert all(len(stored[f"{name}_{moment}"]) == 10 for name in ("eigenvalues", "projections", "information"))


def test_a_row_is_that_of_the_network_and_more(row):
    network = experiments.train_network(SMALL)
    own = set(network) - {"wall_s", "started", "experiment"}
    assert {name: row[name] for name in own} == {name: network[name] for name in own}


def test_the_moments_are_those_of_the_training(row):
    replica = Replica(SMALL)
    states = list(replica.states())
    star = next(state for state in states if state.t == row["t_star"])
    for moment, state in (("init", states[0]), ("star", star), ("final", states[-1])):
        gram = replica.network.ntk(state.params, replica.x)
        found = spectrum.top_eigenpairs(gram, 10, y=replica.y)
        np.testing.assert_allclose(row[f"eigenvalues_{moment}"], found.values, rtol=1e-9)
        assert row[f"alignment_{moment}"] == pytest.approx(spectrum.label_alignment(gram, replica.y))
        machine, charges = TangentKernel(replica.network, state.params, replica.x).svc(replica.y)
        output = replica.network.ntk(state.params, replica.x_test, replica.x) @ charges + machine.bias
        wrong = float((replica.y_test * output <= 0).double().mean())
        assert row[f"svc_{moment}"] == pytest.approx(wrong, abs=2 / 2000)


def test_in_the_lazy_regime_the_kernel_stays():
    row = train_frozen(LAZY)
    assert row["svc_init"] == row["svc_final"] == row["svc_star"]
    for name in ("eigenvalues", "projections", "alignment", "effective_dimension", "readout_share"):
        np.testing.assert_allclose(row[f"{name}_final"], row[f"{name}_init"], rtol=2e-4, atol=1e-6)
    # the net is the flow on that kernel, up to the tolerance of the steps
    assert row["flow_init"] == pytest.approx(row["test_error"], abs=0.01)


def test_a_wide_net_starts_at_the_kernel_of_infinite_width():
    config = dataclasses.replace(LAZY, width=20_000)
    replica = Replica(config)
    infinite = kernels.ntk_one_hidden(replica.x)
    assert spectrum.kernel_alignment(replica.network.ntk(replica.params, replica.x), infinite) > 0.99


@pytest.mark.slow
def test_in_the_feature_regime_the_final_kernel_beats_the_first():
    rows = pd.DataFrame([train_frozen(dataclasses.replace(COMPRESSING, seed=seed)) for seed in range(3)])
    assert (rows.svc_final < rows.svc_init).all()
    assert (rows.flow_final < rows.flow_init).all()
    assert rows.svc_final.mean() < 0.75 * rows.svc_init.mean()
    assert rows.svc_star.mean() < 0.75 * rows.svc_init.mean()
    assert rows.svc_final.mean() == pytest.approx(rows.test_error.mean(), rel=0.5)  # close to the net
    assert (rows.alignment_final > rows.alignment_init).all()
    assert (rows.energy_final > rows.energy_init).all()
    assert (rows.information_final.map(max) > rows.information_init.map(max)).all()


def test_one_row_per_method(row):
    table = by_method(pd.DataFrame([row, row | {"seed": 1, "flow_init": None, "flow_status_init": None}]))
    methods = [f"ntk_{moment}{suffix}" for moment in MOMENTS for suffix in ("", "_flow")]
    assert sorted(table.method.unique()) == sorted(["network", *methods])
    assert (table.method == "ntk_init_flow").sum() == 1
    assert len(table) == 13
    mine = table[table.seed == 0].set_index("method")
    assert mine.test_error["network"] == row["test_error"]
    assert mine.test_error["ntk_star"] == row["svc_star"]
    assert mine.test_error["ntk_final_flow"] == row["flow_final"]
    assert mine.status["ntk_init"] == "SEPARATED"
    assert mine.regime.to_dict() == {"network": "feature"} | dict.fromkeys(methods, "kernel")
    assert set(store.COLUMNS) <= set(table.columns)
    moments = [name for name in table.columns if name.endswith(("_init", "_star", "_final"))]
    assert sorted(moments) == ["lambda_star", "t_star"]
    assert table.test_error.dtype == float


def test_a_net_that_was_never_fitted_has_no_kernel_at_t_star():
    row = train_frozen(dataclasses.replace(SMALL, max_time=1e-3))
    assert row["status"] == "MAX_TIME"
    assert row["t_star"] is None
    assert all(row[f"{name}_star"] is None for name in ntk_experiments.COLUMNS)
    assert not by_method(pd.DataFrame([row])).method.str.startswith("ntk_star").any()


def test_the_flow_is_left_out_of_large_rows(monkeypatch):
    monkeypatch.setattr(ntk_experiments, "FLOW_LIMIT", 39)
    row = train_frozen(SMALL)
    assert all(row[f"{name}_{moment}"] is None for name in ("flow", "flow_status") for moment in MOMENTS)
    assert all(row[f"svc_{moment}"] > 0 for moment in MOMENTS)


def test_a_sweep_computes_them(tmp_path, row):
    configs = sweep.grid(NetworkConfig, d=3, p=40, width=60, test_size=2000, seed=[0, 1])
    table = sweep.run(train_frozen, configs, name="rows", directory=tmp_path, jobs=1, progress=False)
    assert table.svc_final.iloc[0] == row["svc_final"]
    assert len(by_method(store.load("rows", directory=tmp_path))) == 14


def test_a_recording_is_of_the_same_run_as_the_row(watched, row):
    series = watched.series
    assert len(series) == 7
    assert series.t.is_monotonic_increasing
    assert row["t_star"] in series.t.to_list()
    for moment, at in (("init", 0), ("star", series.t.to_list().index(row["t_star"])), ("final", 6)):
        np.testing.assert_allclose(watched.eigenvalues[at], row[f"eigenvalues_{moment}"][:5], rtol=1e-9)
        np.testing.assert_allclose(watched.projections[at], row[f"projections_{moment}"][:5], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(watched.information[at], row[f"information_{moment}"][:5], atol=1e-9)
        for name in ("alignment", "effective_dimension", "readout_share"):
            assert series[name].iloc[at] == pytest.approx(row[f"{name}_{moment}"])
    np.testing.assert_allclose(series.energy, watched.projections.sum(1))
    assert series.amplification.iloc[-1] == pytest.approx(row["lambda_end"])
    assert series.test_error.iloc[-1] == row["test_error"]


def test_pictures_are_the_eigenfunctions_on_the_plane(watched):
    replica, axis = watched.replica, watched.axis
    assert set(watched.pictures) == set(MOMENTS)
    assert all(picture.shape == (9, 9, 5) for picture in watched.pictures.values())
    gram = replica.network.ntk(replica.params, replica.x).numpy()
    assert np.allclose(gram @ watched.vectors[0], watched.vectors[0] * watched.eigenvalues[0])
    point = torch.tensor([[axis[6], axis[2], 0.0]], dtype=torch.float64)
    by_hand = (
        replica.network.ntk(replica.params, point, replica.x).numpy() @ watched.vectors[0] / watched.eigenvalues[0]
    )
    np.testing.assert_allclose(watched.pictures["init"][2, 6], by_hand[0], rtol=1e-9, atol=1e-12)


def test_the_parts_of_the_alignment_are_those_of_the_layers(watched):
    params, replica = watched.end.params, watched.replica
    z = replica.x @ params["omega"].T / math.sqrt(3) + params["b"]
    active = z.clamp(min=0) * math.sqrt(2)
    readout = active @ active.T / 60
    slopes = (z > 0) * params["beta"] * math.sqrt(2)
    hidden = slopes @ slopes.T / 60 * (replica.x @ replica.x.T / 3 + 1)
    last = watched.series.iloc[-1]
    assert last.alignment_readout == pytest.approx(spectrum.label_alignment(readout, replica.y), rel=1e-6)
    assert last.alignment_hidden == pytest.approx(spectrum.label_alignment(hidden, replica.y), rel=1e-6)
    assert last.readout_share == pytest.approx(float(readout.trace() / (readout + hidden).trace()))


def test_a_recording_without_t_star_and_of_a_task_without_x_perp():
    watched = record_spectra(
        dataclasses.replace(SMALL, task="sphere", max_time=1e-3), times=4, top=2, grid=3, test_size=100
    )
    assert set(watched.pictures) == {"init", "final"}
    assert len(watched.series) == 4
    assert watched.series.amplification.isna().all()


BAD = {
    "float32": (lambda: train_frozen(dataclasses.replace(SMALL, dtype="float32")), "dtype: expected 'float64'"),
    "few points": (lambda: train_frozen(dataclasses.replace(SMALL, p=9)), "at least 10 points .* got 9"),
    "few of a class": (lambda: train_frozen(dataclasses.replace(SMALL, p=10)), "more than 5 points of each class"),
    "top above p": (lambda: record_spectra(SMALL, top=41), "at least 41 points for 41"),
    "no times": (lambda: record_spectra(SMALL, times=3), "times: expected an integer ≥ 4"),
    "no grid": (lambda: record_spectra(SMALL, grid=1), "grid: expected an integer ≥ 2"),
    "no plane": (lambda: record_spectra(dataclasses.replace(SMALL, d=1)), "expected d ≥ 2, got 1"),
    "other rows": (lambda: by_method(pd.DataFrame([experiments.train_network(SMALL)])), "without alignment_final"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, match = BAD[case]
    with pytest.raises(ValueError, match=match):
        call()
