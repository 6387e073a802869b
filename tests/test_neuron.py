"""Single neurons: the field is the gradient of the loss, the closed forms its limit, the ODE is the trained net."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from geocompress import compression, directions, exponents, flow, networks, neuron, tasks

STRIPE = tasks.stripe(5)


def net(h=40, d=5, seed=1):
    return networks.OneHidden(d, h), networks.OneHidden(d, h).init(seed)


def half_spaces(h=24, d=5):
    """Random neurons, some of them nearly or exactly along an axis, some without bias."""
    rng = np.random.default_rng(0)
    omega, b = rng.standard_normal((h, d)), rng.standard_normal(h)
    omega[:6, 1:] *= 1e-3
    omega[6:8, 1:] = 0
    omega[8:10, 0] = 0
    b[10:12] = 0
    return omega, b


def augmented(params):
    return np.column_stack([params["omega"], params["b"]])


# --- fields


@pytest.mark.parametrize("task", [STRIPE, tasks.stripes(5, 3, -1.0), tasks.stripes(5, 2)], ids=lambda task: task.name)
def test_population_field_is_the_mean_of_a_million_points(task):
    omega, b = half_spaces()
    exact = neuron.PopulationField(task)(omega, b)
    x, y = (array.numpy() for array in task.sample(1_000_000, 3))
    for n in range(len(b)):
        active = omega[n] @ x.T / math.sqrt(5) + b[n] > 0
        terms = np.column_stack([y, y[:, None] * x]) * active[:, None]
        error = terms.mean(0) - np.concatenate([[exact.y[n]], exact.yx[n]])
        assert (np.abs(error) < 5 * terms.std(0) / 1000 + 1e-12).all(), n


def test_bivariate_probability_agrees_with_scipy():
    for h, k, rho in [(0.3, -0.7, 0.4), (-1.2, 1.1, -0.9), (0.0, 0.5, 0.2), (0.7, 0.0, -0.3), (0.0, 0.0, 0.5)]:
        slow = multivariate_normal.cdf([h, k], cov=[[1, rho], [rho, 1]])
        fast = neuron._bivariate(np.array([h]), k, np.array([rho]), np.array([math.sqrt(1 - rho**2)]))
        assert fast[0] == pytest.approx(slow, abs=1e-6)


def test_population_field_is_the_gradient_of_its_potential():
    """β̇ = ∂V/∂β and ẇ = ∂V/∂w for V = β √2 E[y z 1_H], which moves no boundary at first order."""
    omega, b = half_spaces()
    omega, b = omega[12:], b[12:]
    moments = neuron.PopulationField(STRIPE)
    params = {"omega": omega, "b": b, "beta": np.ones(len(b))}
    rate = neuron.velocity(moments, params)
    step = 1e-5
    for axis in range(6):
        shift = np.zeros(6)
        shift[axis] = step
        ends = [
            neuron.velocity(moments, params | {"omega": omega + s * shift[:5], "b": b + s * shift[5]})["beta"]
            for s in (1, -1)
        ]
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), augmented(rate)[:, axis], atol=1e-8)


def test_force_across_is_linear_in_the_tilt():
    """E[y x_⊥ 1_H] → (ω_⊥/|ω_1|) y(x_b) φ(x_b) for small tilts."""
    omega = np.array([[2.0, 1e-4, 0, 0, 0], [-2.0, 1e-4, 0, 0, 0]])
    for threshold, label in ((0.4, -1), (-1.0, 1), (2.0, 1)):
        moments = neuron.PopulationField(STRIPE)(omega, -threshold * omega[:, 0] / math.sqrt(5))
        np.testing.assert_allclose(moments.yx[:, 1], 1e-4 / 2 * label * norm.pdf(threshold), rtol=1e-3)


def test_empirical_field_is_the_gradient_of_the_loss():
    network, params = net()
    x, y = STRIPE.sample(50, 2)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    alpha = 1e-3
    margins = y * alpha * (network.forward(leaves, x) - network.forward(params, x))
    (1 - margins).clamp(min=0).mean().backward()
    rate = neuron.velocity(neuron.EmpiricalField(x, y), params)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(rate[name], -network.width / alpha * leaf.grad, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda p, seed: neuron.EmpiricalField(*STRIPE.sample(p, seed)),
        lambda p, seed: neuron.NoisyField(STRIPE, p, seed),
    ],
    ids=["points", "noisy"],
)
def test_noise_across_has_the_predicted_covariance(make):
    """⟨y x_⊥ 1_H⟩ of two half spaces along x_1 has covariance P(H ∩ H')/p; so its spread falls as p^{−1/2}."""
    omega = np.zeros((3, 5))
    omega[:, 0] = [1, -1, 1]
    thresholds = np.array([0.5, 1.0, -0.5])
    b = -thresholds * omega[:, 0] / math.sqrt(5)
    mass = [norm.sf(0.5), norm.cdf(1.0), norm.sf(-0.5)]
    overlap = {(0, 1): norm.cdf(1) - norm.cdf(0.5), (0, 2): mass[0], (1, 2): norm.cdf(1) - norm.cdf(-0.5)}
    for p in (100, 1600):
        draws = np.stack([make(p, seed)(omega, b).yx[:, 1:] for seed in range(400)])  # 1600 independent components
        covariance = np.einsum("snc,smc->nm", draws, draws) / (400 * 4) * p
        np.testing.assert_allclose(np.diag(covariance), mass, rtol=0.15)
        for (n, m), expected in overlap.items():
            assert covariance[n, m] == pytest.approx(expected, abs=0.1)


# --- dynamics


@pytest.mark.parametrize("name", ["points", "population", "noisy"])
def test_balance_is_conserved_along_the_dynamics(name):
    x, y = STRIPE.sample(64, 0)
    fields = {
        "points": neuron.EmpiricalField(x, y),
        "population": neuron.PopulationField(STRIPE),
        "noisy": neuron.NoisyField(STRIPE, 64, 0),
    }
    params = net()[1]
    trajectory = neuron.linear_dynamics(params, fields[name], np.linspace(0, 10, 6), rtol=1e-4)
    for state in trajectory:
        scale = state["beta"].square().mean()
        drift = (compression.balance(state) - compression.balance(params)).abs().max() / scale
        assert drift < 1e-2
    assert all(torch.equal(trajectory[0][key], params[key]) for key in params)


def test_dynamics_are_the_trained_net_until_the_first_point_is_fitted():
    network, params = net(h=200)
    x, y = STRIPE.sample(64, 0)
    before = []
    for state in flow.hinge_flow(network, params, x, y, alpha=1e-6, margin_tol=0.01, state_tol=0.005):
        if float(state.margins.max()) >= 1:
            break
        before.append(state)
    trajectory = neuron.linear_dynamics(params, neuron.EmpiricalField(x, y), [before[-1].t], rtol=1e-3)
    trained, alone = before[-1].params, trajectory[-1]
    assert before[-1].margins.max() > 0.5  # the comparison reaches almost to the first fit
    assert compression.amplification(trained, 1) > 2.5
    for name in params:
        error = (trained[name] - alone[name]).norm() / alone[name].norm()
        assert error < 0.03, (name, error)


def test_dynamics_do_not_depend_on_the_other_neurons():
    params = net(h=6)[1]
    moments = neuron.NoisyField(STRIPE, 32, 0)
    together = neuron.linear_dynamics(params, moments, [5.0], rtol=1e-6)[-1]
    alone = neuron.linear_dynamics({name: value[2:3] for name, value in params.items()}, moments, [5.0], rtol=1e-6)[-1]
    for name in params:
        np.testing.assert_allclose(alone[name], together[name][2:3], rtol=1e-4)


# --- directions


@pytest.mark.parametrize("d", [1, 2, 5, 30])
def test_fixed_directions_are_not_turned(d):
    task = tasks.stripe(d)
    found = directions.fixed_directions(task)
    assert len(found) == 3
    assert [one.rate for one in found] == sorted((one.rate for one in found), reverse=True)
    for one in found:
        omega = np.zeros((1, d))
        omega[0, 0] = one.omega_1
        params = {"omega": omega, "b": np.array([one.b]), "beta": np.array([float(one.sign)])}
        rate = neuron.velocity(neuron.PopulationField(task), params)
        np.testing.assert_allclose(augmented(rate), one.rate * augmented(params), atol=1e-8)
        assert rate["beta"][0] == pytest.approx(one.sign * one.rate)


def test_force_is_pull_minus_push_at_the_kink():
    """Both forms of D agree: |E[y x_1 1_H]| − sign(β) y(x_b) φ(x_b), and the sum over edges inside the half space."""
    for one in directions.fixed_directions(STRIPE):
        omega = np.array([[one.omega_1, 0, 0, 0, 0]])
        pull = abs(neuron.PopulationField(STRIPE)(omega, np.array([one.b])).yx[0, 0])
        label = -1 if STRIPE.edges[0] < one.threshold < STRIPE.edges[1] else 1
        assert one.force == pytest.approx(pull - one.sign * label * norm.pdf(one.threshold), abs=1e-9)


def test_a_half_space_that_holds_both_edges_has_the_naive_force():
    slow = [one for one in directions.fixed_directions(STRIPE) if one.sign == -1]
    assert slow[0].force == pytest.approx(exponents.amplification_prefactor(*STRIPE.edges))


def test_tilt_relaxes_at_the_rate_of_the_force():
    one = directions.dominant_direction(STRIPE)
    params = {"omega": np.array([[one.omega_1, 1e-6, 0, 0, 0]]), "b": np.array([one.b]), "beta": np.array([1.0])}
    end = neuron.linear_dynamics(params, neuron.PopulationField(STRIPE), [10.0], rtol=1e-8)[-1]
    tilt = float(end["omega"][0, 1] / end["omega"][0, 0]) / (1e-6 / one.omega_1)
    expected = math.exp(-math.sqrt(2 / 5) / abs(one.omega_1) * one.force * 10)
    assert tilt == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_amplification_settles_where_predicted():
    """λ of a growing neuron in the noisy field: C √p in the mean square, and quartiles over samples."""
    p, one = 4096, directions.dominant_direction(STRIPE)
    start = {"omega": np.array([[one.omega_1, 0, 0, 0, 0]]), "b": np.array([one.b]), "beta": np.array([1.0])}
    tilts = []
    for seed in range(200):
        end = neuron.linear_dynamics(start, neuron.NoisyField(STRIPE, p, seed), [25.0])[-1]["omega"][0]
        tilts.append(float((end[1:].square().mean() / end[0].square()).sqrt()))
    tilts = np.array(tilts)
    assert np.mean(tilts**2) ** -0.5 == pytest.approx(directions.amplification_prediction(p, STRIPE), rel=0.1)
    for quantile in (0.25, 0.5, 0.75):
        predicted = directions.amplification_prediction(p, STRIPE, quantile)
        assert np.quantile(1 / tilts, quantile) == pytest.approx(predicted, rel=0.15)


# --- what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: neuron.EmpiricalField(np.zeros((0, 2)), np.zeros(0)), "p ≥ 1"),
        (lambda: neuron.EmpiricalField(np.zeros((3, 2)), np.ones(2)), "expected x"),
        (lambda: neuron.EmpiricalField(np.zeros((3, 2)), np.zeros(3)), "labels −1 or"),
        (lambda: neuron.EmpiricalField(np.full((3, 2), np.nan), np.ones(3)), "finite"),
        (lambda: neuron.PopulationField(tasks.cylinder(5)), "take a stripe"),
        (lambda: neuron.NoisyField(STRIPE, 0, 0), "p: expected"),
        (lambda: neuron.PopulationField(STRIPE)(np.ones((3, 4)), np.ones(3)), "dimension of the task"),
        (lambda: neuron.PopulationField(STRIPE)(np.zeros((3, 5)), np.ones(3)), "no half space"),
        (lambda: neuron.linear_dynamics(net()[1], neuron.PopulationField(STRIPE), [1.0, 1.0]), "increasing"),
        (lambda: neuron.linear_dynamics(net()[1], neuron.PopulationField(STRIPE), [-1.0]), "increasing"),
        (lambda: neuron.linear_dynamics(net()[1], neuron.PopulationField(STRIPE), []), "increasing"),
        (lambda: neuron.linear_dynamics(net()[1], neuron.PopulationField(STRIPE), [1.0], rtol=0), "rtol"),
        (lambda: neuron.velocity(neuron.PopulationField(STRIPE), net()[1] | {"b": np.ones(3)}), r"b \(h,\)"),
        (lambda: neuron.velocity(neuron.PopulationField(STRIPE), net()[1] | {"b": np.full(40, np.inf)}), "nan or inf"),
        (lambda: directions.fixed_directions(tasks.sphere(3)), "take a stripe"),
        (lambda: directions.amplification_prediction(10, tasks.stripe(1)), "raise d"),
        (lambda: directions.amplification_prediction(0, STRIPE), "p: expected"),
        (lambda: directions.amplification_prediction(10, STRIPE, 1.0), "quantile"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_time_zero_alone_is_the_start():
    params = net()[1]
    (start,) = neuron.linear_dynamics(params, neuron.PopulationField(STRIPE), [0.0])
    assert all(torch.allclose(start[name], params[name]) for name in params)
