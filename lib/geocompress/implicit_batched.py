"""One step of many hinge flows at once, implicit in the multipliers: `implicit` with a batch axis in front."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geocompress.boxqp_batched import boxqp_batched
from geocompress.implicit import KKT_TOL, OVERSHOOT
from geocompress.networks import Params
from geocompress.networks_batched import JacobianBatch, OneHiddenBatch

# Copies of its matrices that `boxqp_batched` and the Gram before it hold at once, at most.
COPIES = 9
SMALLEST = 16  # points of the smallest padded set


@dataclass(frozen=True)
class Problems:
    """The data of the flows, and the products that a step needs, in margin units and mean-field time.

    x (B, s, d + 1) is augmented; y (B, s) is 0 where a replica has no such point, which then pulls on nothing. `count`
    is p, the number of points that each loss is a mean over; `budget` is in bytes, for one lot of quadratic programs.
    """

    nets: OneHiddenBatch
    x: Tensor
    y: Tensor
    alpha: float
    output_init: Tensor
    state_tol: float
    count: int
    budget: float

    def take(self, replicas: Tensor) -> Problems:
        """Some of the replicas."""
        x, y, output_init = (part[replicas] for part in (self.x, self.y, self.output_init))
        return replace(self, x=x, y=y, output_init=output_init)

    def among(self, rows: Int[Tensor, "B s"], exists: Bool[Tensor, "B s"]) -> Problems:
        """The same flows, looked at on some of the points of each."""
        x = self.x.gather(1, rows[:, :, None].expand(-1, -1, self.x.shape[2]))
        y, output_init = self.y.gather(1, rows) * exists, self.output_init.gather(1, rows)
        return replace(self, x=x, y=y, output_init=output_init)

    def margins(self, output: Tensor) -> Tensor:
        """Margins α y (f − f_0)."""
        return self.alpha * self.y * (output - self.output_init)

    def velocity(self, at: JacobianBatch, c: Tensor) -> Params:
        """Ẇ = (h/p) Σ_μ c_μ y_μ ∇f(x_μ)."""
        return at.pullback(c * self.y * (self.nets.width / self.count))

    def margin_rate(self, at: JacobianBatch, velocity: Params) -> Tensor:
        """ṁ = α y J Ẇ."""
        return self.alpha * self.y * at.pushforward(velocity)


class Steps(NamedTuple):
    """A try of a step of each replica; all but the first three have shape (B,), see `implicit.Step`."""

    params: Params
    multipliers: Float[Tensor, "B s"]
    predicted: Float[Tensor, "B s"]
    kkt: Tensor
    state_error: Tensor
    order_error: Tensor


def attempt(problems: Problems, params: Params, margins: Tensor, c: Tensor, dt: Float[Tensor, " B"]) -> Steps:
    """Steps of lengths dt (float64) from `params`, with the multipliers c of the steps before; see `implicit.attempt`.

    Raises:
        ValueError: the budget does not hold the quadratic program of one replica.
    """
    at = problems.nets.linearise(params, problems.x)
    start = problems.velocity(at, c)
    mean = at.secant(move(params, start, dt))
    c, slope, predicted, kkt, stiffness = _consistent_multipliers(problems, mean, margins, c, dt)
    params_end = move(params, slope, dt)
    state_error = torch.zeros_like(dt)
    if problems.state_tol < math.inf:
        state_error = dt * norm({k: slope[k] - start[k] for k in start}) / norm(params_end)
    return Steps(params_end, c, predicted, kkt, state_error, _order_error(problems, margins, predicted, c, stiffness))


def _consistent_multipliers(
    problems: Problems, mean: JacobianBatch, margins: Tensor, c: Tensor, dt: Tensor
) -> tuple[Tensor, Params, Tensor, Tensor, Tensor]:
    """As in `implicit`: multipliers, slope, margins, residual (B,) and dt max K_μμ (B,).

    The host waits once a round, for the size of the working sets. Replicas without points to add stand still. One whose
    numbers are not finite is left with a residual that is not, which no step is accepted with.
    """
    slope = problems.velocity(mean, c)
    length = dt.to(c)[:, None]
    predicted = margins + length * problems.margin_rate(mean, slope)
    inside, looked = (c > 0) & (c < 1), torch.zeros_like(c, dtype=torch.bool)
    stiffness = torch.zeros_like(dt)
    while True:
        gap = predicted - (1 + OVERSHOOT)
        residual = torch.where(c <= 0, -gap, torch.where(c >= 1, gap, gap.abs())).clamp(min=0)
        joining = (residual > KKT_TOL) & ~looked & residual.isfinite().all(1, keepdim=True)
        growing = joining.any(1, keepdim=True)
        looked = torch.where(growing, looked | joining | inside, looked)
        sizes = (looked & growing).sum(1).cpu()
        most = int(sizes.max())
        if most == 0:
            return c, slope, predicted, residual.amax(1).double(), stiffness
        size, before = padded_size(most, c.shape[1]), c
        for replicas in _lots(problems, sizes.nonzero()[:, 0], size):
            some = replicas.to(c.device)
            rows, exists = padded(looked[some], size)
            matrix = dt[some, None, None] * _rate_gram(problems, mean, some, rows)
            exists = exists & matrix.isfinite().all(2).all(1)[:, None]
            start, ahead = c[some[:, None], rows].double() * exists, gap[some[:, None], rows].double()
            q = (matrix @ start[:, :, None])[:, :, 0] - ahead
            solution = boxqp_batched(matrix, q, start, exists, tol=0.1 * KKT_TOL)
            diagonal = matrix.diagonal(dim1=1, dim2=2).where(exists, 0.0)
            stiffness = stiffness.index_put((some,), problems.count * diagonal.amax(1))
            solved = torch.where(exists, solution.c.to(c), c[some[:, None], rows])
            c = c.index_put((some[:, None], rows), solved)
        turn = problems.velocity(mean, c - before)
        slope = {k: slope[k] + turn[k] for k in slope}
        predicted = predicted + length * problems.margin_rate(mean, turn)


def _rate_gram(problems: Problems, mean: JacobianBatch, some: Tensor, rows: Tensor) -> Float[Tensor, "b n n"]:
    """K/p among the points `rows` of `some` replicas, float64."""
    y = problems.y[some[:, None], rows].double()
    gram = mean.among(some, rows).gram().double()
    gram *= (problems.nets.width * problems.alpha / problems.count * y)[:, :, None]
    return gram.mul_(y[:, None, :])


def _lots(problems: Problems, replicas: Tensor, size: int) -> tuple[Tensor, ...]:
    """Replicas whose programs are solved at once, within the budget."""
    each = 8 * COPIES * size**2
    if each > problems.budget:
        raise ValueError(
            f"memory_gb: expected {each / 1e9:.3g} GB for the quadratic program of {size} points, got "
            f"{problems.budget / 1e9:.3g} GB for it; raise it, or use flow.hinge_flow"
        )
    return replicas.split(max(1, int(problems.budget // each)))


def _order_error(problems: Problems, before: Tensor, after: Tensor, c: Tensor, stiffness: Tensor) -> Tensor:
    """As in `implicit`, shape (B,)."""
    target = 1 + OVERSHOOT
    drop = (target - before).clamp(min=0) - (target - after).clamp(min=0)
    excess = (drop - c * (after - before)).sum(1).double() / problems.count
    return (stiffness * excess.clamp(min=0)).sqrt()


def padded_size(count: int, most: int) -> int:
    """The next of a few sizes, four to each factor of two, so that memory is asked for in the same pieces again."""
    grain = max(SMALLEST, 2 ** max(0, count.bit_length() - 3))
    return min(-(-count // grain) * grain, most)


def padded(mask: Bool[Tensor, "B s"], size: int) -> tuple[Int[Tensor, "B n"], Bool[Tensor, "B n"]]:
    """Numbers of the points where the mask is true, ascending, filled up with others to `size`; and which are real."""
    rows = (~mask).to(torch.uint8).sort(dim=1, stable=True).indices[:, :size]
    return rows, mask.gather(1, rows)


def move(params: Params, direction: Params, length: Float[Tensor, " B"]) -> Params:
    """W + length · direction, each replica by its own length."""
    return {k: v + length.to(v).view(-1, *[1] * (v.ndim - 1)) * direction[k] for k, v in params.items()}


def norm(params: Params) -> Float[Tensor, " B"]:
    """|W| of each replica, float64."""
    return sum(v.flatten(1).square().sum(1).double() for v in params.values()).sqrt()
