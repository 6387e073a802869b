"""Chapters as programs: find them, read the parameters they declare, refuse wrong ones, run them through papermill.

A chapter is `chapters/NAME.py` (percent format), paired with the committed `chapters/NAME.ipynb`. One cell is tagged
`parameters`; it holds nothing but assignments of literals, and its defaults are the quick scale:

    # %% tags=["parameters"]
    d = 5                                 # int: another int is accepted
    alpha = 1e-6                          # float: an int is accepted as well
    p_grid = [64, 128]                    # list: of ints, because the default's elements are
    device: str | None = None             # an annotation says what a default alone cannot

The next cell of the chapter holds one line, which refuses a misspelt name or a wrong type also when papermill is called
without this library's command line (papermill itself only warns):

    # %% tags=["hide-cell"]
    notebooks.check_parameters("stripe")
"""

import ast
import builtins
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geocompress

PARAMETERS_TAG = "parameters"
CELL_TIMEOUT_S = 24 * 3600  # a full-scale cell may take hours; a dead kernel is noticed without waiting for this


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its name, its default and the annotation beside it (None when there is none)."""

    name: str
    default: Any
    annotation: Any = None

    def expected(self) -> str:
        """Say in words which values are accepted."""
        if self.annotation is not None:
            return getattr(self.annotation, "__name__", None) or str(self.annotation)
        if isinstance(self.default, list | tuple) and self.default:
            inner = " or ".join(sorted({type(item).__name__ for item in self.default}))
            return f"list of {inner}"
        return "anything" if self.default is None else type(self.default).__name__

    def accepts(self, value: Any) -> bool:
        """True when the value is of the declared type: int passes for float, bool never passes for a number."""
        if self.annotation is not None:
            return _matches(value, self.annotation)
        if isinstance(self.default, list | tuple):
            kinds = {type(item) for item in self.default}
            fits = all(any(_matches(item, kind) for kind in kinds) for item in value) if _is_list(value) else False
            return fits or (_is_list(value) and not kinds)
        return self.default is None or _matches(value, type(self.default))


def chapters_folder() -> Path:
    """Return the folder of the chapters: GEOCOMPRESS_CHAPTERS, or the one of the tree this library is installed from.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    named = os.environ.get("GEOCOMPRESS_CHAPTERS")
    folder = Path(named) if named else Path(geocompress.__file__).resolve().parents[2] / "chapters"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"expected the folder of the chapters, got {folder}, which does not exist; "
            "name it in the environment variable GEOCOMPRESS_CHAPTERS"
        )
    return folder


def list_chapters() -> list[str]:
    """Return the names of all chapters, sorted."""
    return sorted(path.stem for path in chapters_folder().glob("*.py"))


def chapter_path(name: str) -> Path:
    """Return the path of a chapter's text, `NAME.py`.

    Raises:
        ValueError: when no chapter has this name.
    """
    known = list_chapters()
    if name not in known:
        raise ValueError(f"expected a chapter among {', '.join(known) or '(none)'}, got {name!r}")
    return chapters_folder() / f"{name}.py"


def declared_parameters(name: str) -> dict[str, Parameter]:
    """Read the parameters cell of a chapter, without running anything.

    Raises:
        ValueError: when the chapter is unknown, or its parameters cell is missing or holds more than assignments.
    """
    import jupytext  # only where a notebook is read: `import geocompress.notebooks` stays light

    path = chapter_path(name)
    cells = [c for c in jupytext.read(path).cells if PARAMETERS_TAG in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{path.name}: expected one cell tagged {PARAMETERS_TAG!r}, got {len(cells)}")
    return parse_parameters(cells[0].source, where=path.name)


def parse_parameters(source: str, where: str = "parameters cell") -> dict[str, Parameter]:
    """Turn the source of a parameters cell into `Parameter`s, in their order.

    Raises:
        ValueError: when a statement is not the assignment of a literal to one name.
    """
    found = {}
    for statement in ast.parse(source).body:
        targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
        try:
            (target,) = targets
            default = ast.literal_eval(statement.value)
            annotation = _annotation(getattr(statement, "annotation", None))
            found[target.id] = Parameter(target.id, default, annotation)
        except (AttributeError, ValueError, NameError, TypeError):
            raise ValueError(
                f"{where}: expected `name = literal` in the parameters cell, got `{ast.unparse(statement)}`; "
                "compute it in a later cell"
            ) from None
    return found


def validate_parameters(name: str, values: Mapping[str, Any]) -> None:
    """Refuse values that do not fit what the chapter declares; nothing is run.

    Raises:
        ValueError: when the chapter or a parameter is unknown.
        TypeError: when a value is of another type than the declared default (or annotation).
    """
    _validate(name, declared_parameters(name), values)


def check_parameters(name: str) -> None:
    """Refuse, from inside a running chapter, parameters that papermill injected with a wrong name or type.

    Call it in the cell after the parameters. It looks at the caller's variables, and at the cell that papermill
    injected (its first line is `# Parameters`), because an unknown name would otherwise pass in silence.

    Raises:
        ValueError: when an injected name is not a parameter of the chapter.
        TypeError: when a value is of another type than the declared default (or annotation).
    """
    declared = declared_parameters(name)
    variables = sys._getframe(1).f_globals
    injected = [cell for cell in variables.get("In", []) if cell.startswith("# Parameters\n")]
    names = {target for cell in injected for target in _assigned(cell)} | declared.keys()
    _validate(name, declared, {key: variables[key] for key in sorted(names) if key in variables})


def parse_value(parameter: Parameter, text: str) -> Any:
    """Read a value typed on the command line as a Python literal; what is none is a string.

    `true`, `false` and `null` are understood as well; a parameter whose default is a string takes the text as it is.
    """
    if parameter.expected() == "str":
        return text
    words = {"true": True, "false": False, "null": None, "none": None, "nan": float("nan"), "inf": float("inf")}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def run_chapter(name: str, values: Mapping[str, Any], output: Path | None = None) -> Path:
    """Execute a chapter with the given parameters into a notebook of its own, and return its path.

    Args:
        name: the chapter.
        values: parameters that differ from the defaults.
        output: where the executed notebook goes; by default `results/cache/runs/NAME.ipynb` of the tree.

    Raises:
        ValueError: unknown chapter or parameter, or an output among the committed chapters.
        TypeError: a value of the wrong type.
        papermill.PapermillExecutionError: a cell failed; the notebook holds its traceback.
    """
    import jupytext
    import papermill

    validate_parameters(name, values)
    folder = chapters_folder().resolve()
    output = Path(output or folder.parent / "results" / "cache" / "runs" / f"{name}.ipynb").absolute()
    if output.resolve().is_relative_to(folder):
        raise ValueError(
            f"expected an output outside of {folder.name}/, got {output}; a run never overwrites a chapter"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    # the kernel of this very environment, not one of the same name that the user has elsewhere
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = jupytext.read(chapter_path(name))
    papermill.execute_notebook(
        notebook,
        output,
        parameters=dict(values),
        kernel_name="python3",
        language="python",
        progress_bar=sys.stderr.isatty(),
        execution_timeout=CELL_TIMEOUT_S,
    )
    return output


def _validate(name: str, declared: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in declared:
            raise ValueError(f"chapter {name!r}: expected a parameter among {', '.join(declared)}, got {key!r}")
        if not declared[key].accepts(value):
            hint = f"; for a number write {float(value)!r}" if _reads_as_number(value) else ""
            raise TypeError(
                f"chapter {name!r}, parameter {key!r}: expected {declared[key].expected()} "
                f"(the default is {declared[key].default!r}), got {type(value).__name__} {value!r}{hint}"
            )


def _matches(value: Any, kind: Any) -> bool:
    """Test a value against a type, a union, or a list[...] annotation."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, option) for option in typing.get_args(kind))
    if origin in (list, tuple) or kind in (list, tuple):
        inner = [option for option in typing.get_args(kind) if option is not Ellipsis]
        return _is_list(value) and all(not inner or any(_matches(item, k) for k in inner) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if kind in (None, type(None)) else isinstance(value, origin or kind)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)


def _annotation(node: ast.expr | None) -> Any:
    """Evaluate an annotation made of built-in types (`int | None`, `list[float]`)."""
    return None if node is None else eval(ast.unparse(node), {"__builtins__": vars(builtins)})


def _assigned(source: str) -> Iterable[str]:
    statements = ast.parse(source).body
    return [target.id for s in statements if isinstance(s, ast.Assign) for target in s.targets]
