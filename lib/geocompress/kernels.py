"""Kernels of points: infinite-width kernels of the one-hidden-layer net, Laplace, and any of them block by block.

Pure functions of torch tensors, in their dtype (float32 or float64) and on their device; not differentiable. Each
kernel is a profile of squared distances between points, or between their directions on a sphere. One matrix product
gives those of a tile that stays in the cache (in torch's default matmul precision; TF32 would spoil it). It loses
digits for pairs that almost coincide, where the kernels have their cusp: those are computed from their difference.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.checks import Real, Whole, integer, real
from geocompress.empirical import empirical_ntk as empirical_ntk

Kernel = Callable[[Tensor, Tensor], Tensor]  # (p, d), (q, d) → (p, q)
Profile = Callable[[Tensor, slice, slice, Tensor], object]  # squared distances and two scratch tiles, rows, cols, out

_SIDE = defaultdict(lambda: 4096, cpu=256)  # of a tile: three of 256² float64 fit a level-2 cache; GPUs want more
_BLOCK = 2**21  # numbers; a freed block of this size is used again, a larger one goes back to the system
_NEAR = 2**-10  # bounds the error of a distance by about 30 ε |x|, for half of the time in d = 2, none from d = 5 on
_HELD_BLOCKS = 2  # in `in_blocks`: the block in the caller's hands and the one in the making
_HELD_COPIES = 3  # copies of x2 that a kernel of this module prepares, with two columns more than x2


def ntk_one_hidden(x1: Tensor, x2: Tensor | None = None) -> Float[Tensor, "p q"]:
    """Neural tangent kernel of `networks.OneHidden` at infinite width, the limit of `OneHidden.ntk`, shape (p, q).

    With u = (x/√d, 1) and v = (z/√d, 1) the pre-activations are w·u and w·v, w ~ N(0, I) in d + 1 dimensions (weights
    and bias). The finite kernel (1/h) Σ_n [σ(w_n·u) σ(w_n·v) + β_n² σ'(w_n·u) σ'(w_n·v) u·v] is an average over
    independent neurons; E β² = 1, so it tends to E[σσ] + u·v E[σ'σ']. For σ(z) = √2 max(0, z) and the angle θ between
    u and v these are the arc-cosine kernels of order 1 and 0, whose factor 2 is (√2)² (Cho and Saul, NIPS 2009):

        E[σσ] = |u||v| (sin θ + (π − θ) cos θ) / π,    E[σ'σ'] = (π − θ) / π,
        Θ(x, z) = |u||v| (sin θ + 2 (π − θ) cos θ) / π.

    Hence Θ(x, x) = 2 |u|², and near coincidence Θ = |u||v| (2 − θ/π + …): a cusp, ξ = 1 (arXiv:2007.11471). The unit
    is that of mean-field time, as in `OneHidden.ntk`. Homogeneous of degree one in u and in v, not in x: the bias.
    Absolute error: about 10 ε |u||v|, up to √ε |u||v| for opposite directions, which need |x| ≫ √d.

    Args:
        x1: points (p, d), float32 or float64.
        x2: points (q, d) of the same dtype and device; `None` means x1, and the result is then exactly symmetric.

    Raises:
        TypeError: not float32 or float64 tensors, or of two dtypes.
        ValueError: shapes that do not fit, two devices, or points that are not finite.
    """
    return _arc_cosine(x1, x2, 2, "ntk_one_hidden")


def rfk_one_hidden(x1: Tensor, x2: Tensor | None = None) -> Float[Tensor, "p q"]:
    """Random-feature kernel of `networks.OneHidden` at infinite width: only the readout β is trained, shape (p, q).

    K(x, z) = E[σ(w·u) σ(w·v)] = |u||v| (sin θ + (π − θ) cos θ) / π, in the notation and unit of `ntk_one_hidden`, of
    which it is the first term. Smooth to second order in θ: the cusp is θ³, so ξ = 3. Arguments as there.

    Raises:
        TypeError, ValueError: as `ntk_one_hidden`.
    """
    return _arc_cosine(x1, x2, 1, "rfk_one_hidden")


def laplace(x1: Tensor, x2: Tensor | None = None, *, scale: Real) -> Float[Tensor, "p q"]:
    """Laplace kernel exp(−|x − z| / scale), shape (p, q): the cusp ξ = 1 in its plainest form (arXiv:2007.11471).

    Absolute error of |x − z|: at most about 30 ε |x|, with x measured from the mean of x2, and next to nothing for
    pairs that almost coincide (a few ε |x − z|).

    Args:
        x1: points (p, d), float32 or float64.
        x2: points (q, d) of the same dtype and device; `None` means x1, and the result is then exactly symmetric.
        scale: length over which the kernel decays, in the unit of the points.

    Raises:
        TypeError, ValueError: as `ntk_one_hidden`, or scale is not a finite number above zero.
    """
    inverse = 1 / real(scale, "scale", 0)
    z = _checked(x1, x2, "laplace")

    def profile(tiles: Tensor, _rows: slice, _cols: slice, out: Tensor) -> None:
        torch.exp(tiles[0].sqrt_().mul_(-inverse), out=out)

    return _tiled(x1, z, profile)


def compressed(x: Tensor, d_parallel: Whole, amplification: Real) -> Float[Tensor, "p d"]:
    """Points with x_⊥, the columns from d_∥ on, divided by λ: a copy, shape (p, d).

    Any kernel on the compressed metric is `kernel(compressed(x1, …), compressed(x2, …))`; λ is the amplification that
    feature learning reaches, λ ~ √p (arXiv:2007.11471).

    Raises:
        TypeError: x is not a floating-point tensor, d_parallel no integer, or amplification no number.
        ValueError: x is not (p, d), d_parallel is not in 1 … d, or amplification is not finite and above zero.
    """
    d_parallel, factor = integer(d_parallel, "d_parallel"), real(amplification, "amplification", 0)
    _points("compressed", x=x)
    if d_parallel > x.shape[1]:
        raise ValueError(f"d_parallel: expected at most d = {x.shape[1]} columns of x, got {d_parallel}; lower it")
    return torch.cat([x[:, :d_parallel], x[:, d_parallel:] / factor], dim=1)


def in_blocks(kernel: Kernel, x1: Tensor, x2: Tensor, *, memory_gb: Real) -> Iterator[tuple[slice, Tensor]]:
    """Yield Θ(x1, x2) as (rows, block): `block` (r, q) is `kernel(x1[rows], x2)`, top to bottom, within the budget.

    Counted are two blocks, the one just handed out and the one in the making, and three copies of x2: r is at most
    what keeps q (2 r + 3 (d + 2)) numbers in the budget. Beside it stand x1, x2 and three tiles (2 MB on a CPU, 0.4 GB
    on a GPU). A kernel of your own that holds temporaries of the size of its result needs a budget smaller by as much.
    Blocks stay at 2²¹ numbers where that leaves them a tile's rows: larger ones cost more, in fresh memory pages.

    Args:
        kernel: maps (r, d) and (q, d) to (r, q); give other arguments by `functools.partial(laplace, scale=…)`.
        x1: points (p, d) of the rows.
        x2: points (q, d) of the columns.
        memory_gb: budget in 10⁹ bytes.

    Raises:
        TypeError, ValueError: as `ntk_one_hidden`, and ValueError if the budget is too small for one row. At the call.
    """
    _checked(x1, x2, "in_blocks")
    budget = real(memory_gb, "memory_gb", 0) * 1e9
    q, d = max(len(x2), 1), x2.shape[1]
    fixed, row = (n * q * x2.element_size() for n in (_HELD_COPIES * (d + 2), _HELD_BLOCKS))
    if (rows := int((budget - fixed) // row)) < 1:
        raise ValueError(
            f"memory_gb: expected at least {(fixed + row) / 1e9:.3g} for one row of {q} columns, "
            f"got {budget / 1e9:.3g}; raise it, or pass x2 in parts"
        )
    rows = min(rows, max(_SIDE[x1.device.type], _BLOCK // q))
    parts = (slice(i, min(i + rows, len(x1))) for i in range(0, len(x1), rows))
    return ((part, kernel(x1[part], x2)) for part in parts)


def matvec(kernel: Kernel, x1: Tensor, x2: Tensor, v: Tensor, *, memory_gb: Real) -> Float[Tensor, "p ..."]:
    """Θ(x1, x2) v without ever holding Θ, shape (p,) for v (q,), (p, m) for v (q, m); see `in_blocks`.

    Raises:
        TypeError, ValueError: as `in_blocks`, or v does not fit x2 in dtype, device or length.
    """
    blocks = in_blocks(kernel, x1, x2, memory_gb=memory_gb)
    if v.dtype != x2.dtype or v.device != x2.device:
        expected, got = f"{x2.dtype} on {x2.device}", f"{v.dtype} on {v.device}"
        raise TypeError(f"matvec: expected v of {expected} like the points, got {got}; convert it with v.to(x2)")
    if v.ndim not in (1, 2) or len(v) != len(x2):
        raise ValueError(f"matvec: expected v of shape (q,) or (q, m), q = {len(x2)} points, got {tuple(v.shape)}")
    result = v.new_empty(len(x1), *v.shape[1:])
    for rows, block in blocks:
        result[rows] = block @ v
        del block  # so that one block is alive while the next is made
    return result


def _arc_cosine(x1: Tensor, x2: Tensor | None, k: int, caller: str) -> Float[Tensor, "p q"]:
    """|u||v| (sin θ + k (π − θ) cos θ) / π from s = |û − v̂|²/4 = sin²(θ/2), which is accurate where θ is small.

    cos θ = 1 − 2s, sin θ = 2 √(s − s²), π − θ = 2 arccos √s: no arccos of a number near 1.
    """
    z = _checked(x1, x2, caller)
    u, norm_u = _directions(x1)
    v, norm_v = (u, norm_u) if z is x1 else _directions(z)
    norm_u = norm_u * (2 / math.pi)  # with the factor 2 of sin θ and of π − θ

    def profile(tiles: Tensor, rows: slice, cols: slice, out: Tensor) -> None:
        s, half, value = tiles
        s.clamp_(max=1)
        torch.sqrt(s, out=half).acos_()
        torch.addcmul(s, s, s, value=-1, out=value).sqrt_()
        value.add_(half, alpha=k).addcmul_(half, s, value=-2 * k).mul_(norm_u[rows])
        torch.mul(value, norm_v[cols].T, out=out)

    return _tiled(u, v, profile)


def _directions(x: Float[Tensor, "p d"]) -> tuple[Float[Tensor, "p d1"], Float[Tensor, "p 1"]]:
    """û/2 and |u| for u = (x/√d, 1): between points of the sphere of radius ½, |a − b|² = sin²(θ/2)."""
    u = torch.cat([x / math.sqrt(x.shape[1]), x.new_ones(len(x), 1)], dim=1)
    norm = torch.linalg.vector_norm(u, dim=1, keepdim=True)
    return u.div_(2 * norm), norm


def _tiled(a: Float[Tensor, "p k"], b: Float[Tensor, "q k"], profile: Profile) -> Float[Tensor, "p q"]:
    """A profile of |a_i − b_j|², tile by tile; if b is a, only the upper triangle is computed, and mirrored."""
    symmetric, p, q, side = b is a, len(a), len(b), _SIDE[a.device.type]
    centre = b.mean(0)  # a common offset of the points would cost digits, and cancels
    left, right = a - centre, b - centre
    norm_a, norm_b = (c.square().sum(1, keepdim=True) for c in (left, right))
    left = torch.cat([-2 * left, norm_a, torch.ones_like(norm_a)], dim=1)
    right = torch.cat([right, torch.ones_like(norm_b), norm_b], dim=1)
    # |a|² + |b|² − 2ab errs by about ε (|a|² + |b|²) ≤ ε (3|a|² + 2|a − b|²): by ε / _NEAR of |a − b|² above this limit
    near = 3 * _NEAR * norm_a
    out = a.new_empty(p, q)
    buffer = a.new_empty(3, min(side, p) * min(side, q))  # the squared distances, and two to work in
    for i in range(0, p, side):
        rows = slice(i, min(i + side, p))
        for j in range(i if symmetric else 0, q, side):
            cols = slice(j, min(j + side, q))
            shape = (rows.stop - i, cols.stop - j)
            tiles = buffer[:, : math.prod(shape)].view(-1, *shape)
            torch.mm(left[rows], right[cols].T, out=tiles[0])
            _repair(tiles[0], a[rows], b[cols], near[rows])
            profile(tiles, rows, cols, out[rows, cols])
            if symmetric and i == j:
                out[rows, cols] = out[rows, cols].triu() + out[rows, cols].triu(1).T
            elif symmetric:
                out[cols, rows] = out[rows, cols].T
    return out


def _repair(
    squared: Float[Tensor, "r c"], a: Float[Tensor, "r k"], b: Float[Tensor, "c k"], near: Float[Tensor, "r 1"]
) -> None:
    """Replace, in place, the squared distances at most `near`, negative ones included, by those of the differences."""
    rows = (squared.amin(1) <= near[:, 0]).nonzero()[:, 0]  # mostly none, and one pass has told so
    if not len(rows):
        return
    pairs = (squared[rows] <= near[rows]).nonzero()
    for some in pairs.split(max(1, squared.numel() // a.shape[1])):  # gathers no more numbers than a tile has
        i, j = rows[some[:, 0]], some[:, 1]
        squared[i, j] = (a[i] - b[j]).square().sum(1)


def _checked(x1: Tensor, x2: Tensor | None, caller: str) -> Tensor:
    """Refuse points no kernel is defined on; returns the points of the columns."""
    z = x1 if x2 is None else x2
    _points(caller, x1=x1, x2=z)
    if x1.dtype != z.dtype:
        raise TypeError(f"{caller}: expected one dtype, got x1 {x1.dtype} and x2 {z.dtype}; convert one with .to")
    if x1.device != z.device:
        raise ValueError(f"{caller}: expected one device, got x1 on {x1.device} and x2 on {z.device}; move one")
    if x1.shape[1] != z.shape[1]:
        got = f"{tuple(x1.shape)} and {tuple(z.shape)}"
        raise ValueError(f"{caller}: expected x1 (p, d) and x2 (q, d) of one d, got {got}; one row a point")
    return z


def _points(caller: str, **points: Tensor) -> None:
    for name, x in points.items():
        if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{caller}: expected {name} as a float32 or float64 torch tensor, got {got}; convert it")
        if x.ndim != 2 or x.shape[1] < 1:
            raise ValueError(f"{caller}: expected {name} of shape (p, d), d ≥ 1, got {tuple(x.shape)}; flatten points")
        if not bool(x.isfinite().all()):
            raise ValueError(f"{caller}: expected finite {name}, got nan or inf; drop those points")
