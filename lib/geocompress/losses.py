"""Smooth convex losses of the margin, as the flows of `smooth` and `stiff` take them, and when these are over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from geocompress.checks import real
from geocompress.states import Status

NEGLIGIBLE = 0.01  # multiplier at which a point hardly pulls any more


@runtime_checkable
class Loss(Protocol):
    """A convex function ℓ of the margin. A point counts as fitted from `fitted_margin` on."""

    fitted_margin: ClassVar[float]

    @property
    def cap(self) -> float:
        """Margin beyond which points pull on next to nothing, and errors count for nothing."""

    def value(self, margins: Tensor) -> Tensor:
        """ℓ(m) of every margin."""

    def slope(self, margins: Tensor) -> Tensor:
        """ℓ'(m) of every margin; the multipliers of the flow are c = −ℓ'(m)."""

    def curvature(self, margins: Tensor) -> Tensor:
        """ℓ''(m) ≥ 0 of every margin."""


def checked(loss: object) -> Loss:
    """The loss, if it is one.

    Raises:
        TypeError: anything else; the class of a loss, which has the same names, too.
    """
    if isinstance(loss, type) or not isinstance(loss, Loss):
        got = f"the class {loss.__name__}; call it" if isinstance(loss, type) else f"{loss!r}; see losses.Loss"
        raise TypeError(f"loss: expected one like losses.SoftHinge(3.0), got {got}")
    return loss


def status(loss: Loss, margins: Tensor, conflicts: Tensor, loss_tol: float) -> Status:
    """How a run with a smooth loss stands, at these margins.

    Points that contradict each other (`State.conflicts`) are never all fitted, and a soft hinge pushes the others for
    ever. So the run is over, STATIONARY, when these are fitted; with the square loss, which fits none, it goes on.
    """
    mean = float(loss.value(margins).mean())
    if not math.isfinite(mean):
        return Status.DIVERGED
    fitted = margins >= loss.fitted_margin
    if bool(fitted.all()):
        return Status.FITTED
    if mean <= loss_tol:
        return Status.LOSS_REACHED
    over = len(conflicts) > 0 and bool(fitted.index_fill(0, conflicts.flatten(), True).all())
    return Status.STATIONARY if over else Status.RUNNING


@dataclass(frozen=True)
class SoftHinge:
    """ℓ(m) = log(1 + e^{s (1 − m)}) / s with sharpness s, in units of one over margin; the hinge as s → ∞.

    It exceeds max(0, 1 − m) by at most log(2)/s, where m = 1. Multipliers lie in (0, 1); a run ends when every margin
    is at least 1, though the loss would go on pushing.

    Raises:
        TypeError, ValueError: the sharpness is not a positive finite number.
    """

    fitted_margin: ClassVar[float] = 1.0
    sharpness: float

    def __post_init__(self) -> None:
        real(self.sharpness, "sharpness", 0)

    @property
    def cap(self) -> float:
        """1 + log(99)/s, where the multiplier is 0.01."""
        return 1 + math.log(1 / NEGLIGIBLE - 1) / self.sharpness

    def value(self, margins: Tensor) -> Tensor:
        """ℓ(m)."""
        return functional.softplus(self.sharpness * (1 - margins), threshold=60) / self.sharpness

    def slope(self, margins: Tensor) -> Tensor:
        """ℓ'(m) = −1 / (1 + e^{−s (1 − m)})."""
        return -torch.sigmoid(self.sharpness * (1 - margins))

    def curvature(self, margins: Tensor) -> Tensor:
        """ℓ''(m) = s |ℓ'| (1 − |ℓ'|)."""
        pull = torch.sigmoid(self.sharpness * (1 - margins))
        return self.sharpness * pull * (1 - pull)


@dataclass(frozen=True)
class Square:
    """ℓ(m) = ½ (1 − m)², the square loss of labels ±1. Multipliers are 1 − m; a run ends by its loss alone."""

    fitted_margin: ClassVar[float] = math.inf

    @property
    def cap(self) -> float:
        """∞: the further from 1, the harder a point pulls."""
        return math.inf

    def value(self, margins: Tensor) -> Tensor:
        """ℓ(m)."""
        return 0.5 * (1 - margins).square()

    def slope(self, margins: Tensor) -> Tensor:
        """ℓ'(m) = m − 1."""
        return margins - 1

    def curvature(self, margins: Tensor) -> Tensor:
        """ℓ''(m) = 1."""
        return torch.ones_like(margins)
