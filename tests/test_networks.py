"""`OneHidden` against a neuron-by-neuron sum and against automatic differentiation."""

import pytest
import torch

import reference
from geocompress import networks

NET = networks.OneHidden(d=4, width=13)


@pytest.fixture
def setting():
    return NET.init(3), torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def flat(tangent):
    return torch.cat([tangent[k].flatten() for k in ("omega", "b", "beta")])


def test_forward_is_the_sum_over_neurons(setting):
    torch.testing.assert_close(NET.forward(*setting), reference.one_hidden(*setting), rtol=1e-13, atol=1e-14)


def test_forward_does_not_depend_on_the_block(setting):
    torch.testing.assert_close(NET.forward(*setting, block=2), NET.forward(*setting), rtol=1e-13, atol=1e-15)


def test_jacobian_products_and_gram_agree_with_autograd(setting):
    params, x = setting
    jacobian = reference.jacobian(reference.one_hidden, params, x)
    at = NET.linearise(params, x)
    v, tangent = torch.randn(9, dtype=torch.float64), NET.init(8)
    torch.testing.assert_close(flat(at.pullback(v)), jacobian.T @ v, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(at.pushforward(tangent), jacobian @ flat(tangent), rtol=1e-12, atol=1e-14)
    rows = torch.tensor([1, 4, 7])
    torch.testing.assert_close(at.gram(rows), (jacobian @ jacobian.T)[rows][:, rows], rtol=1e-12, atol=1e-14)


def test_ntk_is_h_times_the_gram_of_gradients(setting):
    params, x = setting
    other = x[:4] + 0.3
    left, right = (reference.jacobian(reference.one_hidden, params, points) for points in (x, other))
    torch.testing.assert_close(NET.ntk(params, x, other), 13 * left @ right.T, rtol=1e-12, atol=1e-13)
    gram = NET.ntk(params, x)
    torch.testing.assert_close(gram, gram.T)
    assert torch.linalg.eigvalsh(gram)[0] > -1e-12 * gram.diagonal().max()


def test_output_is_homogeneous_of_degree_two(setting):
    params, x = setting
    scaled = {k: 1e-3 * v for k, v in params.items()}
    torch.testing.assert_close(NET.forward(scaled, x), 1e-6 * NET.forward(params, x), rtol=1e-12, atol=0)


def test_initialisation_is_standard_normal_and_a_seed_fixes_it():
    params = networks.OneHidden(d=10, width=20_000).init(0)
    for value in params.values():
        assert abs(float(value.mean())) < 5 / value.numel() ** 0.5
        assert abs(float(value.var()) - 1) < 5 * (2 / value.numel()) ** 0.5
    assert all(torch.equal(NET.init(1)[k], NET.init(1)[k]) for k in params)
    assert NET.init(1, dtype=torch.float32)["b"].dtype == torch.float32


@pytest.mark.parametrize("bad", [{"d": 0, "width": 3}, {"d": 3, "width": 0}, {"d": 3, "width": -1}])
def test_sizes_below_one_are_refused(bad):
    with pytest.raises(ValueError, match="expected an integer ≥ 1"):
        networks.OneHidden(**bad)


def test_points_of_another_dimension_are_refused(setting):
    with pytest.raises(ValueError, match=r"shape \(p, 4\), got \(9, 3\)"):
        NET.linearise(setting[0], setting[1][:, :3])


def test_parameters_of_another_network_are_refused(setting):
    for other in (networks.OneHidden(d=4, width=12), networks.OneHidden(d=3, width=13)):
        with pytest.raises(ValueError, match="belong to another network"):
            NET.linearise(other.init(0), setting[1])
    with pytest.raises(ValueError, match="expected parameters"):
        NET.linearise({"omega": setting[0]["omega"]}, setting[1])
