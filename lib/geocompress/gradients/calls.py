"""What a forward pass does with its parameters, call by call.

`Recorder` watches every torch function while a network runs. Where a parameter, or a tensor made of parameters alone
(scaled, transposed, concatenated …), meets data in a way for which there is a rule, the call is recorded and the
parameter cut off from the graph there. Every other way, seen or unseen, leaves it in the graph: whoever asks autograd
afterwards which parameters the output still depends on knows exactly which ones were not wholly understood.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from geocompress.gradients.factors import Use

Rule = Callable[
    ..., Any
]  # (recorder, function, *its arguments) → its result, or NotImplemented where it does not apply


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor made of parameters alone.

    Attributes:
        tensor: attached to the graph of its sources.
        sources: names of the parameters.
        factor: the tensor is that number times its one source, in the same order of numbers; None: anything else.
        flipped: but for the transposition of a matrix.
    """

    tensor: Tensor
    sources: tuple[str, ...]
    factor: float | None
    flipped: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """One meeting of a weight and data: `output` numbers the recorder's `outputs` at which its error arrives."""

    use: Use
    weight: Weight
    shape: torch.Size
    x: Tensor | None
    version: int
    output: int

    @property
    def spoiled(self) -> bool:
        """Whether the data were written to after the call."""
        return self.x is not None and self.x._version != self.version


class Recorder(TorchFunctionMode):
    """Records the calls in which parameters meet data.

    Args:
        parameters: by name, leaves that require a gradient.
        constants: further tensors that belong to no sample: buffers, parameters that are held fixed.
        rules: by function of torch, see `rules`.

    Attributes:
        calls: in the order of the forward pass.
        outputs: where to ask autograd for the errors of the calls.
        shapes: of these outputs.
    """

    def __init__(
        self, parameters: dict[str, Tensor], constants: Iterable[Tensor], rules: Mapping[Callable, Rule]
    ) -> None:
        super().__init__()
        self._rules = rules
        self.calls: list[Call] = []
        self.outputs: list[GradientEdge | Tensor] = []
        self.shapes: list[torch.Size] = []
        self._weights = {id(t): (Weight(t, (name,), 1.0), t._version) for name, t in parameters.items()}
        self._constants = {id(t): (t, t._version) for t in constants}

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the function, cut off from the parameters where a rule says how."""
        kwargs = kwargs or {}
        tensors = [t for t in _flat((args, tuple(kwargs.values()))) if isinstance(t, Tensor)]
        if any(self.weight(t) for t in tensors) and not all(self.independent(t) for t in tensors):
            rule = self._rules.get(func)
            result = NotImplemented if rule is None else rule(self, func, *args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if all(self.independent(t) for t in tensors):
            self._remember(func, result, tensors, args)
        return result

    def weight(self, value: object) -> Weight | None:
        """The weight that `value` is, if it is one and was not written to since."""
        weight, version = self._weights.get(id(value), (None, None))
        return weight if weight is not None and weight.tensor._version == version else None

    def data(self, value: object) -> bool:
        """Whether `value` is a tensor that may depend on the samples, with a first dimension for them."""
        return isinstance(value, Tensor) and value.ndim > 0 and not self.independent(value) and not _wrapped(value)

    def record(self, uses: Iterable[tuple[Use, Tensor | None]], x: Tensor, output: Tensor) -> Tensor:
        """Note the uses of weights, cut off from the graph, that made `output` from x; returns it, watched."""
        if not output.requires_grad:  # the first layer: nothing before it needs a gradient
            leaf = output.requires_grad_()
            self.outputs.append(leaf)
            output = leaf.clone()  # so that it may be written to, as after any other layer
        else:
            self.outputs.append(get_gradient_edge(output))
        self.shapes.append(output.shape)
        for use, tensor in uses:
            if (weight := self.weight(tensor)) is not None:
                read = x.detach() if use.reads else None
                version = 0 if read is None else read._version
                self.calls.append(Call(use, weight, tensor.shape, read, version, len(self.outputs) - 1))
        return output

    def independent(self, tensor: Tensor) -> bool:
        """Whether the tensor is a weight or a constant: the same for every sample."""
        if self.weight(tensor) is not None:
            return True
        known, version = self._constants.get(id(tensor), (None, None))
        return known is not None and known._version == version

    def _remember(self, func: Callable, result: object, tensors: list[Tensor], args: tuple) -> None:
        """Note what was made without data: weights from weights, constants from all else."""
        weights = [weight for t in tensors if (weight := self.weight(t))]
        for made in _flat((result,)):
            if isinstance(made, Tensor) and not _wrapped(made) and id(made) not in self._weights:
                if weights and made.requires_grad:
                    self.know(derived(func, made, weights, args))
                else:
                    self._constants[id(made)] = (made, made._version)

    def know(self, weight: Weight) -> Tensor:
        """Treat the tensor of `weight` as one from now on; returns it."""
        self._weights[id(weight.tensor)] = (weight, weight.tensor._version)
        return weight.tensor


def _flat(value: Iterable) -> Iterator[object]:
    for entry in value:
        if isinstance(entry, (tuple, list)):
            yield from _flat(entry)
        else:
            yield entry


def _wrapped(tensor: Tensor) -> bool:
    """Whether the tensor stands for others inside a `torch.func` transformation."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


_MULTIPLIED, _DIVIDED, _NEGATED = ({getattr(o, n) for o in (Tensor, torch)} for n in ("mul", "div", "neg"))
_DIVIDED |= {Tensor.true_divide, torch.true_divide}
_RESHAPED = {Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten, Tensor.contiguous}
_RESHAPED |= {Tensor.unsqueeze, torch.unsqueeze, Tensor.squeeze, torch.squeeze, Tensor.clone, torch.clone}
_TRANSPOSED = {Tensor.t, torch.t, Tensor.T.__get__, Tensor.mT.__get__, Tensor.transpose, torch.transpose}


def derived(func: Callable, made: Tensor, weights: list[Weight], args: tuple) -> Weight:
    """What `func` made of weights: a multiple of one of them, in its order or transposed, or anything else."""
    sources = tuple(sorted({name for weight in weights for name in weight.sources}))
    first = weights[0]
    if len(weights) == 1 and first.factor is not None:
        number = next((a for a in args if isinstance(a, numbers.Real) and not isinstance(a, bool)), None)
        if func in _MULTIPLIED and number is not None:
            return Weight(made, sources, first.factor * float(number), first.flipped)
        if func in _DIVIDED and number is not None and args[0] is first.tensor and len(args) == 2:
            return Weight(made, sources, first.factor / float(number), first.flipped)
        if func in _NEGATED:
            return Weight(made, sources, -first.factor, first.flipped)
        if func in _RESHAPED and not first.flipped and made.numel() == first.tensor.numel():
            return Weight(made, sources, first.factor)
        if func in _TRANSPOSED and made.ndim == 2 and len({a % 2 for a in args[1:]}) != 1:
            return Weight(made, sources, first.factor, not first.flipped)
    return Weight(made, sources, None)
