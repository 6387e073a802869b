"""From a configuration about images to a row: the convolution net of arXiv:2007.11471 and the kernels it leaves behind.

One training gives the net, and the machines on its tangent kernel and on the part of the last layer alone, at
initialisation and at the end. All are tested on the same images.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from geocompress import compression, deformations, spectrum, states, store
from geocompress.checks import Real
from geocompress.experiments import FIT_SHARE
from geocompress.image_replicas import TOP, ImageConfig, ImageReplica
from geocompress.networks import Params
from geocompress.progress import hidden
from geocompress.provenance import code_version
from geocompress.states import State, Status
from geocompress.tangents import frozen_machine

MOMENTS = ("init", "final")
DEFORMED = 512  # test images that deformations are tried on
CHECKPOINT_S = 60.0  # seconds between two checkpoints
# of one moment, without its suffix
COLUMNS = (
    *("svc", "svc_status", "svc_support", "last", "last_status"),
    *("eigenvalues", "projections", "information", "alignment", "effective_dimension", "stability"),
)
MACHINES = {"ntk": "svc", "last": "last"}  # name of a method and its machine


def train_images(
    config: ImageConfig, *, memory_gb: Real = 2.0, checkpoint: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Train one network to margin 1 on every image; return the row of the net and of the kernels it had and has.

    `test_error` is the net's, and `class_gap` the largest of its path (`compression.class_gap`); rows of earlier
    versions lack the latter. For each moment M, init and final:

    - `svc_M`, `last_M`: test errors of the hard-margin machines on the tangent kernel and on the part of the last layer
      (readout and bias), with `svc_status_M`, `svc_support_M`, `last_status_M`.
    - `eigenvalues_M`, `projections_M`, `information_M`: lists of ten, as in `ntk_experiments.train_frozen`;
      `alignment_M` with the label; `effective_dimension_M`. All are of the centred Gram: the one bias adds the same
      large number to all of its entries, which changes no machine.
    - `stability_M`: relative stability of every layer to smooth deformations, a list in the order of the layers, on
      the first 512 test images; the last is that of the output.

    `wall_s` is that of training, `kernels_s` that of the rest.

    Args:
        config: what to train.
        memory_gb: for gradients, in 10⁹ bytes.
        checkpoint: a file that the state is kept in while training and at its end, and that a run begins from where it
            is there; gone when the row is complete.

    Raises:
        ValueError, OSError: as `ImageReplica`; a checkpoint of another training, or of another version of the library.
    """
    about = store.provenance(device=config.device, dtype=config.dtype)
    replica = ImageReplica(config, memory_gb=memory_gb)
    kept = None if checkpoint is None else Path(checkpoint)
    end, noted = _trained(replica, kept)
    began = time.perf_counter()
    row = {
        "experiment": "image",
        "task": config.task,
        "d": replica.x[0].numel(),
        "d_parallel": None,
        "p": config.p,
        "width": config.width,
        "alpha": config.alpha,
        "regime": "feature" if config.alpha < 1 else "lazy",
        "method": "network",
        "seed": config.seed,
        "test_error": replica.test_error(end.params),
        "lambda_max": None,
        "lambda_end": None,
        "t_end": end.t,
        "loss": end.loss,
        "steps": end.step,
        "status": end.status.value,
        **noted,
        "images": replica.pool.source,
        **about,
    }
    for moment, params in zip(MOMENTS, (replica.params, end.params), strict=True):
        row |= {f"{name}_{moment}": value for name, value in _frozen(replica, params).items()}
    if kept is not None:
        kept.unlink(missing_ok=True)
    return row | {"kernels_s": time.perf_counter() - began}


def by_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `train_images` as one row per method: network, ntk_init, ntk_final, last_init, last_final.

    `test_error` and `status` are those of the method, and the regime of kernels is "kernel".

    Raises:
        ValueError: rows of another kind.
    """
    names = [f"{name}_{moment}" for name in COLUMNS for moment in MOMENTS]
    if missing := sorted(set(names) - set(rows.columns)):
        raise ValueError(f"by_method: expected rows of train_images, got a table without {', '.join(missing[:5])}")
    shared = rows.drop(columns=names)
    parts = [shared]
    for method, machine in MACHINES.items():
        for moment in MOMENTS:
            told = {"test_error": rows[f"{machine}_{moment}"], "status": rows[f"{machine}_status_{moment}"]}
            parts.append(shared.assign(**told, method=f"{method}_{moment}", regime="kernel"))
    return pd.concat(parts, ignore_index=True)


def _trained(replica: ImageReplica, checkpoint: Path | None) -> tuple[State, dict[str, float | None]]:
    """The end of the flow, and what was noted on the way: t*, the largest gap between classes, and the seconds of it.

    Seconds before a checkpoint that it went on from count.
    """
    start, noted = None, {"t_star": None, "class_gap": 0.0, "wall_s": 0.0}
    recipe = f"{replica.config!r} by version {code_version()}"
    if checkpoint is not None and checkpoint.exists():
        start, notes = states.load(checkpoint, replica.config.device)
        if notes["recipe"] != recipe:
            remedy = "name another file, or delete this one"
            raise ValueError(f"{checkpoint}: expected a training of {recipe}, got {notes['recipe']}; {remedy}")
        noted = {name: notes[name] for name in noted}
        if start.status is not Status.RUNNING:  # what broke off was the work on kernels
            return start, noted
    before, began = noted["wall_s"], time.perf_counter()
    written = began
    with _bar(replica.config) as bar:
        for end in replica.states(start):
            fitted = compression.fitted_fraction(end.margins)
            noted["class_gap"] = max(noted["class_gap"], compression.class_gap(end.margins, replica.y))
            if noted["t_star"] is None and fitted >= FIT_SHARE:
                noted["t_star"] = end.t
            now, ended = time.perf_counter(), end.status is not Status.RUNNING
            noted["wall_s"] = before + now - began
            if checkpoint is not None and (ended or now - written > CHECKPOINT_S):
                written = now
                states.save(end, checkpoint, recipe=recipe, **noted)
            bar.n = round(fitted * len(end.margins))
            bar.set_postfix_str(f"step {end.step}")
    return end, noted


def _bar(config: ImageConfig) -> tqdm:
    """How many images are fitted, for a terminal that looks."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} fitted [{elapsed}{postfix}]"
    return tqdm(total=config.p, desc=f"{config.task}, p = {config.p}", bar_format=form, disable=hidden(), leave=False)


def _frozen(replica: ImageReplica, params: Params) -> dict[str, Any]:
    """Columns about the kernels and layers at these parameters."""
    y = replica.y.double()
    full, last = replica.tangent(params), replica.tangent(params, last=True)
    errors = []
    for kernel in (full, last):
        machine, charges = frozen_machine(kernel.gram, y, unit=kernel.unit)
        output = kernel.function(charges, replica.x_test) + machine.bias
        errors.append((replica.error(output), machine.ending.value, len(machine.support)))
    centred = spectrum.centred(full.gram)
    found = spectrum.top_eigenpairs(centred, TOP, y=y)
    layers = functools.partial(replica.network.preactivations, params)
    values = (
        *errors[0],
        *errors[1][:2],
        found.values,
        spectrum.label_projections(found.vectors, y),
        spectrum.mutual_information(found.vectors, y),
        spectrum.label_alignment(full.gram, y),
        spectrum.effective_dimension(centred),
        list(deformations.relative_stability(layers, replica.x_test[:DEFORMED]).values()),
    )
    return dict(zip(COLUMNS, values, strict=True))
