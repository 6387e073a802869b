"""The command line: `… run CHAPTER`, `… sweep NAME` for published rows, `… status` of these, `… diagnose` of a net.

A command is a function `add_NAME(subparsers)` that declares its arguments and a function taking them parsed and
returning the exit status; list the first in `COMMANDS`. Bad input ends with status 2 and one message.
"""

import argparse
import contextlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geocompress import __version__, checks, grids, notebooks, reports, store, sweep
from geocompress.diagnose_command import add_diagnose
from geocompress.grids import read_parameters
from geocompress.provenance import code_version


def add_run(subparsers: Any) -> None:
    """Declare `run`: execute one chapter with other parameters."""
    known = ", ".join(notebooks.list_chapters())
    parser = subparsers.add_parser("run", help="execute a chapter with other parameters, through papermill")
    parser.add_argument("chapter", metavar="CHAPTER", help=f"one of: {known}")
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="one parameter; wins over -f; repeat it for more",
    )
    parser.add_argument(
        "-f",
        dest="files",
        action="append",
        default=[],
        type=Path,
        metavar="PARAMS.yaml",
        help="parameters from a YAML file; later files win",
    )
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="OUT.ipynb", help="default: results/cache/runs/CHAPTER.ipynb"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a chapter; return 2 for input that is refused before a kernel starts, 1 when a cell failed."""
    try:
        declared = notebooks.declared_parameters(arguments.chapter)
        values = {key: value for path in arguments.files for key, value in read_parameters(path).items()}
        for key, text in arguments.parameters:
            values[key] = notebooks.parse_value(declared[key], text) if key in declared else text
        notebooks.validate_parameters(arguments.chapter, values)
    except (ValueError, TypeError, OSError) as refusal:
        return ended("run", refusal, 2)
    return execute(arguments.chapter, values, arguments.output)


def execute(chapter: str, values: dict[str, Any], output: Path | None) -> int:
    """Start the kernel and say how it ended."""
    # heavy, and not needed to refuse bad input
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        written = notebooks.run_chapter(chapter, values, output)
    except ValueError as refusal:
        return ended("run", refusal, 2)
    except PapermillExecutionError as failure:
        return ended("run", f"a cell of {chapter!r} failed\n{failure}", 1)
    except DeadKernelError as death:
        return ended("run", f"{death}; most often memory ran out: try smaller parameters", 1)
    print(written)
    return 0


def add_sweep(subparsers: Any) -> None:
    """Declare `sweep`: compute the rows of a grid that are not on disk yet."""
    parser = subparsers.add_parser("sweep", help="compute the missing rows of a grid, here or on a Dask cluster")
    parser.add_argument("name", metavar="NAME", help="a result: the grid is results/NAME.yaml unless -f says otherwise")
    add_place(parser)
    parser.add_argument("--jobs", type=int, help="processes; default: by the size and number of runs")
    parser.add_argument("--threads", type=int, help="threads of each process; default: 1")
    parser.add_argument("--batch", type=int, help="seeds trained in one set of tensors; default: many on a GPU, else 1")
    parser.add_argument("--memory-gb", type=float, help="budget of one run in 10⁹ bytes, for experiments that take one")
    parser.add_argument("--device", help="where to compute instead of the device of the grid: cpu, cuda, cuda:1, …")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="compute on the Dask cluster of this scheduler")
    parser.add_argument("--retry-failed", action="store_true", help="compute points that failed again")
    parser.set_defaults(command=run_sweep)


def add_status(subparsers: Any) -> None:
    """Declare `status`: say what of a grid is done."""
    parser = subparsers.add_parser("status", help="list done, missing and failed points; ends with 0 when all are done")
    parser.add_argument("name", metavar="NAME", nargs="?", help="a result; default: every grid of results/")
    add_place(parser)
    parser.set_defaults(command=run_status)


def add_place(parser: argparse.ArgumentParser) -> None:
    """Declare which grid, and where its rows lie."""
    parser.add_argument("-f", dest="file", type=Path, metavar="PARAMS.yaml", help="another grid; its rows are cached")
    parser.add_argument("--output", type=Path, metavar="ROWS.jsonl", help="where rows lie, instead")


def find(name: str | None, file: Path | None, output: Path | None) -> tuple[grids.Grid, Path]:
    """A grid and the file of its rows.

    Rows of a committed grid are published: results/NAME.jsonl. Those of another one lie in the cache, in the folder of
    this version of the library.

    Raises:
        ValueError: an unknown name, an output that is no .jsonl, or as `grids.read`.
        TypeError, OSError: as `grids.read`.
    """
    if name is None:
        raise ValueError("expected a NAME for the grid of -f or the rows of --output, got none")
    if output is not None and output.suffix != ".jsonl":
        raise ValueError(f"--output: expected a file that ends in .jsonl, got {output}")
    if file is None and name not in (known := grids.published()):
        raise ValueError(f"expected the name of a grid among {', '.join(known)}, got {name!r}; or give a grid by -f")
    directory = store.results_directory() if file is None else store.cache_directory() / code_version()
    rows = store.locate(name, directory)
    return grids.read(file or store.results_directory() / f"{name}.yaml"), output or rows


def run_sweep(arguments: argparse.Namespace) -> int:
    """Go through what is left of a grid.

    Return 2 for what is refused before anything is computed, 1 when points failed or did not reach their end, or the
    sweep was stopped by a lost process or a full disk, 130 when it was interrupted.
    """
    with contextlib.ExitStack() as stack:
        try:
            grid, path = find(arguments.name, arguments.file, arguments.output)
            told = {name: getattr(arguments, name) for name in ("jobs", "threads", "batch")}
            told = {k: None if v is None else checks.integer(v, f"--{k}") for k, v in told.items()}
            memory_gb, function = grid.experiment.within(arguments.memory_gb)
            cluster = stack.enter_context(connect(arguments.scheduler)) if arguments.scheduler else None
        except (ValueError, TypeError, OSError, ImportError) as refusal:
            return ended("sweep", refusal, 2)
        told |= {"memory_gb": memory_gb, "device": arguments.device, "cluster": cluster}
        told |= {"together": grid.experiment.together, "retry_failed": arguments.retry_failed}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sweep.FailedPoints)  # said below
                rows = sweep.run(function, grid.configs, name=path.name, directory=path.parent, **told)
        except (ValueError, TypeError) as refusal:
            return ended("sweep", refusal, 2)
        except sweep.WorkersLost as loss:
            return ended("sweep", loss, 1)
        except OSError as error:
            return ended("sweep", f"{path}: {error}; mend that and run the same command, finished rows are kept", 1)
        except KeyboardInterrupt:
            return ended("sweep", f"interrupted; finished rows are in {path}, the same command goes on from there", 130)
    failed = rows[rows.status == sweep.FAILED]
    if len(failed):
        told = f"{len(failed)} of {len(rows)} points failed, the first with {failed.error.iloc[0]}"
        return ended("sweep", f"{told}; --retry-failed computes them again", 1)
    print(path)
    if len(other := rows[rows.status != grid.experiment.success]):
        counts = ", ".join(f"{count} {status}" for status, count in other.status.value_counts().items())
        told = f"{len(other)} of {len(rows)} points did not end {grid.experiment.success}: {counts}"
        return ended("sweep", f"{told}; curves leave them out, `status {arguments.name}` lists them", 1)
    return 0


def connect(address: str) -> contextlib.AbstractContextManager[Any]:
    """The cluster of a scheduler.

    Raises:
        ImportError: where Dask is not installed.
    """
    try:
        from geocompress import cluster  # heavy, and needs an extra
    except ImportError as error:
        raise ImportError(f"--scheduler: expected Dask, got {error}; pip install 'geocompress[cluster]'") from error
    return cluster.connect(address)


def run_status(arguments: argparse.Namespace) -> int:
    """Say what is done; return 1 when something is not, and 2 when there is no such grid."""
    told = (arguments.file, arguments.output)
    every = arguments.name is None and told == (None, None)
    try:
        found = [find(name, *told) for name in (grids.published() if every else [arguments.name])]
    except (ValueError, TypeError, OSError) as refusal:
        return ended("status", refusal, 2)
    complete = [reports.show(grid, path) for grid, path in found]
    return int(not all(complete))


def ended(command: str, message: object, status: int) -> int:
    """Say why a command ends, and return its status."""
    print(f"geocompress {command}: {message}", file=sys.stderr)
    return status


COMMANDS = (add_run, add_sweep, add_status, add_diagnose)


def parser() -> argparse.ArgumentParser:
    """The command line; what it parses has a function `command` of the arguments that returns the exit status."""
    whole = argparse.ArgumentParser(prog="python -m geocompress", description=__doc__.splitlines()[0])
    whole.add_argument("--version", action="version", version=__version__)
    subparsers = whole.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(subparsers)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and return the exit status."""
    arguments = parser().parse_args(argv)
    return arguments.command(arguments)


if __name__ == "__main__":
    sys.exit(main())
