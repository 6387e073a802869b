"""Per-sample gradients of one use of one weight, from what went in and the error that came back.

A use is a place of the forward pass where a weight w meets data x: a product, a convolution, a scale, a shift, a
look-up. With the back-propagated error e = ∂f/∂(output of the use) the gradient of a sample is a sum over positions,
Σ_t e_t ⊗ x_t, so one backward pass serves all samples. Where few positions share the weight, the product of two such
gradients, Σ_ts (e_t·e'_s)(x_t·x'_s), needs no gradient at all (arXiv:1510.01799): `factors` gives x and e of that form.

Shapes: R rows (a sample may have several), C outputs of the network, T positions, w of shape `shape`. Errors are
(R, C, …) with the shape of the output of the use after C.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@runtime_checkable
class Use(Protocol):
    """How a weight meets data; `reads` tells whether its gradient depends on the data."""

    reads: ClassVar[bool]

    def gradients(self, x: Tensor, errors: Tensor, shape: torch.Size) -> Tensor:
        """∂f_c/∂w of every row, shape (R, C, *shape)."""

    def scratch(self, x: Tensor, output: torch.Size, shape: torch.Size) -> int:
        """Numbers that `gradients` holds for a while beside its result, for one output of the network."""

    def positions(self, output: torch.Size, shape: torch.Size) -> int:
        """T, the positions of a row that share w; 0 for a use without `factors`."""

    def factors(self, x: Tensor, errors: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Data as (R, T, n) and errors as (R, C, T, m): the gradient is Σ_t e_t ⊗ x_t, of m n numbers."""


@dataclass(frozen=True)
class Product:
    """x @ w.T over the last dimension of x; w is (m, n), or (n,) and the output has no last dimension."""

    reads: ClassVar[bool] = True

    def gradients(self, x: Tensor, errors: Tensor, shape: torch.Size) -> Tensor:
        """Σ_t e_t ⊗ x_t, one small product of matrices a row."""
        x, errors = self.factors(x, errors, shape)
        return (errors.transpose(2, 3) @ x[:, None]).reshape(*errors.shape[:2], *shape)

    def scratch(self, x: Tensor, output: torch.Size, shape: torch.Size) -> int:
        """Nothing: views do."""
        return 0

    def positions(self, output: torch.Size, shape: torch.Size) -> int:
        """Everything between the rows and the last dimension."""
        return math.prod(output[1:] if len(shape) == 1 else output[1:-1])

    def factors(self, x: Tensor, errors: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The data and the errors as they are."""
        errors = errors[..., None] if len(shape) == 1 else errors
        return x.reshape(len(x), -1, x.shape[-1]), errors.reshape(*errors.shape[:2], -1, errors.shape[-1])


@dataclass(frozen=True)
class Convolution:
    """A convolution of x (R, channels, …) in one, two or three dimensions, without circular padding."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]  # before and after, for every dimension
    dilation: tuple[int, ...]
    groups: int
    reads: ClassVar[bool] = True

    def gradients(self, x: Tensor, errors: Tensor, shape: torch.Size) -> Tensor:
        """Errors times patches, group by group; channel by channel where each has filters of its own."""
        if self._depthwise(shape):
            filters = shape[0] // self.groups
            x = self._padded(x if filters == 1 else x.repeat_interleave(filters, 1))[:, None]
            # oneDNN and CUDA have fast kernels for this in float32, and others have not: 16 against 200 µs a sample for
            # 40 channels of 14 × 14 and a filter of 5 × 5 on one core, but 1700 against 1200 µs in float64
            fast = x.is_cuda or x.dtype == torch.float32
            return (self._correlated if fast else self._entry_by_entry)(x, errors, shape)
        patches = self._patches(x, errors.shape[3:], shape[2:])  # (R, g, n, T)
        split = errors.reshape(*errors.shape[:2], self.groups, shape[0] // self.groups, -1)  # (R, C, g, m, T)
        return (split @ patches[:, None].transpose(-1, -2)).reshape(*errors.shape[:2], *shape)

    def scratch(self, x: Tensor, output: torch.Size, shape: torch.Size) -> int:
        """Patches; or the data three times over, padded, repeated and in the layout of the fast kernels."""
        if self._depthwise(shape):
            return 3 * math.prod(output[:2]) * math.prod(x.shape[2:])
        return 0 if self._plain(shape[2:]) else x.shape[0] * x.shape[1] * math.prod(shape[2:]) * math.prod(output[2:])

    def positions(self, output: torch.Size, shape: torch.Size) -> int:
        """Places of the filter."""
        return 0 if self.groups > 1 else math.prod(output[2:])

    def factors(self, x: Tensor, errors: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Patches and errors, for one group."""
        patches = self._patches(x, errors.shape[3:], shape[2:])[:, 0]
        return patches.transpose(1, 2), errors.flatten(3).transpose(2, 3)

    def _depthwise(self, shape: torch.Size) -> bool:
        return shape[1] == 1 and self.groups > 1

    def _plain(self, kernel: torch.Size) -> bool:
        return set(kernel) | set(self.stride) == {1} and not any(itertools.chain(*self.padding))

    def _padded(self, x: Tensor) -> Tensor:
        sides = [side for pair in reversed(self.padding) for side in pair]
        return F.pad(x, sides) if any(sides) else x

    def _patches(self, x: Tensor, places: torch.Size, kernel: torch.Size) -> Tensor:
        """What each place of the filter sees, (R, groups, channels of a group times entries of the filter, T)."""
        if not self._plain(kernel):
            x = self._padded(x).contiguous()
            steps = x.stride()[2:]
            inside = (a * b for a, b in zip(steps, self.dilation, strict=True))
            between = (a * b for a, b in zip(steps, self.stride, strict=True))
            x = x.as_strided((*x.shape[:2], *kernel, *places), (*x.stride()[:2], *inside, *between))
        return x.reshape(len(x), self.groups, -1, math.prod(places))

    def _correlated(self, x: Tensor, errors: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of a filter is the data filtered by the errors: stride and dilation change places."""
        x = x.expand(*errors.shape[:3], *x.shape[3:])
        channels = math.prod(errors.shape[:3])
        convolve = _CONVOLUTIONS[len(self.stride)]
        one_row, filters = x.reshape(1, channels, *x.shape[3:]), errors.reshape(channels, 1, *errors.shape[3:])
        result = convolve(one_row, filters, stride=self.dilation, dilation=self.stride, groups=channels)[0]
        inside = tuple(slice(k) for k in shape[2:])  # a stride may leave data at the end that no place has seen
        return result[(slice(None), *inside)].reshape(*errors.shape[:2], *shape)

    def _entry_by_entry(self, x: Tensor, errors: Tensor, shape: torch.Size) -> Tensor:
        """Entry by entry of the filter, the data below it times the errors; channels last, for sums along memory."""
        x, errors = (part.movedim(2, -1).contiguous() for part in (x, errors))
        out = errors.new_empty(*shape[2:], *errors.shape[:2], shape[0])
        places, inner = errors.shape[2:-1], tuple(range(2, errors.ndim - 1))
        for entry in itertools.product(*map(range, shape[2:])):
            starts = [e * d for e, d in zip(entry, self.dilation, strict=True)]
            below = [slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, self.stride, places, strict=True)]
            out[entry] = (x[(..., *below, slice(None))] * errors).sum(inner)
        return out.movedim((-3, -2, -1), (0, 1, 2)).reshape(*errors.shape[:2], *shape)


@dataclass(frozen=True)
class Scale:
    """x times w, w being spread over the output like a tensor of shape `spread` by the rules of broadcasting."""

    spread: tuple[int, ...]
    reads: ClassVar[bool] = True

    def gradients(self, x: Tensor, errors: Tensor, shape: torch.Size) -> Tensor:
        """Σ e x over all that share an entry of w."""
        return _gathered(errors * x[:, None], self.spread).reshape(*errors.shape[:2], *shape)

    def scratch(self, x: Tensor, output: torch.Size, shape: torch.Size) -> int:
        """The product."""
        return math.prod(output)

    def positions(self, output: torch.Size, shape: torch.Size) -> int:
        """No factors."""
        return 0

    def factors(self, x: Tensor, errors: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """No factors."""
        raise TypeError(f"{type(self).__name__}: expected a use with positions, got one without; take its gradients")


@dataclass(frozen=True)
class Shift:
    """x plus `sign` times w, w being spread over the output as in `Scale`."""

    spread: tuple[int, ...]
    sign: int = 1
    reads: ClassVar[bool] = False

    def gradients(self, x: Tensor | None, errors: Tensor, shape: torch.Size) -> Tensor:
        """Σ e over all that share an entry of w."""
        return self.sign * _gathered(errors, self.spread).reshape(*errors.shape[:2], *shape)

    def scratch(self, x: Tensor | None, output: torch.Size, shape: torch.Size) -> int:
        """Nothing."""
        return 0

    positions, factors = Scale.positions, Scale.factors


@dataclass(frozen=True)
class LookUp:
    """Rows of w (entries, n) chosen by whole numbers x (R, …); those of the entry `ignored` do not count."""

    ignored: int | None
    reads: ClassVar[bool] = True

    def gradients(self, x: Tensor, errors: Tensor, shape: torch.Size) -> Tensor:
        """Errors added up entry by entry."""
        entries = x.reshape(len(x), 1, -1, 1).expand(*errors.shape[:2], -1, shape[1])
        errors = errors.reshape(entries.shape)
        if self.ignored is not None:
            errors = errors * (entries != self.ignored)
        return errors.new_zeros(*errors.shape[:2], *shape).scatter_add_(2, entries, errors)

    def scratch(self, x: Tensor, output: torch.Size, shape: torch.Size) -> int:
        """The entries, as long integers, and what counts of the errors."""
        return 3 * math.prod(output)

    positions, factors = Scale.positions, Scale.factors


def _gathered(values: Tensor, spread: tuple[int, ...]) -> Tensor:
    """Sum of values (R, C, …) over the dimensions along which a tensor of shape `spread` is repeated."""
    lacking = values.ndim - 1 - len(spread)  # dimensions of the output, R among them, that `spread` has not
    repeated = [i for i in range(2, values.ndim) if i - 1 < lacking or spread[i - 1 - lacking] == 1]
    return values.sum(repeated) if repeated else values
