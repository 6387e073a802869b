"""Stored benchmarks: which file is read, what it says of itself, and files that are none."""

import json

import pytest

from geocompress import benchmarks

ENVIRONMENT = {"commit": "0123456789", "dirty": False, "started": "2026-01-02T03:04", "device": "cpu (x)", "threads": 1}
CHECKS = [
    {"claim": "seconds", "measured": 2.0, "at_most": 3, "holds": True},
    {"claim": "times faster", "measured": 4.2042, "at_least": 20, "holds": False},
]
CONTENT = {"rows": [{"p": 1, "seconds": 2.0}], "about": {"d": 5}, "environment": ENVIRONMENT, "checks": CHECKS}


def test_the_full_version_comes_before_the_short_one(tmp_path):
    (tmp_path / "race-short.json").write_text(json.dumps(CONTENT))
    assert benchmarks.load("race", directory=tmp_path).rows.seconds.tolist() == [2.0]
    (tmp_path / "race-full.json").write_text(json.dumps(CONTENT | {"rows": [{"p": 1, "seconds": 3.0}]}))
    found = benchmarks.load("race", directory=tmp_path)
    assert found.rows.seconds.tolist() == [3.0]
    assert found.about == {"d": 5}
    assert found.origin == "2026-01-02, commit 0123456, cpu (x), 1 thread"


def test_no_file_is_no_benchmark(tmp_path):
    assert benchmarks.load("race", directory=tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": []}'])
def test_a_file_that_is_no_benchmark_is_named(tmp_path, text):
    (tmp_path / "race-short.json").write_text(text)
    with pytest.raises(ValueError, match=r"race-short\.json: expected"):
        benchmarks.load("race", directory=tmp_path)


def test_promises_are_told_whether_kept_or_not(tmp_path):
    for name in ("race", "cost"):
        (tmp_path / f"{name}-short.json").write_text(json.dumps(CONTENT))
    (tmp_path / "idle-short.json").write_text(json.dumps(CONTENT | {"checks": []}))
    assert not len(benchmarks.promises(["idle", "unknown"], directory=tmp_path))
    told = benchmarks.promises(["race", "idle", "unknown", "cost"], directory=tmp_path)
    assert told.to_numpy().tolist() == 2 * [["seconds", "≤ 3", "2", "holds"], ["times faster", "≥ 20", "4.2", "missed"]]


def test_what_is_committed_can_be_read():
    assert len(benchmarks.load("box_qp").rows) > 5
