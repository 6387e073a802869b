"""Covariance of input gradients: against loops, its invariants, and what it has to do with the amplification λ."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from geocompress import compression, flow, input_gradients, networks, tasks


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def net(outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


def test_gradients_against_one_by_one():
    module, x = net(), drawn(300, 2, 3)
    found = input_gradients.gradients(module, x)
    for n in (0, 255, 256, 299):
        truth = torch.autograd.functional.jacobian(lambda point: module(point[None])[0], x[n]).flatten(1)
        torch.testing.assert_close(found[n], truth, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("p", [2, 50])  # fewer and more gradients than numbers of a point
def test_covariance_against_the_matrix(p):
    module, x = net(), drawn(p, 2, 3)
    flat = input_gradients.gradients(module, x).flatten(0, 1)
    matrix = (flat.T @ flat / p).numpy()
    one = input_gradients.covariance(module, x, directions=torch.eye(6).double()[:2], vectors=3)
    np.testing.assert_allclose(one.values, np.linalg.eigvalsh(matrix)[::-1], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(matrix @ one.vectors.T, one.vectors.T * one.values[:3], atol=1e-12)
    np.testing.assert_allclose(one.vectors @ one.vectors.T, np.eye(3), atol=1e-9)
    assert one.known == pytest.approx(np.trace(matrix[:2, :2]))
    assert one.points == p
    assert one.compression(1) == pytest.approx(one.values[0] / one.values[1:].mean())
    rest = np.trace(matrix[2:, 2:]) / 4
    assert one.along(2) == pytest.approx(np.trace(matrix[:2, :2]) / 2 / rest)
    assert one.compression(2) >= one.along(2)
    assert 1 <= one.dimension <= 6


def test_a_linear_net_feels_one_direction():
    w = drawn(5)
    one = input_gradients.covariance(lambda x: (x @ w)[:, None], drawn(40, 5))
    assert one.dimension == pytest.approx(1)
    assert one.compression(1) == math.inf
    np.testing.assert_allclose(np.abs(one.vectors[0] @ (w / w.norm()).numpy()), 1, rtol=1e-12)
    assert math.isnan(one.along(1))


def test_rotated_points_have_rotated_directions():
    module, x = net(1), drawn(40, 6)
    turn = torch.linalg.qr(drawn(6, 6, seed=1))[0]
    one = input_gradients.covariance(module, x)
    other = input_gradients.covariance(lambda z: module(z @ turn.T), x @ turn)
    np.testing.assert_allclose(other.values, one.values, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(np.abs(other.vectors @ turn.T.numpy() @ one.vectors.T).diagonal(), 1, rtol=1e-6)


def test_budget_takes_fewer_points_and_says_so():
    assert input_gradients.covariance(net(), drawn(50, 6), memory_gb=10 * 24 * 12 / 1e9).points == 10
    with pytest.raises(ValueError, match="memory_gb: expected at least"):
        input_gradients.covariance(net(), drawn(50, 6), memory_gb=1e-7)


def test_bad_input():
    with pytest.raises(ValueError, match="zero everywhere"):
        input_gradients.covariance(lambda x: 0 * x[:, :1], drawn(5, 3))
    with pytest.raises(ValueError, match="finite input gradients"):
        input_gradients.covariance(lambda x: (x[:, :1] - x[:, :1]).sqrt(), drawn(5, 3))
    one = input_gradients.covariance(net(), drawn(5, 6))
    for ratio in (one.compression, one.along):
        with pytest.raises(ValueError, match="1 ≤ k < D = 6"):
            ratio(6)


def along_and_amplification(seed, share):
    """Input gradients and λ² of a net trained on the stripe, when a share of the points is fitted, and at the end."""
    task = tasks.stripe(5)
    x, y = task.sample(128, seed=seed)
    network = networks.OneHidden(d=5, width=300)
    early = None
    for state in flow.hinge_flow(network, network.init(seed + 10), x, y, alpha=1e-6):
        if early is None and compression.fitted_fraction(state.margins) >= share:
            early = state.params
    found = []
    for params in (early, state.params):
        one = input_gradients.covariance(
            lambda z, params=params: hidden(params, z)[:, None], x, directions=torch.eye(5).double()[:1]
        )
        found.append((one, compression.amplification(params, 1) ** 2))
    return found


def hidden(params, x):
    pre = x @ params["omega"].T / math.sqrt(x.shape[1]) + params["b"]
    return math.sqrt(2) * torch.relu(pre) @ params["beta"] / len(params["b"])


def test_equal_to_the_squared_amplification_when_all_neurons_are_on_one_line():
    params = networks.OneHidden(d=5, width=40).init(0)
    params["omega"] = drawn(40, 1, seed=1) * drawn(1, 5, seed=2)
    one = input_gradients.covariance(
        lambda z: hidden(params, z)[:, None], drawn(80, 5), directions=torch.eye(5).double()[:2]
    )
    assert one.along(2) == pytest.approx(compression.amplification(params, 2) ** 2, rel=1e-10)


@pytest.mark.parametrize("seed", [1, 2])
def test_near_the_squared_amplification_on_trained_nets(seed):
    (early, before), (end, after) = along_and_amplification(seed, 0.05)
    assert before > 50  # it has compressed
    assert early.along(1) == pytest.approx(before, rel=0.05)  # all neurons on one line; measured: 0.6 %
    assert early.compression(1) > 100 * before  # eigenvalues do not know how the line is aimed
    assert after / 4 < end.along(1) < 4 * after  # neurons differ; measured: 2.2
