"""Geometric compression of invariant manifolds in neural nets: tasks, flows, kernels and exponents to measure it.

Nothing heavy is imported here: `import geocompress.flow` (and so on) brings in only what that room needs, and the first
use of `geocompress.diagnose` what the diagnostic does.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("geocompress")
_LAZY = {
    "diagnose": "diagnosis"
}  # function of the package → its module, named otherwise so that neither hides the other


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
