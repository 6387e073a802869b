"""Files of one JSON object a line that outlive a crash: whole lines, locks, and doubtful bytes moved aside.

A line is trusted when it is strict JSON and the caller's `distrust` finds no fault with it. The others are never used
and never deleted: they can be moved, byte for byte, to NAME.rejected-HASH next to the file.
"""

import contextlib
import enum
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no POSIX: lines are still written whole, but let one process at a time write
    fcntl = None

Distrust = Callable[[Any], str | None]  # why a decoded line is not a row; None if it is one


class RejectedLines(UserWarning):
    """Lines of a file that are not trusted: set aside, never deleted."""


def plain(row: object) -> dict:
    """Values of a row as strict JSON: numpy and torch as numbers and lists, enum members by name, nan and ±inf as None.

    Raises:
        TypeError: naming the column, if a value or a key is none of these.
    """
    if not isinstance(row, Mapping):
        raise TypeError(f"row: expected a mapping from column to value, got {type(row).__name__}")
    return {_column(name): _plain(value, name) for name, value in row.items()}


def _column(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"row: expected text as the name of a column, got {name!r}")
    return name


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_column(name): _plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if callable(tolist := getattr(value, "tolist", None)):  # numpy and torch, scalars and arrays
        return _plain(tolist(), where)
    raise TypeError(f"column {where}: expected numbers, text, lists or dicts, got {type(value).__name__}; convert it")


def encode(row: dict) -> bytes:
    """One line of strict JSON for a row of plain values."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def append_line(path: Path, line: bytes) -> None:
    """Write a line to the end of a file, on disk when this returns: one write, under a lock.

    A last line without its end is closed when it is a whole object, else moved aside.

    Raises:
        OSError: if the disk refuses the line; the file is then as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, exclusive=True) as descriptor:
        separator, doubtful = _finish_last_line(path, descriptor)
        line = separator + line
        size = os.fstat(descriptor).st_size
        try:
            if (written := os.write(descriptor, line)) != len(line):
                raise OSError(f"{path}: only {written} of {len(line)} bytes were written; is the disk full?")
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        if size == 0:
            _sync_directory(path.parent)
    if doubtful:  # said when the new line is safe, for a warning may be made an error
        _warn(path, doubtful, "moved aside, next to the file")


def read_rows(path: Path, distrust: Distrust) -> list[dict]:
    """Trusted rows in the order of the file, which stays as it is; the other lines are named in a warning."""
    with _opened(path, os.O_RDONLY, exclusive=False) as descriptor:
        rows, rejected = _sorted_lines(_content(descriptor), distrust)
    if rejected:
        _warn(path, rejected, "ignored and left in place; store.repair moves them aside")
    return rows


def move_aside(path: Path, distrust: Distrust) -> Path | None:
    """Move the lines that are not trusted to NAME.rejected-HASH and return that path; None if there is none.

    They are on disk there before the file is replaced, so a crash in between loses nothing.
    """
    with _opened(path, os.O_RDWR, exclusive=True) as descriptor:
        content = _content(descriptor)
        _, rejected = _sorted_lines(content, distrust)
        if not rejected:
            return None
        aside = _set_aside(path, b"".join(line + b"\n" for _, line, _ in rejected))
        numbers = {number for number, _, _ in rejected}
        kept = [line for number, line in enumerate(content.split(b"\n"), 1) if line.strip() and number not in numbers]
        _replace(path, b"".join(line + b"\n" for line in kept))
    _warn(path, rejected, f"moved to {aside.name}")
    return aside


def _sorted_lines(content: bytes, distrust: Distrust) -> tuple[list[dict], list[tuple[int, bytes, str]]]:
    """Trusted rows, and (line number, bytes, reason) of the other lines."""
    rows, rejected = [], []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        row, reason = _decoded(line)
        if reason := reason or distrust(row):
            rejected.append((number, line, reason))
        else:
            rows.append(row)
    return rows, rejected


def _decoded(line: bytes) -> tuple[Any, str | None]:
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: bad UTF-8 and bad JSON alike
        return None, f"no JSON: {error}"
    return (row, None) if isinstance(row, dict) else (None, f"expected an object, got {type(row).__name__}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finish_last_line(path: Path, descriptor: int) -> tuple[bytes, list[tuple[int, bytes, str]]]:
    """Give what must precede the next line, and the unfinished last line if it was cut off (it is kept elsewhere)."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return b"", []
    content = _content(descriptor)
    start = content.rfind(b"\n") + 1
    row, reason = _decoded(content[start:])
    if row is not None:
        return b"\n", []
    _set_aside(path, content[start:] + b"\n")
    os.ftruncate(descriptor, start)
    return b"", [(content.count(b"\n") + 1, content[start:], f"unfinished, {reason}")]


@contextlib.contextmanager
def _opened(path: Path, flags: int, *, exclusive: bool) -> Iterator[int]:
    """Descriptor of a file under a lock (shared unless `exclusive`), of the file that the path names now."""
    while True:
        descriptor = os.open(path, flags, 0o644)
        try:
            _lock(path, descriptor, exclusive)
            # while this process waited, another may have replaced the file: a line written to the old one is lost
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _lock(path: Path, descriptor: int, exclusive: bool) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    except OSError as error:  # some network file systems have no locks, and rows could mix there
        raise OSError(
            error.errno, f"expected a file system with locks, got {error.strerror}; use a local folder", str(path)
        ) from error


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def _set_aside(path: Path, content: bytes) -> Path:
    # named after its content: doing it again after a crash makes no second copy
    aside = path.with_name(f"{path.name}.rejected-{hashlib.sha256(content).hexdigest()[:12]}")
    _replace(aside, content)
    return aside


def _replace(path: Path, content: bytes) -> None:
    """Give a file its whole content at once: a crash leaves the old one or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _warn(path: Path, rejected: list[tuple[int, bytes, str]], fate: str) -> None:
    shown = "; ".join(f"line {number}: {reason}" for number, _, reason in rejected[:5])
    more = f"; and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    message = f"{path}: {len(rejected)} line(s) not trusted, {fate} ({shown}{more})"
    warnings.warn(message, RejectedLines, stacklevel=4)
