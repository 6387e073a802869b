"""Points and labels of the invariant tasks: Gaussian x in R^d whose label depends on its first d_∥ coordinates only.

A label is a set of bands: one scalar coordinate s(x_∥) (the first component, or the radius) and a few edges at which
the label flips. The edges are derived from class balance, P(y = +1) = ½, never pasted. Setting: arXiv:2007.11471.
"""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import gammaincinv, ndtr, ndtri
from torch import Tensor

from geocompress.checks import Real, Whole, integer, real

STRIPE_X_MIN = -0.3  # lower edge of the stripe in arXiv:2007.11471; every other edge follows from class balance


def axis(x_parallel: Tensor) -> Float[Tensor, " p"]:
    """First component of x_∥ (p, d_∥): the coordinate of stripes."""
    return x_parallel[:, 0]


def radius(x_parallel: Tensor) -> Float[Tensor, " p"]:
    """Euclidean norm of x_∥ (p, d_∥): the coordinate of balls."""
    return torch.linalg.vector_norm(x_parallel, dim=1)


@dataclass(frozen=True)
class Bands:
    """A label that is +1 below the first edge of a coordinate and flips at every edge.

    y = (−1)^k where k counts the edges ≤ s(x_∥). `coordinate` maps (p, d_∥) to (p,) and must be a function of a
    module, so that a task can travel to another process.

    Raises:
        ValueError: if the edges are not finite and increasing.
    """

    coordinate: Callable[[Tensor], Tensor]
    edges: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "edges", tuple(float(edge) for edge in self.edges))
        increasing = all(low < high for low, high in itertools.pairwise(self.edges))
        if not (self.edges and increasing and all(math.isfinite(edge) for edge in self.edges)):
            raise ValueError(f"edges: expected at least one, finite and increasing, got {self.edges}; sort them")

    def __call__(self, x_parallel: Tensor) -> Float[Tensor, " p"]:
        """Labels (p,) of x_∥ (p, d_∥), in the dtype of x_∥."""
        s = self.coordinate(x_parallel).contiguous()
        flips = torch.bucketize(s, torch.tensor(self.edges, dtype=s.dtype, device=s.device), right=True)
        return (1 - 2 * (flips % 2)).to(s.dtype)


@dataclass(frozen=True)
class Task:
    """A binary classification task of standard Gaussian points x = (x_∥, x_⊥) in R^d with y = rule(x_∥) = ±1.

    `name` is the whole recipe: `by_name(task.name, task.d) == task` for every task made here.

    Raises:
        TypeError, ValueError: if d or d_parallel is not an integer with 1 ≤ d_parallel ≤ d.
    """

    name: str
    d: Whole
    d_parallel: Whole
    rule: Bands

    def __post_init__(self):
        object.__setattr__(self, "d", integer(self.d, "d"))
        object.__setattr__(self, "d_parallel", integer(self.d_parallel, "d_parallel"))
        if self.d_parallel > self.d:
            raise ValueError(
                f"{self.name}: expected d_parallel ≤ d, got d_parallel = {self.d_parallel} in dimension d = {self.d}; "
                f"raise d to at least {self.d_parallel}"
            )

    @property
    def d_perp(self) -> int:
        """Number d_⊥ = d − d_∥ of coordinates the label ignores."""
        return self.d - self.d_parallel

    @property
    def edges(self) -> tuple[float, ...]:
        """Values of the coordinate at which the label flips: (x_min, x_max) of a stripe, (R,) of a ball."""
        return self.rule.edges

    def sample(self, p: Whole, seed: Whole) -> tuple[Float64[Tensor, "p d"], Float64[Tensor, " p"]]:
        """Draw p i.i.d. points x (p, d) and their labels y (p,), float64 on the CPU.

        numpy's generator makes the points the same on every platform. A smaller sample of the same seed is the head
        of a larger one, so a test set needs a seed that no training set uses.

        Raises:
            TypeError, ValueError: if p is not an integer ≥ 1 or seed not an integer ≥ 0.
        """
        p, seed = integer(p, "p"), integer(seed, "seed", minimum=0)
        x = torch.from_numpy(np.random.default_rng(seed).standard_normal((p, self.d)))
        return x, self.label(x)

    def coordinate(self, x: Tensor) -> Float[Tensor, " p"]:
        """Scalar s(x_∥) of points x (p, d) along which the edges lie: x_1 of a stripe, |x_∥| of a ball.

        Raises:
            TypeError, ValueError: if x is not a finite floating-point tensor (p, d).
        """
        return self.rule.coordinate(self._checked(x)[:, : self.d_parallel])

    def label(self, x: Tensor) -> Float[Tensor, " p"]:
        """Labels y (p,) in {−1, +1} of points x (p, d), in the dtype and on the device of x.

        Raises:
            TypeError, ValueError: if x is not a finite floating-point tensor (p, d).
        """
        return self.rule(self._checked(x)[:, : self.d_parallel])

    def _checked(self, x: object) -> Tensor:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x: expected a floating-point torch tensor (p, {self.d}), got {got}; use torch.as_tensor")
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ValueError(f"x: expected shape (p, {self.d}), got {tuple(x.shape)}; one row per point of {self.name}")
        if not (finite := x.isfinite().all(dim=1)).all():
            bad = torch.nonzero(~finite).flatten().tolist()
            raise ValueError(f"x: expected finite values, got nan or inf in {len(bad)} rows, first {bad[0]}; drop them")
        return x


def stripe(d: Whole, x_min: Real = STRIPE_X_MIN) -> Task:
    """One stripe across x_1: y = −1 for x_min < x_1 < x_max, +1 outside (arXiv:2007.11471, section 2).

    Class balance gives x_max = Φ⁻¹(½ + Φ(x_min)); x_min = −0.3 gives 1.1855.

    Raises:
        TypeError, ValueError: if d < 1, or x_min is not finite and negative (half of the points must lie above it).
    """
    edges = _stripe_edges(1, x_min)
    return Task("stripe" if x_min == STRIPE_X_MIN else f"stripe[x_min={edges[0]}]", d, 1, Bands(axis, edges))


def stripes(d: Whole, count: Whole, x_min: Real = STRIPE_X_MIN) -> Task:
    """Cut x_1 into `count` stripes y = −1 of equal mass ½/count, the first of which begins at x_min.

    The positive bands between and after them share the remaining mass ½ − Φ(x_min) equally, so `count = 1` has the
    edges of `stripe`, and a lower x_min widens them.

    Raises:
        TypeError, ValueError: if d < 1, count < 1, or x_min is not finite and negative.
    """
    edges = _stripe_edges(integer(count, "count"), x_min)
    options = f"count={count}" if x_min == STRIPE_X_MIN else f"count={count},x_min={edges[0]}"
    return Task(f"stripes[{options}]", d, 1, Bands(axis, edges))


def ball(d: Whole, d_parallel: Whole) -> Task:
    """Ball in x_∥: y = +1 for |x_∥| < R, −1 outside, with R² the median of χ² with d_∥ degrees of freedom.

    Raises:
        TypeError, ValueError: unless d and d_parallel are integers with 1 ≤ d_parallel ≤ d.
    """
    return _ball(f"ball[d_parallel={d_parallel}]", d, d_parallel)


def cylinder(d: Whole) -> Task:
    """Ball in d_∥ = 2 coordinates: y = +1 for |x_∥| < R = √(2 ln 2) (arXiv:2007.11471).

    Raises:
        TypeError, ValueError: if d is not an integer ≥ 2.
    """
    return _ball("cylinder", d, 2)


def sphere(d: Whole) -> Task:
    """Ball in all d_∥ = d coordinates: nothing is invariant, so there is nothing to compress.

    Raises:
        TypeError, ValueError: if d is not an integer ≥ 1.
    """
    return _ball("sphere", d, d)


REGISTRY: dict[str, Callable[..., Task]] = {make.__name__: make for make in (stripe, stripes, ball, cylinder, sphere)}


def by_name(name: str, d: Whole) -> Task:
    """Task of a name such as "stripe", "stripe[x_min=-0.5]", "stripes[count=2]" or "ball[d_parallel=3]".

    Raises:
        TypeError: if d is not an integer.
        ValueError: if d < 1, the name is not in `REGISTRY` or its options are not those of the task.
    """
    d = integer(d, "d")
    parsed = re.fullmatch(r"(\w+)(?:\[(.*)\])?", name)
    if parsed is None or parsed[1] not in REGISTRY:
        raise ValueError(f"task: expected one of {', '.join(REGISTRY)} (options in brackets), got {name!r}")
    try:
        pairs = (option.split("=") for option in (parsed[2] or "").split(",") if option)
        options = {key: float(text) if key == "x_min" else int(text) for key, text in pairs}
        return REGISTRY[parsed[1]](d, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"task {name!r} in dimension {d!r}: {error}") from error


def _ball(name: str, d: Whole, d_parallel: Whole) -> Task:
    edge = math.sqrt(2 * gammaincinv(integer(d_parallel, "d_parallel") / 2, 0.5))  # median of χ²: P(k/2, R²/2) = ½
    return Task(name, d, d_parallel, Bands(radius, (edge,)))


def _stripe_edges(count: Whole, x_min: Real) -> tuple[float, ...]:
    x_min = real(x_min, "x_min")
    positive = 0.5 - ndtr(x_min)  # mass left for the positive bands above x_min
    if positive <= 0 or not math.isfinite(-ndtri(positive)):
        raise ValueError(f"x_min: expected a negative number, got {x_min}; lower it: half of the points must lie above")
    widths = (0.5 / count, positive / count)  # a stripe, then the positive band above it
    # from the top, where the tail mass is small and exact, down to x_min
    tails = [positive / count + k * sum(widths) + j * widths[0] for k in range(count) for j in (0, 1)]
    return (x_min, *(float(-ndtri(tail)) for tail in reversed(tails[:-1])))
