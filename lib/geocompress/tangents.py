"""The tangent kernel of a one-hidden-layer net, frozen where the net stands: its Gram, its products, its machines."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from geocompress import activeset, frozen
from geocompress.networks import OneHidden, Params
from geocompress.states import State
from geocompress.svc import Ending, HardMarginSVC, hard_margin_svc

BLOCK = 4096  # points whose activations are held at once where they are held at all
STRIP = 64  # points of a diagonal block of the Gram
TOL = 1e-4  # accepted violation of margin 1


@dataclass(frozen=True, eq=False)
class TangentKernel:
    """Θ(x, z) = h ⟨∇f(x), ∇f(z)⟩ at parameters that no longer move, on p training points (arXiv:2007.11471).

    What is written as a product with Θ goes through the gradients, h J (Jᵀ v), so new points cost as much as two passes
    of the net, however many training points there are. The Gram is held once it has been asked for: 8 p² bytes.

    Attributes:
        network: the net.
        params: its parameters.
        x: training points x_ν, shape (p, d), float64.
    """

    network: OneHidden
    params: Params
    x: Float[Tensor, "p d"]

    @functools.cached_property
    def gram(self) -> Float[Tensor, "p p"]:
        """Θ(x_μ, x_ν) in mean-field units, shape (p, p)."""
        return self.network.ntk(self.params, self.x)

    @functools.cached_property
    def unit(self) -> float:
        """Mean of Θ(x_μ, x_μ), by which machines divide the kernel: nets of α → 0 have kernels of order 1/α."""
        return float(self._diagonal(self.params).mean())

    def readout(self) -> TangentKernel:
        """The part of the readout β alone, (1/h) Σ_n σ(z_n) σ(z'_n); the part of (ω, b) is what remains of Θ.

        It is the tangent kernel of the net with β = 0, whose gradient with respect to ω and b vanishes.
        """
        return TangentKernel(self.network, {**self.params, "beta": torch.zeros_like(self.params["beta"])}, self.x)

    def readout_share(self) -> float:
        """Share of the readout, tr Θ_β / tr Θ, between 0 and 1: about ½ at initialisation, its infinite-width limit."""
        return self.readout().unit / self.unit

    def cross(self, points: Float[Tensor, "q d"]) -> Float[Tensor, "q p"]:
        """Θ(x, x_ν) at new points, shape (q, p)."""
        return torch.cat([self.network.ntk(self.params, part, self.x) for part in points.split(BLOCK)])

    def function(self, coefficients: Float[Tensor, " p"], points: Float[Tensor, "q d"]) -> Float[Tensor, " q"]:
        """Σ_ν a_ν Θ(x, x_ν) at new points, shape (q,), without any Θ."""
        way = self.network.linearise(self.params, self.x).pullback(coefficients)
        parts = [self.network.linearise(self.params, part).pushforward(way) for part in points.split(BLOCK)]
        return self.network.width * torch.cat(parts)

    def operator(self) -> LinearOperator:
        """The product v → Θ v on the training points, for `spectrum.top_eigenpairs` where no Gram is held."""

        def matvec(v: np.ndarray) -> np.ndarray:
            return self.function(torch.from_numpy(v.ravel()).to(self.x), self.x).cpu().numpy()

        return LinearOperator((len(self.x),) * 2, matvec=matvec, rmatvec=matvec, dtype=np.float64)

    def svc(self, y: Float[Tensor, " p"]) -> tuple[HardMarginSVC, Float[Tensor, " p"]]:
        """The hard-margin machine on Θ / `unit`, and its charges a_ν y_ν / unit, which `function` takes, shape (p,).

        Raises:
            TypeError, ValueError: as `frozen_machine`.
        """
        return frozen_machine(self.gram, y, unit=self.unit)

    def flow(self, y: Float[Tensor, " p"]) -> tuple[State, Float[Tensor, " p"]]:
        """The end of the hinge flow on Θ / `unit` (`frozen.kernel_flow`), and its coefficients for `function`, (p,).

        Raises:
            TypeError, ValueError: as `kernel_flow`.
        """
        for end in frozen.kernel_flow(self.gram / self.unit, y):
            pass
        return end, end.params["coefficients"] / self.unit

    def _diagonal(self, params: Params) -> Float[Tensor, " p"]:
        return torch.cat([self.network.ntk(params, part).diagonal() for part in self.x.split(STRIP)])


def frozen_machine(
    gram: Float[Tensor, "p p"], y: Float[Tensor, " p"], *, unit: float
) -> tuple[HardMarginSVC, Float[Tensor, " p"]]:
    """The hard-margin machine on Θ / `unit`, and its charges a_ν y_ν / unit, so that f(x) = Σ_ν q_ν Θ(x, x_ν) + b.

    The machine knows its points by their numbers, (s, 1). Around t* the kernel is nearly that of a linear function:
    d + 1 eigenvalues stand up to 10⁹ above those that the label depends on, and `hard_margin_svc`, which begins with
    libsvm in single precision, may get lost. A fit that does not end SEPARATED is therefore made again by `activeset`,
    one point at a time. The machine is unique, and its `violation` and `gap` are the proof; if that fails too, the
    first one comes back as it is.

    Args:
        gram: Θ on the training points, float64.
        y: labels ±1.
        unit: what the kernel is divided by, such as the mean of its diagonal.

    Raises:
        TypeError, ValueError: as `hard_margin_svc`.
    """
    scaled = gram / unit
    points = torch.arange(len(y), dtype=scaled.dtype, device=scaled.device)[:, None]

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return scaled[left[:, 0].long()[:, None], right[:, 0].long()]

    machine = hard_margin_svc(kernel, points, y, tol=TOL)
    if machine.ending is not Ending.SEPARATED:
        machine = _one_by_one(machine, points, scaled, y) or machine
    charges = y.new_zeros(len(y))
    charges[machine.support] = machine.a * machine.y / unit
    return machine, charges


def _one_by_one(lost: HardMarginSVC, points: Tensor, gram: Tensor, y: Tensor) -> HardMarginSVC | None:
    """The machine that a fit has not found, or None where this way does not find it either."""
    found = activeset.hard_margin(gram, y, tol=TOL / 100)
    if found is None or found.violation > TOL:
        return None
    rows, q, violation = found.support, found.charges, found.violation
    norm2 = float(q @ gram[rows[:, None], rows] @ q)
    labels = y[rows]
    dual = float((q * labels).sum()) - norm2 / 2
    gap = (norm2 / 2 / (1 - violation) ** 2 - dual) / dual
    rounds, pivots = lost.rounds, lost.pivots + found.steps
    return HardMarginSVC(
        lost.kernel,
        points[rows],
        labels,
        q * labels,
        rows,
        found.bias,
        violation,
        gap,
        rounds,
        pivots,
        Ending.SEPARATED,
    )
