"""Processes of a sweep: killed drivers take them along, killed workers and full disks lose no row and double none."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geocompress import __main__ as cli
from geocompress import grids, store

GRID = "experiment: kernel\ntask: stripe\nd: 2\np: [64, 128]\nseed: [0, 1, 2, 3, 4, 5]\ntest_size: 1000\n"
PATIENCE_S = 300  # for a busy machine


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (tmp_path / "tiny.yaml").write_text(GRID)
    return folder


def arguments(results, jobs):
    told = ["-f", results.parent / "tiny.yaml", "--output", results / "tiny.jsonl", "--jobs", jobs]
    return ["sweep", "tiny", *map(str, told)]


def command(results, jobs):
    return [sys.executable, "-m", "geocompress", *arguments(results, jobs)]


def keys(path):
    return [json.loads(line)["key"] for line in path.read_text().splitlines()]


def assert_complete(results, *, after=b""):
    """Every point has one row, and what was there before is there."""
    configs = grids.read(results.parent / "tiny.yaml").configs
    assert sorted(keys(results / "tiny.jsonl")) == sorted(store.key(config) for config in configs)
    assert (results / "tiny.jsonl").read_bytes().startswith(after)


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def rows(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def alive(pid):
    try:  # the state follows the name, which may hold anything
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid):
    """Processes of a pool whose driver has this id."""
    listed = subprocess.run(["ps", "ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "--pipe" in line]


SLOW = """
import dataclasses, os, pathlib, sys, time
from geocompress import sweep

@dataclasses.dataclass(frozen=True)
class Point:
    p: int

def slow(config):
    pathlib.Path(sys.argv[1], f"process-{os.getpid()}").touch()
    time.sleep(float(sys.argv[2]) * (100 if config.p == 0 else 0.2))
    return {"value": config.p ** 2}

sweep.run(slow, sweep.grid(Point, p=range(12)), name="grid", directory=sys.argv[1], jobs=int(sys.argv[3]))
"""


def test_the_processes_of_a_killed_driver_end_and_its_sweep_goes_on(tmp_path, monkeypatch):
    """One process is at a point of 100 s, the other at short ones; only the driver is killed."""
    path = tmp_path / "grid.jsonl"
    with subprocess.Popen([sys.executable, "-c", SLOW, os.fspath(tmp_path), "1", "2"]) as driver:
        try:
            until(lambda: rows(path) >= 3 and len(list(tmp_path.glob("process-*"))) == 2)
        finally:
            driver.kill()
    survivors = path.read_bytes()
    processes = [int(file.name.partition("-")[2]) for file in tmp_path.glob("process-*")]
    assert len(processes) == 2
    until(lambda: not any(map(alive, processes)))
    monkeypatch.setattr(sys, "argv", ["-c", os.fspath(tmp_path), "0", "1"])
    exec(SLOW, {"__name__": "again"})
    assert path.read_bytes().startswith(survivors)
    assert sorted(json.loads(line)["p"] for line in path.read_text().splitlines()) == list(range(12))


def test_a_killed_process_ends_the_command_and_the_same_one_goes_on(results):
    path = results / "tiny.jsonl"
    with subprocess.Popen(command(results, 2), stderr=subprocess.PIPE, text=True) as driver:
        victim = until(lambda: children(driver.pid))[0]
        until(lambda: rows(path) >= 1)
        os.kill(victim, signal.SIGKILL)
        said = driver.stderr.read()
    assert driver.returncode == 1
    assert "a process was killed, perhaps for memory; run again, with fewer jobs than 2 if it was" in said
    assert "Traceback" not in said
    survivors = path.read_bytes()
    assert cli.main(arguments(results, 1)) == 0
    assert_complete(results, after=survivors)


@pytest.fixture
def full(results):
    """A folder with room for about five rows, options of a process that writes there, and what gives it room."""
    size = 8192
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", results]
    if subprocess.run(mount, capture_output=True).returncode:  # not as this user: files may not grow beyond that
        yield {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}, lambda: None
        return
    try:
        yield {}, lambda: subprocess.run(["mount", "-o", "remount,size=1M", results], check=True)
    finally:
        subprocess.run(["umount", results], check=True)


def test_a_full_disk_ends_the_command_and_the_same_one_goes_on(results, full):
    options, give_room = full
    path = results / "tiny.jsonl"
    stopped = subprocess.run(command(results, 2), stderr=subprocess.PIPE, text=True, **options)
    assert stopped.returncode == 1
    assert f"geocompress sweep: {path}" in stopped.stderr
    assert "mend that and run the same command, finished rows are kept" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert 1 <= len(keys(path)) < 12  # whole lines, all of them
    survivors = path.read_bytes()
    give_room()
    assert cli.main(arguments(results, 1)) == 0
    assert_complete(results, after=survivors)
