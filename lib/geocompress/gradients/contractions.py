"""Gradients of every sample from activations and back-propagated errors where that is right, by autograd elsewhere.

A network is looked at once, on a few samples. What `calls` recorded there is held against plain autograd,
parameter by parameter; one that is used in another way too, or whose gradient comes out wrong (as when the first
dimension inside the network is not that of the samples), is left to autograd from then on.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from geocompress.gradients.calls import Recorder, Weight
from geocompress.gradients.rules import RULES
from geocompress.gradients.samples import Function, Gradients, Way, faster, one_by_one

Pairs = dict[str, tuple[Float[Tensor, "n t a"], Float[Tensor, "n c t b"]]]
_DEPENDS = "pass strategy=ONE_BY_ONE, for the forward pass uses {} in a way that depends on the data"


class SampleGradients:
    """Gradients of a network's outputs, sample by sample.

    Args:
        function: the network.
        x: a few samples to look at it with.
        contract: whether to use activations and errors at all.
        way: for the parameters for which they are not used; None takes the `faster`.

    Attributes:
        home: one of the parameters, for dtype and device.
        sizes: numbers of every parameter.
        outputs: C, outputs a sample.
        general: parameters that are left to autograd.
        factored: parameters whose gradients are Σ_t e_t ⊗ x_t of one call: name → (T, n, m).
        held: numbers that a pass holds for each sample, gradients aside.

    Raises:
        ValueError: outputs that are not finite, or that depend on chance or on the other samples.
    """

    def __init__(self, function: Function, x: Tensor, *, contract: bool = True, way: Way | None = None) -> None:
        self._function = function
        self.home = next(iter(function.params.values()))
        self.sizes = {name: value.numel() for name, value in function.params.items()}
        self.outputs = _number_of_outputs(function, x)
        self.general, self.factored = set(function.params), {}
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes() // x.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            seen = Pass(function, x, set(function.params), self.outputs)
        self._signature = seen.signature
        for value in function.params.values():
            saved.pop(value.untyped_storage().data_ptr(), None)
        self.held = -(-(sum(saved.values()) + seen.numbers()) // len(x))
        if contract:
            self._trust(seen, one_by_one(function, sorted(function.params), x, self.outputs))
        self._way = way
        if way is None and self.general:
            self._way = faster(function, sorted(self.general), x, self.outputs)

    def at(
        self, x: Shaped[Tensor, "n ..."], formed: Collection[str], factored: Collection[str] = ()
    ) -> tuple[Gradients, Pairs]:
        """Gradients (n, C, w) of the parameters `formed`, and factors (n, T, a), (n, C, T, b) of those `factored`.

        Raises:
            ValueError: the network treats these samples in another way than those it was looked at with.
        """
        general = [name for name in formed if name in self.general]
        gradients = self._way(self._function, general, x, self.outputs) if general else {}
        contracted = [name for name in formed if name not in self.general]
        pairs: Pairs = {}
        if contracted or factored:
            made = Pass(self._function, x, {*contracted, *factored}, self.outputs)
            if made.left or made.spoiled or self._contracted(made.signature) != self._contracted(self._signature):
                raise ValueError(f"empirical_ntk: {_DEPENDS.format(', '.join(sorted(made.left)) or 'parameters')}")
            gradients |= made.gradients(contracted)
            pairs = {name: made.factors(name) for name in factored}
        return gradients, pairs

    def _contracted(self, signature: list[tuple]) -> list[tuple]:
        """The calls that gradients are made from."""
        return [call for call in signature if not self.general.issuperset(call[1])]

    def _trust(self, seen: Pass, truth: Gradients) -> None:
        """Take from autograd the parameters whose gradients are right without it, up to rounding.

        A gradient of zero, as behind a gate that is shut for these samples, says nothing of a call.
        """
        norms = {name: float(value.norm()) for name, value in truth.items()}
        whole = math.hypot(*norms.values())
        called = {name for _, sources, *_ in seen.signature for name in sources}
        silent = {name for name in called if norms.get(name) == 0}
        for name in sorted(set(truth) - seen.left - seen.spoiled - silent):
            try:
                ours = seen.gradients([name])[name]
            except RuntimeError:  # made of parameters in a way that cannot be batched, or other rows
                continue
            eps = torch.finfo(ours.dtype).eps
            if float((ours - truth[name]).norm()) <= 1e4 * eps * norms[name] + 1e3 * eps * whole:
                self.general.discard(name)
                if (form := seen.form(name)) is not None:
                    self.factored[name] = form


class Pass:
    """One forward pass over samples, cut off from parameters where a rule says how, and a backward pass an output.

    Attributes:
        signature: the recorded calls and their shapes, a sample each.
        left: wanted parameters on which the outputs depend in another way too.
        spoiled: wanted parameters that met data which were written to later.
    """

    def __init__(self, function: Function, x: Tensor, wanted: set[str], outputs: int) -> None:
        self._leaves = {name: value.detach().requires_grad_() for name, value in function.params.items()}
        self._samples, self._outputs = len(x), outputs
        recorder = Recorder(self._leaves, function.constants, RULES)
        with torch.enable_grad(), recorder:
            output = function.outputs(self._leaves, x)
        self.signature = [(c.use, c.weight.sources, *_each(recorder.shapes[c.output], len(x))) for c in recorder.calls]
        calls = [call for call in recorder.calls if not wanted.isdisjoint(call.weight.sources)]
        self.spoiled = {name for call in calls if call.spoiled for name in call.weight.sources} & wanted
        names, places = sorted(wanted), sorted({call.output for call in calls})
        inputs = [recorder.outputs[i] for i in places] + [self._leaves[name] for name in names]
        columns = [_derivatives(output, c, inputs) for c in range(outputs)]
        self.left = {
            name for i, name in enumerate(names, len(places)) if any(column[i] is not None for column in columns)
        }
        errors = {place: _stacked([column[i] for column in columns]) for i, place in enumerate(places)}
        self._calls = [(call, errors[call.output]) for call in calls if errors[call.output] is not None]

    def numbers(self) -> int:
        """Numbers that all data and errors take, and the greatest of the steps to gradients."""
        data = {call.x.data_ptr(): call.x.numel() for call, _ in self._calls if call.x is not None}
        errors = {call.output: value.numel() for call, value in self._calls}
        steps = (call.use.scratch(call.x, value[:, 0].shape, call.shape) for call, value in self._calls)
        return sum(data.values()) + sum(errors.values()) + 3 * max(errors.values(), default=0) + max(steps, default=0)

    def gradients(self, names: Collection[str]) -> Gradients:
        """∂f_c(x_i)/∂W of the named parameters (n, C, w), the sum over all calls they had a part in."""
        found: Gradients = {}
        for call, errors in self._calls:
            if set(names).isdisjoint(call.weight.sources):
                continue
            rows = call.use.gradients(call.x, errors, call.shape)
            part = rows if len(rows) == self._samples else rows.unflatten(0, (self._samples, -1)).sum(1)
            for name, gradient in self._of_sources(call.weight, part).items():
                found[name] = found[name].add_(gradient) if name in found else gradient
        for name in set(names) - set(found):
            leaf = self._leaves[name]
            found[name] = leaf.new_zeros(self._samples, self._outputs, leaf.numel())
        return {name: found[name] for name in names}

    def form(self, name: str) -> tuple[int, int, int] | None:
        """(T, n, m) if the gradient is Σ_t e_t ⊗ x_t of one call."""
        calls = [(call, errors) for call, errors in self._calls if name in call.weight.sources]
        if len(calls) != 1 or calls[0][0].weight.factor is None:
            return None
        call, errors = calls[0]
        positions = call.use.positions(errors[:, 0].shape, call.shape) * len(errors) // self._samples
        m = call.shape[0] if len(call.shape) > 1 else 1
        return (positions, math.prod(call.shape) // m, m) if positions else None

    def factors(self, name: str) -> tuple[Float[Tensor, "n t a"], Float[Tensor, "n c t b"]]:
        """The factors x_t (n, T, a) and e_t (n, C, T, b) of a parameter that has a `form`."""
        ((call, errors),) = [(call, errors) for call, errors in self._calls if name in call.weight.sources]
        x, errors = call.use.factors(call.x, errors, call.shape)
        x = x.reshape(self._samples, -1, x.shape[-1]) * call.weight.factor
        return x, errors.unflatten(0, (self._samples, -1)).transpose(1, 2).flatten(2, 3)

    def _of_sources(self, weight: Weight, rows: Float[Tensor, "n c ..."]) -> Gradients:
        """Gradients of the parameters a weight was made of."""
        if weight.factor is not None:
            rows = rows.transpose(-1, -2) if weight.flipped else rows
            gradient = rows.reshape(*rows.shape[:2], -1)  # a number, too, is a vector of one entry
            return {weight.sources[0]: gradient if weight.factor == 1 else gradient.mul_(weight.factor)}
        leaves = [self._leaves[name] for name in weight.sources]
        options = {"is_grads_batched": True, "retain_graph": True, "allow_unused": True}
        parts = torch.autograd.grad(weight.tensor, leaves, rows.flatten(0, 1), **options)
        shape = rows.shape[:2]
        return {n: p.reshape(*shape, -1) for n, p in zip(weight.sources, parts, strict=True) if p is not None}


def _each(shape: torch.Size, samples: int) -> tuple[float | int, ...]:
    return (shape[0] / samples, *shape[1:])


def _derivatives(output: Float[Tensor, "n c"], c: int, inputs: list) -> tuple[Tensor | None, ...]:
    """∂ Σ_i f_c(x_i) with respect to the inputs; samples do not mix, so errors are those of each sample."""
    if not output.requires_grad or not inputs:
        return (None,) * len(inputs)
    return torch.autograd.grad(output[:, c].sum(), inputs, retain_graph=c + 1 < output.shape[1], allow_unused=True)


def _stacked(columns: list[Tensor | None]) -> Tensor | None:
    """Errors (R, C, …), zero where an output depends on nothing; None if all are."""
    some = next((column for column in columns if column is not None), None)
    if some is None:
        return None
    columns = [torch.zeros_like(some) if column is None else column for column in columns]
    return columns[0][:, None] if len(columns) == 1 else torch.stack(columns, dim=1)


def _number_of_outputs(function: Function, x: Tensor) -> int:
    """C; refuses outputs that are not finite, or that depend on chance or on the other samples."""
    with torch.no_grad():
        together = function.outputs(function.params, x)
        alone = torch.cat([function.outputs(function.params, point) for point in x.split(1)])
    if not bool(together.isfinite().all()):
        raise ValueError("empirical_ntk: expected finite outputs, got nan or inf; look at parameters and points")
    if together.shape != alone.shape or not torch.allclose(
        together, alone, rtol=0, atol=1e4 * torch.finfo(alone.dtype).eps * float(alone.abs().max())
    ):
        raise ValueError(
            "empirical_ntk: expected outputs of one sample each, got outputs that depend on chance or on the other "
            "samples; switch off dropout and batch statistics, as module.eval() does"
        )
    return together.shape[1]
