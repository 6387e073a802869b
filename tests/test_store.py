"""Store: what was written is read back, no byte is lost whatever the damage, and no damaged line is trusted."""

import dataclasses
import enum
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from geocompress import jsonl, provenance, store, tasks


def a_row(**changes):
    return dict.fromkeys(store.COLUMNS, 0) | changes


def all_bytes(folder):
    """Every line under a folder, wherever it lies."""
    return sorted(line for file in folder.iterdir() for line in file.read_bytes().split(b"\n") if line.strip())


def rejected_files(folder):
    return sorted(folder.glob("*.rejected-*"))


def test_what_is_appended_is_loaded(tmp_path):
    rows = [
        a_row(seed=seed, test_error=0.1 / (seed + 1), task="stripe", versions={"torch": "2.6"}) for seed in range(3)
    ]
    returned = [store.append("curve", row, directory=tmp_path) for row in rows]
    assert store.read("curve", directory=tmp_path) == returned == [{"schema": store.SCHEMA} | row for row in rows]
    frame = store.load("curve", directory=tmp_path)
    assert frame["test_error"].tolist() == [row["test_error"] for row in rows]  # float64 survives the text
    assert (tmp_path / "curve.jsonl").read_bytes().count(b"\n") == 3
    assert not rejected_files(tmp_path)


def test_values_become_strict_json(tmp_path):
    class Status(enum.Enum):
        FITTED = 1

    row = a_row(
        p=np.int64(3),
        alpha=np.float32(0.5),
        test_error=torch.tensor(0.25, requires_grad=True),
        lambda_max=float("nan"),
        lambda_end=np.float64("inf"),
        steps=torch.arange(2),
        dirty=np.bool_(True),
        status=Status.FITTED,
        versions={"edges": (1.0, np.array([float("-inf")]))},
    )
    store.append("values", row, directory=tmp_path)
    line = json.loads((tmp_path / "values.jsonl").read_text(), parse_constant=pytest.fail)
    assert line | {"schema": 1} == line
    expected = {"p": 3, "alpha": 0.5, "test_error": 0.25, "lambda_max": None, "lambda_end": None, "steps": [0, 1]}
    assert expected | {"dirty": True, "status": "FITTED", "versions": {"edges": [1.0, [None]]}} | line == line
    frame = store.load("values", directory=tmp_path)
    assert frame["lambda_max"].dtype == np.float64
    assert np.isnan(frame["lambda_max"][0])


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (a_row(task=object()), TypeError, "column task: expected numbers, text, lists or dicts, got object"),
        (a_row(versions={"torch": {1, 2}}), TypeError, r"column versions.torch: .*got set"),
        (a_row() | {3: 1}, TypeError, "expected text as the name of a column, got 3"),
        ({"task": "stripe"}, ValueError, "lacks experiment, d, "),
        (a_row(schema=0), ValueError, "expected schema 1, got 0"),
    ],
)
def test_bad_rows_are_refused_and_nothing_is_written(tmp_path, row, error, message):
    with pytest.raises(error, match=message):
        store.append("bad", row, directory=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "../other", "a/b", "a b"])
def test_bad_names_are_refused(name):
    with pytest.raises(ValueError, match="name: expected letters"):
        store.locate(name)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.jsonl: expected a file of results, got none"):
        store.load("absent", directory=tmp_path)
    frame = store.load("absent", directory=tmp_path, missing_ok=True)
    assert frame.empty
    assert set(store.COLUMNS) <= set(frame.columns)
    assert store.repair("absent", directory=tmp_path) is None


def test_folders_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.delenv("GEOCOMPRESS_RESULTS", raising=False)
    monkeypatch.delenv("GEOCOMPRESS_CACHE", raising=False)
    root = Path(store.__file__).resolve().parents[2]
    assert store.locate("x") == root / "results" / "x.jsonl"
    assert store.cache_directory() == root / "results" / "cache"
    monkeypatch.setenv("GEOCOMPRESS_RESULTS", str(tmp_path))
    assert store.locate("x") == tmp_path / "x.jsonl"
    assert store.cache_directory() == tmp_path / "cache"
    monkeypatch.setenv("GEOCOMPRESS_CACHE", str(tmp_path / "elsewhere"))
    assert store.cache_directory() == tmp_path / "elsewhere"
    assert store.locate(tmp_path / "y.jsonl") == tmp_path / "y.jsonl"


@pytest.mark.parametrize("cut", [1, 5, -2])
def test_a_truncated_last_line_is_moved_aside_by_the_next_append(tmp_path, cut):
    path = tmp_path / "curve.jsonl"
    for seed in range(2):
        store.append("curve", a_row(seed=seed), directory=tmp_path)
    whole = path.read_bytes()
    last = whole.split(b"\n")[1]
    path.write_bytes(whole[: len(whole) - 1 - len(last)] + last[:cut])
    before = all_bytes(tmp_path)
    with pytest.warns(
        store.RejectedLines, match=r"curve.jsonl: 1 line\(s\) not trusted, moved aside.*line 2: unfinished"
    ):
        store.append("curve", a_row(seed=7), directory=tmp_path)
    assert [row["seed"] for row in store.read("curve", directory=tmp_path)] == [0, 7]
    assert [file.read_bytes() for file in rejected_files(tmp_path)] == [last[:cut] + b"\n"]
    assert len(all_bytes(tmp_path)) == len(before) + 1


def test_a_last_line_that_only_lacks_its_end_is_kept(tmp_path):
    path = tmp_path / "curve.jsonl"
    store.append("curve", a_row(seed=0), directory=tmp_path)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(store.read("curve", directory=tmp_path)) == 1
    store.append("curve", a_row(seed=1), directory=tmp_path)
    assert [row["seed"] for row in store.read("curve", directory=tmp_path)] == [0, 1]
    assert not rejected_files(tmp_path)


DAMAGE = [
    (b"{broken", "no JSON"),
    (b"\xff\xfe\x00", "no JSON"),
    (b'{"schema": 1, "seed": NaN}', "NaN is no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b"[1, 2]", "expected an object, got list"),
    (json.dumps(a_row(schema=0)).encode(), "expected schema 1, got 0"),
    (json.dumps(a_row(schema=2)).encode(), "expected schema 1, got 2"),
    (json.dumps(a_row()).encode(), "expected schema 1, got None"),
    (b'{"schema": 1, "task": "stripe"}', "lacks experiment"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGE, ids=[reason for _, reason in DAMAGE])
def test_damaged_lines_are_named_never_trusted_never_deleted(tmp_path, damage, reason):
    path = tmp_path / "curve.jsonl"
    for seed in range(3):
        store.append("curve", a_row(seed=seed), directory=tmp_path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[1:]]))
    content, lines = path.read_bytes(), all_bytes(tmp_path)

    with pytest.warns(store.RejectedLines, match=f"(?s)curve.jsonl: 1 line.*line 2: .*{reason}"):
        frame = store.load("curve", directory=tmp_path)
    assert frame["seed"].tolist() == [0, 1, 2]
    assert path.read_bytes() == content  # reading changes nothing
    assert not rejected_files(tmp_path)

    with pytest.warns(store.RejectedLines, match="moved to curve.jsonl.rejected-"):
        aside = store.repair("curve", directory=tmp_path)
    assert aside.read_bytes() == damage + b"\n"
    assert store.load("curve", directory=tmp_path)["seed"].tolist() == [0, 1, 2]
    assert all_bytes(tmp_path) == lines
    assert store.repair("curve", directory=tmp_path) is None


def test_a_repair_that_crashes_in_between_loses_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    path = tmp_path / "curve.jsonl"
    path.write_bytes(b"{broken\n" + json.dumps(a_row(schema=1)).encode() + b"\n")
    lines, replace = all_bytes(tmp_path), jsonl._replace

    def crash(target, content):
        if target == path:
            raise OSError("power cut")
        replace(target, content)

    monkeypatch.setattr(jsonl, "_replace", crash)
    with pytest.raises(OSError, match="power cut"):
        store.repair(path)
    assert set(all_bytes(tmp_path)) == set(lines)
    monkeypatch.undo()
    with pytest.warns(store.RejectedLines):
        store.repair(path)
    assert all_bytes(tmp_path) == lines


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    store.append("curve", a_row(), directory=tmp_path)
    before = (tmp_path / "curve.jsonl").read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:20]))
    with pytest.raises(OSError, match="only 20 of"):
        store.append("curve", a_row(), directory=tmp_path)
    assert (tmp_path / "curve.jsonl").read_bytes() == before


# the ground floor of the store alone: it imports no torch, so that the processes really overlap
CROWD = """
import pathlib, sys, warnings
from geocompress import jsonl

path, worker, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
warnings.simplefilter("ignore")
for index in range(count):
    if worker >= 0:
        jsonl.append_line(path, jsonl.encode({"worker": worker, "index": index, "text": "é" * 3000}))
    else:
        with path.open("ab") as file:
            file.write(b"\\n{broken\\n")
        assert jsonl.move_aside(path, lambda row: None)
"""


def test_processes_append_and_repair_at_once_without_losing_a_row(tmp_path):
    path = tmp_path / "crowd.jsonl"
    path.touch()
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD, os.fspath(path), str(worker), str(count)])
        for worker, count in [(0, 200), (1, 200), (2, 200), (-1, 100)]
    ]
    assert [process.wait() for process in crowd] == [0, 0, 0, 0]
    rows = jsonl.read_rows(path, lambda row: None)
    expected = [(worker, index) for worker in range(3) for index in range(200)]
    assert sorted((row["worker"], row["index"]) for row in rows) == expected
    assert all(row["text"] == "é" * 3000 for row in rows)


@dataclasses.dataclass(frozen=True)
class Config:
    """Some fields in one order."""

    d: int = 5
    alpha: float = 1e-6
    task: object = dataclasses.field(default_factory=lambda: tasks.stripe(5))
    dtype: object = torch.float64


class Twin(Config):
    """The same fields under another name."""


def test_keys_are_the_identity_of_a_config():
    keys = {
        store.key(config)
        for config in [
            Config(),
            Config(d=6),
            Config(alpha=2e-6),
            Config(task=tasks.stripe(6)),
            Config(task=tasks.stripe(5, x_min=-0.5)),
            Config(dtype=torch.float32),
            Config(alpha=float("inf")),
            Config(task=Config(task=None)),
            Config(task=Twin(task=None)),
        ]
    }
    assert len(keys) == 9
    assert store.key(Config(alpha=1)) == store.key(Config(alpha=1.0)) == store.key(Config(alpha=np.float64(1)))

    fields = [
        ("alpha", float, 1e-6),
        ("d", int, 5),
        ("task", object, tasks.stripe(5)),
        ("dtype", object, torch.float64),
    ]
    reordered = dataclasses.make_dataclass("Config", fields, frozen=True)
    assert store.key(reordered()) == store.key(Config())


def test_keys_are_the_same_in_another_process():
    code = (
        "import dataclasses; from geocompress import store\n"
        "@dataclasses.dataclass(frozen=True)\nclass Point:\n    d: int = 5\n    alpha: float = 1e-6\n"
        "print(store.key(Point()))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    point = dataclasses.make_dataclass("Point", [("d", int, 5), ("alpha", float, 1e-6)], frozen=True)
    assert result.stdout.strip() == store.key(point())


def test_configs_without_a_lasting_identity_are_refused():
    thawed = dataclasses.make_dataclass("Thawed", [("d", int)])
    for config in (thawed(3), Config, {"d": 3}):
        with pytest.raises(TypeError, match="config: expected an instance of a frozen dataclass"):
            store.key(config)
    for task in (lambda x: x, object()):
        with pytest.raises(TypeError, match="task: expected numbers"):
            store.key(Config(task=task))


def test_provenance_names_everything():
    record = store.provenance("cpu", torch.float32)
    assert set(record) == {"commit", "dirty", "versions", "device", "dtype", "started"} <= set(store.COLUMNS)
    assert set(record["versions"]) == {"python", "torch", "numpy", "scipy", "geocompress"}
    assert record["versions"]["numpy"] == np.__version__
    assert record["dtype"] == "float32"
    assert record["device"].startswith("cpu (")
    assert record["started"].endswith("+00:00")
    assert store.plain(record) == record


def test_commit_and_dirty_tree(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", *identity, "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def state():
        provenance._git_state.cache_clear()
        return provenance._git_state()

    monkeypatch.delenv("GEOCOMPRESS_COMMIT", raising=False)
    monkeypatch.setattr(provenance, "repository", lambda: tmp_path)
    assert state() == (None, None)
    git("init")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "code.py").write_text("1")
    git("add", "lib")
    git("commit", "-m", "code")
    assert state() == (git("rev-parse", "HEAD"), False)
    (tmp_path / "results.jsonl").write_text("a result is no change of the code")
    assert state()[1] is False
    (tmp_path / "lib" / "more.py").write_text("2")
    assert state()[1] is True
    monkeypatch.setattr(provenance, "repository", lambda: tmp_path / "lib")
    assert state() == (None, None)  # inside some other repository
    monkeypatch.setenv("GEOCOMPRESS_COMMIT", "abc-dirty")
    told = provenance.provenance()
    assert (told["commit"], told["dirty"]) == ("abc", True)
    provenance._git_state.cache_clear()


def test_the_version_of_the_code_is_that_of_every_file(tmp_path, monkeypatch):
    def version():
        return provenance.code_version.__wrapped__()

    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    (tmp_path / "room").mkdir()
    seen = {version()}
    for change in ("a.py", "room/a.py", "room/b.py"):
        (tmp_path / change).write_text("1")
        seen.add(version())
    (tmp_path / "room" / "b.py").write_text("2")
    seen.add(version())
    (tmp_path / "room" / "b.py").rename(tmp_path / "c.py")
    seen.add(version())
    assert len(seen) == 6


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta:x"])
def test_unknown_devices_are_refused(device):
    with pytest.raises(ValueError, match=f"on this machine, got '{device}'"):
        store.provenance(device)


def test_the_last_row_of_a_key_counts(tmp_path):
    for status in ("FAILED", "FITTED"):
        store.append("twice", {"key": "a", "status": status}, directory=tmp_path, required=("key",))
    store.append("twice", {"key": "b", "status": "FITTED"}, directory=tmp_path, required=("key",))
    assert store.load("twice", directory=tmp_path, required=("key",)).status.tolist() == ["FITTED", "FITTED"]


def test_origin_names_every_commit_and_marks_a_dirty_tree():
    rows = pd.DataFrame(
        {
            "started": ["2026-01-02T10:00:00+00:00", "2026-01-03T10:00:00+00:00"],
            "commit": ["a" * 40, "b" * 40],
            "dirty": [False, True],
            "device": ["cpu (x, 2 cores)"] * 2,
        }
    )
    assert store.origin(rows) == "2026-01-02 to 2026-01-03, commit aaaaaaa, bbbbbbb+, cpu (x, 2 cores)"
