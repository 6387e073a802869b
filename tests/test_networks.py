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


def moved(params, seed=9, length=0.3):
    step = NET.init(seed)
    return {k: value + length * step[k] for k, value in params.items()}


def test_the_secant_takes_the_output_from_one_end_to_the_other_without_error(setting):
    params, x = setting
    end = moved(params)
    secant = NET.linearise(params, x).secant(end)
    change = {k: end[k] - params[k] for k in params}
    crossed = (NET.linearise(params, x).output != 0) & (secant.pushforward(change) != 0)
    assert bool(crossed.any())
    expected = NET.forward(end, x) - NET.forward(params, x)
    torch.testing.assert_close(secant.pushforward(change), expected, rtol=1e-11, atol=1e-13)


def test_the_secant_is_the_jacobian_averaged_over_the_way(setting):
    """Up to the second order in the way, and to the first for the few activations whose kink is crossed."""
    params, x = setting
    v = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    errors = []
    for length in (0.1, 0.01):
        end, shares = moved(params, length=length), (torch.arange(400) + 0.5) / 400
        ways = [{k: torch.lerp(params[k], end[k], float(s)) for k in params} for s in shares]
        mean = sum(flat(NET.linearise(way, x).pullback(v)) for way in ways) / len(ways)
        errors.append(float((flat(NET.linearise(params, x).secant(end).pullback(v)) - mean).abs().max()))
    assert errors[1] < 0.2 * errors[0]


def test_products_of_the_secant_belong_to_one_jacobian(setting):
    params, x = setting
    secant = NET.linearise(params, x).secant(moved(params))
    unit = torch.eye(9, dtype=torch.float64)
    jacobian = torch.stack([flat(secant.pullback(row)) for row in unit])
    tangent = NET.init(8)
    torch.testing.assert_close(secant.pushforward(tangent), jacobian @ flat(tangent), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(secant.gram(torch.arange(9)), jacobian @ jacobian.T, rtol=1e-12, atol=1e-14)


def test_no_output_changes_by_more_than_the_distance_allows(setting):
    params, x = setting
    tight = 0.0
    for seed, length in ((9, 0.01), (10, 0.3), (11, 3.0)):
        end = moved(params, seed, length)
        allowed = NET.distance(params, end) * NET.sizes(x)
        change = (NET.forward(end, x) - NET.forward(params, x)).abs()
        assert bool((change <= allowed).all())
        tight = max(tight, float((change / allowed).max()))
    assert tight > 0.1  # or the bound says nothing
    turned = {**params, "beta": -params["beta"]}
    assert bool(
        ((NET.forward(turned, x) - NET.forward(params, x)).abs() <= NET.distance(params, turned) * NET.sizes(x)).all()
    )
