"""Geometric compression of invariant manifolds in neural nets: tasks, flows, kernels and exponents to measure it.

Nothing heavy is imported here: `import geocompress.flow` (and so on) brings in only what that room needs.
"""

from importlib.metadata import version

__version__ = version("geocompress")
