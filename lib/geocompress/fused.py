"""The products of `OneHidden` with its Jacobian in compiled loops on a processor, without any stored (p, h) array.

Pre-activations are made again from x̃ wherever they are needed, a tile at a time, so they stay in the nearest cache.
Sums are kept in the dtype of the parameters; their order depends on the shapes and on which multipliers are zero, not
on threads. Needs numba (`pip install geocompress[fast]`).
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

try:
    import numba
except ImportError:
    numba = None

Params = dict[str, Tensor]
FLOATS = (torch.float32, torch.float64)
ROWS, COLUMNS = 4, 3  # points and columns of x̃ that share one reading of a tile; the loops are written out for these
TILE, LANES = 256, 32  # neurons of a tile; the last one ends on a multiple of LANES, so that loops have no scalar rest
WORTH = 2**18  # pairs of a point and a neuron that pay for one more thread


def available(params: Params) -> bool:
    """True when numba is installed and the parameters are float32 or float64 on the CPU and ask for no gradient."""
    return numba is not None and all(v.is_cpu and v.dtype in FLOATS and not v.requires_grad for v in params.values())


def _kernel(function: Callable) -> Callable:
    """The function, compiled to run without the interpreter's lock, where numba is installed."""
    function = inspect.unwrap(function)  # a type checker may have wrapped it, which numba cannot compile
    # sums may be reordered and contracted, but nan keeps its meaning: a net that diverged says so
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
    try:
        return numba.njit(function, cache=True, **options) if numba else function
    except RuntimeError:  # numba found no place for its cache
        return numba.njit(function, **options)


@_kernel
def _project(x, i, w, t, width, z):
    """z[r, n] = Σ_k x[i + r, k] w[t, k, n] for `ROWS` points and the first `width` neurons of tile t."""
    z[:, :width] = 0
    for k in range(0, x.shape[1], COLUMNS):
        a0, a1, a2 = x[i, k], x[i, k + 1], x[i, k + 2]
        b0, b1, b2 = x[i + 1, k], x[i + 1, k + 1], x[i + 1, k + 2]
        c0, c1, c2 = x[i + 2, k], x[i + 2, k + 1], x[i + 2, k + 2]
        d0, d1, d2 = x[i + 3, k], x[i + 3, k + 1], x[i + 3, k + 2]
        for n in range(width):
            w0, w1, w2 = w[t, k, n], w[t, k + 1, n], w[t, k + 2, n]
            z[0, n] += a0 * w0 + a1 * w1 + a2 * w2
            z[1, n] += b0 * w0 + b1 * w1 + b2 * w2
            z[2, n] += c0 * w0 + c1 * w1 + c2 * w2
            z[3, n] += d0 * w0 + d1 * w1 + d2 * w2


@_kernel
def _bend(x, i, w, end, secant, t, width, slope, active):
    """Slopes M and activations S of a block: of w, or averaged over the line to `end` (see `FusedLinearisation`)."""
    zero, one, half, tiny = x.dtype.type(0), x.dtype.type(1), x.dtype.type(0.5), np.finfo(x.dtype).tiny
    _project(x, i, w, t, width, slope)
    if secant:
        _project(x, i, end, t, width, active)
    for r in range(ROWS):
        if secant:
            for n in range(width):  # comparisons are written so that nan passes
                a, b = slope[r, n], active[r, n]
                up, vp = zero if a <= zero else a, zero if b <= zero else b
                share = max(up, vp) / (abs(a - b) + tiny)
                slope[r, n], active[r, n] = one if share >= one else share, half * (up + vp)
        else:
            for n in range(width):
                a = slope[r, n]
                slope[r, n], active[r, n] = one if a > zero else zero, zero if a <= zero else a


@_kernel
def _rows(x, w, end, secant, beta, way, hidden, h, out, first, last):
    """out_μ += Σ_n (S_{μn} beta_n + M_{μn} x̃_μ·way_n) for blocks of points; the first half alone if not `hidden`."""
    z, active, y = np.empty((ROWS, TILE), x.dtype), np.empty((ROWS, TILE), x.dtype), np.empty((ROWS, TILE), x.dtype)
    zero = x.dtype.type(0)
    for t in range(len(w)):
        width = min(TILE, h - t * TILE)
        for i in range(first * ROWS, last * ROWS, ROWS):
            if hidden:
                _bend(x, i, w, end, secant, t, width, z, active)
                _project(x, i, way, t, width, y)
            else:
                _project(x, i, w, t, width, z)
            for r in range(ROWS):
                total = zero
                if hidden:
                    for n in range(width):
                        total += active[r, n] * beta[t, n] + z[r, n] * y[r, n]
                else:
                    for n in range(width):
                        total += beta[t, n] * (zero if z[r, n] <= zero else z[r, n])
                out[i + r] += total


@_kernel
def _columns(x, v, w, end, secant, h, out, first, last):
    """out[t, k, n] += Σ_μ M_{μn} v_μ x̃_μk, and Σ_μ v_μ S_{μn} in the row after these, for a range of tiles."""
    slope, active = np.empty((ROWS, TILE), x.dtype), np.empty((ROWS, TILE), x.dtype)
    columns = x.shape[1]
    for t in range(first, last):
        width = min(TILE, h - t * TILE)
        for i in range(0, len(x), ROWS):
            _bend(x, i, w, end, secant, t, width, slope, active)
            v0, v1, v2, v3 = v[i], v[i + 1], v[i + 2], v[i + 3]
            for n in range(width):
                out[t, columns, n] += v0 * active[0, n] + v1 * active[1, n] + v2 * active[2, n] + v3 * active[3, n]
            for k in range(columns):
                a, b, c, d = v0 * x[i, k], v1 * x[i + 1, k], v2 * x[i + 2, k], v3 * x[i + 3, k]
                for n in range(width):
                    out[t, k, n] += a * slope[0, n] + b * slope[1, n] + c * slope[2, n] + d * slope[3, n]


@_kernel
def _features(x, w, end, secant, beta, h, activations, slopes, first, last):
    """Rows of S (p, h) and of M beta (p, h) for blocks of points."""
    slope, active = np.empty((ROWS, TILE), x.dtype), np.empty((ROWS, TILE), x.dtype)
    for t in range(len(w)):
        width = min(TILE, h - t * TILE)
        for i in range(first * ROWS, last * ROWS, ROWS):
            _bend(x, i, w, end, secant, t, width, slope, active)
            for r in range(ROWS):
                s, m = activations[i + r, t * TILE :], slopes[i + r, t * TILE :]
                for n in range(min(width, len(s))):  # the padding stays out
                    s[n], m[n] = active[r, n], slope[r, n] * beta[t, n]


_pool = functools.cache(ThreadPoolExecutor)
if hasattr(os, "register_at_fork"):  # a child inherits the pools without their threads, and would wait for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _spread(kernel: Callable, pairs: int, pieces: int, *arguments: object) -> None:
    """Call the kernel on pieces 0 to `pieces`, in even shares for as many of torch's threads as the work is worth."""
    workers = max(1, min(torch.get_num_threads(), pieces, pairs // WORTH))
    shares = list(itertools.pairwise(pieces * j // workers for j in range(workers + 1)))
    others = [_pool(workers - 1).submit(kernel, *arguments, *share) for share in shares[1:]]
    kernel(*arguments, *shares[0])
    for other in others:
        other.result()


class FusedJacobian:
    """Products with J = k [M β x̃ᵀ, S], k = √2/h, as `networks.OneHiddenJacobian` has them.

    M and S belong to the weights w̃ = (ω, b) in the tiles `start`, or are averages over the straight line to `end`.
    """

    def __init__(self, x: Float[Tensor, "p d1"], start: np.ndarray, end: np.ndarray | None, beta: Tensor) -> None:
        self._x, self._points, self._beta, self._h = x, _filled(x, ROWS, COLUMNS), beta, len(beta)
        self._bend = (start, start if end is None else end, end is not None)
        self._width, self._scale = -(-self._h // LANES) * LANES, math.sqrt(2) / self._h

    def pullback(self, cotangent: Float[Tensor, " p"]) -> dict[str, Float[Tensor, "..."]]:
        """Σ_μ v_μ ∇f(x_μ) for multipliers v of shape (p,); points with v_μ = 0 cost nothing."""
        rows = cotangent.nonzero()[:, 0]
        every = len(rows) == len(cotangent)
        x = self._points if every else _filled(self._x[rows], ROWS, COLUMNS)
        tiles, columns, d = len(self._bend[0]), x.shape[1], self._x.shape[1] - 1
        out = self._x.new_zeros(tiles, columns + 1, TILE)
        v = _filled(cotangent if every else cotangent[rows], ROWS)
        _spread(_columns, len(x) * self._h, tiles, x, v, *self._bend, self._width, out.numpy())
        sums = self._scale * out.transpose(1, 2).reshape(-1, columns + 1)[: self._h]
        grad_w = self._beta[:, None] * sums[:, : d + 1]
        return {"omega": grad_w[:, :d], "b": grad_w[:, d], "beta": sums[:, columns]}

    def pushforward(self, tangent: Params) -> Float[Tensor, " p"]:
        """⟨∇f(x_μ), δ⟩ for every point, shape (p,)."""
        return self._sum(tangent["beta"], _tiles(self._beta[:, None] * tangent["omega"], self._beta * tangent["b"]))

    def gram(self, rows: Tensor | None = None) -> Float[Tensor, "s s"]:
        """⟨∇f(x_μ), ∇f(x_ν)⟩ among the points numbered in `rows` (all by default)."""
        return self._inner(*[self._features(rows)] * 2)

    def gram_with(self, other: FusedJacobian) -> Float[Tensor, "p q"]:
        """⟨∇f(x_μ), ∇f(z_ν)⟩ against the points of another linearisation at the same parameters."""
        return self._inner(self._features(None), other._features(None))

    def _sum(self, beta: Float[Tensor, " h"], way: np.ndarray | None) -> Float[Tensor, " p"]:
        out = self._x.new_zeros(len(self._points))
        hidden = (self._bend[0], False) if way is None else (way, True)
        self._over_points(_rows, self._points, beta, *hidden, self._width, out.numpy())
        return out[: len(self._x)].mul_(self._scale)

    def _features(self, rows: Tensor | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        picked = self._x if rows is None else self._x[rows]
        points = _filled(picked, ROWS, COLUMNS)
        out = [np.empty((len(points), self._h), points.dtype) for _ in range(2)]
        self._over_points(_features, points, self._beta, self._width, *out)
        return out[0][: len(picked)], out[1][: len(picked)], picked.numpy()

    def _over_points(self, kernel: Callable, points: np.ndarray, beta: Tensor, *rest: object) -> None:
        fixed = (points, *self._bend, _filled(beta, TILE).reshape(-1, TILE))
        _spread(kernel, len(points) * self._h, len(points) // ROWS, *fixed, *rest)

    def _inner(self, left: tuple[np.ndarray, ...], right: tuple[np.ndarray, ...]) -> Float[Tensor, "s t"]:
        # numpy, unlike torch, sees when both factors are one array, and then does half of the work
        readout, hidden, points = (a @ b.T for a, b in zip(left, right, strict=True))
        hidden *= points
        hidden += readout
        return torch.from_numpy(hidden).mul_(self._scale**2)


class FusedLinearisation(FusedJacobian):
    """Outputs and Jacobian of `OneHidden` at fixed parameters: M = 1[z > 0], S = max(0, z), where z_{μn} = w̃_n·x̃_μ."""

    def __init__(self, params: Params, x_augmented: Float[Tensor, "p d1"]) -> None:
        super().__init__(x_augmented, _tiles(params["omega"], params["b"]), None, params["beta"])

    @functools.cached_property
    def output(self) -> Float[Tensor, " p"]:
        """f(x_μ), shape (p,)."""
        return self._sum(self._beta, None)

    def secant(self, end: Params) -> FusedJacobian:
        """The Jacobian averaged over the straight line to `end` so that f(end) − f(W) = J̄ (end − W) without error.

        M̄ = (σ(z') − σ(z)) / (z' − z) = min(1, max(σ(z), σ(z')) / |z' − z|), the share of the way on which the neuron is
        active; S̄ and β̄ are the means of both ends.
        """
        return FusedJacobian(self._x, self._bend[0], _tiles(end["omega"], end["b"]), 0.5 * (self._beta + end["beta"]))


def _filled(values: Tensor, *steps: int) -> np.ndarray:
    """A copy with zeros after it, up to a multiple of each step; torch begins it where a cache line does."""
    out = values.new_zeros([-(-n // step) * step for n, step in zip(values.shape, steps, strict=True)]).numpy()
    out[tuple(slice(n) for n in values.shape)] = values.numpy()
    return out


def _tiles(omega: Tensor, b: Tensor) -> np.ndarray:
    """(ω, b) as tiles (h / TILE, d + 1, TILE), filled up with zeros."""
    h, d = omega.shape
    full, rest = divmod(h, TILE)
    out = omega.new_zeros(full + (rest > 0), -(-(d + 1) // COLUMNS) * COLUMNS, TILE).numpy()
    for values, column in ((omega.numpy().T, slice(d)), (b.numpy()[None], slice(d, d + 1))):
        out[:full, column] = values[:, : full * TILE].reshape(len(values), full, TILE).transpose(1, 0, 2)
        if rest:
            out[full, column, :rest] = values[:, full * TILE :]
    return out
