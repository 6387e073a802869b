"""Rules for `calls.Recorder`: how to run a function of torch on data with its weights cut off from the graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geocompress.gradients.calls import Recorder, Rule, derived
from geocompress.gradients.factors import Convolution, LookUp, Product, Scale, Shift, Use


def _cut(recorder: Recorder, tensor: Tensor | None) -> Tensor | None:
    return tensor if recorder.weight(tensor) is None else tensor.detach()


def _fits(recorder: Recorder, x: object, *weights: object) -> bool:
    """Data met by weights or constants, none of which may depend on samples."""
    return recorder.data(x) and all(weight is None or recorder.independent(weight) for weight in weights)


def _linear(recorder: Recorder, func: Callable, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not _fits(recorder, input, weight, bias) or input.ndim < 2 or weight.ndim != 2:
        return NotImplemented
    output = func(input, _cut(recorder, weight), _cut(recorder, bias))
    return recorder.record([(Product(), weight), (Shift(weight.shape[:1]), bias)], input, output)


def _matmul(recorder: Recorder, func: Callable, input: Tensor, other: Tensor) -> Any:
    weight = recorder.weight(other)
    if weight is None or not _fits(recorder, input) or input.ndim < 2 or other.ndim not in (1, 2):
        return NotImplemented
    output = func(input, other.detach())
    if other.ndim == 2:
        other = recorder.know(derived(Tensor.t, other.t(), [weight], (other,)))
    return recorder.record([(Product(), other)], input, output)


def _convolution(
    recorder: Recorder,
    func: Callable,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Any:
    if not _fits(recorder, input, weight, bias) or input.ndim != weight.ndim:
        return NotImplemented
    output = func(input, _cut(recorder, weight), _cut(recorder, bias), stride, padding, dilation, groups)
    kernel = weight.shape[2:]

    def each(value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (
            tuple(value) * (len(kernel) // len(value)) if isinstance(value, (tuple, list)) else (value,) * len(kernel)
        )

    if isinstance(padding, str):
        whole = [d * (k - 1) * (padding == "same") for d, k in zip(each(dilation), kernel, strict=True)]
        sides = tuple((n // 2, n - n // 2) for n in whole)
    else:
        sides = tuple((n, n) for n in each(padding))
    use = Convolution(each(stride), sides, each(dilation), groups)
    return recorder.record([(use, weight), (Shift(_channels(weight, input)), bias)], input, output)


def _channels(weight: Tensor, input: Tensor) -> tuple[int, ...]:
    """The shape in which one number a channel spreads over (R, channels, …)."""
    return (len(weight), *[1] * (input.ndim - 2))


def _normalisation(spread: Callable[..., tuple[int, ...]]) -> Callable:
    """A rule for a function of torch that normalises the data and applies `weight` and `bias` afterwards."""

    def rule(recorder: Recorder, func: Callable, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(func).bind(*args, **kwargs)
        bound.apply_defaults()
        settings = bound.arguments
        input, weight, bias = settings["input"], settings["weight"], settings.get("bias")
        if not _fits(recorder, input, weight, bias) or input.ndim < 2 or settings.get("training"):
            return NotImplemented
        plain = func(**{name: None if name in ("weight", "bias") else value for name, value in settings.items()})
        shape = spread(weight if bias is None else bias, input, settings)
        output = plain if weight is None else plain * _cut(recorder, weight).reshape(shape)
        output = output if bias is None else output + _cut(recorder, bias).reshape(shape)
        return recorder.record([(Scale(shape), weight), (Shift(shape), bias)], plain, output)

    return rule


def _embedding(
    recorder: Recorder,
    func: Callable,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    *rest: Any,
    **more: Any,
) -> Any:
    if not _fits(recorder, input) or recorder.weight(weight) is None or any((*rest[:1], *rest[2:])):
        return NotImplemented
    if more.get("max_norm") is not None or more.get("scale_grad_by_freq") or more.get("sparse"):
        return NotImplemented
    ignored = None if padding_idx is None else padding_idx % len(weight)
    return recorder.record([(LookUp(ignored), weight)], input, func(input, weight.detach()))


def _elementwise(use: Callable[[Tensor, bool], Use]) -> Callable:
    def rule(recorder: Recorder, func: Callable, a: Tensor, b: Tensor, **settings: Any) -> Any:
        weight, x = (a, b) if recorder.weight(a) is not None else (b, a)
        if settings or recorder.weight(weight) is None or not _fits(recorder, x):
            return NotImplemented
        shape = torch.broadcast_shapes(a.shape, b.shape)
        own_rows = weight.ndim == len(shape) and weight.shape[0] != 1
        if own_rows or x.ndim != len(shape) or x.shape[0] != shape[0]:
            return NotImplemented
        output = func(_cut(recorder, a), _cut(recorder, b))
        return recorder.record([(use(weight, weight is b), weight)], x, output)

    return rule


_by_layer = _normalisation(lambda _weight, _input, settings: tuple(settings["normalized_shape"]))
_by_channel = _normalisation(lambda weight, input, _settings: _channels(weight, input))
_scale = _elementwise(lambda weight, _second: Scale(tuple(weight.shape)))
_add = _elementwise(lambda weight, _second: Shift(tuple(weight.shape)))
_subtract = _elementwise(lambda weight, second: Shift(tuple(weight.shape), -1 if second else 1))
RULES: dict[Callable, Rule] = {
    F.linear: _linear,
    F.embedding: _embedding,
    F.layer_norm: _by_layer,
    F.rms_norm: _by_layer,
    F.group_norm: _by_channel,
    F.batch_norm: _by_channel,
    F.instance_norm: _by_channel,
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    **dict.fromkeys((torch.matmul, Tensor.matmul, torch.mm, Tensor.mm), _matmul),
    **dict.fromkeys((torch.mul, Tensor.mul), _scale),
    **dict.fromkeys((torch.add, Tensor.add), _add),
    **dict.fromkeys((torch.sub, Tensor.sub), _subtract),
}
