"""Rows of image experiments: every column made again by hand on a few digits, checkpoints, and what is refused."""

import dataclasses
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from geocompress import deformations, empirical, grids, image_experiments, images, spectrum, states, store, sweep
from geocompress.image_experiments import COLUMNS, MOMENTS, by_method, train_images
from geocompress.image_replicas import LAST, ImageConfig, ImageReplica
from geocompress.mnas import swish
from geocompress.states import Status
from geocompress.svc import hard_margin_svc
from geocompress.tangents import frozen_machine

SMALL = ImageConfig(task="digits[size=8]", p=24, width=2, seed=3, test_size=40, dtype="float64")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As a sweep has it: sums depend on the number of threads, and rows are compared to the last digit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def replica():
    return ImageReplica(SMALL)


@pytest.fixture(scope="module")
def path(replica):
    return list(replica.states())


@pytest.fixture(scope="module")
def row():
    return train_images(SMALL)


def moments(replica, path):
    return dict(zip(MOMENTS, (replica.params, path[-1].params), strict=True))


def test_a_replica_is_a_split_of_its_pool_and_weights_of_its_seed(replica):
    pool = images.by_name(SMALL.task)
    split = pool.split(24, 40, SMALL.seeds["data"])
    assert not set(split.rows.tolist()) & set(split.rows_test.tolist())
    assert torch.equal(replica.x, pool.x[split.rows].double())
    assert torch.equal(replica.y_test, pool.y[split.rows_test])
    assert replica.x_test.shape == (40, 1, 8, 8)
    init = replica.network.init(SMALL.seeds["init"])
    assert all(torch.equal(replica.params[k], v) for k, v in init.items())
    assert SMALL.seeds["data"] != SMALL.seeds["init"]
    assert dataclasses.replace(SMALL, seed=4).seeds["init"] != SMALL.seeds["init"]


def test_a_row_is_that_of_the_trained_net(replica, path, row):
    end = path[-1]
    assert row["status"] == end.status.value == "FITTED"
    assert bool((end.margins >= 1).all())
    output, output_init = (replica.network.forward(params, replica.x_test) for params in (end.params, replica.params))
    wrong = (torch.sign(output - output_init) != replica.y_test).double().mean()
    assert row["test_error"] == float(wrong)
    assert (row["t_end"], row["steps"], row["loss"]) == (end.t, end.step, end.loss)
    first = next(s for s in path if float((s.margins >= 1 - 1e-3).double().mean()) >= 0.1)
    assert row["t_star"] == first.t
    assert row["t_star"] < row["t_end"]
    fitted = [[float((s.margins[replica.y == sign] >= 1 - 1e-3).double().mean()) for sign in (1, -1)] for s in path]
    assert row["class_gap"] == max(abs(even - odd) for even, odd in fitted) > 0
    assert (row["d"], row["regime"], row["experiment"], row["method"]) == (64, "feature", "image", "network")


def test_a_row_has_every_column_and_is_json(row, tmp_path):
    assert {f"{name}_{moment}" for name in COLUMNS for moment in MOMENTS} <= row.keys()
    store.append("rows", row | {"key": "one"}, directory=tmp_path)  # refuses a row that lacks a column
    (stored,) = store.read("rows", directory=tmp_path)
    json.dumps(stored, allow_nan=False)
    assert stored["stability_final"] == row["stability_final"]


def gram_and_cross(replica, params, last):
    """Θ by `empirical_ntk` among training images and from test images to them."""
    module = replica.network.module(params)
    arguments = [(replica.x, None), (replica.x_test, replica.x)]
    parts = [empirical.empirical_ntk(module, None, *pair, layers=True) for pair in arguments]
    names = LAST if last else parts[0].keys()
    return [SMALL.width * sum(part[name] for name in names) for part in parts]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("last", [False, True])
def test_machines_are_those_on_the_empirical_kernel(replica, path, row, moment, last):
    params = moments(replica, path)[moment]
    gram, cross = gram_and_cross(replica, params, last)
    kernel = replica.tangent(params, last=last)
    torch.testing.assert_close(kernel.gram, gram, rtol=1e-9, atol=1e-9 * kernel.unit)
    unit = float(gram.diagonal().mean())
    points = torch.arange(24, dtype=torch.float64)[:, None]
    rows = lambda a, b: gram[a[:, 0].long()[:, None], b[:, 0].long()] / unit
    machine = hard_margin_svc(rows, points, replica.y)
    charges = torch.zeros(24, dtype=torch.float64)
    charges[machine.support] = machine.a * machine.y
    torch.testing.assert_close(
        kernel.function(charges / unit, replica.x_test), cross @ charges / unit, rtol=1e-7, atol=1e-7
    )
    decision = cross @ charges / unit + machine.bias
    assert float(decision.abs().min()) > 1e-3  # or a sign hangs on the tolerance of the fit
    name = "last" if last else "svc"
    assert row[f"{name}_{moment}"] == float((decision * replica.y_test <= 0).double().mean())
    assert row[f"{name}_status_{moment}"] == machine.ending.value
    if not last:
        assert row[f"svc_support_{moment}"] == len(machine.support)


def test_a_machine_with_huge_charges_keeps_its_margins():
    # 40 features for 40 images: charges of 10⁸, whose effects cancel; in float32 margins were off by ten
    replica = ImageReplica(ImageConfig(task="digits[size=16]", p=40, seed=0, test_size=10, width=2, dtype="float32"))
    kernel, y = replica.tangent(replica.params, last=True), replica.y.double()
    machine, charges = frozen_machine(kernel.gram, y, unit=kernel.unit)
    assert float(charges.abs().max()) * kernel.unit > 1e6
    decision = kernel.function(charges, replica.x) + machine.bias
    torch.testing.assert_close(decision, kernel.gram @ charges + machine.bias, rtol=0, atol=1e-5)
    torch.testing.assert_close((y * decision)[machine.support], torch.ones_like(machine.a), rtol=0, atol=1e-5)


def test_an_output_that_is_no_number_is_an_error(replica):
    assert replica.error(torch.full_like(replica.y_test, float("nan"))) == 1


def test_the_last_layer_is_that_of_its_features(replica, path):
    params = path[-1].params
    head = replica.network.preactivations(params, replica.x)["head"]
    features = swish(head).mean((2, 3)) / head.shape[1]
    expected = SMALL.width * (features @ features.T + 1)  # the one is the gradient of the bias
    torch.testing.assert_close(replica.tangent(params, last=True).gram, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_kernels_and_layers_know(replica, path, row, moment):
    params = moments(replica, path)[moment]
    gram, _ = (part.numpy() for part in gram_and_cross(replica, params, False))
    projector, y = np.eye(24) - 1 / 24, replica.y.numpy()
    values, vectors = np.linalg.eigh(projector @ gram @ projector)
    np.testing.assert_allclose(row[f"eigenvalues_{moment}"], values[::-1][:10], rtol=1e-7)
    projections = (vectors[:, ::-1][:, :10].T @ y) ** 2 / 24
    np.testing.assert_allclose(row[f"projections_{moment}"], projections, atol=1e-6)
    assert row[f"effective_dimension_{moment}"] == pytest.approx(values.sum() ** 2 / (values**2).sum())
    assert row[f"alignment_{moment}"] == pytest.approx(spectrum.label_alignment(gram, y))
    assert len(row[f"information_{moment}"]) == 10
    layers = lambda x: {"output": replica.network.forward(params, x)}
    output = deformations.relative_stability(layers, replica.x_test)["output"]
    assert row[f"stability_{moment}"][-1] == pytest.approx(output)
    assert len(row[f"stability_{moment}"]) == len(replica.network.shapes) - 1  # readout and bias are one layer


def test_rows_by_method(row):
    table = by_method(pd.DataFrame([row, row | {"seed": 4, "svc_final": 0.125}]))
    assert len(table) == 10
    assert table.method.value_counts().to_dict() == dict.fromkeys(
        ("network", "ntk_init", "ntk_final", "last_init", "last_final"), 2
    )
    of = {(r.method, r.seed): r for r in table.itertuples()}
    assert of["network", 3].test_error == row["test_error"]
    assert (of["ntk_final", 4].test_error, of["ntk_final", 3].test_error) == (0.125, row["svc_final"])
    assert (of["last_init", 3].test_error, of["last_init", 3].status) == (row["last_init"], row["last_status_init"])
    assert {r.regime for r in table.itertuples() if r.method != "network"} == {"kernel"}
    assert "svc_init" not in table
    with pytest.raises(ValueError, match=r"rows of train_images, got a table without .*alignment_final"):
        by_method(pd.DataFrame([row]).drop(columns="alignment_final"))


def broken(monkeypatch, path, error):
    """From now on a training that begins breaks off half-way, and keeps every state before."""
    monkeypatch.setattr(image_experiments, "CHECKPOINT_S", 0.0)
    whole = ImageReplica.states

    def states_until(self, start=None):
        for state in whole(self, start):
            if state.step == len(path) // 2 and start is None:
                raise error
            yield state

    monkeypatch.setattr(ImageReplica, "states", states_until)


def same(ours, theirs):
    """Rows that differ in passing things alone."""
    passing = store.provenance(device="cpu", dtype="float64").keys() | {"wall_s", "kernels_s"}
    return [k for k in theirs if k not in passing and not np.array_equal(ours[k], theirs[k])] == []


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupted(tmp_path, monkeypatch, path):
    """A checkpoint of a training that broke off half-way."""
    file = tmp_path / "training.pt"
    broken(monkeypatch, path, Interrupted)
    with pytest.raises(Interrupted):
        train_images(SMALL, checkpoint=file)
    return file


def test_a_training_goes_on_from_its_checkpoint_to_the_same_row(interrupted, row, path):
    state, notes = states.load(interrupted)
    assert 0 < state.step < len(path) // 2
    assert state.status is Status.RUNNING
    again = train_images(SMALL, checkpoint=interrupted)
    assert again["wall_s"] > notes["wall_s"]
    assert same(again, row)
    assert not interrupted.exists()


def test_kernels_are_made_again_from_the_end_of_a_training(tmp_path, monkeypatch, row, path):
    file, frozen = tmp_path / "training.pt", image_experiments._frozen

    def fails(replica, params):
        raise Interrupted

    monkeypatch.setattr(image_experiments, "_frozen", fails)
    with pytest.raises(Interrupted):
        train_images(SMALL, checkpoint=file)
    assert states.load(file)[0].t == path[-1].t
    monkeypatch.setattr(image_experiments, "_frozen", frozen)
    monkeypatch.setattr(ImageReplica, "states", None)  # nothing is trained
    assert same(train_images(SMALL, checkpoint=file), row)
    assert not file.exists()


def test_a_sweep_goes_on_within_a_training(tmp_path, monkeypatch, row, path):
    monkeypatch.setenv("GEOCOMPRESS_CACHE", str(tmp_path))
    broken(monkeypatch, path, KeyboardInterrupt)
    _, point = grids.EXPERIMENTS["image"].within(None)
    arguments = {"name": "rows", "directory": tmp_path / "rows", "jobs": 1, "threads": 1, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        sweep.run(point, [SMALL], **arguments)
    (kept,) = tmp_path.glob("*/checkpoints/*")
    assert 0 < states.load(kept)[0].step < len(path) // 2
    sweep.run(point, [SMALL], **arguments)  # what begins anew breaks off again
    assert same(*store.read("rows", directory=tmp_path / "rows"), row)
    assert not kept.exists()


def test_a_terminal_sees_how_many_images_are_fitted(monkeypatch, capsys):
    monkeypatch.setattr(image_experiments, "_frozen", lambda replica, params: {})  # which shows nothing
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    train_images(SMALL)
    assert "digits[size=8], p = 24: 100%" in (shown := capsys.readouterr().err)
    assert "24/24 fitted" in shown
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    train_images(SMALL)
    assert capsys.readouterr().err == ""


def test_a_checkpoint_of_another_training_is_refused(interrupted):
    with pytest.raises(ValueError, match=r"expected a training of ImageConfig.*seed=5.* got ImageConfig.*seed=3"):
        train_images(dataclasses.replace(SMALL, seed=5), checkpoint=interrupted)
    assert interrupted.exists()


def test_a_checkpoint_of_another_version_is_refused(interrupted, monkeypatch):
    monkeypatch.setattr(image_experiments, "code_version", lambda: "of tomorrow")
    with pytest.raises(ValueError, match=r"expected a training of .* by version of tomorrow, got .*; .* delete this"):
        train_images(SMALL, checkpoint=interrupted)


def test_a_damaged_checkpoint_is_refused(interrupted):
    interrupted.write_bytes(interrupted.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"training.pt: expected a state written by states.save"):
        train_images(SMALL, checkpoint=interrupted)


# while testing, jaxtyping says wrong types in words of its own before the configuration does
BAD = {
    "too few points": ({"p": 19}, ValueError, "p: expected an integer ≥ 20, got 19"),
    "half a point": ({"p": 20.5}, TypeError, "p: expected an integer|'p'"),
    "no width": ({"width": 0}, ValueError, "width: expected"),
    "no test": ({"test_size": 0}, ValueError, "test_size: expected"),
    "seed": ({"seed": -1}, ValueError, "seed: expected"),
    "alpha": ({"alpha": math.nan}, ValueError, "alpha: expected"),
    "sharpness": ({"sharpness": 0.0}, ValueError, "sharpness: expected"),
    "tolerance": ({"margin_tol": -1.0}, ValueError, "margin_tol: expected"),
    "inertia": ({"inertia": -1.0}, ValueError, "inertia: expected"),
    "order": ({"order": 3}, ValueError, "order: expected 1 or 2, got 3"),
    "task": ({"task": 3}, TypeError, "task: expected the name|'task'"),
    "dtype": ({"dtype": "float16"}, ValueError, "dtype: expected 'float64' or 'float32', got 'float16'"),
    "device": ({"device": "abacus"}, ValueError, "device: expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case):
    change, error, message = BAD[case]
    with pytest.raises(error, match=message):
        dataclasses.replace(SMALL, **change)


def test_images_that_do_not_suffice_are_refused():
    with pytest.raises(ValueError, match="expected p \\+ n_test"):
        ImageReplica(dataclasses.replace(SMALL, test_size=5000))


# --- the real thing -------------------------------------------------------------------------------------------------

DATA = Path(os.environ.get(images.DATA_VARIABLE, "/nonexistent"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason="GEOCOMPRESS_DATA names no folder with MNIST")
def test_mnist():
    row = train_images(ImageConfig(task="mnist", p=40, width=2, seed=1, test_size=1000))  # seed 0 hardly learns
    assert row["status"] == "FITTED"
    assert row["d"] == 784
    assert max(row["test_error"], row["svc_init"]) < 0.45
    assert row["images"].startswith("MNIST, 70000 images")
