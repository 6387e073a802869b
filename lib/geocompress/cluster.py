"""Points of a sweep on an existing Dask cluster; needs the extra `cluster`.

The cluster computes and the driver writes: a row is written once, whichever worker it comes from. When a worker is
lost, Dask gives its points to another. Workers are processes of one thread each that run the same geocompress.

Not by way of joblib's own backend for Dask (1.6): where there is one worker it computes in the driver instead, and a
point that was lost with several workers leaves it waiting forever.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import distributed

from geocompress import shares
from geocompress.provenance import check_device, code_version
from geocompress.shares import Share
from geocompress.workers import Group, Work, WorkersLost, compute

ANSWER_S = 3  # seconds that a scheduler has to answer
ALIKE = ("python", "distributed")  # what must agree, up to the last number of a version of Python


class Incompatible(ValueError):
    """A cluster that cannot compute the rows of this process."""


class Cluster(NamedTuple):
    """A connected cluster."""

    client: distributed.Client

    def choose(self, configs: Sequence[Any], *, device: str | None, **told: Any) -> Share:
        """How many threads and points a worker takes at a time, as one of them finds; see `shares.choose`.

        Waits for the first worker.

        Raises:
            Incompatible: a worker that runs other code, has no such device or cannot import this library.
        """
        self._refuse_crowded()
        if not self.client.nthreads():
            print(f"waiting for a worker of {self.client.scheduler.address}", file=sys.stderr, flush=True)
        told["jobs"] = 1  # of a worker
        asked = self.client.submit(_look, configs, device, told, pure=False)
        try:
            found, share = asked.result()
        except (ImportError, AttributeError, ValueError) as error:
            raise Incompatible(
                f"expected workers that can do what this process does, got {type(error).__name__}: {error}; start them "
                "from the same environment"
            ) from error
        _same_code(found)
        self._refuse_crowded()  # where the first worker came late
        return share

    def _refuse_crowded(self) -> None:
        for worker, threads in self.client.nthreads().items():
            if threads > 1:
                raise Incompatible(
                    f"expected workers of one thread, for a point sets the threads of its whole process, got {worker} "
                    f"with {threads}; start them with --nthreads 1"
                )

    def outcomes(self, work: Work, groups: list[Group], jobs: int) -> Iterator[dict]:
        """Rows as they finish, in any order, by all workers, whatever `jobs` says.

        Raises:
            WorkersLost: if the scheduler is gone, points were lost with several workers in a row, or a worker that came
                later runs other code.
        """
        futures = self.client.map(functools.partial(_compute_same, code_version(), work), groups, pure=False)
        try:
            for finished in distributed.as_completed(futures, loop=self.client.loop):
                yield from finished.result()
                finished.release()
        except distributed.KilledWorker as error:
            raise WorkersLost(f"points were lost with several workers, perhaps for memory: {error}") from error
        except Incompatible as error:
            raise WorkersLost(str(error)) from error
        except (concurrent.futures.CancelledError, OSError) as error:  # what a point raises is in its row
            raise WorkersLost(f"the scheduler is gone: {error}") from error
        finally:
            if self.client.status == "running":
                self.client.cancel(futures)


@contextlib.contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Connect to the scheduler at an address such as tcp://127.0.0.1:8786.

    Raises:
        ConnectionError: if nothing that speaks as a scheduler answers there within three seconds.
        ValueError: if the address is malformed.
        Incompatible: if another version of Python or distributed runs there.
    """
    _same_versions(address, _versions(address))
    with warnings.catch_warnings():  # of packages that do not matter to points
        warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
        client = distributed.Client(address, timeout=ANSWER_S, set_as_default=False)
    with client:
        yield Cluster(client)


def _versions(address: str) -> dict[str, Any]:
    """Versions of a scheduler. A client would wait forever for a server of another kind, and trip over an old one."""

    async def ask() -> dict[str, Any]:
        secured = distributed.Security().get_connection_args("client")
        async with distributed.rpc(address, timeout=ANSWER_S, connection_args=secured) as scheduler:
            return (await scheduler.versions())["packages"]

    try:
        return asyncio.run(asyncio.wait_for(ask(), ANSWER_S + 0.5))
    except ValueError as error:
        raise ValueError(f"expected an address such as tcp://127.0.0.1:8786, got {address!r}: {error}") from error
    except Exception as error:  # whatever comes of talking to a program of another kind
        raise ConnectionError(
            f"expected a Dask scheduler at {address}, got {type(error).__name__} {error}".rstrip()
            + "; start one with `dask scheduler`, or check the address"
        ) from error


def _same_versions(address: str, theirs: dict[str, Any]) -> None:
    ours = distributed.versions.get_versions()["packages"]
    for package in ALIKE:
        wanted, found = (_release(package, versions.get(package)) for versions in (ours, theirs))
        if wanted != found:
            raise Incompatible(
                f"expected {package} {wanted} at {address}, as here, got {found}; start the cluster from the "
                "environment of the driver"
            )


def _release(package: str, version: str | None) -> str | None:
    return ".".join(version.split(".")[:2]) if version and package == "python" else version


def _look(configs: Sequence[Any], device: str | None, told: dict[str, Any]) -> tuple[str, Share]:
    """On a worker: its code, and how it would share itself out."""
    if device is not None:
        check_device(device)
    return code_version(), shares.choose(configs, device=device, **told)


def _compute_same(expected: str, work: Work, group: Group) -> list[dict]:
    """On a worker: `compute`, by the driver's code alone."""
    _same_code(code_version(), expected)
    return list(compute(work, group))


def _same_code(found: str, expected: str | None = None) -> None:
    if found != (expected := expected or code_version()):
        raise Incompatible(
            f"expected workers that run the driver's geocompress (sources {expected}), got sources {found}; start "
            "workers and driver from the same tree"
        )
