"""The diagnostic of compression for anyone's own net: a module, its points and its saved states make a `Diagnosis`.

Everything is looked at in float64, whatever the net was trained in: frozen machines need it, and the numbers of a saved
state are the same in it. The module is never written to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from geocompress import checkpoints as saved
from geocompress import diagnosis_checks, input_gradients, spectrum, targets
from geocompress.checkpoints import Checkpoint
from geocompress.checks import Real, real
from geocompress.empirical import empirical_ntk
from geocompress.input_gradients import GradientCovariance

TOP = 10  # eigenvectors of the tangent kernel, and of the input gradients, that are looked at
BATCH = 1024  # points whose outputs are computed at once


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What became of a net in training, one line a checkpoint. `diagnosis_page.write_html` makes a page of it.

    Attributes:
        kind: "two classes", "classes" or "regression"; see `targets` for what an error is.
        table: one line each: `checkpoint`, `time`; `train_error` and `net_error` of the net; `kernel_error` of the
            machine on its tangent kernel frozen there, and `kernel_status`, how that fit ended; `alignment` of the
            kernel with the label; `information`, the largest of the ten; `effective_dimension` of the kernel;
            `gradient_dimension`, `compression` and `compression_along` of the input gradients. Without a holdout, or
            where a machine does not exist, errors are nan; where inputs are whole numbers, the last three are.
        eigenvalues: of the tangent kernel on the training points, shape (n, k), descending.
        information: I(u_r; y) in nats of its eigenvectors, shape (n, k).
        ceiling: entropy of the label in nats, which no information exceeds; inf for regression.
        covariances: of the input gradients, one a checkpoint; empty where inputs are whole numbers.
        informative: number of leading directions that `compression` counts as informative; 0 without covariances.
        shape: of one point.
        points: p.
        holdout: number of held-out points, 0 without.
        shared: how many of these occur among the training points.
        module: name of the module's class.
        weights: number of trained parameters.
    """

    kind: str
    table: pd.DataFrame
    eigenvalues: Float[np.ndarray, "n k"]
    information: Float[np.ndarray, "n k"]
    ceiling: float
    covariances: tuple[GradientCovariance, ...]
    informative: int
    shape: tuple[int, ...]
    points: int
    holdout: int
    shared: int
    module: str
    weights: int

    def direction(self, checkpoint: int, rank: int) -> Float[np.ndarray, "..."]:
        """The informative direction of a rank (from 0) at a checkpoint, of unit length, in the shape of a point.

        Raises:
            IndexError: no such checkpoint or rank.
        """
        return self.covariances[checkpoint].vectors[rank].reshape(self.shape)


def diagnose(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    checkpoints: object = None,
    holdout: tuple[Tensor, Tensor] | None = None,
    names: object = None,
    times: object = None,
    output: object = None,
    directions: Tensor | None = None,
    informative: object = None,
    memory_gb: Real = 1.0,
) -> Diagnosis:
    """Look at a net's tangent kernel and input gradients in each of its saved states (arXiv:2007.11471).

    In every state: alignment of the kernel with the label and information of its first ten eigenvectors about it, on
    the training points; the test error of the kernel frozen there beside the net's own; effective dimension; covariance
    of the input gradients. A net in the lazy regime shows the same in all states. One that compresses shows a kernel
    that turns to the label, and that learns more from the same points than the kernel at the start.

    Memory: two p × p matrices and one q × p in float64, beside the budget. Time, for each state: p² times the number of
    parameters at most, for the kernel, and a machine on it.

    Args:
        module: in eval mode, of any floating-point dtype. Parameters with `requires_grad` are the trained ones.
        x: training points (p, …), of the dtype of the module; or whole numbers, where it looks them up.
        y: labels (p,): −1 and +1, or integers for classes, or numbers to regress on; see `targets.read`.
        checkpoints: a list of state_dicts or paths, the initial state first; None takes the module as it is.
        holdout: other points and labels, for test errors.
        names: of the checkpoints; default: the stems of their files.
        times: a number each, for the axis of figures, increasing; default: 0, 1, 2, ….
        output: which of several outputs is f: k, or (k, l) for f_k − f_l. None takes the only one, or for classes all.
        directions: (k, …), in the shape of points, known to be informative: for `compression_along`.
        informative: directions that `compression` counts as informative; default: as many as `directions`, or else the
            participation ratio of the input gradients in the last state, rounded.
        memory_gb: budget for the blocks of the kernel and the input gradients, in 10⁹ bytes.

    Raises:
        TypeError: arguments of other types, or tensors of more than one dtype.
        ValueError: p < 2; noise or batch statistics in the module; nothing to train; labels that are no target, or one
            class only; several outputs without a choice; states of another architecture; outputs that are not finite;
            two devices; a holdout of training points alone; a budget too small for one block.
    """
    real(memory_gb, "memory_gb", 0)
    diagnosis_checks.module_and_points(module, x, y)
    states = saved.read(checkpoints, module, names)
    times = diagnosis_checks.instants(times, len(states))
    chosen = diagnosis_checks.choice(output)
    nets = [_Net(module, state, chosen) for state in states]
    points = _double(x)
    target = targets.read(y, nets[0].outputs(points[:2]).shape[1])
    tested = shared = None
    if holdout is not None:
        shared = diagnosis_checks.held_out(holdout, x, y)
        tested = _double(holdout[0]), target.read(holdout[1], "holdout")
    basis = None if directions is None else diagnosis_checks.orthonormal(directions, points)
    lines, spectra, covariances = _looked_at(nets, points, target, tested, basis, memory_gb)
    informative = diagnosis_checks.split(informative, None if basis is None else len(basis), covariances)
    return Diagnosis(
        target.kind,
        _table(states, times, lines, covariances if informative else [], informative),
        np.stack([values for values, _ in spectra]),
        np.stack([found for _, found in spectra]),
        target.ceiling,
        tuple(covariances),
        informative,
        tuple(x.shape[1:]),
        len(x),
        0 if tested is None else len(tested[1]),
        shared or 0,
        type(module).__name__,
        sum(value.numel() for value in nets[0].trained.values()),
    )


def _looked_at(
    nets: list[_Net],
    points: Tensor,
    target: targets.Target,
    tested: tuple[Tensor, Tensor] | None,
    basis: Tensor | None,
    memory_gb: Real,
) -> tuple[list[dict[str, object]], list[tuple[np.ndarray, np.ndarray]], list[GradientCovariance]]:
    """What is seen of each state: its line of the table, its spectrum, and its input gradients if points have any."""
    lines, spectra, covariances = [], [], []
    for net in tqdm(nets, desc="checkpoints", disable=None, leave=False):
        line, top = _line(net, points, target, tested, memory_gb)
        lines.append(line)
        spectra.append(top)
        if points.is_floating_point():
            covariances.append(
                input_gradients.covariance(net.outputs, points, directions=basis, vectors=TOP, memory_gb=memory_gb)
            )
    return lines, spectra, covariances


_MEASURES: dict[str, Callable[[GradientCovariance, int], float]] = {
    "gradient_dimension": lambda one, _: one.dimension,
    "compression": lambda one, informative: one.compression(informative),
    "compression_along": lambda one, informative: one.along(informative),
}


class _Net:
    """A module in one state, in float64, with the chosen outputs."""

    def __init__(self, module: nn.Module, state: Checkpoint, chosen: tuple[int, ...] | None) -> None:
        self.name, self._module, self._chosen = state.name, module, chosen
        tensors = {name: _double(value) for name, value in state.tensors.items()}
        own = dict(module.named_parameters()) | dict(module.named_buffers())  # what is shared has one of its names
        self.trained = {name: tensors[name] for name, value in own.items() if value.requires_grad}
        self._fixed = {name: tensors[name] for name, value in own.items() if not value.requires_grad}

    def __call__(self, params: dict[str, Tensor], x: Tensor) -> Float[Tensor, "n c"]:
        """Outputs (n, C) as a function of the trained parameters."""
        return diagnosis_checks.outputs(
            functional_call(self._module, {**self._fixed, **params}, (x,)), len(x), self._chosen
        )

    def outputs(self, x: Tensor) -> Float[Tensor, "n c"]:
        """Outputs (n, C), refused unless the module takes float64 and they are finite."""
        try:
            found = torch.cat([self(self.trained, part) for part in x.split(BATCH)])
        except RuntimeError as error:
            remedy = "give x the shape that it takes, and make tensors that it holds buffers, so that they convert"
            raise ValueError(f"checkpoint {self.name!r}: the module fails in float64 ({error}); {remedy}") from error
        if not bool(found.isfinite().all()):
            remedy = "take an earlier state, or look at the points"
            raise ValueError(f"checkpoint {self.name!r}: expected finite outputs, got nan or inf; {remedy}")
        return found


def _table(
    states: list[Checkpoint],
    times: list[float],
    lines: list[dict[str, object]],
    covariances: list[GradientCovariance],
    informative: int,
) -> pd.DataFrame:
    table = pd.DataFrame(lines)
    table.insert(0, "checkpoint", [state.name for state in states])
    table.insert(1, "time", times)
    for name, measure in _MEASURES.items():
        table[name] = [measure(one, informative) for one in covariances] or np.nan
    return table


def _line(
    net: _Net, x: Tensor, target: targets.Target, tested: tuple[Tensor, Tensor] | None, memory_gb: Real
) -> tuple[dict[str, object], tuple[np.ndarray, np.ndarray]]:
    """One line of the table, and the eigenvalues of the kernel with the information of their vectors."""
    which = "single" if target.outputs == 1 else "trace"
    with torch.no_grad():
        train_error = target.error(net.outputs(x), target.y)
    gram = empirical_ntk(net, net.trained, x, memory_gb=memory_gb, outputs=which)
    pairs = spectrum.top_eigenpairs(gram, min(TOP, len(x)))
    information = target.information(pairs.vectors)
    errors = {"net_error": np.nan, "kernel_error": np.nan, "kernel_status": ""}
    if tested is not None:
        with torch.no_grad():
            errors["net_error"] = target.error(net.outputs(tested[0]), tested[1])
        cross = empirical_ntk(net, net.trained, tested[0], x, memory_gb=memory_gb, outputs=which)
        told, errors["kernel_status"] = target.machine(gram, cross)
        errors["kernel_error"] = np.nan if told is None else target.error(told, tested[1])
    line = {
        "train_error": train_error,
        **errors,
        "alignment": target.alignment(gram),
        "information": float(information.max()),
        "effective_dimension": spectrum.effective_dimension(gram),
    }
    return line, (pairs.values, information)


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value
