"""What `diagnosis.diagnose` accepts: refused at the door, with what was expected, what came, and what to do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geocompress.checks import deterministic, integer, real
from geocompress.input_gradients import GradientCovariance

_CALLER = "diagnose"


def module_and_points(module: object, x: object, y: object) -> None:
    """Refuse a module that is no function of single samples, and points and labels that do not fit it or each other.

    Raises:
        TypeError: no module, no tensors, or several dtypes.
        ValueError: nothing to train, noise or batch statistics, two devices, shapes that do not fit, p < 2, or points
            that are not finite.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"{_CALLER}: expected a torch.nn.Module, got {type(module).__name__}; wrap it in one")
    if not any(value.requires_grad and value.numel() for value in module.parameters()):
        raise ValueError(f"{_CALLER}: expected parameters with requires_grad=True, got none; nothing is trained")
    deterministic(module, _CALLER)
    labelled(x, y, "x", "y")
    if len(x) < 2:
        raise ValueError(f"{_CALLER}: expected p ≥ 2 points, got p = {len(x)}; a kernel compares points")
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    homes = {str(value.device) for value in (*tensors.values(), x, y)}
    if len(homes) > 1:
        raise ValueError(
            f"{_CALLER}: expected module, x and y on one device, got {sorted(homes)}; move them with .to()"
        )
    kinds = {value.dtype for value in (*tensors.values(), x) if value.is_floating_point()}
    if len(kinds) > 1:
        found = sorted(map(str, kinds))
        raise TypeError(
            f"{_CALLER}: expected module and x in one floating-point dtype, got {found}; convert with .to()"
        )


def labelled(x: object, y: object, x_name: str, y_name: str) -> None:
    """Refuse what are not points (p, …) with a label (p,) each.

    Raises:
        TypeError: no tensors.
        ValueError: shapes that do not fit, no points, or points that are not finite.
    """
    for name, value in ((x_name, x), (y_name, y)):
        if not isinstance(value, Tensor):
            got = f"{type(value).__name__}; torch.from_numpy and .to(dtype) help"
            raise TypeError(f"{_CALLER}: expected {name} as a torch tensor, got {got}")
    if x.ndim < 1 or y.shape != x.shape[:1] or not len(x):
        got = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"{_CALLER}: expected {x_name} (p, …) and {y_name} (p,) with p ≥ 1, got {got}")
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise ValueError(f"{_CALLER}: expected finite numbers in {x_name}, got nan or inf; remove these points")


def held_out(holdout: object, x: Tensor, y: Tensor) -> int:
    """How many of the held-out points occur in x, after a look at both.

    Raises:
        TypeError: no pair of tensors, or of another dtype than x.
        ValueError: points of another shape or device than x, or nothing but training points.
    """
    if not isinstance(holdout, Sequence) or len(holdout) != 2:
        raise TypeError(f"{_CALLER}: expected holdout as a pair (x_test, y_test), got {type(holdout).__name__}")
    x_test, y_test = holdout
    labelled(x_test, y_test, "holdout x", "holdout y")
    if x_test.shape[1:] != x.shape[1:] or {x_test.device, y_test.device} != {x.device}:
        got = f"{tuple(x_test.shape[1:])} on {x_test.device} and {y_test.device}"
        raise ValueError(f"{_CALLER}: expected holdout points {tuple(x.shape[1:])} on {x.device} like x, got {got}")
    if x_test.dtype != x.dtype:
        raise TypeError(f"{_CALLER}: expected holdout x in {x.dtype} like x, got {x_test.dtype}; convert it")
    _, group = torch.unique(torch.cat([x, x_test]).reshape(len(x) + len(x_test), -1), dim=0, return_inverse=True)
    shared = int(torch.isin(group[len(x) :], group[: len(x)]).sum())
    if shared == len(x_test):
        raise ValueError(
            f"{_CALLER}: expected new points in holdout, got training points only; nothing would be tested"
        )
    return shared


def instants(times: object, count: int) -> list[float]:
    """A number for every checkpoint.

    Raises:
        TypeError: what are no numbers.
        ValueError: another count, or not increasing.
    """
    if times is None:
        return [float(number) for number in range(count)]
    found = [real(value, "times") for value in times]  # type: ignore[attr-defined]
    if len(found) != count or any(a >= b for a, b in itertools.pairwise(found)):
        raise ValueError(f"times: expected {count} increasing numbers, one a checkpoint, got {found}")
    return found


def choice(output: object) -> tuple[int, ...] | None:
    """The chosen outputs: one, or two to subtract.

    Raises:
        TypeError: neither an integer nor a pair of them.
        ValueError: below 0, or twice the same.
    """
    if output is None:
        return None
    chosen = tuple(integer(k, "output", 0) for k in (output if isinstance(output, tuple | list) else (output,)))
    if len(chosen) not in (1, 2) or len(set(chosen)) < len(chosen):
        raise ValueError(f"output: expected k, or (k, l) of two outputs for f_k − f_l, got {output!r}")
    return chosen


def outputs(found: object, count: int, chosen: tuple[int, ...] | None) -> Float[Tensor, "n c"]:
    """Outputs as one row a sample, the chosen ones.

    Raises:
        TypeError: no tensor.
        ValueError: no row for every sample, or fewer outputs than were chosen from.
    """
    if not isinstance(found, Tensor):
        got = f"{type(found).__name__}; wrap the module in one that returns a tensor"
        raise TypeError(f"{_CALLER}: expected a tensor of outputs, got {got}")
    if found.ndim not in (1, 2) or len(found) != count:
        raise ValueError(f"{_CALLER}: expected outputs ({count},) or ({count}, C), got {tuple(found.shape)}")
    rows = found.reshape(count, -1)
    if chosen is None:
        return rows
    if max(chosen) >= rows.shape[1]:
        raise ValueError(f"output: expected numbers below the {rows.shape[1]} outputs of the module, got {chosen}")
    return rows[:, chosen[:1]] - rows[:, chosen[1:]] if len(chosen) == 2 else rows[:, chosen]


def orthonormal(directions: object, x: Tensor) -> Float[Tensor, "k D"]:
    """An orthonormal basis of the space of the named directions, as rows.

    Raises:
        TypeError: no tensor, or points that are whole numbers.
        ValueError: of another shape than points, not finite, linearly dependent, or all of the space.
    """
    if not isinstance(directions, Tensor) or not x.is_floating_point():
        got = type(directions).__name__ if x.is_floating_point() else f"points in {x.dtype}"
        raise TypeError(f"directions: expected a tensor (k, …), for points in floating point, got {got}")
    size = x[0].numel()
    if directions.ndim < 2 or directions[0].numel() != size or not 1 <= len(directions) < size:
        got = tuple(directions.shape)
        raise ValueError(f"directions: expected (k, …) in the shape of points, 1 ≤ k < D = {size}, got {got}")
    rows = directions.flatten(1).to(x)
    if not bool(rows.isfinite().all()) or int(torch.linalg.matrix_rank(rows)) < len(rows):
        raise ValueError("directions: expected finite and linearly independent directions; drop what repeats others")
    return torch.linalg.qr(rows.T)[0].T


def split(informative: object, known: int | None, covariances: list[GradientCovariance]) -> int:
    """How many directions count as informative; 0 where there is nothing to split.

    Raises:
        TypeError, ValueError: not a number of directions, or another one than `directions` holds.
    """
    total = len(covariances[-1].values) if covariances else 1
    if informative is not None:
        told = integer(informative, "informative")
        if told >= total or (known is not None and told != known):
            expected = f"{known}, as many as directions" if known is not None else f"1 ≤ k < D = {total}"
            raise ValueError(f"informative: expected {expected}, got {told}")
        return told
    if total < 2:
        return 0
    return known or min(total - 1, max(1, math.floor(covariances[-1].dimension + 0.5)))
