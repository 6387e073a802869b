"""What a net was trained to tell: two classes, several, or a number; and how a kernel would tell it.

Every target has the same five answers: the error of outputs, a machine on a Gram, the alignment of a Gram with the
label, the information of its eigenvectors about it, and how much of that there can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from sklearn.feature_selection import mutual_info_regression
from torch import Tensor

from geocompress import activeset, classifiers, spectrum

RIDGE = 1e-6  # of the ridge machines, in units of the kernel's mean diagonal: far above rounding, below any noise
TOL = 1e-4  # accepted violation of margin 1


@runtime_checkable
class Target(Protocol):
    """What is asked of the answers; `y` are the training labels, in float64 or as classes."""

    y: Tensor
    outputs: int
    kind: str
    ceiling: float

    def read(self, y: Tensor, name: str) -> Tensor:
        """Labels of other points, by the same convention."""

    def error(self, outputs: Tensor, y: Tensor) -> float:
        """Error of outputs (q, C) on labels that were read."""

    def machine(self, gram: Tensor, cross: Tensor) -> tuple[Tensor | None, str]:
        """Outputs (q, C) of the machine of a kernel at new points, None if there is none, and how the fit ended."""

    def alignment(self, gram: Tensor) -> float:
        """Centred alignment of a Gram with the label."""

    def information(self, vectors: np.ndarray) -> Float[np.ndarray, " k"]:
        """Mutual information of each column with the label, in nats."""


@dataclass(frozen=True, eq=False)
class Signs:
    """Two classes, told by the sign of one output: y in {−1, +1}, or integers with 1 for + and 0 for −.

    Error: share of the points without y f > 0. Machine: the hard-margin classifier.
    """

    y: Float[Tensor, " p"]
    outputs: int = 1
    kind: str = "two classes"

    @property
    def ceiling(self) -> float:
        """Entropy of the label in nats."""
        return _entropy(self.y)

    def read(self, y: Tensor, name: str) -> Float[Tensor, " q"]:
        """±1 in float64."""
        return _signs(y, name)

    def error(self, outputs: Float[Tensor, "q 1"], y: Float[Tensor, " q"]) -> float:
        """P(not y f > 0); what is no number is wrong."""
        return float((~(y * outputs[:, 0] > 0)).double().mean())

    def machine(self, gram: Tensor, cross: Tensor) -> tuple[Tensor | None, str]:
        """The hard-margin classifier; None where the kernel does not separate the classes."""
        unit = float(gram.diagonal().mean())
        scaled = gram / unit
        numbers = torch.arange(len(gram), dtype=gram.dtype, device=gram.device)[:, None]
        machine = classifiers.hard_margin_svc(
            lambda a, b: scaled[a[:, 0].long()[:, None], b[:, 0].long()], numbers, self.y, tol=TOL
        )
        rows, charges, bias, ending = machine.support, machine.a * machine.y, machine.bias, machine.ending
        if ending is not classifiers.Ending.SEPARATED:  # kernels of nearly low rank: one point at a time finds them
            found = activeset.hard_margin(scaled, self.y, tol=TOL / 100)
            if found is None or found.violation > TOL:
                return None, ending.value
            rows, charges, bias = found.support, found.charges, found.bias
        return (cross[:, rows] @ charges / unit + bias)[:, None], classifiers.Ending.SEPARATED.value

    def alignment(self, gram: Tensor) -> float:
        """With y yᵀ."""
        return spectrum.label_alignment(gram, self.y)

    def information(self, vectors: np.ndarray) -> Float[np.ndarray, " k"]:
        """By nearest neighbours, `spectrum.mutual_information`."""
        return spectrum.mutual_information(vectors, self.y)


@dataclass(frozen=True, eq=False)
class Classes:
    """C classes 0 … C − 1, told by the largest of C outputs.

    Error: share of the points where another output is the largest. Machine: ridge regression on the one-hot label minus
    its mean, at a ridge of 10⁻⁶ of the mean diagonal, on one kernel for all classes, Σ_c Θ_cc.
    """

    y: Tensor
    outputs: int
    kind: str = "classes"

    @property
    def ceiling(self) -> float:
        """Entropy of the label in nats."""
        return _entropy(self.y)

    def read(self, y: Tensor, name: str) -> Tensor:
        """Classes as they are."""
        return _classes(y, self.outputs, name)

    def error(self, outputs: Float[Tensor, "q c"], y: Tensor) -> float:
        """P(argmax f ≠ y); what is no number is wrong."""
        return float(((outputs.argmax(1) != y) | outputs.isnan().any(1)).double().mean())

    def machine(self, gram: Tensor, cross: Tensor) -> tuple[Tensor | None, str]:
        """Ridge regression on the one-hot label."""
        return _ridge(gram, cross, self._one_hot())

    def alignment(self, gram: Tensor) -> float:
        """With Y Yᵀ of the one-hot label: 1 between points of one class, 0 else."""
        one_hot = self._one_hot()
        return spectrum.kernel_alignment(gram, one_hot @ one_hot.T)

    def information(self, vectors: np.ndarray) -> Float[np.ndarray, " k"]:
        """By nearest neighbours, `spectrum.mutual_information`."""
        return spectrum.mutual_information(vectors, self.y)

    def _one_hot(self) -> Float[Tensor, "p c"]:
        return torch.nn.functional.one_hot(self.y, self.outputs).double()


@dataclass(frozen=True, eq=False)
class Values:
    """A number, told by one output.

    Error: Σ (f − y)² / Σ (y − ȳ)² with the mean ȳ of the training labels, so 1 is what a constant does. Machine: ridge
    regression on y − ȳ, at a ridge of 10⁻⁶ of the mean diagonal.
    """

    y: Float[Tensor, " p"]
    outputs: int = 1
    kind: str = "regression"
    ceiling: float = math.inf

    def read(self, y: Tensor, name: str) -> Float[Tensor, " q"]:
        """In float64."""
        if not y.is_floating_point():
            raise TypeError(f"{name}: expected numbers in floating point like y, got {y.dtype}; convert them")
        return y.double()

    def error(self, outputs: Float[Tensor, "q 1"], y: Float[Tensor, " q"]) -> float:
        """Share of the label's variance that is not explained."""
        return float((outputs[:, 0] - y).square().sum() / (y - self.y.mean()).square().sum())

    def machine(self, gram: Tensor, cross: Tensor) -> tuple[Tensor | None, str]:
        """Ridge regression."""
        return _ridge(gram, cross, self.y[:, None])

    def alignment(self, gram: Tensor) -> float:
        """With y yᵀ."""
        return spectrum.label_alignment(gram, self.y)

    def information(self, vectors: np.ndarray) -> Float[np.ndarray, " k"]:
        """By nearest neighbours for two continuous variables (Kraskov et al., Phys. Rev. E 69, 066138 (2004))."""
        standard = (vectors - vectors.mean(0)) / vectors.std(0)
        found = mutual_info_regression(standard, self.y.cpu().numpy(), n_neighbors=spectrum.NEIGHBOURS, random_state=0)
        return found.astype(np.float64)


def read(y: Tensor, outputs: int) -> Target:
    """The target of labels y (p,) for a net of this many outputs.

    Integers are classes: −1 and 1, or 0 and 1, with one output; 0 … C − 1 with C outputs. Numbers in floating point are
    two classes if they are −1 and 1, and values to regress on if they are anything else.

    Raises:
        ValueError: labels that are not finite, one class or value only, a class too small, classes beyond the outputs;
            0 and 1 in floating point; several outputs with labels that are no classes.
        TypeError: labels of another dtype.
    """
    if y.dtype == torch.bool or y.is_complex():
        raise TypeError(f"y: expected integers for classes or real numbers, got {y.dtype}; convert them with .long()")
    if y.is_floating_point() and not bool(y.isfinite().all()):
        raise ValueError("y: expected finite labels, got nan or inf; remove these points")
    held = y.unique().tolist()
    if len(held) < 2:
        raise ValueError(f"y: expected at least two classes or values, all {len(y)} labels are {held[0]:g}")
    continuous = y.is_floating_point() and not set(held) <= {-1.0, 1.0}
    if continuous and set(held) == {0.0, 1.0}:
        raise ValueError("y: expected classes as integers or −1 and +1, got 0 and 1 in floating point; use y.long()")
    if outputs > 1 and (y.is_floating_point() or min(held) < 0):
        raise ValueError(
            f"output: expected one output a sample for labels that are no classes 0 … C − 1, got {outputs}; choose one "
            "with output=k, or the difference of two with output=(k, l)"
        )
    if outputs > 1:
        target = Classes(_classes(y, outputs, "y"), outputs)
    else:
        target = Values(y.double()) if continuous else Signs(_signs(y, "y"))
    counts = torch.unique(target.y, return_counts=True)[1]
    if not continuous and int(counts.min()) <= spectrum.NEIGHBOURS:
        raise ValueError(
            f"y: expected more than {spectrum.NEIGHBOURS} points in each class, got one with {int(counts.min())}; the "
            "mutual information needs neighbours: add points, or leave that class out"
        )
    return target


def _signs(y: Tensor, name: str) -> Float[Tensor, " p"]:
    """±1 in float64; 0 and 1 become −1 and 1 where they are integers."""
    held = set(y.unique().tolist())
    if not y.is_floating_point() and held <= {0, 1}:
        return 2 * y.double() - 1
    if not held <= {-1, 1}:
        raise ValueError(
            f"{name}: expected labels −1 and +1 (or integers 0 and 1) for one output, got {sorted(held)[:5]}; map "
            "them, or give a net with one output for each class"
        )
    return y.double()


def _classes(y: Tensor, outputs: int, name: str) -> Tensor:
    if y.is_floating_point() or int(y.min()) < 0 or int(y.max()) >= outputs:
        got = f"{y.dtype} from {float(y.min()):g} to {float(y.max()):g}"
        raise ValueError(f"{name}: expected classes 0 … {outputs - 1} as integers, got {got}")
    return y.long()


def _entropy(y: Tensor) -> float:
    share = torch.unique(y, return_counts=True)[1].double() / len(y)
    return float(-(share * share.log()).sum())


def _ridge(gram: Tensor, cross: Tensor, y: Float[Tensor, "p c"]) -> tuple[Tensor, str]:
    mean = y.mean(0)
    coefficients = classifiers.kernel_ridge(gram, y - mean, RIDGE * float(gram.diagonal().mean()))
    return cross @ coefficients + mean, "FITTED"
