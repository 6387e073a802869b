"""The products of `OneHidden` with its Jacobian in compiled loops on a processor, without any stored (p, h) array.

Pre-activations are made again from x̃ wherever they are needed, a tile at a time, so they stay in the nearest cache.
Sums are kept in the dtype of the parameters; their order depends on the shapes and on which multipliers are zero, not
on threads. Needs numba (`pip install geocompress[fast]`).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from geocompress import jit, loops

Params = dict[str, Tensor]
FLOATS = (torch.float32, torch.float64)
WORTH = 2**18  # pairs of a point and a neuron that pay for one more thread


def available(params: Params) -> bool:
    """True when numba is installed and the parameters are float32 or float64 on the CPU and ask for no gradient."""
    return jit.numba is not None and all(
        v.is_cpu and v.dtype in FLOATS and not v.requires_grad for v in params.values()
    )


_pool = functools.cache(ThreadPoolExecutor)
if hasattr(os, "register_at_fork"):  # a child inherits the pools without their threads, and would wait for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _spread(kernel: Callable, pairs: int, pieces: int, *arguments: object) -> None:
    """Call the kernel on pieces 0 to `pieces`, in even shares for as many of torch's threads as the work is worth."""
    workers = max(1, min(torch.get_num_threads(), pieces, pairs // WORTH))
    if workers == 1:
        return kernel(*arguments, 0, pieces)
    shares = [(pieces * j // workers, pieces * (j + 1) // workers) for j in range(workers)]
    others = [_pool(workers - 1).submit(kernel, *arguments, *share) for share in shares[1:]]
    kernel(*arguments, *shares[0])
    for other in others:
        other.result()


def _arrays(params: Params) -> tuple[ndarray, ndarray, ndarray]:
    """(ω, b, β) as the loops take them."""
    omega, b, beta = params["omega"].numpy(), params["b"].numpy(), params["beta"].numpy()
    return np.ascontiguousarray(omega), np.ascontiguousarray(b), np.ascontiguousarray(beta)


def distance(before: Params, after: Params) -> float:
    """`networks.OneHidden.distance` in one compiled loop."""
    return math.sqrt(2) / len(before["b"]) * loops.change(*_arrays(before), *_arrays(after))


def _padded(x: ndarray) -> ndarray:
    """The points as the loops take them."""
    return loops.padded(x, np.ones(len(x), x.dtype))[0]


class FusedJacobian:
    """Products with J = k [M β x̃ᵀ, S], k = √2/h, as `networks.OneHiddenJacobian` has them.

    M, S and β belong to the parameters in the tiles `start`, or are averages over the straight line to `end`. `points`
    are those of x̃, `loops.padded`.
    """

    def __init__(self, x: Float[ndarray, "p d1"], points: ndarray, start: ndarray, end: ndarray | None, h: int) -> None:
        self._x, self._points, self._h = x, points, h
        self._bend = (start, start if end is None else end, end is not None)
        self._width, self._scale = -(-h // loops.LANES) * loops.LANES, self._x.dtype.type(math.sqrt(2) / h)

    def pullback(self, cotangent: Float[Tensor, " p"]) -> dict[str, Float[Tensor, "..."]]:
        """Σ_μ v_μ ∇f(x_μ) for multipliers v of shape (p,); points with v_μ = 0 cost nothing."""
        x, v = loops.padded(self._x, np.ascontiguousarray(cotangent.numpy()))
        out = [np.empty(shape, x.dtype) for shape in ((self._h, self._x.shape[1] - 1), self._h, self._h)]
        fixed = (x, v, *self._bend, self._width, self._scale)
        _spread(loops.columns, len(x) * self._h, len(self._bend[0]), *fixed, *out)
        return {k: torch.from_numpy(part) for k, part in zip(("omega", "b", "beta"), out, strict=True)}

    def pushforward(self, tangent: Params) -> Float[Tensor, " p"]:
        """⟨∇f(x_μ), δ⟩ for every point, shape (p,)."""
        return self._sum(loops.tiled(*_arrays(tangent)), True)

    def gram(self, rows: Tensor | None = None) -> Float[Tensor, "s s"]:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ among the points numbered in `rows` (all by default)."""
        return self._inner(*[self._features(rows)] * 2)

    def gram_with(self, other: FusedJacobian) -> Float[Tensor, "p q"]:
        """⟨∇f(x_μ), ∇f(z_ν)⟩ against the points of another linearisation at the same parameters."""
        return self._inner(self._features(None), other._features(None))

    def _sum(self, way: ndarray, hidden: bool) -> Float[Tensor, " p"]:
        out = np.zeros(len(self._points), self._x.dtype)
        self._over_points(loops.rows, self._points, way, hidden, self._width, self._scale, out)
        return torch.from_numpy(out[: len(self._x)])

    def _features(self, rows: Tensor | None) -> tuple[ndarray, ndarray, ndarray]:
        x = self._x if rows is None else self._x[rows.numpy()]
        points = self._points if rows is None else _padded(x)
        out = np.empty((2, len(points), self._h), x.dtype)  # in one: its pages stay mapped when it is freed
        self._over_points(loops.features, points, self._width, *out)
        return out[0][: len(x)], out[1][: len(x)], x

    def _over_points(self, kernel: Callable, points: ndarray, *rest: object) -> None:
        _spread(kernel, len(points) * self._h, len(points) // loops.ROWS, points, *self._bend, *rest)

    def _inner(self, left: tuple[ndarray, ...], right: tuple[ndarray, ...]) -> Float[Tensor, "s t"]:
        # numpy, unlike torch, sees when both factors are one array, and then does half of the work
        readout, hidden, points = (a @ b.T for a, b in zip(left, right, strict=True))
        hidden *= points
        hidden += readout
        return torch.from_numpy(hidden).mul_(self._scale**2)


class FusedLinearisation(FusedJacobian):
    """Outputs and Jacobian of `OneHidden` at fixed parameters: M = 1[z > 0], S = max(0, z), where z_{μn} = w̃_n·x̃_μ."""

    def __init__(self, params: Params, x_augmented: Float[Tensor, "p d1"]) -> None:
        x = np.ascontiguousarray(x_augmented.numpy())
        super().__init__(x, _padded(x), loops.tiled(*_arrays(params)), None, len(params["b"]))

    @functools.cached_property
    def output(self) -> Float[Tensor, " p"]:
        """f(x_μ), shape (p,)."""
        return self._sum(self._bend[0], False)

    def secant(self, end: Params) -> FusedJacobian:
        """The Jacobian averaged over the straight line to `end` so that f(end) − f(W) = J̄ (end − W) without error.

        M̄ = (σ(z') − σ(z)) / (z' − z) = min(1, max(σ(z), σ(z')) / |z' − z|), the share of the way on which the neuron is
        active; S̄ and β̄ are the means of both ends.
        """
        return FusedJacobian(self._x, self._points, self._bend[0], loops.tiled(*_arrays(end)), self._h)
