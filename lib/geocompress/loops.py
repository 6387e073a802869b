"""Compiled loops over points and neurons for `fused`; they need numba (`pip install geocompress[fast]`).

Parameters come in tiles of some neurons (`tiled`), points padded with zeros (`padded`); `w` and `end` are the tiles of
both ends of a secant, twice the same where there is none.
"""

from __future__ import annotations

import math

import numpy as np

from geocompress.jit import compiled

ROWS, COLUMNS = 4, 3  # points and columns of x̃ that share one reading of a tile; the loops are written out for these
TILE, LANES = 256, 32  # neurons of a tile; the last one ends on a multiple of LANES, so that loops have no scalar rest


@compiled
def _project(x, i, w, t, width, z):
    """z[r, n] = Σ_k x[i + r, k] w[t, k, n] for `ROWS` points and the first `width` neurons of tile t.

    The first columns are not added to anything (the compiler makes two loops of that): no pass is spent on zeros.
    """
    zero = x.dtype.type(0)
    for k in range(0, x.shape[1], COLUMNS):
        a0, a1, a2 = x[i, k], x[i, k + 1], x[i, k + 2]
        b0, b1, b2 = x[i + 1, k], x[i + 1, k + 1], x[i + 1, k + 2]
        c0, c1, c2 = x[i + 2, k], x[i + 2, k + 1], x[i + 2, k + 2]
        d0, d1, d2 = x[i + 3, k], x[i + 3, k + 1], x[i + 3, k + 2]
        for n in range(width):
            w0, w1, w2 = w[t, k, n], w[t, k + 1, n], w[t, k + 2, n]
            z[0, n] = (z[0, n] if k else zero) + (a0 * w0 + a1 * w1 + a2 * w2)
            z[1, n] = (z[1, n] if k else zero) + (b0 * w0 + b1 * w1 + b2 * w2)
            z[2, n] = (z[2, n] if k else zero) + (c0 * w0 + c1 * w1 + c2 * w2)
            z[3, n] = (z[3, n] if k else zero) + (d0 * w0 + d1 * w1 + d2 * w2)


@compiled
def _bend(x, i, w, end, secant, t, width, slope, active):
    """Slopes M and activations S of a block: of w, or averaged over the line to `end` (see `fused`)."""
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


@compiled
def rows(x, w, end, secant, way, hidden, h, scale, out, first, last):
    """out_μ = scale Σ_n (S_{μn} δβ_n + M_{μn} β_n x̃_μ·δw̃_n) for blocks of points, (δw̃, δβ) in the tiles `way`.

    Without `hidden` the first half alone: for (w̃, β) itself that is the output.
    """
    z, active, y = np.empty((ROWS, TILE), x.dtype), np.empty((ROWS, TILE), x.dtype), np.empty((ROWS, TILE), x.dtype)
    zero, half = x.dtype.type(0), x.dtype.type(0.5)
    for t in range(len(w)):
        width, readout, turn = min(TILE, h - t * TILE), half * (w[t, -1] + end[t, -1]), way[t, -1]
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
                        total += active[r, n] * turn[n] + z[r, n] * readout[n] * y[r, n]
                else:
                    for n in range(width):
                        total += turn[n] * (zero if z[r, n] <= zero else z[r, n])
                out[i + r] += scale * total


@compiled
def columns(x, v, w, end, secant, h, scale, omega, b, beta, first, last):
    """Σ_μ v_μ ∇f(x_μ) for a range of tiles: scale β_n Σ_μ M_{μn} v_μ x̃_μ into ω and b, scale Σ_μ v_μ S_{μn} into β."""
    slope, active = np.empty((ROWS, TILE), x.dtype), np.empty((ROWS, TILE), x.dtype)
    columns, d = x.shape[1], omega.shape[1]
    out, half = np.empty((columns + 1, TILE), x.dtype), x.dtype.type(0.5)
    for t in range(first, last):
        width, past = min(TILE, h - t * TILE), t * TILE
        out[:] = 0
        for i in range(0, len(x), ROWS):
            _bend(x, i, w, end, secant, t, width, slope, active)
            v0, v1, v2, v3 = v[i], v[i + 1], v[i + 2], v[i + 3]
            for n in range(width):
                out[columns, n] += v0 * active[0, n] + v1 * active[1, n] + v2 * active[2, n] + v3 * active[3, n]
            for k in range(columns):
                a, e, c, g = v0 * x[i, k], v1 * x[i + 1, k], v2 * x[i + 2, k], v3 * x[i + 3, k]
                for n in range(width):
                    out[k, n] += a * slope[0, n] + e * slope[1, n] + c * slope[2, n] + g * slope[3, n]
        for n in range(min(width, len(b) - past)):  # the padding stays out
            factor = scale * half * (w[t, -1, n] + end[t, -1, n])
            for k in range(d):
                omega[past + n, k] = factor * out[k, n]
            b[past + n], beta[past + n] = factor * out[d, n], scale * out[columns, n]


@compiled
def features(x, w, end, secant, h, activations, slopes, first, last):
    """Rows of S (p, h) and of M β (p, h) for blocks of points, each array written in one go along its rows."""
    slope, active = np.empty((ROWS, TILE), x.dtype), np.empty((ROWS, TILE), x.dtype)
    readout, wide = x.dtype.type(0.5) * (w[:, -1] + end[:, -1]), activations.shape[1]
    for i in range(first * ROWS, last * ROWS, ROWS):
        for t in range(len(w)):
            past = t * TILE
            _bend(x, i, w, end, secant, t, min(TILE, h - past), slope, active)
            real = min(TILE, wide - past)  # the padding stays out
            for r in range(ROWS):
                for n in range(real):
                    activations[i + r, past + n] = active[r, n]
                for n in range(real):
                    slopes[i + r, past + n] = slope[r, n] * readout[t, n]


@compiled
def padded(x, v):
    """The points with v ≠ 0, and their v, with zeros after them up to a multiple of `ROWS` and of `COLUMNS`."""
    count, i = np.count_nonzero(v), 0
    points = np.zeros((-(-count // ROWS) * ROWS, -(-x.shape[1] // COLUMNS) * COLUMNS), x.dtype)
    values = np.zeros(len(points), x.dtype)
    for j in range(len(x)):
        if v[j] != 0:
            points[i, : x.shape[1]], values[i] = x[j], v[j]
            i += 1
    return points, values


@compiled
def tiled(omega, b, beta):
    """(ω, b, β) as tiles (h / TILE, d + 2, TILE), zeros in the last and, up to a multiple of `COLUMNS`, before β."""
    h, d = omega.shape
    out = np.zeros((-(-h // TILE), -(-(d + 1) // COLUMNS) * COLUMNS + 1, TILE), omega.dtype)
    for n in range(h):
        t, i = divmod(n, TILE)
        for k in range(d):
            out[t, k, i] = omega[n, k]
        out[t, d, i], out[t, -1, i] = b[n], beta[n]
    return out


@compiled
def change(omega, b, beta, omega_end, b_end, beta_end):
    """Σ_n of the bound that `networks.OneHidden.distance` has for each neuron, without its factor √2."""
    total = 0.0
    for n in range(len(b)):
        s, r = abs(beta[n]), abs(beta_end[n])
        before, after, change = (s * b[n]) ** 2, (r * b_end[n]) ** 2, (r * b_end[n] - s * b[n]) ** 2
        for k in range(omega.shape[1]):
            u, v = s * omega[n, k], r * omega_end[n, k]
            before, after, change = before + u * u, after + v * v, change + (v - u) ** 2
        total += math.sqrt(before) + math.sqrt(after) if beta[n] * beta_end[n] < 0 else math.sqrt(change)
    return total
