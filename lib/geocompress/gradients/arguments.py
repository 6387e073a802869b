"""What `empirical.empirical_ntk` accepts: networks of several kinds as one kind of function, points that fit them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from geocompress.checks import deterministic
from geocompress.gradients.samples import Function

_CALLER = "empirical_ntk"


def as_function(network: object, params: object) -> Function:
    """The network as a function of its trainable parameters, at `params`.

    Raises:
        TypeError: neither module nor callable, or parameters that are no dictionary of tensors.
        ValueError: noise or batch statistics, nothing to train, or parameters of another architecture.
    """
    if params is not None and not _is_tensors(params):
        raise TypeError(
            f"{_CALLER}: expected params as a dictionary of tensors, got {type(params).__name__}; pass a state_dict"
        )
    if isinstance(network, nn.Module):
        return _of_module(network, params)
    if not callable(network):
        raise TypeError(
            f"{_CALLER}: expected networks.OneHidden, a torch.nn.Module or a callable (params, x) → f, got "
            f"{type(network).__name__}; pass one of these"
        )
    if params is None:
        raise TypeError(f"{_CALLER}: expected params of the callable, got None; pass a dictionary of tensors")
    trained = {name: value.detach() for name, value in params.items() if value.is_floating_point()}
    rest = {name: value for name, value in params.items() if name not in trained}
    _refuse_nothing(trained)
    return Function(lambda some, x: network({**rest, **some}, x), trained, tuple(rest.values()))


def points(x1: object, x2: object, function: Function) -> Tensor | None:
    """Refuse points that do not fit each other or the network; returns x2.

    Raises:
        TypeError: no tensors, or of another dtype than the parameters.
        ValueError: none, on two devices, of several shapes, or not finite.
    """
    home = next(iter(function.params.values()))
    tensors = {**function.params, **dict(enumerate(function.constants))}
    for name, value in {"x1": x1, "x2": x2, **tensors}.items():
        if name == "x2" and value is None:
            continue
        named = name if isinstance(name, str) else "a buffer"
        if not isinstance(value, Tensor):
            raise TypeError(f"{_CALLER}: expected {named} as a torch tensor, got {type(value).__name__}; convert it")
        if value.device != home.device:
            expected = f"{named} on {home.device} like the parameters"
            raise ValueError(
                f"{_CALLER}: expected {expected}, got {value.device}; move it with .to({str(home.device)!r})"
            )
        if value.is_floating_point() and value.dtype != home.dtype:
            expected = f"{named} in {home.dtype} like the parameters"
            raise TypeError(f"{_CALLER}: expected {expected}, got {value.dtype}; convert it with .to({home.dtype})")
        if value.is_floating_point() and not finite(value):
            raise ValueError(
                f"{_CALLER}: expected finite numbers in {named}, got nan or inf; look where they come from"
            )
    for name, value in (("x1", x1), ("x2", x2)):
        if value is not None and (value.ndim < 1 or len(value) < 1 or value.shape[1:] != x1.shape[1:]):
            got = f"{name} {tuple(value.shape)} with x1 {tuple(x1.shape)}"
            raise ValueError(f"{_CALLER}: expected at least one point, a row each, of one shape, got {got}")
    if home.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{_CALLER}: expected float32 or float64, got {home.dtype}; convert network and points")
    return x2


def finite(value: Tensor) -> bool:
    """Whether all numbers are finite; they are if their sum is, which is faster to see."""
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def _of_module(module: nn.Module, params: Mapping[str, Tensor] | None) -> Function:
    deterministic(module, _CALLER)
    own = dict(module.named_parameters())
    state = {**own, **dict(module.named_buffers())}
    if params is not None:
        _refuse_others(module, params, own, state)
        state |= {name: value for name, value in params.items() if name in state}
    trained = {name: state.pop(name).detach() for name, value in own.items() if value.requires_grad}
    _refuse_nothing(trained)
    rest = {name: value.detach() for name, value in state.items()}

    def forward(some: dict[str, Tensor], x: Tensor) -> object:
        return functional_call(module, {**rest, **some}, (x,))

    return Function(forward, trained, tuple(rest.values()))


def _refuse_others(module: nn.Module, params: Mapping[str, Tensor], own: dict, state: dict) -> None:
    """Refuse a checkpoint that does not fit; names of shared parameters may all occur, with one value."""
    every = dict(module.named_parameters(remove_duplicate=False))
    first = {id(value): name for name, value in own.items()}
    known = {**state, **every, **dict(module.named_buffers(remove_duplicate=False))}
    unknown = sorted(set(params) - set(known) - set(module.state_dict()))
    lacking = sorted(name for name, value in own.items() if value.requires_grad and name not in params)
    shapes = [name for name in params if name in known and params[name].shape != known[name].shape]
    apart = [
        name
        for name in set(params) & set(every)
        if (original := first[id(every[name])]) != name
        and original in params
        and not torch.equal(params[name], params[original])
    ]
    for problem, names in (
        ("has no", unknown),
        ("also needs", lacking),
        ("has other shapes of", shapes),
        ("shares, with another value,", apart),
    ):
        if names:
            raise ValueError(
                f"{_CALLER}: expected params of this {type(module).__name__}, got those of another architecture: it "
                f"{problem} {', '.join(map(repr, names[:5]))}; pass the state_dict of such a module"
            )


def _refuse_nothing(trained: Mapping[str, Tensor]) -> None:
    if not any(value.numel() for value in trained.values()):
        raise ValueError(f"{_CALLER}: expected parameters with requires_grad=True, got none; nothing is trained")


def _is_tensors(params: object) -> bool:
    return isinstance(params, Mapping) and all(isinstance(value, Tensor) for value in params.values())
