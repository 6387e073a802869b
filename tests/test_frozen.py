"""The flow at constant kernel against its exact path, the lazy network, the hard-margin SVC, and bad input."""

import math

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

import reference
from geocompress import flow, frozen, networks, tasks
from geocompress.flow import Status


def laplace(x1, x2):
    return torch.exp(-torch.cdist(x1, x2) / math.sqrt(x1.shape[1]))


def tangent(d, width):
    net = networks.OneHidden(d, width)
    return lambda x1, x2: net.ntk(net.init(0), x1, x2)


KERNELS = {"laplace": laplace, "tangent": tangent(3, 400)}


def setting(name="laplace", p=30):
    x, y = tasks.stripe(3).sample(p, 101)
    return KERNELS[name](x, x), y


@pytest.mark.parametrize("name", KERNELS)
def test_the_path_is_the_exact_one_and_closer_with_a_smaller_tolerance(name):
    gram, y = setting(name)
    times, path = reference.exact_kernel_path((torch.outer(y, y) * gram).numpy())
    errors = []
    for tol in (0.1, 1e-3):
        states = list(frozen.kernel_flow(gram, y, margin_tol=tol))
        exact = np.stack([np.interp([s.t for s in states], times, column) for column in path.T], axis=1)
        errors.append(np.abs(exact - np.stack([s.margins.numpy() for s in states])).max())
        assert states[-1].t == pytest.approx(times[-1], rel=0.3 * tol)
    assert errors[0] < 0.3
    assert errors[1] < 0.02


def test_a_few_dozen_steps_reach_the_end_which_is_held_up_by_the_forces_on_the_way():
    gram, y = setting("tangent", 128)
    states = list(frozen.kernel_flow(gram, y))
    end, dt = states[-1], np.diff([s.t for s in states])
    assert end.status is Status.FITTED
    assert len(states) < 60
    force = y * end.params["coefficients"]
    assert float(force.min()) >= 0
    torch.testing.assert_close((torch.outer(y, y) * gram) @ force, end.margins, rtol=1e-10, atol=1e-10)
    pushed = sum(step * s.multipliers for step, s in zip(dt, states[1:-1], strict=False)) / len(y)
    assert bool((pushed <= force * (1 + 1e-12)).all())
    assert max(s.kkt for s in states) < 1e-6


def test_the_end_is_near_the_hard_margin_classifier_but_not_on_it():
    x, y = tasks.stripe(3).sample(128, 101)
    x_test, _ = tasks.stripe(3).sample(2000, 7)
    gram = laplace(x, x)
    end = list(frozen.kernel_flow(gram, y, margin_tol=0.01))[-1].params["coefficients"]
    svc = SVC(C=1e10, kernel="precomputed", tol=1e-8).fit(gram.numpy(), y.numpy())
    dual = torch.zeros_like(end)
    dual[svc.support_] = torch.from_numpy(svc.dual_coef_[0])
    ours, theirs = frozen.FrozenKernel(gram), laplace(x_test, x)
    same = ours.forward({"coefficients": end}, theirs).sign().numpy() == np.sign(svc.decision_function(theirs.numpy()))
    assert 0.97 <= same.mean() < 1
    assert 1.05 < float(end @ gram @ end) / float(dual @ gram @ dual) < 1.3


def test_the_lazy_network_follows_its_tangent_kernel():
    net, alpha = networks.OneHidden(3, 40), 1e6
    x, y = tasks.stripe(3).sample(14, 101)
    lazy = list(flow.hinge_flow(net, net.init(0), x, y, alpha=alpha))
    fixed = list(frozen.kernel_flow(net.ntk(net.init(0), x), y, alpha=alpha))
    assert len(lazy) == len(fixed) > 5
    for a, b in zip(lazy, fixed, strict=True):
        assert a.t == pytest.approx(b.t, rel=1e-3)
        torch.testing.assert_close(a.margins, b.margins, rtol=0, atol=1e-3)


def test_a_singular_gram_is_followed_to_the_end():
    x, y = tasks.stripe(3).sample(40, 101)
    thin = networks.OneHidden(3, 12)
    gram = thin.ntk(thin.init(0), x)
    assert torch.linalg.matrix_rank(gram) < 40
    twice = gram.repeat(2, 2)  # every point twice
    labels = torch.where(x[:, 0] > 0, 1.0, -1.0).to(y)
    single = list(frozen.kernel_flow(gram, labels, margin_tol=1e-2))[-1]
    double = list(frozen.kernel_flow(twice, labels.repeat(2), margin_tol=1e-2))[-1]
    assert single.status is double.status is Status.FITTED
    torch.testing.assert_close(double.margins[:40], single.margins, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("clash", ["kernel", "network"])
def test_points_that_contradict_each_other_are_named_and_not_trained_for_ever(clash):
    x, y = tasks.stripe(3).sample(14, 101)
    x, y = torch.cat([x, x[:1]]), torch.cat([y, -y[:1]])
    net = networks.OneHidden(3, 40)
    run = (
        frozen.kernel_flow(laplace(x, x), y)
        if clash == "kernel"
        else flow.hinge_flow(net, net.init(0), x, y, alpha=1e-6)
    )
    *_, end = run
    assert end.status is Status.STATIONARY
    assert end.step < 300
    assert end.loss == pytest.approx(2 / 15, rel=1e-4)
    assert float(end.margins[0] + end.margins[14]) == pytest.approx(0, abs=1e-9)
    assert bool((end.margins[1:14] > 1 - 1e-3).all())
    assert end.conflicts.tolist() == [[0, 14]]
    assert {0, 14} <= set(end.pulling.tolist())


def test_points_that_a_kernel_cannot_tell_apart_contradict_each_other():
    """A kernel of x_1 alone; against all pairs."""
    x = torch.tensor([[0.0, 1], [1, 1], [0, 2], [0, 3], [2, 0], [1, 5]], dtype=torch.float64)
    y = torch.tensor([1.0, 1, -1, 1, -1, 1], dtype=torch.float64)
    kernel = frozen.FrozenKernel(laplace(x[:, :1], x[:, :1]))
    assert kernel.contradictions(y).tolist() == [[0, 2], [2, 3]]
    assert kernel.contradictions(torch.ones_like(y)).shape == (0, 2)
    assert not len(frozen.FrozenKernel(laplace(x, x)).contradictions(y))


def test_alpha_is_the_unit_of_time_and_a_restart_gives_the_same_path():
    gram, y = setting()
    states, slow = (list(frozen.kernel_flow(gram, y, alpha=alpha)) for alpha in (1.0, 1e-3))
    for a, b in zip(states, slow, strict=True):
        assert a.t == pytest.approx(1e-3 * b.t, rel=1e-9)
    again = list(frozen.kernel_flow(gram, y, start=states[3]))
    assert [s.t for s in again] == [s.t for s in states[3:]]
    assert list(frozen.kernel_flow(gram, y, max_time=7.0))[-1].t == 7.0


GRAM, Y = setting(p=10)
BAD = {
    "indefinite": (
        GRAM - 0.5 * torch.eye(10, dtype=GRAM.dtype),
        ValueError,
        "positive semi-definite Gram, got an eigen",
    ),
    "asymmetric": (GRAM + torch.eye(10, dtype=GRAM.dtype).roll(1, 0), ValueError, "symmetric Gram"),
    "not square": (GRAM[:5], ValueError, r"\(p, p\)"),
    "nan": (GRAM * math.nan, ValueError, "must be finite"),
    "integers": (torch.eye(10, dtype=torch.long), TypeError, "floating-point"),
    "numpy": (GRAM.numpy(), TypeError, "Tensor|from_numpy"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_matrix_that_is_no_kernel_is_refused(case):
    gram, error, message = BAD[case]
    with pytest.raises(error, match=message):
        frozen.FrozenKernel(gram)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        frozen.kernel_flow(GRAM, Y, alpha=alpha)


@pytest.mark.parametrize("margin_tol", [0.0, -1.0, math.nan, math.inf])
def test_a_tolerance_out_of_range_is_refused(margin_tol):
    with pytest.raises(ValueError, match="margin_tol: expected a finite number"):
        frozen.kernel_flow(GRAM, Y, margin_tol=margin_tol)


def test_points_are_numbers_and_new_ones_rows_against_the_training_points():
    kernel = frozen.FrozenKernel(GRAM)
    with pytest.raises(ValueError, match=r"cross-Gram .* \(q, 10\), got \(3, 9\)"):
        kernel.forward(kernel.init(), GRAM[:3, :9])
    for numbers in ([[10.0]], [[0.5]], [[-1.0]]):
        with pytest.raises(ValueError, match="its own points"):
            kernel.linearise(kernel.init(), torch.tensor(numbers, dtype=GRAM.dtype))
