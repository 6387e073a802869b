"""Compilation by numba (`pip install geocompress[fast]`); without it the same functions run as they are written."""

from __future__ import annotations

import inspect
from collections.abc import Callable

try:
    import numba
except ImportError:
    numba = None


def compiled(function: Callable) -> Callable:
    """The function, compiled to run without the interpreter's lock, where numba is installed."""
    function = inspect.unwrap(function)  # a type checker may have wrapped it, which numba cannot compile
    # sums may be reordered and contracted, but nan keeps its meaning: a net that diverged says so
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
    try:
        return numba.njit(function, cache=True, **options) if numba else function
    except RuntimeError:  # numba found no place for its cache
        return numba.njit(function, **options)
