"""Rows of kernels: against libsvm on the same data, against division by hand, and what must be refused."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from geocompress import kernel_experiments, kernels, store, sweep, tasks
from geocompress.classifiers import ErrorEstimate, stratified_error
from geocompress.experiments import NetworkConfig, Replica
from geocompress.kernel_experiments import METHODS, KernelConfig, fit_kernel, train_kernel

SMALL = KernelConfig(d=3, p=120, seed=4, test_size=2000)
NUMBERS = ("test_error", "test_error_se", "layer_width", "layer_charge", "layer_spacing", "bias")


def of(method, **changes):
    return dataclasses.replace(SMALL, method=method, **changes)


def by_libsvm(config, divided_by):
    """The same machine by scikit-learn, on points divided by hand; its decision function."""
    d_parallel = tasks.by_name(config.task, config.d).d_parallel
    factors = torch.ones(config.d, dtype=torch.float64)
    factors[d_parallel:] = divided_by
    x, y = tasks.by_name(config.task, config.d).sample(config.p, config.seeds["data"])
    kernel = {"svc_laplace": lambda a, b: torch.exp(-torch.cdist(a, b) / 100), "ntk_infinite": kernels.ntk_one_hidden}[
        config.method.removesuffix("_compressed")
    ]
    machine = SVC(kernel="precomputed", C=1e12, tol=1e-8).fit(kernel(x / factors, x / factors).numpy(), y.numpy())

    def decision(points):
        return torch.from_numpy(machine.decision_function(kernel(points / factors, x / factors).numpy()))

    return machine, decision


@pytest.mark.parametrize("task", ["stripe", "cylinder"])
@pytest.mark.parametrize("method", METHODS)
def test_a_row_against_libsvm_on_the_same_data(method, task):
    config = of(method, task=task)
    row = train_kernel(config)
    machine, decision = by_libsvm(config, math.sqrt(config.p) if "compressed" in method else 1.0)
    assert row["support"] == len(machine.support_)
    assert row["bias"] == pytest.approx(float(machine.intercept_[0]), rel=1e-2, abs=1e-2)  # its numbers are float32
    x, y = tasks.by_name(task, config.d).sample(40_000, 77)
    plain = float((y * decision(x) <= 0).double().mean())
    assert abs(row["test_error"] - plain) < 5 * math.hypot(row["test_error_se"], math.sqrt(plain / len(y)))


@pytest.mark.parametrize("method", METHODS)
def test_a_row_carries_what_a_published_row_must_and_is_json(method, tmp_path):
    row = train_kernel(of(method))
    store.append("rows", row, directory=tmp_path)  # refuses a row that lacks a column
    (stored,) = store.read("rows", directory=tmp_path)
    json.dumps(stored, allow_nan=False)
    assert (stored["status"], stored["regime"], stored["experiment"]) == ("SEPARATED", "kernel", "kernel")
    assert (stored["width"], stored["alpha"], stored["t_star"], stored["steps"]) == (None,) * 4
    assert (stored["d_parallel"], stored["dtype"], stored["p"]) == (1, "float64", 120)
    assert 0 < stored["test_error_se"] < stored["test_error"] < 0.5
    assert all(stored[name] > 0 for name in ("layer_width", "layer_charge", "layer_spacing", "test_points", "rounds"))
    assert stored["violation"] <= 1e-4
    assert abs(stored["gap"]) <= 1e-4
    assert stored["lambda_max"] == stored["lambda_end"] == (math.sqrt(120) if "compressed" in method else 1)


@pytest.mark.parametrize("method", ["svc_laplace", "ntk_infinite_compressed"])
def test_rows_are_the_same_whatever_the_budget(method):
    config = of(method, p=2200)
    row, other = train_kernel(config), train_kernel(config, memory_gb=0.05)
    assert row.keys() == other.keys()
    assert row["support"] == other["support"]
    assert [row[name] for name in NUMBERS] == pytest.approx([other[name] for name in NUMBERS], rel=1e-4)


def test_a_sweep_computes_them(tmp_path):
    configs = sweep.grid(KernelConfig, d=3, p=[60, 120], seed=4, test_size=2000, method=["svc_laplace"])
    table = sweep.run(train_kernel, configs, name="rows", directory=tmp_path, jobs=1, progress=False)
    assert table.status.tolist() == ["SEPARATED"] * 2
    assert table.test_error.iloc[1] == train_kernel(SMALL)["test_error"]


def test_a_kernel_and_a_network_of_one_seed_share_their_data():
    replica = Replica(NetworkConfig(d=3, p=50, width=4, seed=4, test_size=10))
    machine = fit_kernel(of("svc_laplace", p=50))
    assert torch.equal(machine.svc.x, replica.x[machine.svc.support])
    assert torch.equal(machine.svc.y, replica.y[machine.svc.support])
    network = NetworkConfig(seed=4).seeds
    assert SMALL.seeds == {name: network[name] for name in ("data", "test")}


def test_training_sets_of_one_seed_are_nested():
    sets = [tasks.stripe(3).sample(p, of("svc_laplace", p=p).seeds["data"])[0] for p in (40, 90)]
    assert torch.equal(sets[0], sets[1][:40])


@pytest.mark.parametrize(("amplification", "expected"), [(None, math.sqrt(120)), (7, 7.0), (0.5, 0.5)])
def test_the_imposed_amplification_is_a_division_by_hand(amplification, expected):
    config = of("svc_laplace_compressed", amplification=amplification, task="cylinder", d=4)
    machine = fit_kernel(config)
    x = tasks.cylinder(4).sample(120, config.seeds["data"])[0]
    x[:, 2:] /= expected
    assert config.imposed == expected
    assert torch.equal(machine.svc.x, x[machine.svc.support])
    new = tasks.cylinder(4).sample(50, 9)[0]
    seen = new.clone()
    seen[:, 2:] /= expected
    assert torch.equal(machine.decision(new), machine.svc.decision(seen))


def test_amplification_one_compresses_nothing():
    raw, one = train_kernel(SMALL), train_kernel(of("svc_laplace_compressed", amplification=1))
    assert [raw[name] for name in NUMBERS] == [one[name] for name in NUMBERS]


def test_a_task_without_ignored_directions_has_no_lambda():
    row = train_kernel(of("ntk_infinite", task="sphere"))
    assert math.isnan(row["lambda_max"])
    assert row["status"] == "SEPARATED"


def shell(task, offset):
    """Wrong next to every edge, with a known probability."""
    edges = torch.tensor(task.edges)
    return lambda x: task.label(x) * torch.sign((task.coordinate(x)[:, None] - edges).abs().amin(1) - offset)


@pytest.mark.parametrize("offset", [0.3, 0.02, 0.0005])
def test_the_error_is_as_sharp_as_the_plain_points_it_replaces(offset):
    task = tasks.cylinder(3)
    edge = task.edges[0]
    exact = math.exp(-((edge - offset) ** 2) / 2) - math.exp(-((edge + offset) ** 2) / 2)
    found = [kernel_experiments.precise_error(task, shell(task, offset), 50_000, seed) for seed in range(8)]
    for one in found:
        assert one.standard_error <= math.sqrt(one.error * (1 - one.error) / 50_000) * 1.05
        assert one.standard_error <= 0.055 * one.error
        assert one.points <= 2.5 * 50_000
    pulls = np.array([(one.error - exact) / one.standard_error for one in found])
    assert abs(pulls.mean()) < 4 / math.sqrt(len(pulls))


def test_rare_errors_far_from_the_edges_are_not_missed():
    """A look of 10⁴ points meets no more than a few errors of probability 2e-4 that lie anywhere."""
    task, p_far = tasks.cylinder(3), 2e-4
    bound = float(torch.special.ndtri(torch.tensor(1 - p_far, dtype=torch.float64)))
    decision = lambda x: torch.where(x[:, 2] > bound, -1.0, 1.0) * shell(task, 1e-4)(x)
    found = [kernel_experiments.precise_error(task, decision, 100_000, seed) for seed in range(4)]
    assert all(one.standard_error <= 1.5 * math.sqrt(one.error / 100_000) for one in found)
    assert np.mean([one.error for one in found]) == pytest.approx(p_far + 1.2e-4, rel=0.15)


def test_an_error_of_zero_is_looked_for_with_all_points():
    task = tasks.stripe(2)
    found = kernel_experiments.precise_error(task, task.label, 40_000, 1)
    assert found[:2] == (0, 0)
    assert found.points > 99_000


def test_the_look_stands_above_the_floor_of_the_strata_of_any_task():
    for task in (tasks.stripe(2), tasks.stripes(2, 5), tasks.sphere(3)):
        least = kernel_experiments.LOOK * len(task.edges)
        assert isinstance(stratified_error(task, task.label, least, 0), ErrorEstimate)


# the types are also checked by the annotations while testing, whose message says the name in quotes
BAD = {
    "no points": ({"p": 1}, ValueError, "p: expected an integer ≥ 2, got 1"),
    "half a point": ({"p": 2.5}, TypeError, "p: expected an integer|'p'"),
    "no dimension": ({"d": 0}, ValueError, "d: expected"),
    "no test": ({"test_size": 0}, ValueError, "test_size: expected"),
    "seed": ({"seed": -1}, ValueError, "seed: expected"),
    "unknown task": ({"task": "strip"}, ValueError, "task: expected one of"),
    "task is no name": ({"task": 3}, TypeError, "task: expected a name|'task'"),
    "unknown method": ({"method": "svm"}, ValueError, "expected one of svc_laplace, .* got 'svm'; add it"),
    "method is no name": ({"method": None}, TypeError, "method: expected a name|'method'"),
    "λ for raw": ({"amplification": 3.0}, ValueError, "expected None .* got 3.0; use 'svc_laplace_compressed'"),
    "λ zero": ({"amplification": 0.0, "method": "ntk_infinite_compressed"}, ValueError, "amplification: expected"),
    "λ text": (
        {"amplification": "√p", "method": "ntk_infinite_compressed"},
        TypeError,
        "amplification: expected|'amplif",
    ),
    "nothing ignored": (
        {"task": "sphere", "method": "svc_laplace_compressed"},
        ValueError,
        "ignores some directions, got 'sphere' .* use 'svc_laplace'",
    ),
    "device": ({"device": "abacus"}, ValueError, "device: expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case):
    settings, error, match = BAD[case]
    with pytest.raises(error, match=match):
        KernelConfig(**settings)


def test_a_budget_too_small_is_named():
    with pytest.raises(ValueError, match="memory_gb: expected"):
        train_kernel(SMALL, memory_gb=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="got 'cuda'"):
        KernelConfig(device="cuda")
