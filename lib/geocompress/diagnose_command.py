"""`python -m geocompress diagnose`: a module named by file and function, points in a .npz, a page of HTML."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


def add_diagnose(subparsers: Any) -> None:
    """Declare `diagnose`: look at a net in its saved states and write a page about it."""
    parser = subparsers.add_parser(
        "diagnose",
        help="look at your own network in its saved states; writes one page of HTML",
        description="Runs FILE.py to build the module (so only name a file that you trust), puts it in eval mode and "
        "loads each checkpoint with weights_only=True.",
    )
    parser.add_argument(
        "module", metavar="FILE.py:FUNCTION", help="a function without arguments that returns the module"
    )
    parser.add_argument("data", type=Path, metavar="DATA.npz", help="arrays x and y, and x_test and y_test if you have")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        required=True,
        type=Path,
        metavar="STATE.pt",
        help="files of torch.save(module.state_dict(), …), the initial one first",
    )
    parser.add_argument("--times", nargs="+", type=float, metavar="T", help="epoch or step of each checkpoint")
    parser.add_argument("--holdout", type=Path, metavar="TEST.npz", help="held-out x and y, if not in DATA.npz")
    parser.add_argument(
        "--output", nargs="+", type=int, metavar="K", help="which of several outputs: K, or K L for their difference"
    )
    parser.add_argument("--informative", type=int, metavar="N", help="directions that count as informative")
    parser.add_argument("--memory-gb", type=float, default=1.0, metavar="GB", help="budget in 10⁹ bytes; default: 1")
    parser.add_argument(
        "-o", dest="page", type=Path, default=Path("report.html"), metavar="PAGE.html", help="default: report.html"
    )
    parser.set_defaults(command=run_diagnose)


def run_diagnose(arguments: argparse.Namespace) -> int:
    """Write the page; return 2 for input that is refused."""
    # heavy, and not needed by the other commands
    from geocompress import diagnosis, diagnosis_page

    try:
        if not arguments.page.absolute().parent.is_dir():
            raise ValueError(f"-o: expected a folder that exists, got {arguments.page}; make it first")
        module = build(arguments.module)
        data = arrays(arguments.data)
        x, y = points(data, "x", "y", module, arguments.data)
        report = diagnosis.diagnose(
            module,
            x,
            y,
            checkpoints=arguments.checkpoints,
            times=arguments.times,
            holdout=held_out(arguments, data, module),
            output=None if arguments.output is None else tuple(arguments.output),
            informative=arguments.informative,
            memory_gb=arguments.memory_gb,
        )
        print(diagnosis_page.write_html(report, arguments.page))
    except (ValueError, TypeError, OSError) as refusal:
        print(f"geocompress diagnose: {refusal}", file=sys.stderr)
        return 2
    return 0


def build(place: str) -> nn.Module:
    """The module that a function of a file returns, in eval mode.

    Raises:
        ValueError: not FILE.py:FUNCTION, no such file or function, or one that fails.
        TypeError: a function that returns no module.
    """
    from torch import nn

    file, colon, name = place.rpartition(":")
    path = Path(file)
    if not colon or not name.isidentifier() or path.suffix != ".py" or not path.is_file():
        raise ValueError(f"expected FILE.py:FUNCTION with a file that exists, got {place!r}")
    spec = importlib.util.spec_from_file_location(f"_diagnosed_{path.stem}", path)
    held, module = importlib.util.module_from_spec(spec), None
    sys.modules[spec.name] = held  # where dataclasses, type hints and pickle look for it; it hides no other module
    sys.path.insert(0, str(path.absolute().parent))  # its neighbours, as when Python runs a file
    try:
        spec.loader.exec_module(held)
        factory = getattr(held, name, None)
        if not callable(factory):
            raise ValueError(f"{path}: expected a function {name!r}, got none")
        module = factory()
    except (ValueError, OSError):
        raise
    except Exception as error:  # the file is the user's, and may fail in any way
        raise ValueError(f"{place}: expected a module, got {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
        if not isinstance(module, nn.Module):
            sys.modules.pop(spec.name, None)
    if not isinstance(module, nn.Module):
        raise TypeError(f"{place}: expected a function that returns a torch.nn.Module, got {type(module).__name__}")
    return module.eval()


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a .npz file; nothing in it is run.

    Raises:
        ValueError: another kind of file, or one with pickled objects.
        FileNotFoundError: no such file.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (AttributeError, TypeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected a file of np.savez(path, x=x, y=y), got another ({error})") from error


def points(data: dict[str, np.ndarray], x: str, y: str, module: nn.Module, path: Path) -> tuple[Tensor, Tensor]:
    """Points and labels as tensors: on the device of the module, and points in its dtype unless they are whole numbers.

    Raises:
        ValueError: arrays that are missing or hold no numbers.
    """
    import torch

    home = next(iter(module.parameters()), torch.zeros(1))
    found = []
    for name in (x, y):
        if name not in data or data[name].dtype.kind not in "fiu":
            got = f"{data[name].dtype}" if name in data else f"arrays {', '.join(data) or '(none)'}"
            raise ValueError(f"{path}: expected an array {name!r} of numbers, got {got}")
        whole = data[name].dtype.kind in "iu"
        found.append(torch.from_numpy(data[name].astype("int64" if whole else "float64")).to(home.device))
    return found[0].to(home.dtype) if found[0].is_floating_point() else found[0], found[1]


def held_out(
    arguments: argparse.Namespace, data: dict[str, np.ndarray], module: nn.Module
) -> tuple[Tensor, Tensor] | None:
    """Held-out points, from one file or the other.

    Raises:
        ValueError: from both, or as `points`.
    """
    inside = "x_test" in data or "y_test" in data
    if inside and arguments.holdout is not None:
        raise ValueError(f"--holdout: expected none, because {arguments.data} holds x_test; drop one of the two")
    if inside:
        return points(data, "x_test", "y_test", module, arguments.data)
    if arguments.holdout is None:
        return None
    return points(arrays(arguments.holdout), "x", "y", module, arguments.holdout)
