"""Grids in files: a YAML file names an experiment and every point of it.

    experiment: kernel                    # a name in EXPERIMENTS; `network` when left out
    task: stripe                          # one value of a field of its configuration,
    d: [2, 3]                             # or a list of alternatives: every combination is a point
    grids:                                # optional: parts that are added up; each is every combination of its own
      - {p: [128, 256], seed: [0, 1, 2]}  # values and of those above, and a field of its own wins
      - {p: [512], seed: [0]}

A field may take what a published result has for the same task, d, p and seed:

    amplification: {result: stripe-network, column: lambda_star, where: {alpha: 1.0e-6}}

Fields that are left out have their defaults. Points that are equal count once, in the order of the file.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from geocompress import experiments, image_experiments, kernel_experiments, ntk_experiments, provenance, store, sweep
from geocompress.checks import real

EXPERIMENT, PARTS = "experiment", "grids"  # the keys of a file that are no fields
SAMPLE = ("task", "d", "p", "seed")  # fields that say which sample a point is about


class Experiment(NamedTuple):
    """What computes a point, and when its row may be published.

    Attributes:
        config: type of a point, a frozen dataclass.
        point: function of a config that returns its row.
        together: function of many configs that returns their rows, for batches; None where there is none.
        success: status of a row that reached its end.
    """

    config: type
    point: sweep.Point
    together: sweep.Points | None
    success: str

    def within(self, memory_gb: float | None) -> tuple[float | None, sweep.Point]:
        """The budget of memory of a point in 10⁹ bytes, its own default for None, and the function that keeps to it.

        A function that takes a checkpoint is `Resumed`.

        Raises:
            ValueError: if the function takes no budget, or none that is not positive and finite.
        """
        parameters = inspect.signature(self.point).parameters
        budget, point = parameters.get("memory_gb"), self.point
        if memory_gb is not None:
            if budget is None:
                raise ValueError(f"memory_gb: expected none, for {point.__name__} takes no budget, got {memory_gb}")
            memory_gb = real(memory_gb, "memory_gb", 0)
            point = functools.partial(point, memory_gb=memory_gb)
        elif budget is not None:
            memory_gb = budget.default
        return memory_gb, Resumed(point) if "checkpoint" in parameters else point


@dataclasses.dataclass(frozen=True)
class Resumed:
    """A point that goes on from where it was stopped, by a checkpoint under its key in the cache.

    As rows in the cache, checkpoints of each version of the library have a folder of their own.
    """

    point: sweep.Point

    def __call__(self, config: Any) -> Mapping[str, Any]:
        """The row of a config. Where there is no folder to write to, a warning says so and nothing is kept."""
        try:
            folder = store.cache_directory() / provenance.code_version() / "checkpoints"
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(f"no checkpoints are kept: {error}; name a folder by GEOCOMPRESS_CACHE", stacklevel=2)
            return self.point(config)
        return self.point(config, checkpoint=folder / f"{provenance.key(config)}.pt")


EXPERIMENTS: dict[str, Experiment] = {
    "network": Experiment(
        experiments.NetworkConfig, experiments.train_network, experiments.train_networks, success="FITTED"
    ),
    "kernel": Experiment(kernel_experiments.KernelConfig, kernel_experiments.train_kernel, None, success="SEPARATED"),
    "ntk": Experiment(experiments.NetworkConfig, ntk_experiments.train_frozen, None, success="FITTED"),
    "image": Experiment(image_experiments.ImageConfig, image_experiments.train_images, None, success="FITTED"),
}


class Grid(NamedTuple):
    """An experiment and its points, each once."""

    experiment: Experiment
    configs: list[Any]


def published() -> list[str]:
    """Names of the grids in the folder of published rows."""
    return sorted(path.stem for path in store.results_directory().glob("*.yaml"))


def read(path: Path) -> Grid:
    """Read the grid of a file.

    Raises:
        OSError: when it cannot be read.
        TypeError, ValueError: naming the file, when it is no YAML, names no experiment, has a field that the
            configuration of the experiment has not, refuses a value, or holds no point.
    """
    values = read_parameters(path)
    try:
        return parse(values)
    except (TypeError, ValueError) as refusal:
        raise type(refusal)(f"{path}: {refusal}") from None


def parse(values: Mapping[str, Any]) -> Grid:
    """The grid that the content of a file stands for.

    Raises:
        TypeError, ValueError: as `read`.
    """
    name = values.get(EXPERIMENT, "network")
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise ValueError(f"{EXPERIMENT}: expected one of {', '.join(EXPERIMENTS)}, got {name!r}")
    experiment = EXPERIMENTS[name]
    points = [config for part in _parts(values) for config in _points(experiment.config, part)]
    return Grid(experiment, list({provenance.key(config): config for config in points}.values()))


def read_parameters(path: Path) -> dict[str, Any]:
    """Read a YAML file of names and values.

    Raises:
        ValueError: when it is no YAML, or no mapping of names to values.
        OSError: when it cannot be read.
    """
    import yaml  # not needed by the rest of the library

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected YAML, got {error}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        got = type(values).__name__ if not isinstance(values, dict) else f"the names {list(values)}"
        raise ValueError(f"{path}: expected lines `name: value`, got {got}")
    return values


def _parts(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Values of the fields of each part."""
    common = {name: value for name, value in values.items() if name not in (EXPERIMENT, PARTS)}
    parts = values.get(PARTS, [{}])
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{PARTS}: expected a list of parts `- {{name: value, …}}`, got {parts!r}; or leave it out")
    for part in parts:
        fields = common | part
        if not fields:
            raise ValueError("grid: expected at least one field, got none; write for instance `p: [64, 128]`")
        for name, value in fields.items():
            _refuse_text_for_number(name, value)
        yield fields


def _points(config_type: type, fields: dict[str, Any]) -> list[Any]:
    """Configurations of a part: every combination, then what is looked up for each."""
    looked_up = {name: value for name, value in fields.items() if isinstance(value, dict)}
    points = sweep.grid(config_type, **{name: value for name, value in fields.items() if name not in looked_up})
    for name, lookup in looked_up.items():
        if name not in {field.name for field in dataclasses.fields(config_type)}:
            raise TypeError(f"{config_type.__name__}: expected a field, got {name!r}")
        if not {"result", "column"} <= lookup.keys() <= {"result", "column", "where"}:
            raise ValueError(f"{name}: expected {{result: …, column: …, where: …}}, got {lookup}")
        rows = store.load(lookup["result"], missing_ok=True)
        points = [dataclasses.replace(point, **{name: _published(rows, point, lookup)}) for point in points]
    return points


def _published(rows: pd.DataFrame, point: Any, lookup: Mapping[str, Any]) -> float:
    """The number in the one row of a result that belongs to a point."""
    wanted = {name: getattr(point, name) for name in SAMPLE} | lookup.get("where", {})
    if unknown := sorted({*wanted, lookup["column"]} - {*rows}):
        raise ValueError(f"{lookup['result']}: expected columns {', '.join(unknown)}, got none; run its sweep first")
    found = rows[np.logical_and.reduce([rows[name] == value for name, value in wanted.items()])]
    if len(found) != 1:
        raise ValueError(
            f"{lookup['result']}: expected one row with {wanted}, got {len(found)}; "
            "run its sweep first, or say more under `where`"
        )
    return float(found[lookup["column"]].iloc[0])


def _refuse_text_for_number(name: object, value: Any) -> None:
    """YAML 1.1 reads 1e-6 as text."""
    if not isinstance(name, str):
        raise TypeError(f"grid: expected text as the name of a field, got {name!r}")
    for item in value if isinstance(value, list) else [value]:
        try:
            number = float(item) if isinstance(item, str) else None
        except ValueError:
            continue
        if number is not None:
            raise ValueError(f"{name}: expected a number, got the text {item!r}; in YAML write {_yaml_number(number)}")


def _yaml_number(number: float) -> str:
    """A number as YAML reads it: with a point before an exponent, and before a word."""
    text = repr(number)
    if not math.isfinite(number):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if exponent else text
