"""Slow, obvious truths in float64, to which every fast path of the library is held, and rows of a known law."""

import itertools
import math

import numpy as np
import pandas as pd
import torch
from scipy.optimize import lsq_linear
from torch import nn


def one_hidden(params, x):
    """f(x) = (1/h) Σ_n β_n √2 max(0, ω_n·x/√d + b_n), one point and one neuron at a time."""
    h, d = params["omega"].shape
    values = []
    for point in x:
        total = torch.zeros((), dtype=x.dtype)
        for n in range(h):
            z = (params["omega"][n] * point).sum() / math.sqrt(d) + params["b"][n]
            total = total + params["beta"][n] * math.sqrt(2) * torch.clamp(z, min=0)
        values.append(total / h)
    return torch.stack(values)


class OneHiddenModule(nn.Module):
    """`networks.OneHidden` as anyone would write it."""

    def __init__(self, params):
        super().__init__()
        for name, value in params.items():
            self.register_parameter(name, nn.Parameter(value.clone()))

    def forward(self, x):
        pre = x @ self.omega.T / math.sqrt(x.shape[1]) + self.b
        return math.sqrt(2) * torch.relu(pre) @ self.beta / len(self.b)


def jacobian(forward, params, x):
    """∂f(x_μ)/∂W by one backward pass a point, shape (p, number of parameters); parameters in the order of the dict."""
    leaves = {k: v.detach().clone().requires_grad_() for k, v in params.items()}
    rows = []
    for output in forward(leaves, x):
        grads = torch.autograd.grad(output, list(leaves.values()), retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


def explicit_hinge_flow(params, x, y, *, alpha, dt, t_end):
    """Explicit Euler on Ẇ = −(h/α) ∂L/∂W with c = 1[margin < 1], chattering and all; returns times and margins.

    For `OneHidden` in numpy. At tiny dt the fast switching of c averages to the sliding flow, to order dt.
    """
    omega, b, beta = (params[k].numpy().copy() for k in ("omega", "b", "beta"))
    x, y = x.numpy(), y.numpy()
    p, d = x.shape
    h = len(b)
    k = math.sqrt(2) / h
    output_init = None
    times, path = [], []
    for step in itertools.count():
        z = x @ omega.T / math.sqrt(d) + b
        active = z > 0
        output = k * (active * z) @ beta
        output_init = output.copy() if output_init is None else output_init
        margins = alpha * y * (output - output_init)
        times.append(step * dt)
        path.append(margins)
        if step * dt >= t_end or (margins >= 1).all():
            return np.array(times), np.array(path)
        pull = (margins < 1) * y / p * h  # Σ_μ c_μ y_μ … /p times h, the α of F and of time cancelling
        moment = k * active.T @ (pull[:, None] * x) / math.sqrt(d)
        moment_b = k * active.T @ pull
        new_beta = beta + dt * ((moment * omega).sum(1) + moment_b * b)
        omega, b, beta = omega + dt * beta[:, None] * moment, b + dt * beta * moment_b, new_beta


def box_qp(matrix, q, steps=30_000):
    """min ½ cᵀAc − qᵀc on [0, 1]ⁿ by projected gradient with the step 1/‖A‖."""
    length = 1 / np.linalg.eigvalsh(matrix)[-1]
    c = np.full(len(q), 0.5)
    for _ in range(steps):
        c = np.clip(c - length * (matrix @ c - q), 0, 1)
    return c


def exact_kernel_path(kernel):
    """The hinge flow ṁ = K c / p at constant K, from event to event; returns times and margins, linear in between.

    Between events c is constant: 1 below the margin, 0 above, and on it the c in [0, 1] of least norm cᵀKc, which is
    the velocity that a gradient flow of a convex function chooses. An event is a point that meets the margin.
    """
    p = len(kernel)
    root = np.linalg.cholesky(kernel + 1e-14 * np.trace(kernel) * np.eye(p))
    time, m = 0.0, np.zeros(p)
    times, path = [time], [m]
    while (m < 1).any():
        on, c = np.flatnonzero(m == 1), (m < 1).astype(float)
        if len(on):
            c[on] = lsq_linear(root.T[:, on], -root.T @ c, bounds=(0, 1), method="bvls", tol=1e-15).x
        rate = kernel @ c / p
        rate[on[(c[on] > 0) & (c[on] < 1)]] = 0.0
        meets = ((m < 1) & (rate > 0)) | ((m > 1) & (rate < 0))
        waits = np.where(meets, (1 - m) / np.where(meets, rate, 1.0), np.inf)
        time, m = time + waits.min(), np.where(waits <= waits.min() * (1 + 1e-12), 1.0, m + waits.min() * rate)
        times.append(time)
        path.append(m)
    return np.array(times), np.array(path)


def law(beta, *, method="network", regime="feature", task="stripe", d=5, p=(64, 128, 256, 512, 1024), seeds=4, **more):
    """Runs on a power law, replicas a few per cent apart but for a slope of the same β each."""
    rows = [
        {"task": task, "d": d, "d_parallel": 1, "p": n, "method": method, "regime": regime, "seed": s}
        | {"status": "FITTED", "test_error": (1 + 0.03 * s) * n**-beta}
        | more
        for n, s in itertools.product(p, range(seeds))
    ]
    return pd.DataFrame(rows)


def image_rows(
    points=(50, 100, 200, 400, 1000), seeds=5, alpha=2e-3, inertia=0.0, **laws: tuple[float, float]
) -> pd.DataFrame:
    """Rows on images: ε = A p^−β of each method from its (A, β), seeds a per cent apart."""
    laws = {"network": (3.0, 0.5), "ntk_init": (3.0, 0.35), "ntk_final": (3.2, 0.5)} | laws
    return pd.DataFrame(
        {
            "task": "mnist",
            "d": 784,
            "d_parallel": np.nan,
            "regime": "feature",
            "status": "FITTED",
            "p": p,
            "alpha": alpha,
            "inertia": inertia,
            "method": method,
            "seed": seed,
            "test_error": scale * p**-beta * (1 + 0.01 * (seed - 1)),
        }
        for p in points
        for method, (scale, beta) in laws.items()
        for seed in range(seeds)
    )


def image_trainings(**columns) -> pd.DataFrame:
    """Two rows of `image_experiments.train_images`, with the columns that tables of them need."""
    kinds = {"task": "mnist", "d": 784, "seed": [0, 1], "p": 200, "alpha": 2e-3, "inertia": 0.0, "steps": [40, 50]}
    errors = {"test_error": [0.1, 0.12], "svc_init": [0.2, 0.2], "svc_final": [0.1, 0.1], "t_end": [10.0, 12.0]}
    kernel = {f"{name}_init": [[0.1, 0.0], [0.0, 0.3]] for name in ("projections", "information")}
    kernel |= {f"{name}_final": [[0.7, 0.0], [0.6, 0.3]] for name in ("projections", "information")}
    ends = {"status": ["FITTED", "MAX_STEPS"], "alignment_init": 0.1, "alignment_final": 0.5}
    return pd.DataFrame(kinds | errors | kernel | ends | columns)
