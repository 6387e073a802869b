"""Many independent box quadratic programs at once, on any device: `boxqp` for trainings that run side by side.

    min_c ½ cᵀ A_b c − q_bᵀ c   subject to 0 ≤ c ≤ 1,   A_b symmetric positive semi-definite,   b = 1 … B.

Where `boxqp` takes many cheap steps, few dear ones are taken here: Newton on all coordinates that no bound holds. Each
problem keeps its own active set, ridge and step length; decisions are masks, and the host waits for the device once an
iteration, to see whether any problem is left. Programs of unequal size share a batch by padding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress.boxqp import RIDGES, SUFFICIENT
from geocompress.checks import Real, real

Matrices = Float[Tensor, "batch n n"]
Vectors = Float[Tensor, "batch n"]
Pairs = Float[Tensor, "batch 2 n"]
Numbers = Float[Tensor, " batch"]

LENGTHS = (1.0, 0.2, 0.04, 8e-3, 1.6e-3, 3.2e-4)  # of a Newton step, tried in turn


class BatchedSolution(NamedTuple):
    """Multipliers (B, n), 0 where there is no coordinate, and each problem's largest violation of optimality (B,)."""

    c: Tensor
    residual: Tensor


class _Programs(NamedTuple):
    """The problems, their target residuals, and an upper bound on the largest eigenvalue of each A."""

    matrix: Matrices
    q: Vectors
    goal: Numbers
    scale: Numbers


def boxqp_batched(
    matrix: Tensor, q: Tensor, c: Tensor, exists: Tensor | None = None, *, tol: Real = 1e-9
) -> BatchedSolution:
    """Minimise ½ cᵀAc − qᵀc over the unit box for every problem of a batch, starting from `c`.

    Projected Newton steps first (Bertsekas, SIAM J. Control Optim. 20, 221 (1982)); the problems that they leave above
    their target go through Mehrotra's interior-point method (SIAM J. Optim. 2, 575 (1992)) and are polished by Newton
    again. Each gets the better of its two answers, with the residual: the caller decides whether that is good enough.

    Args:
        matrix: A, shape (B, n, n), float64.
        q: linear terms, shape (B, n), float64; A c − q and the residual are in its units (margins, in the flow).
        c: starting points, shape (B, n), float64; clipped into the box.
        exists: which coordinates a problem has, shape (B, n), bool; None means all. What A, q and c hold elsewhere is
            never looked at.
        tol: target for the residual, relative to max(1, ‖q‖_∞) of each problem.

    Raises:
        TypeError: a tolerance that is no number.
        ValueError: shapes, dtypes or devices that do not fit together, numbers that are not finite, or a tolerance ≤ 0.
            That each A is symmetric and positive semi-definite is not checked: see `boxqp`.
    """
    tol = real(tol, "tol", 0)
    exists = _checked(matrix, q, c, exists)
    both = exists[:, :, None] & exists[:, None, :]
    matrix, q, c = matrix.where(both, 0.0), q.where(exists, 0.0), c.where(exists, 0.0)
    if not bool(matrix.isfinite().all() & q.isfinite().all() & c.isfinite().all()):
        raise ValueError("boxqp_batched: A, q and c must be finite where a coordinate exists; leave diverged runs out")
    if q.numel() == 0:
        return BatchedSolution(c, q.new_zeros(len(q)))
    scale = q.shape[1] * matrix.diagonal(dim1=1, dim2=2).amax(1)
    goal = tol * q.abs().amax(1).clamp(min=1)
    # Padding becomes min ½ c² − ½ c, a problem of its own that is solved before it starts.
    matrix, half = matrix + torch.diag_embed((~exists).to(q)), q.new_tensor(0.5)
    programs = _Programs(matrix, q.where(exists, half), goal, scale)
    c, residual = _projected_newton(programs, c.where(exists, half))
    hard = (residual > goal).nonzero()[:, 0]
    if len(hard):
        chosen = _Programs(*(part[hard] for part in programs))
        second = _projected_newton(chosen, _interior_point(chosen))
        better = second.residual < residual[hard]
        c = c.index_put((hard[better],), second.c[better])
        residual = residual.index_put((hard[better],), second.residual[better])
    return BatchedSolution(c.where(exists, 0.0), residual)


def _checked(matrix: Tensor, q: Tensor, c: Tensor, exists: Tensor | None) -> Tensor:
    """The mask of the coordinates that exist; refuses what does not fit together."""
    if q.ndim != 2:
        raise ValueError(f"boxqp_batched: expected q (B, n), got {tuple(q.shape)}; a single problem is q[None]")
    exists = torch.ones_like(q, dtype=torch.bool) if exists is None else exists
    batch, n = q.shape
    expected = {"A": (matrix, (batch, n, n)), "c": (c, (batch, n)), "exists": (exists, (batch, n))}
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            got = tuple(tensor.shape)
            raise ValueError(f"boxqp_batched: expected {name} {shape} for q {(batch, n)}, got {got}; pad to one size")
        if tensor.device != q.device:
            raise ValueError(f"boxqp_batched: expected {name} on {q.device} like q, got {tensor.device}; move it there")
    dtypes = [tensor.dtype for tensor in (matrix, q, c, exists)]
    if dtypes != [torch.float64] * 3 + [torch.bool]:
        raise ValueError(f"boxqp_batched: expected A, q, c float64 and exists bool, got {dtypes}; convert them first")
    return exists


def _projected_newton(programs: _Programs, c: Vectors, max_steps: int = 20) -> BatchedSolution:
    """Newton on the free coordinates, clipped; each problem takes the longest of the lengths that brings enough."""
    matrix, q, goal, scale = programs
    c, ridge, stuck = c.clamp(0, 1), RIDGES[0] * scale, torch.zeros_like(goal, dtype=torch.bool)
    gradient = _times(matrix, c) - q
    lengths = q.new_tensor(LENGTHS)[:, None]
    for step in range(max_steps + 1):
        free = torch.where(gradient > 0, c > 0, c < 1)
        residual = (gradient.abs() * free).amax(1)
        going = (residual > goal) & ~stuck
        if step == max_steps or not bool(going.any()):
            break
        block = matrix.where(free[:, :, None] & free[:, None, :], 0.0)
        lift = ridge[:, None].where(free, torch.ones_like(q))  # held coordinates get a unit diagonal and stay
        factor, failed = torch.linalg.cholesky_ex(block + torch.diag_embed(lift))
        failed = failed > 0
        direction = -torch.cholesky_solve((gradient * free)[:, :, None], factor)[:, None, :, 0]
        trials = (c[:, None] + lengths * direction).clamp(0, 1)
        ahead = trials @ matrix - q[:, None]
        # The objective changes by ½ (trial − c)·(gradient + ahead), as in `boxqp`.
        enough = ((trials - c[:, None]) * (ahead + (1 - 2 * SUFFICIENT) * gradient[:, None])).sum(2) <= 0
        longest = enough.int().argmax(1)[:, None, None].expand(-1, 1, q.shape[1])
        moved = (going & ~failed & enough.any(1))[:, None]
        c = torch.where(moved, trials.gather(1, longest)[:, 0], c)
        gradient = torch.where(moved, ahead.gather(1, longest)[:, 0], gradient)
        stuck = stuck | torch.where(failed, ridge >= 0.9 * RIDGES[-1] * scale, ~enough.any(1))
        ridge = torch.where(failed, 100 * ridge, ridge)  # tried at the next iteration
    return BatchedSolution(c, residual)


def _interior_point(programs: _Programs, max_steps: int = 60) -> Vectors:
    """Mehrotra's predictor–corrector method; `room` and `force` as in `boxqp`, problems that are done stand still."""
    matrix, q, goal, scale = programs
    room = q.new_full((len(q), 2, q.shape[1]), 0.5)
    force = q.abs().amax(1).clamp(min=1)[:, None, None].expand_as(room)
    ridge, enough = RIDGES[0] * scale, torch.maximum(0.1 * goal, 1e-15 * scale)
    close = 0.1 * goal / (scale / q.shape[1]).clamp(min=1)
    for _ in range(max_steps):
        dual = _times(matrix, room[:, 0]) - q - force[:, 0] + force[:, 1]
        going = (dual.abs().amax(1) > enough) | (torch.minimum(room, force).amax((1, 2)) > close)
        if not bool(going.any()):
            break
        product, stiffness = room * force, force / room
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(stiffness.sum(1) + ridge[:, None]))
        d_room, d_force = _newton_step(factor, dual, room, stiffness, -product)
        length = _longest(room, force, d_room, d_force)
        gap = product.mean((1, 2), keepdim=True)
        ahead = ((room + length * d_room) * (force + length * d_force)).mean((1, 2), keepdim=True)
        centre = (ahead / gap) ** 3 * gap
        d_room, d_force = _newton_step(factor, dual, room, stiffness, centre - product - d_room * d_force)
        length = 0.995 * _longest(room, force, d_room, d_force)
        moved = (going & (failed == 0))[:, None, None]
        room = torch.where(moved, room + length * d_room, room)
        force = torch.where(moved, force + length * d_force, force)
        ridge = torch.where(failed > 0, 100 * ridge, ridge)
    low, high = (room < force).unbind(1)
    return room[:, 0].masked_fill(high, 1.0).masked_fill(low, 0.0)


def _times(matrix: Matrices, c: Vectors) -> Vectors:
    return (matrix @ c[:, :, None])[:, :, 0]


def _newton_step(factor: Matrices, dual: Vectors, room: Pairs, stiffness: Pairs, change: Pairs) -> tuple[Pairs, Pairs]:
    """Changes of room and force that cancel the dual residual and change room · force by `change`, to first order."""
    pull = change / room
    dc = torch.cholesky_solve((pull[:, 0] - pull[:, 1] - dual)[:, :, None], factor)[:, :, 0]
    d_room = torch.stack([dc, -dc], dim=1)
    return d_room, pull - stiffness * d_room


def _longest(room: Pairs, force: Pairs, d_room: Pairs, d_force: Pairs) -> Float[Tensor, "batch 1 1"]:
    """Longest step in [0, 1] that keeps room and force of a problem non-negative."""
    return 1 / torch.maximum(-d_room / room, -d_force / force).amax((1, 2), keepdim=True).clamp(min=1)
