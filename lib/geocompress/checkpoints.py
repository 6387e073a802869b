"""Saved states of a module: read without running what is in a file, and held against the module they belong to."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

SHOWN = 5  # names in a message
WRAPPED = "module."  # what nn.DataParallel puts before every name
Source = Mapping[str, Tensor] | str | os.PathLike


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One state of a module.

    Attributes:
        name: for readers.
        tensors: parameters and buffers by the names of the module, those that are not saved included.
    """

    name: str
    tensors: dict[str, Tensor]


def read(sources: object, module: nn.Module, names: object = None) -> list[Checkpoint]:
    """States in order, every one a dictionary of tensors or the path of a file that `torch.save` wrote of one.

    Files are loaded with `weights_only=True`, which runs nothing, onto the device of the module.

    Args:
        sources: a sequence of states; None is the module as it is.
        module: what they belong to; it is not written to.
        names: one for each; None takes the stems of the files, and numbers for dictionaries.

    Raises:
        TypeError: no sequence, or a state that is neither, or of another dtype than the module.
        ValueError: none, a file that is no state_dict, a state of another architecture (names are listed), on another
            device or not finite, or names that are not one for each.
        FileNotFoundError: a file that does not exist.
    """
    if sources is None:
        sources, names = [module.state_dict()], ["as it is"] if names is None else names
    if not isinstance(sources, Sequence) or isinstance(sources, str | bytes):
        got = f"{type(sources).__name__}; pass a list, the initial state first and the final one last"
        raise TypeError(f"checkpoints: expected a list of state_dicts or of paths, got {got}")
    if not sources:
        raise ValueError("checkpoints: expected at least one state, got none; None takes the module as it is")
    names = [_name(source, number) for number, source in enumerate(sources)] if names is None else list(names)
    if len(names) != len(sources) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"names: expected one text for each of {len(sources)} checkpoints, got {names!r}")
    return [
        Checkpoint(name, _fitting(_tensors(source, module, name), module, name))
        for name, source in zip(names, sources, strict=True)
    ]


def _name(source: object, number: int) -> str:
    return Path(source).stem if isinstance(source, str | os.PathLike) else f"state {number}"


def _tensors(source: object, module: nn.Module, name: str) -> dict[str, Tensor]:
    if isinstance(source, str | os.PathLike):
        name, source = str(source), _loaded(Path(source), module)
    elif not isinstance(source, Mapping):
        raise TypeError(f"checkpoint {name!r}: expected a state_dict or a path, got {type(source).__name__}")
    foreign = [key for key, value in source.items() if not isinstance(value, Tensor)] if _is_dict(source) else None
    if foreign is None or foreign or not source:
        held = type(source).__name__ if foreign is None else f"entries {', '.join(map(repr, foreign[:SHOWN]))}"
        raise ValueError(
            f"checkpoint {name!r}: expected a dictionary of tensors, got {held if source else 'an empty one'}; save "
            "module.state_dict() alone, or pass that entry of a larger dictionary"
        )
    return dict(source)


def _is_dict(source: object) -> bool:
    return isinstance(source, Mapping)


def _loaded(path: Path, module: nn.Module) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r}: expected a file, got none there")
    home = next((value.device for value in module.parameters()), torch.device("cpu"))
    try:
        return torch.load(path, map_location=home, weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"checkpoint {str(path)!r}: expected a file of torch.save(module.state_dict(), path) that loads with "
            f"weights_only=True, got one that does not ({first[:120]}); save the state_dict alone"
        ) from error


def _fitting(tensors: dict[str, Tensor], module: nn.Module, name: str) -> dict[str, Tensor]:
    """The state of all of the module's tensors, after a look at every one that was given."""
    own = module.state_dict()
    missing, unexpected = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    apart = [
        f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
        for key, value in tensors.items()
        if key in own and value.shape != own[key].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": apart}
    if found := [f"{word}: {_listed(keys)}" for word, keys in problems.items() if keys]:
        wrapped = unexpected and all(key.startswith(WRAPPED) for key in tensors)
        remedy = f"drop {WRAPPED!r} before every name" if wrapped else "pass the states of this very architecture"
        raise ValueError(
            f"checkpoint {name!r}: expected the tensors of this {type(module).__name__}, got {'; '.join(found)}; "
            f"{remedy}"
        )
    for key, value in tensors.items():
        expected = own[key]
        if value.dtype != expected.dtype:
            raise TypeError(f"checkpoint {name!r}: expected {key} in {expected.dtype}, got {value.dtype}; convert it")
        if value.device != expected.device:
            got = f"{value.device}; move it with .to({str(expected.device)!r})"
            raise ValueError(f"checkpoint {name!r}: expected {key} on {expected.device} like the module, got {got}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"checkpoint {name!r}: expected finite numbers in {key}, got nan or inf; take an earlier one"
            )
    _refuse_apart(tensors, module, name)
    unsaved = {key: value.detach() for key, value in module.named_buffers(remove_duplicate=False) if key not in own}
    return {**unsaved, **{key: value.detach() for key, value in tensors.items()}}


def _refuse_apart(tensors: dict[str, Tensor], module: nn.Module, name: str) -> None:
    """Refuse two values for a parameter that the module shares under two names."""
    first = {}
    for key, value in module.named_parameters(remove_duplicate=False):
        original = first.setdefault(id(value), key)
        if not torch.equal(tensors[key], tensors[original]):
            raise ValueError(
                f"checkpoint {name!r}: expected one value of {original}, which the module shares as {key}, got two; "
                "pass the states of this very architecture"
            )


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
