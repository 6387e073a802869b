"""The frozen tangent kernel: its products against the Jacobian, its two layers, its machines against libsvm."""

import math

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

import reference
from geocompress import activeset, frozen, spectrum, tangents, tasks
from geocompress.networks import OneHidden
from geocompress.svc import Ending
from geocompress.tangents import TangentKernel

D, H, P = 4, 30, 40


def kernel(p=P, seed=0, width=H):
    network = OneHidden(D, width)
    x, y = tasks.stripe(D).sample(p, seed)
    return TangentKernel(network, network.init(seed + 1), x), y


def by_jacobian(one, points):
    """Θ of new against training points from one backward pass a point, and the same of the readout β alone."""
    new, old = (reference.jacobian(lambda w, z: OneHidden(D, H).forward(w, z), one.params, x) for x in (points, one.x))
    assert list(one.params) == ["omega", "b", "beta"]
    return H * new @ old.T, H * new[:, -H:] @ old[:, -H:].T


def test_products_against_the_jacobian():
    one, _ = kernel()
    points = tasks.stripe(D).sample(17, 5)[0]
    exact, _ = by_jacobian(one, points)
    a = torch.randn(P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(one.cross(points), exact, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(one.function(a, points), exact @ a, rtol=1e-11, atol=1e-11)
    gram, _ = by_jacobian(one, one.x)
    torch.testing.assert_close(one.gram, gram, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(one.operator() @ a.numpy(), (gram @ a).numpy(), rtol=1e-10)
    assert one.unit == pytest.approx(float(gram.diagonal().mean()))


def test_blocks_of_points_change_nothing(monkeypatch):
    one, _ = kernel()
    points, a = tasks.stripe(D).sample(23, 5)[0], torch.ones(P, dtype=torch.float64)
    whole = one.cross(points), one.function(a, points), one.unit
    monkeypatch.setattr(tangents, "BLOCK", 5)
    monkeypatch.setattr(tangents, "STRIP", 3)
    again = TangentKernel(one.network, one.params, one.x)
    torch.testing.assert_close(again.cross(points), whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(again.function(a, points), whole[1], rtol=1e-12, atol=1e-12)
    assert again.unit == pytest.approx(whole[2], rel=1e-12)


def test_the_two_layers_add_up_to_the_kernel():
    one, _ = kernel()
    whole, readout = by_jacobian(one, one.x)
    torch.testing.assert_close(one.readout().gram, readout, rtol=1e-11, atol=1e-11)
    assert one.readout_share() == pytest.approx(float(readout.trace() / whole.trace()))
    wide, _ = kernel(width=20_000)
    assert wide.readout_share() == pytest.approx(0.5, abs=0.03)  # both layers share the limit, 2 |u|²


def test_eigenpairs_without_the_gram():
    one, y = kernel()
    held, product = (spectrum.top_eigenpairs(k, 5, y=y, dense=False) for k in (one.gram, one.operator()))
    np.testing.assert_allclose(product.values, held.values, rtol=1e-10)
    np.testing.assert_allclose(product.vectors, held.vectors, atol=1e-7)


def test_the_machine_against_libsvm():
    one, y = kernel()
    machine, charges = one.svc(y)
    points = tasks.stripe(D).sample(200, 3)[0]
    libsvm = SVC(kernel="precomputed", C=1e12, tol=1e-8).fit((one.gram / one.unit).numpy(), y.numpy())
    expected = libsvm.decision_function((one.cross(points) / one.unit).numpy())
    assert machine.ending is Ending.SEPARATED
    np.testing.assert_allclose(one.function(charges, points).numpy() + machine.bias, expected, rtol=1e-3, atol=1e-3)
    assert float((y * (one.function(charges, one.x) + machine.bias)).min()) == pytest.approx(1, abs=1e-4)


def test_a_machine_is_the_same_in_any_unit_of_the_parameters():
    one, y = kernel()
    large = TangentKernel(one.network, {k: 1e3 * v for k, v in one.params.items()}, one.x)
    # all pre-activations grow alike, so the kernel grows by a factor and its machine stays
    points = tasks.stripe(D).sample(50, 3)[0]
    values = [k.function(k.svc(y)[1], points) for k in (one, large)]
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-6)


def nearly_linear(p=300, large=1e4):
    """A kernel as around t*: half of the neurons, never inactive, tower above those that the label depends on."""
    one, y = kernel(p=p, width=200)
    params = {k: v.clone() for k, v in one.params.items()}
    params["omega"][:100] *= large / 10
    params["b"][:100] = large
    params["beta"][:100] *= large
    return TangentKernel(one.network, params, one.x), y


def test_a_fit_that_gets_lost_is_made_one_point_at_a_time(monkeypatch):
    one, y = nearly_linear()
    machine, charges = one.svc(y)
    margins = y * (one.gram @ charges + machine.bias)
    assert machine.ending is Ending.SEPARATED
    assert float(margins.min()) > 1 - 1e-4
    assert float((margins[machine.support] - 1).abs().max()) < 1e-4
    assert abs(machine.gap) < 1e-3
    assert machine.violation <= 1e-4
    assert (machine.a > 0).all()
    monkeypatch.setattr(activeset, "hard_margin", lambda *_, **__: None)
    assert one.svc(y)[0].ending is not Ending.SEPARATED  # without it there is none, and that is said


def test_both_ways_to_a_machine_agree(monkeypatch):
    one, y = kernel(p=300, width=200)
    usual, charges = one.svc(y)
    fit = tangents.hard_margin_svc
    monkeypatch.setattr(
        tangents, "hard_margin_svc", lambda *a, **k: fit(*a, **k, start=torch.tensor([0, 1, 2, 3]), max_rounds=1)
    )
    other, charges_other = one.svc(y)
    assert other.ending is usual.ending is Ending.SEPARATED
    assert other.support.tolist() == usual.support.tolist()
    torch.testing.assert_close(charges_other, charges, rtol=1e-6, atol=1e-8)
    assert other.bias == pytest.approx(usual.bias, rel=1e-6)
    assert other.gap == pytest.approx(usual.gap, abs=1e-5)


def test_the_flow_is_that_on_the_gram():
    one, y = kernel()
    end, coefficients = one.flow(y)
    for last in frozen.kernel_flow(one.gram, y):
        pass
    assert end.status.value == "FITTED"
    # the unit of the kernel is that of time only
    assert end.t / one.unit == pytest.approx(last.t, rel=1e-6)
    torch.testing.assert_close(one.function(coefficients, one.x), y * last.margins, rtol=1e-5, atol=1e-5)
    assert math.isclose(end.loss, 0.0)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_frozen_machine_is_one_of_the_gram_alone(unit):
    one, y = kernel()
    machine, charges = tangents.frozen_machine(one.gram, y, unit=unit * one.unit)
    _, expected = one.svc(y)
    torch.testing.assert_close(charges, expected, rtol=1e-5, atol=1e-7 * float(expected.abs().max()))
    assert float(charges.sum()) == pytest.approx(0, abs=1e-8 * float(charges.abs().max()))
    margins = y * (one.gram @ charges + machine.bias)
    assert float(margins.min()) == pytest.approx(1, abs=1e-3)
    assert (charges[machine.support] * machine.y > 0).all()
    assert int((charges != 0).sum()) == len(machine.support)
