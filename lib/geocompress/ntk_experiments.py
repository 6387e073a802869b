"""From the training of one net to a row about its tangent kernel, frozen at the start, at t* and at the end.

The configuration is that of the network (`experiments.NetworkConfig`): one training gives the net and all of its
kernels, on the data and the test points of the network's own row. Kernels are looked at in float64.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from geocompress import compression, experiments, spectrum
from geocompress.checks import Whole, integer
from geocompress.experiments import FIT_SHARE, NetworkConfig, Replica
from geocompress.flow import State
from geocompress.networks import Params
from geocompress.states import at_times
from geocompress.tangents import TangentKernel

TOP = 10  # eigenpairs that are looked at, as in arXiv:2007.11471
FLOW_LIMIT = 2048  # points up to which the flow at constant kernel is followed: above, it costs more than the net
MOMENTS = ("init", "star", "final")  # t = 0, t*, the end
# of one moment, without its suffix
COLUMNS = (
    *("svc", "svc_support", "svc_status", "flow", "flow_status"),
    *("eigenvalues", "projections", "information", "energy", "alignment", "effective_dimension", "readout_share"),
)
MACHINES = {"": "svc", "_flow": "flow"}  # suffix of a method and its machine


def train_frozen(config: NetworkConfig) -> dict[str, Any]:
    """Train one network, freeze its tangent kernel at three moments, and return the row of all of them.

    The row is that of `experiments.train_network`, with experiment "ntk" (`test_error` is the net's), and for each
    moment M among init, star and final (t = 0, t*, the end; star is None where t* is):

    - `svc_M`, `flow_M`: test errors of the hard-margin machine and of the end of the hinge flow on the kernel of that
      moment, on the net's test points; with `svc_support_M`, `svc_status_M`, `flow_status_M`. The flow is None above
      p = 2048. At init it is the lazy limit of the net.
    - `eigenvalues_M`, `projections_M`, `information_M`: lists of ten, for the largest eigenvalues of the Gram (in
      mean-field units), the label projections ⟨u_r, y⟩²/|y|² and I(u_r; y) in nats; `energy_M`, the sum of the ten
      projections.
    - `alignment_M` with the label, centred; `effective_dimension_M` of the Gram; `readout_share_M`, tr Θ_β / tr Θ.

    `wall_s` is that of training, `kernels_s` that of the rest. Memory: about 5 p² numbers.

    Raises:
        ValueError: a configuration in float32; fewer than ten points, or so few that a class has less than six.
    """
    replica = _replica(config)
    about = experiments.store.provenance(device=config.device, dtype=config.dtype)
    start = time.perf_counter()
    path, star = [], None
    for end in replica.states():
        path.append(experiments.observed(replica, end))
        star = end if star is None and path[-1]["fitted"] >= FIT_SHARE else star
    row = experiments.network_row(replica, path, end, time.perf_counter() - start, about)
    began = time.perf_counter()
    at_moments = (replica.params, None if star is None else star.params, end.params)
    for moment, params in zip(MOMENTS, at_moments, strict=True):
        row |= {f"{name}_{moment}": value for name, value in _frozen(replica, params).items()}
    return row | {"experiment": "ntk", "kernels_s": time.perf_counter() - began}


def by_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `train_frozen` as one row per method: network, ntk_init, ntk_star, ntk_final, and ntk_init_flow, ….

    The columns of one moment are left out; `test_error` and `status` are those of the method, the machine ntk_M or
    the flow ntk_M_flow on the kernel of that moment; the regime of kernels is "kernel". Methods that were not run are
    left out.

    Raises:
        ValueError: rows of another kind.
    """
    needed = {f"{name}_{moment}" for name in COLUMNS for moment in MOMENTS}
    if missing := sorted(needed - set(rows.columns)):
        raise ValueError(f"by_method: expected rows of train_frozen, got a table without {', '.join(missing[:5])}")
    shared = rows.drop(columns=[f"{name}_{moment}" for name in COLUMNS for moment in MOMENTS])
    parts = [shared]
    for moment in MOMENTS:
        for suffix, machine in MACHINES.items():
            told = {"test_error": rows[f"{machine}_{moment}"], "status": rows[f"{machine}_status_{moment}"]}
            part = shared.assign(**told, method=f"ntk_{moment}{suffix}", regime="kernel")
            parts.append(part[part.test_error.notna()].astype({"test_error": float}))
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True, eq=False)
class Spectra:
    """One training, watched through the spectrum of its tangent kernel on the training points.

    Attributes:
        series: one line per time: t, amplification (λ), fitted, test_error, alignment, alignment_readout and
            alignment_hidden (those of the two parts of the kernel alone), readout_share, effective_dimension, energy.
        eigenvalues: λ_r of the Gram in mean-field units, shape (n, k), descending.
        vectors: u_r at each time, shape (n, p, k), by the conventions of `spectrum.Spectrum`; r is a rank, not a mode
            that is followed: eigenvalues may cross between two times.
        projections: ⟨u_r, y⟩²/|y|², shape (n, k).
        information: I(u_r; y) in nats, shape (n, k).
        axis: the coordinates of the pictures, shape (g,).
        pictures: by moment, eigenfunctions u_r(x) = Σ_ν Θ(x, x_ν) u_rν / λ_r on the plane of x_1 and the first of
            x_⊥ (of the last coordinate where the task ignores none), the others 0: shape (g, g, k), x_1 along axis 1.
        replica: data, network and initial parameters.
        end: the last state.
    """

    series: pd.DataFrame
    eigenvalues: Float[np.ndarray, "n k"]
    vectors: Float[np.ndarray, "n p k"]
    projections: Float[np.ndarray, "n k"]
    information: Float[np.ndarray, "n k"]
    axis: Float[np.ndarray, " g"]
    pictures: Mapping[str, np.ndarray]
    replica: Replica
    end: State


def record_spectra(
    config: NetworkConfig,
    *,
    times: Whole = 20,
    top: Whole = TOP,
    grid: Whole = 41,
    reach: float = 2.5,
    test_size: Whole = 4000,
) -> Spectra:
    """Train one network and look at the spectrum of its tangent kernel at a number of times.

    The times are 0, t*, and others at equal ratios from the first step to the end, where the state lies between two
    accepted steps (`states.at_times`). All accepted states are kept meanwhile: a few hundred times the parameters.

    Args:
        config: what to train, in float64.
        times: number of times, at least 4.
        top: number k of eigenpairs.
        grid: points g along each axis of the pictures, from −reach to reach.
        reach: of the pictures, in the unit of the points.
        test_size: test points for the error in time.

    Raises:
        TypeError, ValueError: as `train_frozen`; too few times or grid points; top above p; d = 1, which is no plane.
    """
    times, top, grid = integer(times, "times", 4), integer(top, "top"), integer(grid, "grid", 2)
    if config.d < 2:
        raise ValueError("record_spectra: expected d ≥ 2, got 1; its pictures are of a plane")
    replica = _replica(config, top)
    states = list(replica.states(all_margins=True))
    end = states[-1]
    star = next((state for state in states if compression.fitted_fraction(state.margins) >= FIT_SHARE), None)
    marks = [0.0, end.t] + ([] if star is None else [star.t])
    first = min(states[1].t, end.t / 100)  # the first step may be the whole run
    between = np.geomspace(first, end.t, times - len(marks) + 1)[:-1]
    axis = np.linspace(-reach, reach, grid)
    lines, spectra, pictures = [], [], {}
    for state in at_times(states, np.unique([*marks, *between]).tolist()):
        kernel = TangentKernel(replica.network, state.params, replica.x)
        found = spectrum.top_eigenpairs(kernel.gram, top, y=replica.y)
        lines.append(_line(replica, state, kernel, found, test_size))
        spectra.append(found)
        moment = {0.0: "init", end.t: "final"}.get(state.t, "star" if star is not None and state.t == star.t else None)
        if moment:
            pictures[moment] = found.extend(kernel.cross(_plane(replica, axis))).reshape(grid, grid, top)
    vectors, y = np.stack([found.vectors for found in spectra]), replica.y
    return Spectra(
        pd.DataFrame(lines),
        np.stack([found.values for found in spectra]),
        vectors,
        np.stack([spectrum.label_projections(u, y) for u in vectors]),
        np.stack([spectrum.mutual_information(u, y) for u in vectors]),
        axis,
        pictures,
        replica,
        end,
    )


def _replica(config: NetworkConfig, top: int = TOP) -> Replica:
    """The replica of a configuration whose kernels have a spectrum to look at; before anything is trained."""
    if config.dtype != "float64":
        raise ValueError(f"dtype: expected 'float64' for machines on a kernel, got {config.dtype!r}")
    if config.p < top:
        raise ValueError(f"p: expected at least {top} points for {top} eigenvectors, got {config.p}; raise p")
    replica = Replica(config)
    smallest = min(int((replica.y == label).sum()) for label in (-1, 1))
    if smallest <= spectrum.NEIGHBOURS:
        raise ValueError(
            f"p: expected more than {spectrum.NEIGHBOURS} points of each class for the mutual information, got "
            f"{smallest} of {config.p}; raise p"
        )
    return replica


def _frozen(replica: Replica, params: Params | None) -> dict[str, Any]:
    """Columns about the kernel at these parameters, all of them None if there are none."""
    if params is None:
        return dict.fromkeys(COLUMNS)
    y, kernel = replica.y, TangentKernel(replica.network, params, replica.x)
    machine, charges = kernel.svc(y)
    flow_end, flow_error = None, None
    if len(y) <= FLOW_LIMIT:
        flow_end, coefficients = kernel.flow(y)
        flow_error = _error(replica, kernel.function(coefficients, replica.x_test))
    found = spectrum.top_eigenpairs(kernel.gram, TOP, y=y)
    projections = spectrum.label_projections(found.vectors, y)
    values = (
        _error(replica, kernel.function(charges, replica.x_test) + machine.bias),
        len(machine.support),
        machine.ending.value,
        flow_error,
        flow_end and flow_end.status.value,
        found.values,
        projections,
        spectrum.mutual_information(found.vectors, y),
        float(projections.sum()),
        spectrum.label_alignment(kernel.gram, y),
        spectrum.effective_dimension(kernel.gram),
        kernel.readout_share(),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _error(replica: Replica, output: Tensor) -> float:
    return float((~(replica.y_test * output > 0)).double().mean())


def _line(
    replica: Replica, state: State, kernel: TangentKernel, found: spectrum.Spectrum, test_size: int
) -> dict[str, float]:
    readout, y = kernel.readout(), replica.y
    return {
        "t": state.t,
        "amplification": replica.amplification(state.params),
        "fitted": compression.fitted_fraction(state.margins),
        "test_error": replica.test_error(state.params, test_size) if state.t else float("nan"),
        "alignment": spectrum.label_alignment(kernel.gram, y),
        "alignment_readout": spectrum.label_alignment(readout.gram, y),
        "alignment_hidden": spectrum.label_alignment(kernel.gram - readout.gram, y),
        "readout_share": kernel.readout_share(),
        "effective_dimension": spectrum.effective_dimension(kernel.gram),
        "energy": float(spectrum.relative_energy(found.vectors, y)[-1]),
    }


def _plane(replica: Replica, axis: np.ndarray) -> Float[Tensor, "q d"]:
    """Points of the plane of the pictures, row by row: x_1 varies fastest."""
    along = torch.from_numpy(axis).to(replica.x)
    points = replica.x.new_zeros(len(axis), len(axis), replica.config.d)
    points[..., min(replica.task.d_parallel, replica.config.d - 1)] = along[:, None]
    points[..., 0] = along
    return points.flatten(0, 1)
