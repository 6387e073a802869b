"""The command line: `python -m geocompress run CHAPTER …` executes a chapter, `… sweep NAME` computes published rows.

A command is a function `add_NAME(subparsers)` that declares its arguments and a function taking them parsed and
returning the exit status; list the first in `COMMANDS`. Bad input ends with status 2 and one message.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geocompress import __version__, checks, grids, notebooks, store, sweep
from geocompress.grids import read_parameters


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
        print(f"geocompress run: {refusal}", file=sys.stderr)
        return 2
    return execute(arguments.chapter, values, arguments.output)


def execute(chapter: str, values: dict[str, Any], output: Path | None) -> int:
    """Start the kernel and say how it ended."""
    # heavy, and not needed to refuse bad input
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        written = notebooks.run_chapter(chapter, values, output)
    except ValueError as refusal:
        print(f"geocompress run: {refusal}", file=sys.stderr)
        return 2
    except PapermillExecutionError as failure:
        print(f"geocompress run: a cell of {chapter!r} failed\n{failure}", file=sys.stderr)
        return 1
    except DeadKernelError as death:
        print(f"geocompress run: {death}; most often memory ran out: try smaller parameters", file=sys.stderr)
        return 1
    print(written)
    return 0


def add_sweep(subparsers: Any) -> None:
    """Declare `sweep`: compute the rows of a published result that are not on disk yet."""
    parser = subparsers.add_parser(
        "sweep", help="compute the missing rows of results/NAME.jsonl, the grid of NAME.yaml"
    )
    parser.add_argument("name", metavar="NAME", help="a result whose grid is results/NAME.yaml")
    parser.add_argument("--jobs", type=int, help="processes; default: by the size and number of runs")
    parser.add_argument("--threads", type=int, help="threads of each process; default: 1; more for few, large runs")
    parser.add_argument("--batch", type=int, help="seeds trained in one set of tensors; default: many on a GPU, else 1")
    parser.add_argument("--device", help="where to compute instead of the device of the grid: cpu, cuda, cuda:1, …")
    parser.add_argument("--retry-failed", action="store_true", help="compute points that failed again")
    parser.set_defaults(command=run_sweep)


def run_sweep(arguments: argparse.Namespace) -> int:
    """Go through a grid, or what is left of it; return 2 for a grid that is refused and 1 when points failed."""
    directory = store.results_directory()
    known = sorted(path.stem for path in directory.glob("*.yaml"))
    try:
        if arguments.name not in known:
            raise ValueError(f"expected the name of a grid among {', '.join(known)}, got {arguments.name!r}")
        values = read_parameters(directory / f"{arguments.name}.yaml")
        if arguments.device is not None:
            values["device"] = arguments.device
        experiment, configs = grids.parse(values)
        told = {name: getattr(arguments, name) for name in ("jobs", "threads", "batch")}
        told = {k: None if v is None else checks.integer(v, f"--{k}") for k, v in told.items()}
    except (ValueError, TypeError, OSError) as refusal:
        print(f"geocompress sweep: {refusal}", file=sys.stderr)
        return 2
    rows = sweep.run(
        experiment.point,
        configs,
        name=arguments.name,
        directory=directory,
        together=experiment.together,
        **told,
        retry_failed=arguments.retry_failed,
    )
    return int((rows.status == sweep.FAILED).any())


COMMANDS = (add_run, add_sweep)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m geocompress", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(subparsers)
    arguments = parser.parse_args(argv)
    return arguments.command(arguments)


if __name__ == "__main__":
    sys.exit(main())
