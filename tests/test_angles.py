"""Angles of neurons on balls: measures of a cloud, the neuron that grows, and rows of trainings that carry them."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, norm

from geocompress import angle_experiments, angles, compression, experiments, neuron, tasks

CYLINDER = tasks.cylinder(5)
BALLS = [CYLINDER, tasks.cylinder(3), tasks.ball(5, 3), tasks.ball(6, 4), tasks.sphere(3)]
names = pytest.mark.parametrize("task", BALLS, ids=lambda task: f"{task.name}-{task.d}")


# --- measures of a cloud


def circle(count, first=0.1):
    angle = first + 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_isotropy_of_known_clouds():
    assert angles.isotropy(circle(3)) == pytest.approx(1)
    assert angles.isotropy(circle(1000)) == pytest.approx(1)
    assert angles.isotropy(circle(2)) == pytest.approx(0, abs=1e-7)
    # lengths count once: 9 along x_1 and 4 along x_2, however they are split
    assert angles.isotropy(np.array([[9.0, 0], [0, 4]])) == pytest.approx(2 / 3)
    assert angles.isotropy(np.array([[4.0, 0], [-5, 0], [0, 2], [0, -2], [0, 0]])) == pytest.approx(2 / 3)
    assert angles.isotropy(np.eye(3)) == pytest.approx(1)


def test_isotropy_is_that_of_a_turned_cloud_in_other_units():
    cloud = np.random.default_rng(0).standard_normal((50, 2)) * [3, 1]
    turn = np.array([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    assert angles.isotropy(1e9 * cloud @ turn.T) == pytest.approx(angles.isotropy(cloud))


def test_isotropy_splits_the_numerator_of_the_amplification():
    """Where |β| = |ω| and ω_⊥ is small, its matrix is Σ ω_∥ ω_∥ᵀ."""
    omega = np.random.default_rng(1).standard_normal((30, 2)) * [2, 1]
    smallest, largest = np.linalg.eigvalsh(omega.T @ omega)
    arrows = np.linalg.norm(omega, axis=1)[:, None] * omega
    assert angles.isotropy(arrows) == pytest.approx(math.sqrt(smallest / largest))


def test_shares_count_length_by_sector():
    arrows = np.array([[1.0, 0.1], [2, 0.2], [-1, 0.1], [0, 0]])
    shares = angles.angular_shares(arrows, 4)  # sectors from −180°, counter-clockwise
    np.testing.assert_allclose(shares, [0, 0, 0.75, 0.25])
    assert angles.angular_shares(circle(48), 24) == pytest.approx(np.full(24, 1 / 24))


def test_directions_in_use_counts_even_sectors():
    assert angles.directions_in_use(np.full(24, 1 / 24)) == pytest.approx(24)
    assert angles.directions_in_use(np.array([0.5, 0.0, 0.5])) == pytest.approx(2)
    assert angles.directions_in_use(np.array([0.0, 1.0])) == 1


@pytest.mark.parametrize("arrows", [np.zeros((3, 2)), np.zeros((0, 2)), np.ones((3, 1))])
def test_a_cloud_without_angles_is_refused(arrows):
    with pytest.raises(ValueError, match=r"arrows: expected \(h, k ≥ 2\)"):
        angles.isotropy(arrows)
    if arrows.shape[1] == 2:
        with pytest.raises(ValueError, match="expected one that is not zero"):
            angles.angular_shares(arrows)


# --- the neuron that grows


def mean_label(task, x):
    """E[y | x_1 = x] on a ball."""
    rest = task.edges[0] ** 2 - x**2
    return 2 * chi2.cdf(max(rest, 0), task.d_parallel - 1) - 1


def growth(task, angle):
    """G = √2 E[y (x_1 cos/√d + sin)_+] by quadrature."""
    along, lift = math.cos(angle) / math.sqrt(task.d), math.sin(angle)
    integrand = lambda x: mean_label(task, x) * max(0, along * x + lift) * norm.pdf(x)
    kinks = [*task.edges, -task.edges[0], -lift / along]
    return math.sqrt(2) * quad(integrand, -12, 12, points=[x for x in kinks if abs(x) < 12], limit=200)[0]


@names
def test_pull_and_force_agree_with_quadrature(task):
    radial = angles.radial_neuron(task)
    pull = quad(lambda x: mean_label(task, x) * x * norm.pdf(x), 0, task.edges[0])[0]
    pull += quad(lambda x: mean_label(task, x) * x * norm.pdf(x), task.edges[0], 12)[0]
    assert -pull == pytest.approx(radial.pull, rel=1e-7)  # β < 0: the pull is outwards where labels outside are −1
    assert radial.force == pytest.approx(radial.pull + mean_label(task, 0) * norm.pdf(0), rel=1e-9)
    assert radial.rate == pytest.approx(-growth(task, 0.0), rel=1e-6)


def test_closed_form_of_the_cylinder():
    radial = angles.radial_neuron(CYLINDER)
    assert radial.force == pytest.approx(math.sqrt(2 * math.log(2)) / math.pi)
    assert radial.prefactor == pytest.approx(radial.force)
    assert angles.radial_neuron(tasks.cylinder(17)).prefactor == pytest.approx(radial.prefactor)
    assert radial.even_from(10) == pytest.approx((20 * radial.scatter) ** 2)


@names
def test_no_bias_grows_faster(task):
    rates = [abs(growth(task, angle)) for angle in np.linspace(-1.5, 1.5, 31)]
    assert max(rates) == pytest.approx(angles.radial_neuron(task).rate, rel=1e-6)
    assert int(np.argmax(rates)) == 15


def test_a_tilt_decays_with_the_force():
    """The velocity of a tilted neuron in the field of many points; those at ±x_⊥ cancel the noise."""
    x, _ = CYLINDER.sample(500_000, 3)
    mirrored = x.clone()
    mirrored[:, 2:] *= -1
    both = np.concatenate([x.numpy(), mirrored.numpy()])
    field = neuron.EmpiricalField(both, np.tile(CYLINDER.label(x).numpy(), 2))
    u = 0.1
    moments = field(np.array([[1.0, 0, u, 0, 0]]), np.zeros(1))
    along, across = -moments.yx[0, 0], -moments.yx[0, 2]  # β = −1
    assert (across - u * along) / u == pytest.approx(-angles.radial_neuron(CYLINDER).force, rel=0.02)


def test_rates_scatter_over_samples_as_predicted():
    radial, p = angles.radial_neuron(CYLINDER), 256
    omega = np.eye(1, 5)
    rates = [
        math.sqrt(2 / 5) * neuron.EmpiricalField(*CYLINDER.sample(p, seed))(omega, np.zeros(1)).yx[0, 0]
        for seed in range(1500)
    ]
    assert np.mean(rates) == pytest.approx(-radial.rate, abs=4 * radial.scatter / math.sqrt(p * 1500))
    assert np.std(rates) * math.sqrt(p) == pytest.approx(radial.scatter, rel=0.08)


@pytest.mark.parametrize("task", [tasks.stripe(3), tasks.ball(3, 1)])
def test_other_tasks_have_no_radial_neuron(task):
    with pytest.raises(ValueError, match="expected a ball with d_parallel ≥ 2"):
        angles.radial_neuron(task)


# --- rows

SMALL = experiments.NetworkConfig(task="cylinder", d=3, p=32, width=100, test_size=500)


def test_rows_to_the_end_are_those_of_a_training_with_isotropy_added():
    row, plain = angle_experiments.train_to_the_end(SMALL), experiments.train_network(SMALL)
    for name in ("test_error", "t_star", "lambda_star", "lambda_max", "lambda_end", "status", "regime", "d_parallel"):
        assert row[name] == plain[name], name
    *_, end = experiments.Replica(SMALL).states()
    assert row["isotropy_end"] == pytest.approx(angles.isotropy(compression.neuron_plane(end.params).numpy()), rel=1e-5)
    assert 0 < row["isotropy_star"] < row["isotropy_init"] < 1


def test_rows_to_fitting_stop_where_the_others_read():
    row, whole = angle_experiments.train_to_fitting(SMALL), angle_experiments.train_to_the_end(SMALL)
    assert row["t_star"] == pytest.approx(whole["t_star"], rel=1e-9)
    assert row["lambda_star"] == pytest.approx(whole["lambda_star"], rel=1e-6)
    assert row["isotropy_star"] == pytest.approx(whole["isotropy_star"], rel=1e-5)
    assert row["isotropy_init"] == pytest.approx(whole["isotropy_init"], rel=1e-5)
    states = list(experiments.Replica(SMALL).states())
    first = next(state for state in states if compression.fitted_fraction(state.margins) > 0)
    assert row["lambda_first"] == pytest.approx(compression.amplification(first.params, 2))


def test_a_training_that_ends_too_early_or_has_no_plane_is_refused():
    with pytest.raises(RuntimeError, match=r"got 0% at t = 1; raise max_time"):
        angle_experiments.train_to_fitting(dataclasses.replace(SMALL, max_time=1.0))
    for train in (angle_experiments.train_to_fitting, angle_experiments.train_to_the_end):
        with pytest.raises(ValueError, match="expected a label of two directions, got 'stripe'"):
            train(dataclasses.replace(SMALL, task="stripe"))
