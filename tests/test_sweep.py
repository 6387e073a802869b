"""Sweep: every config has one row, in the order asked for, whatever interrupts it and however many processes work."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from geocompress import shares, store, sweep, workers
from geocompress.provenance import code_version


@dataclasses.dataclass(frozen=True)
class Config:
    """A point of the sweeps below."""

    p: int
    seed: int = 0
    scale: float = 1.0


def square(config):
    return {"value": config.scale * config.p**2, "tensor": torch.tensor(config.seed), "status": "FITTED"}


def on_disk(directory, name="grid"):
    return [json.loads(line) for line in (directory / f"{name}.jsonl").read_text().splitlines()]


def measured(frame):
    """The columns that do not depend on the clock."""
    return frame.drop(columns="wall_s")


def run(function, configs, directory, **options):
    return sweep.run(function, configs, name="grid", directory=directory, progress=False, **{"jobs": 1} | options)


def test_rows_come_in_the_order_of_the_configs_once_each(tmp_path):
    configs = sweep.grid(Config, p=[3, 1, 2], seed=range(2))
    frame = run(square, [*configs, configs[0], Config(p=1, scale=1)], tmp_path)
    assert list(zip(frame["p"], frame["seed"], strict=True)) == [(3, 0), (3, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert (frame["value"] == frame["p"] ** 2).all()
    assert (frame["tensor"] == frame["seed"]).all()
    assert (frame["status"] == "FITTED").all()
    assert frame["key"].tolist() == [store.key(config) for config in configs]
    assert len(on_disk(tmp_path)) == 6


def test_what_is_on_disk_is_not_computed_again(tmp_path):
    computed = []

    def record(config):
        computed.append(config.p)
        return square(config)

    run(record, sweep.grid(Config, p=[1, 2]), tmp_path)
    frame = run(record, sweep.grid(Config, p=[4, 2]), tmp_path)
    assert computed == [1, 2, 4]
    assert frame["p"].tolist() == [4, 2]  # only what was asked for


def test_two_processes_give_the_rows_of_one(tmp_path):
    def draw(config):  # the first ones take longest, so that rows finish out of order
        time.sleep(0.02 * (6 - config.p))
        total = torch.randn(10_000, generator=torch.Generator().manual_seed(config.p)).sum()
        return {"total": total, "threads": torch.get_num_threads(), "process": os.getpid()}

    configs = sweep.grid(Config, p=range(1, 7))
    one = run(draw, configs, tmp_path / "one", jobs=1)
    two = run(draw, configs, tmp_path / "two", jobs=2)
    assert measured(one).drop(columns="process").equals(measured(two).drop(columns="process"))
    assert (two["threads"] == 1).all()
    assert set(one["process"]) == {os.getpid()}
    assert os.getpid() not in set(two["process"])
    rows = on_disk(tmp_path / "two")
    assert sorted(row["p"] for row in rows) == [1, 2, 3, 4, 5, 6]


def squares(configs):
    return [square(config) | {"batch": len(configs)} for config in configs]


@pytest.mark.parametrize("jobs", [1, 2])
def test_points_that_differ_in_seed_alone_are_computed_together(tmp_path, jobs):
    configs = sweep.grid(Config, seed=range(5), p=[3, 1])
    frame = run(square, configs, tmp_path / "batches", jobs=jobs, together=squares, batch=3)
    assert frame["batch"].tolist() == [3, 3, 3, 3, 3, 3, 2, 2, 2, 2]
    alone = run(square, configs, tmp_path / "alone")
    assert measured(frame).drop(columns="batch").equals(measured(alone))
    assert len(on_disk(tmp_path / "batches")) == 10


def test_on_a_cpu_points_are_computed_one_by_one_unless_told(tmp_path):
    assert "batch" not in run(square, sweep.grid(Config, p=[1], seed=range(3)), tmp_path, together=squares)


@pytest.mark.parametrize("broken", ["raises", "too few"])
def test_a_batch_that_fails_is_computed_one_by_one_and_says_so(tmp_path, broken):
    def fails(configs):
        if broken == "raises" and any(config.p == 2 for config in configs):
            raise MemoryError("too much")
        return squares(configs)[: 1 if configs[0].p == 2 else None]

    def brittle(config):
        if (config.p, config.seed) == (2, 1):
            raise ZeroDivisionError("one bad point")
        return square(config)

    with pytest.warns(
        sweep.FailedPoints, match="1 of 6 points failed, the first with ZeroDivisionError: one bad point"
    ):
        frame = run(brittle, sweep.grid(Config, p=[1, 2], seed=range(3)), tmp_path, together=fails, batch=3)
    assert frame["status"].tolist() == ["FITTED"] * 4 + ["FAILED", "FITTED"]
    assert frame["value"].tolist()[:4] == [1, 1, 1, 4]
    told = "MemoryError: too much" if broken == "raises" else "ValueError: zip"
    assert [str(error).startswith(told) for error in frame["batch_error"]] == [False] * 3 + [True] * 3


@dataclasses.dataclass(frozen=True)
class Sized:
    p: int
    width: int = 1000
    device: str = "cpu"


@pytest.mark.parametrize(
    ("points", "p", "told", "expected"),
    [
        (20, 64, {}, (8, 1, 1)),
        (3, 64, {}, (3, 1, 1)),
        (0, 64, {}, (1, 1, 1)),
        (3, 4096, {}, (3, 1, 1)),
        (1, 4096, {}, (1, 1, 1)),
        (20, 25_000, {}, (5, 1, 1)),  # 1.6 GB each in half of 16
        (20, 10**6, {}, (1, 1, 1)),
        (1, 4096, {"threads": 4}, (1, 4, 1)),
        (20, 64, {"jobs": 2}, (2, 1, 1)),
        (20, 64, {"jobs": 1}, (1, 1, 1)),
        (20, 64, {"threads": 4}, (8, 4, 1)),
        (20, 64, {"jobs": 2, "threads": 3, "batch": 5}, (2, 3, 5)),
    ],
)
def test_the_processors_are_shared_out(monkeypatch, points, p, told, expected):
    monkeypatch.setattr(shares.joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr(shares, "_memory", lambda: 16 * 10**9)
    told = {"jobs": None, "threads": None, "batch": None} | told
    assert shares.choose([Sized(p)] * points, **told, batches=True) == expected


@pytest.mark.parametrize(
    ("p", "memory_gb", "jobs"),
    [(1000, 8.0, 8), (10**5, 8.0, 1), (10**5, 3.0, 4), (10**5, 100.0, 1), (16_000, 8.0, 1), (12_000, 8.0, 2)],
)
def test_budgets_of_memory_are_shared_out(monkeypatch, p, memory_gb, jobs):
    """12 of 16 GB, where a point takes its budget or 32 bytes for each pair of its points."""
    monkeypatch.setattr(shares.joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr(shares, "_memory", lambda: 16 * 10**9)
    told = {"jobs": None, "threads": None, "batch": None, "batches": False}
    assert shares.choose([Config(p)] * 20, **told, memory_gb=memory_gb) == (jobs, 1, 1)


def test_a_device_is_where_points_are_computed_and_not_which_they_are(tmp_path):
    config = Sized(p=3, device="cuda")  # that this machine may lack
    frame = run(lambda config: {"told": config.device}, [config], tmp_path, device="cpu")
    assert frame.loc[0, ["key", "told", "device"]].tolist() == [store.key(config), "cpu", "cpu"]
    with pytest.raises(ValueError, match=r"device: expected .* got 'abacus'"):
        run(square, [config], tmp_path, device="abacus")


@pytest.mark.parametrize(
    ("own", "told", "batches"),
    [("cuda", None, [1]), ("cpu", "cuda:0", [1]), ("cuda", "cpu", [None]), ("cpu", None, [None])],
)
def test_a_single_point_on_a_gpu_takes_the_path_of_batches(own, told, batches):
    """Without a GPU: nothing is computed there, it is only said to be."""

    def alone(config):
        return {"device": config.device}

    def together(configs):
        return [{"device": config.device, "batch": len(configs)} for config in configs]

    work = workers.Work(alone, together, 1, told)
    rows = list(workers.compute(work, [("key", Sized(p=3, device=own))]))
    assert [row.get("batch") for row in rows] == batches
    assert [row["device"] for row in rows] == [told or own]
    assert "batch_error" not in rows[0]
    assert "batch" not in next(iter(workers.compute(work._replace(together=None), [("key", Sized(p=3, device=own))])))


def test_a_single_point_that_fails_on_that_path_is_computed_alone():
    def broken(configs):
        raise MemoryError("too much")

    work = workers.Work(lambda config: {"value": config.p}, broken, 1, None)
    (row,) = workers.compute(work, [("key", Sized(p=3, device="cuda"))])
    assert (row["value"], row["batch_error"]) == (3, "MemoryError: too much")


@pytest.mark.parametrize(
    ("p", "batches", "batch"), [(1024, True, 244), (10**4, True, 25), (1, True, 256), (1024, False, 1)]
)
def test_a_gpu_gets_batches_as_its_memory_allows(monkeypatch, p, batches, batch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (32 * 10**9, 80 * 10**9))
    config = Sized(p, device="cuda")
    found = shares.choose([config], jobs=None, threads=None, batch=None, batches=batches)
    assert found == (1, 1, batch)


def test_threads_are_set_and_given_back(tmp_path):
    before = torch.get_num_threads()
    frame = run(lambda config: {"threads": torch.get_num_threads()}, [Config(p=1)], tmp_path, threads=3)
    assert frame["threads"][0] == 3
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_point_that_raises_is_recorded_and_the_others_go_on(tmp_path, jobs):
    flag = tmp_path / "mended"
    mended = os.fspath(flag)

    def brittle(config):
        if config.p == 2 and not os.path.exists(mended):
            raise ZeroDivisionError(f"p is {config.p}")
        return {"value": config.p}

    configs = sweep.grid(Config, p=[1, 2, 3])
    message = "1 of 3 points failed, the first with ZeroDivisionError: p is 2; retry_failed=True"
    with pytest.warns(sweep.FailedPoints, match=message):
        frame = run(brittle, configs, tmp_path, jobs=jobs)
    assert frame["status"].tolist() == ["DONE", "FAILED", "DONE"]
    assert frame["error"][1] == "ZeroDivisionError: p is 2"
    assert frame["p"].tolist() == [1, 2, 3]
    flag.touch()
    with pytest.warns(sweep.FailedPoints, match="1 of 3"):
        again = run(brittle, configs, tmp_path, jobs=jobs)
    assert again["status"].tolist() == ["DONE", "FAILED", "DONE"]  # only on request
    assert len(on_disk(tmp_path)) == 3
    mended_frame = run(brittle, configs, tmp_path, jobs=jobs, retry_failed=True)
    assert mended_frame["status"].tolist() == ["DONE", "DONE", "DONE"]
    assert len(on_disk(tmp_path)) == 4  # the failure stays on record, the last word counts


@pytest.mark.parametrize("result", [None, {"value": object()}, {1: 2}])
def test_a_row_that_cannot_be_stored_is_a_failure_of_its_point(tmp_path, result):
    with pytest.warns(sweep.FailedPoints, match="1 of 2 points failed, the first with Type"):
        frame = run(lambda config: result if config.p == 1 else {}, sweep.grid(Config, p=[1, 2]), tmp_path)
    assert frame["status"].tolist() == ["FAILED", "DONE"]


def test_an_interrupt_keeps_what_is_finished(tmp_path):
    def impatient(config):
        if config.p == 3:
            raise KeyboardInterrupt
        return square(config)

    with pytest.raises(KeyboardInterrupt):
        run(impatient, sweep.grid(Config, p=[1, 2, 3, 4]), tmp_path)
    assert [row["p"] for row in on_disk(tmp_path)] == [1, 2]
    assert run(square, sweep.grid(Config, p=[1, 2, 3, 4]), tmp_path)["value"].tolist() == [1, 4, 9, 16]


def test_a_killed_worker_is_told_and_the_rest_can_be_resumed(tmp_path):
    def hungry(config):
        if config.p == 4:
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        return {"value": config.p**2}

    configs = sweep.grid(Config, p=[1, 2, 3, 4])
    with pytest.raises(RuntimeError, match=r"sweep grid: a process was killed, perhaps for memory.*fewer jobs than 2"):
        run(hungry, configs, tmp_path, jobs=2)
    assert 1 <= len(on_disk(tmp_path)) < 4
    assert run(square, configs, tmp_path)["value"].tolist() == [1, 4, 9, 16]


@pytest.mark.parametrize("damage", [b'{"half', b"\xff\n", b'{"schema": 0, "key": "k", "status": "DONE"}\n', b"{}\n"])
def test_a_damaged_line_is_computed_again(tmp_path, damage):
    configs = sweep.grid(Config, p=[1, 2, 3])
    whole = run(square, configs, tmp_path)
    path = tmp_path / "grid.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2] + damage)  # the second row is gone, a doubtful line is there
    with pytest.warns(store.RejectedLines, match=r"grid.jsonl: 1 line\(s\) not trusted, moved to"):
        mended = run(square, configs, tmp_path)
    assert measured(mended).equals(measured(whole))
    assert sorted(row["p"] for row in on_disk(tmp_path)) == [1, 2, 3]
    (aside,) = tmp_path.glob("*.rejected-*")
    assert aside.read_bytes().rstrip(b"\n") == damage.rstrip(b"\n")


SCRIPT = """
import dataclasses, pathlib, sys, time
from geocompress import sweep

@dataclasses.dataclass(frozen=True)
class Point:
    p: int

def slow(config):
    with open(sys.argv[1] + "/computed", "a") as log:
        log.write(f"{config.p}\\n")
    time.sleep(float(sys.argv[2]))
    return {"value": config.p ** 2}

frame = sweep.run(slow, sweep.grid(Point, p=range(12)), name="grid", directory=sys.argv[1], jobs=1)
frame[["p", "value"]].to_json(sys.argv[1] + "/frame.json", orient="records")
"""


def test_kill_minus_nine_in_the_middle_then_the_same_call(tmp_path):
    path = tmp_path / "grid.jsonl"
    command = [sys.executable, "-c", SCRIPT, os.fspath(tmp_path)]
    victim = subprocess.Popen([*command, "0.3"], start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (path.exists() and path.read_bytes().count(b"\n") >= 3):
            assert time.monotonic() < deadline
            assert victim.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
    survivors = path.read_bytes()
    assert 3 <= survivors.count(b"\n") < 12
    subprocess.run([*command, "0"], check=True)

    assert path.read_bytes().startswith(survivors)  # nothing lost
    assert [row["p"] for row in on_disk(tmp_path)] == list(range(12))  # none missing, none twice
    assert json.loads((tmp_path / "frame.json").read_text()) == [{"p": p, "value": p**2} for p in range(12)]
    computed = [int(line) for line in (tmp_path / "computed").read_text().split()]
    assert len(computed) <= 13  # at most the point that was running is computed a second time


def test_default_folder_is_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOCOMPRESS_CACHE", os.fspath(tmp_path))
    sweep.run(square, [Config(p=1)], name="grid", progress=False)
    assert len(on_disk(tmp_path / code_version())) == 1  # each version of the library has a folder of its own


def test_nothing_to_do(tmp_path):
    assert run(square, [], tmp_path).empty
    assert not list(tmp_path.iterdir())


def test_grid_is_the_product_last_field_fastest():
    configs = sweep.grid(Config, p=(1, 2), scale=np.array([0.5, 1.5]), seed=7)
    assert configs == [Config(1, 7, 0.5), Config(1, 7, 1.5), Config(2, 7, 0.5), Config(2, 7, 1.5)]
    assert all(type(config.scale) is float for config in configs)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sweep.grid(Config, q=[1]), TypeError, "Config: expected fields among p, seed, scale, got q"),
        (lambda: sweep.grid(Config, p=[]), ValueError, "p: expected at least one value, got none"),
        (lambda: sweep.grid(dict, p=[1]), TypeError, "expected a frozen dataclass, got <class 'dict'>"),
        (lambda: run(square, [{"p": 1}], "nowhere"), TypeError, "expected an instance of a frozen dataclass"),
        (lambda: run(square, [Config(1)], "nowhere", jobs=0), ValueError, "jobs: expected an integer ≥ 1, got 0"),
        (lambda: run(square, [Config(1)], "nowhere", threads=0), ValueError, "threads: expected an integer ≥ 1, got 0"),
        (lambda: run(square, [Config(1)], "nowhere", batch=0), ValueError, "batch: expected an integer ≥ 1, got 0"),
        (
            lambda: run(square, [Config(1)], "nowhere", batch=2),
            ValueError,
            "batch: expected 1 without `together`, got 2",
        ),
    ],
)
def test_bad_requests_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
