"""A Dask cluster of real processes gives the rows of one process; what is lost with a worker is computed again."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import geocompress
from geocompress import __main__ as cli
from geocompress import cluster, store, sweep

QUICKLY_S = 10  # for a refusal
SCHEDULER = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--no-dashboard"]
WORKER = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard", "--nthreads"]


@dataclasses.dataclass(frozen=True)
class Config:
    p: int
    seed: int = 0
    device: str = "cpu"


GRID = sweep.grid(Config, p=range(1, 5), seed=range(2))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def process(command, **variables):
    """A process whose children, as the nanny's, end with it."""
    found = os.pathsep.join(path for path in sys.path if path)  # so that workers find this very file
    environment = os.environ | {"PYTHONPATH": found} | variables
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, start_new_session=True, **quiet) as started:
        try:
            yield started
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def scheduler(**variables):
    port = free_port()
    return f"tcp://127.0.0.1:{port}", process([*SCHEDULER, "--port", str(port)], **variables)


@pytest.fixture(scope="module")
def address():
    """A scheduler that gives a point up when it was lost with two workers, and two workers that are replaced."""
    where, running = scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1")
    with running, process([*WORKER, "1", where]), process([*WORKER, "1", where]):
        yield where


def kill_worker(driver):
    assert os.getpid() != driver, "a point was computed by the driver"
    os.kill(os.getpid(), signal.SIGKILL)


def connected(address):
    """A cluster, once its scheduler has started."""
    deadline = time.monotonic() + 300
    while True:
        stack = contextlib.ExitStack()
        try:
            found = stack.enter_context(cluster.connect(address))
        except ConnectionError:
            assert time.monotonic() < deadline
            continue
        found.client.wait_for_workers(1, timeout=300)
        return stack, found


@pytest.fixture
def workers(address):
    stack, found = connected(address)
    with stack:
        yield found


def run(function, directory, **options):
    return sweep.run(function, GRID, name="grid", directory=directory, progress=False, **options)


def assert_complete(frame, directory):
    """One row a point on disk, and in the frame."""
    found = [row["key"] for row in store.read("grid", directory=directory, required=sweep.REQUIRED)]
    assert sorted(found) == sorted(store.key(config) for config in GRID)
    assert frame.key.tolist() == [store.key(config) for config in GRID]
    assert (frame.value == frame.p**2).all()


def test_a_cluster_gives_the_rows_of_one_process(tmp_path, workers):
    def together(configs):
        return [{"value": config.p**2, "batch": len(configs), "process": os.getpid()} for config in configs]

    def square(config):
        return {"value": config.p**2, "process": os.getpid()}

    frame = run(square, tmp_path, cluster=workers)
    assert_complete(frame, tmp_path)
    assert os.getpid() not in set(frame.process)
    alone = run(square, tmp_path / "alone", jobs=1)
    volatile = ["wall_s", "process"]
    assert frame.drop(columns=volatile).equals(alone.drop(columns=volatile))
    batches = run(square, tmp_path / "batches", cluster=workers, together=together, batch=2)
    assert_complete(batches, tmp_path / "batches")
    assert (batches.batch == 2).all()


def test_points_of_a_killed_worker_are_computed_by_another(tmp_path, workers):
    flag, driver = os.fspath(tmp_path / "killed"), os.getpid()

    def once_deadly(config):
        time.sleep(0.1)
        if config.p == 3 and not os.path.exists(flag):
            open(flag, "w").close()
            kill_worker(driver)
        return {"value": config.p**2, "process": os.getpid()}

    frame = run(once_deadly, tmp_path, cluster=workers)
    assert os.path.exists(flag)
    assert_complete(frame, tmp_path)


def test_a_point_that_kills_every_worker_ends_the_sweep_which_goes_on(tmp_path, workers):
    driver = os.getpid()

    def deadly(config):
        if config.p == 4:
            kill_worker(driver)
        return {"value": config.p**2}

    with pytest.raises(sweep.WorkersLost, match=r"sweep grid: points were lost with several workers.*finished rows"):
        run(deadly, tmp_path, cluster=workers)
    assert len(store.read("grid", directory=tmp_path, required=sweep.REQUIRED)) <= 6
    assert_complete(run(lambda config: {"value": config.p**2}, tmp_path, jobs=1), tmp_path)


@pytest.mark.slow  # a client asks for its scheduler for a while
def test_a_lost_scheduler_ends_the_sweep(tmp_path):
    where, running = scheduler()
    with running as started, process([*WORKER, "1", where]):
        stack, found = connected(where)
        with stack:
            victim = started.pid

            def last(config):
                if config.p == 3:
                    os.kill(victim, signal.SIGKILL)
                    time.sleep(60)
                return {"value": config.p**2}

            with pytest.raises(sweep.WorkersLost, match="sweep grid: the scheduler is gone"):
                run(last, tmp_path, cluster=found)


def test_a_cluster_that_is_no_match_is_refused(tmp_path, workers, monkeypatch):
    with pytest.raises(ValueError, match="jobs: expected None with a cluster"):
        run(abs, tmp_path, cluster=workers, jobs=2)
    with pytest.raises(cluster.Incompatible, match=r"expected workers that can do what .* got 'abacus'"):
        run(abs, tmp_path, cluster=workers, device="abacus")
    monkeypatch.setattr(cluster, "code_version", lambda: "0123456789ab")
    with pytest.raises(cluster.Incompatible, match=r"geocompress \(sources 0123456789ab\), got sources"):
        run(abs, tmp_path, cluster=workers)
    assert not list(tmp_path.iterdir())


def test_workers_of_two_threads_are_refused(tmp_path):
    where, running = scheduler()
    with running, process([*WORKER, "2", where]):
        stack, found = connected(where)
        with stack, pytest.raises(cluster.Incompatible, match=r"expected workers of one thread.*start them with --nth"):
            run(abs, tmp_path, cluster=found)


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("experiment: kernel\nd: 2\np: 16\ntest_size: 10\n")
    return ["sweep", "tiny", "-f", str(path), "--output", str(tmp_path / "rows.jsonl")]


def refused(grid, address, capsys):
    """What the command says when it refuses a scheduler."""
    started = time.monotonic()
    assert cli.main([*grid, "--scheduler", address]) == 2
    assert time.monotonic() - started < QUICKLY_S
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "expected an address such as tcp://127.0.0.1:8786, got 'nonsense': missing port"),
        (
            "pigeon://1:2",
            "expected an address such as tcp://127.0.0.1:8786, got 'pigeon://1:2': unknown address scheme",
        ),
    ],
)
def test_a_malformed_address_is_refused(grid, capsys, address, message):
    assert message in refused(grid, address, capsys)


def test_an_unreachable_scheduler_is_refused(grid, capsys):
    where = f"127.0.0.1:{free_port()}"
    said = refused(grid, where, capsys)
    assert f"geocompress sweep: expected a Dask scheduler at {where}, got" in said
    assert "start one with `dask scheduler`, or check the address" in said


def test_a_server_that_is_silent_is_refused(grid, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert f"expected a Dask scheduler at {where}, got TimeoutError" in refused(grid, where, capsys)


def test_a_scheduler_of_another_version_is_refused(grid, capsys, tmp_path):
    """A real one, which finds metadata of an older release before its own."""
    metadata = tmp_path / "distributed-2022.2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: distributed\nVersion: 2022.2.0\n")
    where, running = scheduler(PYTHONPATH=os.fspath(tmp_path))
    with running:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(where.split(":")[-1]))):
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        said = refused(grid, where, capsys)
    assert "expected distributed 20" in said
    assert f"at {where}, as here, got 2022.2.0; start the cluster from the environment of the driver" in said


def test_without_dask_the_remedy_is_said(grid, capsys, monkeypatch):
    monkeypatch.delattr(geocompress, "cluster")  # what an import of this file left behind
    monkeypatch.delitem(sys.modules, "geocompress.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "--scheduler: expected Dask, got" in (said := refused(grid, "127.0.0.1:1", capsys))
    assert "pip install 'geocompress[cluster]'" in said
