"""Checks at the door of the library: every message says what was expected, what came, and what to do."""

import math
import operator

import numpy as np

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
