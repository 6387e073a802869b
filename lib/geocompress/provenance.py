"""Where a number comes from: commit, versions, device and time of a run, and the identity of its configuration."""

import dataclasses
import datetime
import enum
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import types
from pathlib import Path

import torch

PACKAGES = ("torch", "numpy", "scipy", "geocompress")


def repository() -> Path | None:
    """Root of the working tree this library runs from; None when it is installed elsewhere."""
    here = Path(__file__).resolve()
    return here.parents[2] if here.parents[1].name == "lib" else None


def provenance(device: str | torch.device = "cpu", dtype: str | torch.dtype = torch.float64) -> dict:
    """Columns commit, dirty, versions, device, dtype and started (UTC, ISO 8601) of a row computed now.

    `commit` is that of the working tree, read once per process, and `dirty` is true when the library there differs
    from it. A copy without git says it in the variable GEOCOMPRESS_COMMIT, as `git describe --always --dirty
    --abbrev=40` prints it. Both are None where nothing is known.

    Raises:
        ValueError: if the device is unknown or not there.
    """
    told = os.environ.get("GEOCOMPRESS_COMMIT")
    commit, dirty = (told.removesuffix("-dirty"), told.endswith("-dirty")) if told else _git_state()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": _versions(),
        "device": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def check_device(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: if there is no such device, this machine has none, or it holds no numbers ("meta").
    """
    try:
        checked = torch.device(device)
        float(torch.zeros(1, device=checked))
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, TypeError) as error:
        known = "'cpu' or 'cuda'" if torch.cuda.is_available() else "'cpu'"
        raise ValueError(f"device: expected {known} on this machine, got {str(device)!r}") from error
    return checked


def device_name(device: str | torch.device) -> str:
    """Device and what it is, as in "cuda:0 (NVIDIA H200)" or "cpu (… , 2 cores)".

    Raises:
        ValueError: if the device is unknown or not there.
    """
    device = check_device(device)
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({_processor()}, {os.cpu_count()} cores)" if device.type == "cpu" else str(device)


def describe(config: object) -> dict:
    """Fields of a frozen dataclass as plain values: nested ones as dicts, functions and enum members by their name.

    Raises:
        TypeError: if `config` is not an instance of a frozen dataclass, or a field has no lasting description.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type) or not config.__dataclass_params__.frozen:
        raise TypeError(f"config: expected an instance of a frozen dataclass, got {config!r}; add frozen=True")
    return {field.name: _plain_field(getattr(config, field.name), field.name) for field in dataclasses.fields(config)}


def key(config: object) -> str:
    """Identity of a frozen dataclass: 16 hex digits, the same in every process, for every order of the fields.

    Configs that are equal have equal keys (1 and 1.0 are one number). It covers type name and fields, not the code.

    Raises:
        TypeError: as `describe`.
    """
    text = json.dumps([type(config).__qualname__, describe(config)])
    numbers_merged = json.loads(text, parse_float=lambda digits: _whole_if_equal(float(digits)))
    return hashlib.sha256(json.dumps(numbers_merged, sort_keys=True).encode()).hexdigest()[:16]


def _whole_if_equal(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _plain_field(value: object, name: str) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__qualname__} | describe(value)
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, types.FunctionType) and "<" not in value.__qualname__:
        return value.__qualname__
    if isinstance(value, torch.dtype | torch.device | Path):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _plain_field(v, f"{name}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_field(item, name) for item in value]
    if callable(tolist := getattr(value, "tolist", None)):  # numpy and torch, scalars and arrays
        return tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{name}: expected numbers, text, containers, frozen dataclasses or functions of a module, got {value!r}; "
        "a lambda or an object has no description that lasts"
    )


@functools.cache
def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


@functools.cache
def code_version() -> str:
    """Short hash of the library's own sources: rows computed by other code are other rows."""
    library = Path(__file__).parent
    sources = sorted((path.relative_to(library).as_posix(), path) for path in library.rglob("*.py"))
    return hashlib.sha256(b"".join(name.encode() + path.read_bytes() for name, path in sources)).hexdigest()[:12]


@functools.cache
def _git_state() -> tuple[str | None, bool | None]:
    root = repository()
    if root is None:
        return None, None
    try:
        top, commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").split("\n")
        if Path(top).resolve() != root:  # the tree lies inside some other repository, whose commit says nothing here
            return None, None
        return commit, bool(_git(root, "status", "--porcelain", "--", "lib", "pyproject.toml", "requirements.lock"))
    except (OSError, subprocess.SubprocessError, ValueError):  # no git, no commit yet, or not a repository
        return None, None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
