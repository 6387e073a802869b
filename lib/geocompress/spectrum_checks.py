"""What has no spectrum worth asking for: refused at the door, in the name of the argument."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

Numbers = Tensor | ArrayLike


def gram(values: Numbers, name: str) -> np.ndarray:
    """The Gram as a float64 array, refused unless it is square, finite and symmetric, on two points or more."""
    gram = array(values, name, 2)
    if gram.shape[0] != gram.shape[1] or len(gram) < 2:
        raise ValueError(f"{name}: expected a Gram (p, p) on p ≥ 2 points, got {gram.shape}")
    asymmetry = max(float(np.abs(gram[i : i + 256] - gram[:, i : i + 256].T).max()) for i in range(0, len(gram), 256))
    if asymmetry > 10 * len(gram) * np.finfo(float).eps * float(np.abs(gram).max()):
        raise ValueError(
            f"{name}: expected a symmetric Gram, got K − Kᵀ of {asymmetry:.2g}; average it with its transpose"
        )
    return gram


def target(y: Numbers, p: int, name: str) -> np.ndarray:
    """The target as a float64 array with one number for each of p points, not all of them zero."""
    y = array(y, name, 1)
    if len(y) != p or not y.any():
        got = f"shape {y.shape}" if len(y) != p else "zeros only"
        raise ValueError(f"{name}: expected one number a point, shape ({p},), not all zero, got {got}")
    return y


def array(values: Numbers, name: str, ndim: int) -> np.ndarray:
    """Finite float64 numbers with this many axes."""
    held = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if held.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers, got {held.dtype}")
    if held.ndim != ndim or not held.size:
        raise ValueError(f"{name}: expected an array with {ndim} axes that is not empty, got shape {held.shape}")
    if not np.isfinite(held).all():
        raise ValueError(f"{name}: expected finite numbers, got nan or inf; look at where they come from")
    return held.astype(np.float64, copy=False)
