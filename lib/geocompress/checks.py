"""Checks at the door of the library: every message says what was expected, what came, and what to do."""

import math
import operator

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

Whole = int | np.integer  # what an argument that counts may be
Real = float | np.floating | Whole  # what an argument that measures may be


def integer(value: object, name: str, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum`.

    numpy integers are welcome; booleans, floats and strings are not, even when they are whole.

    Raises:
        TypeError: if `value` is not an integer.
        ValueError: if it is smaller than `minimum`.
    """
    try:
        if isinstance(value, bool):
            raise TypeError("a boolean counts nothing")
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name}: expected an integer ≥ {minimum}, got {value!r} ({type(value).__name__}); convert it with int(…)"
        ) from None
    if number < minimum:
        raise ValueError(f"{name}: expected an integer ≥ {minimum}, got {number}; choose {minimum} or more")
    return number


def real(value: object, name: str, low: Real = -math.inf, high: Real = math.inf) -> float:
    """Return `value` as a float in the open interval (low, high), so a finite one.

    Raises:
        TypeError: if `value` is not a real number.
        ValueError: if it is nan, infinite or outside the interval.
    """
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError("text and booleans are no numbers here")
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: expected a real number in ({low:g}, {high:g}), got {value!r} ({type(value).__name__})"
        ) from None
    if not low < number < high:
        raise ValueError(f"{name}: expected a finite number in ({low:g}, {high:g}), got {number!r}")
    return number


def training_data(params: dict[str, Tensor], x: object, y: object, *, caller: str) -> None:
    """Refuse what no flow can train on, in the name of `caller`.

    Raises:
        TypeError: x, y or the parameters are not floating-point tensors of one dtype.
        ValueError: shapes that do not fit, numbers that are not finite, labels other than ±1, or one class only.
    """
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise TypeError(f"{caller}: x and y must be torch tensors, got {type(x).__name__} and {type(y).__name__}")
    dtypes = {x.dtype, y.dtype, *(value.dtype for value in params.values())}
    if len(dtypes) != 1 or not x.dtype.is_floating_point:
        raise TypeError(f"{caller}: x, y and parameters must share one floating-point dtype, got {dtypes}")
    if x.ndim < 2 or y.shape != x.shape[:1] or len(x) < 1:
        got = f"{tuple(x.shape)}, {tuple(y.shape)}"
        raise ValueError(f"{caller}: expected x (p, d) or (p, channels, …) and y (p,) with p ≥ 1, got {got}")
    if not all(bool(value.isfinite().all()) for value in (x, y, *params.values())):
        raise ValueError(f"{caller}: x, y and parameters must be finite; remove nan and inf first")
    labels = set(y.unique().tolist())
    if not labels <= {-1.0, 1.0}:
        raise ValueError(f"{caller}: labels must be −1 or +1, got {sorted(labels)[:5]}; map your classes to ±1")
    if len(labels) < 2:
        raise ValueError(f"{caller}: both classes must be present, all {len(y)} labels are {labels.pop():+.0f}")


def deterministic(module: nn.Module, caller: str) -> None:
    """Refuse, in the name of `caller`, layers whose output for a sample depends on chance or on the other samples.

    Raises:
        ValueError: names the first such layer.
    """
    for name, layer in module.named_modules():
        on_batch = isinstance(layer, _NormBase) and (layer.training or layer.running_mean is None)
        if on_batch and not (isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.running_mean is None):
            reason = "normalises by the statistics of the batch"
        elif layer.training and (_drops(layer, "p") if isinstance(layer, _DropoutNd) else _drops(layer, "dropout")):
            reason = "drops units at random"
        else:
            continue
        raise ValueError(
            f"{caller}: layer {name or 'itself'!r} ({type(layer).__name__}) {reason}; expected a "
            "function of one sample; call module.eval() first, with running statistics for normalisation"
        )


def _drops(layer: nn.Module, name: str) -> bool:
    rate = getattr(layer, name, 0.0)
    return isinstance(rate, float) and rate > 0
