"""What no hard-margin classifier can be trained on: refused at the door, in the name of `hard_margin_svc`."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from geocompress.checks import training_data


def data(x: object, y: object) -> None:
    """Refuse points and labels that are not float64 tensors (p, d) and (p,), finite, ±1 and of both classes.

    Raises:
        TypeError, ValueError: as said.
    """
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor) or value.dtype != torch.float64:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"hard_margin_svc: expected {name} as a float64 torch tensor, got {got}; use {name}.double()"
            )
    if x.ndim != 2:
        raise ValueError(f"hard_margin_svc: expected x of shape (p, d), got {tuple(x.shape)}; flatten the points")
    training_data({}, x, y, caller="hard_margin_svc")


def contradictions(x: Tensor, y: Tensor) -> Int[Tensor, "n 2"]:
    """Pairs of row numbers of equal points with opposite labels, ascending in both; every such point is in a pair.

    Each point is paired with the first that contradicts it, not with all.

    Args:
        x: points, shape (p, d) or (p, channels, …).
        y: labels in {−1, +1}, shape (p,).
    """
    group, numbers = _groups(x)
    opposite = torch.full_like(group, len(x))
    for label in (-1.0, 1.0):
        first = _first(group, numbers.where(y == label, len(x)))
        opposite = opposite.where(y == label, first)
    rows = (opposite < len(x)).nonzero()[:, 0]
    pairs = torch.stack([rows, opposite[rows]], dim=1).sort(dim=1).values
    return pairs.unique(dim=0)


def _groups(x: Tensor) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Number of the set of equal points that each belongs to, and of each point itself."""
    _, group = torch.unique(x.flatten(1), dim=0, return_inverse=True)
    return group, torch.arange(len(x), device=x.device)


def _first(group: Int[Tensor, " p"], numbers: Int[Tensor, " p"]) -> Int[Tensor, " p"]:
    """The smallest of the numbers in the group of each point."""
    return torch.full_like(group, len(group)).scatter_reduce(0, group, numbers, "amin")[group]


def distinct(x: Tensor, y: Tensor) -> Int[Tensor, " u"]:
    """Row numbers (u,) of the first of each set of equal points, increasing.

    Raises:
        ValueError: equal points of opposite labels; the first few pairs are listed.
    """
    group, numbers = _groups(x)
    first = _first(group, numbers)
    contradicting = (y != y[first]).nonzero()[:, 0]
    if len(contradicting):
        pairs = ", ".join(f"({int(first[row])}, {int(row)})" for row in contradicting[:5])
        raise ValueError(
            f"hard_margin_svc: expected equal points to have equal labels, got {len(contradicting)} pairs of rows that "
            f"no classifier separates, first {pairs}; drop one of each, or add noise to the points"
        )
    return numbers[first == numbers]


def started(start: object, once: Tensor, p: int, y: Tensor) -> Tensor:
    """Numbers, among the distinct points `once`, of the rows to start from.

    Raises:
        TypeError, ValueError: not row numbers of the p points, or of one class only.
    """
    if not isinstance(start, Tensor) or start.dtype != torch.long or start.ndim != 1:
        raise TypeError(f"start: expected row numbers as an int64 tensor (s,), got {start!r}; use svc.support")
    if len(start) < 1 or int(start.min()) < 0 or int(start.max()) >= p or len(y[start].unique()) < 2:
        raise ValueError(f"start: expected rows of both classes in 0 … {p - 1}; pass the support of a smaller fit")
    wanted = torch.zeros(p, dtype=torch.bool, device=y.device)
    wanted[start] = True
    return wanted[once].nonzero()[:, 0]


def kernel_on_points(gram: Tensor, conditional: bool) -> None:
    """Refuse a kernel that is not finite, symmetric and positive semi-definite (`conditional`: on charges of sum zero).

    Raises:
        ValueError: as said, with the number that tells.
    """
    if not bool(gram.isfinite().all()):
        raise ValueError("hard_margin_svc: expected finite kernel values, got nan or inf; look at the kernel's scale")
    n, size = len(gram), float(gram.abs().max())
    rounding = 10 * n * torch.finfo(gram.dtype).eps * size
    if (asymmetry := float((gram - gram.T).abs().max())) > rounding:
        raise ValueError(
            f"hard_margin_svc: expected a symmetric kernel, got K − Kᵀ of {asymmetry:.2g}; average the two"
        )
    if conditional:
        gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    lifted = gram + rounding * torch.eye(n, dtype=gram.dtype, device=gram.device)
    if int(torch.linalg.cholesky_ex(lifted).info) and float(lowest := torch.linalg.eigvalsh(gram)[0]) < -rounding:
        raise ValueError(
            f"hard_margin_svc: expected a positive semi-definite kernel, got an eigenvalue of {float(lowest):.3g} on "
            f"{n} points (rounding explains {-rounding:.1g}); compute it in float64, or use a kernel that is positive"
        )
