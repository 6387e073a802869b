"""Eigenpairs, projections, information, alignment: against constructions whose answer is known, and bad input."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.sparse.linalg import LinearOperator
from scipy.stats import ortho_group

from geocompress import kernels, spectrum, tasks
from geocompress.spectrum import top_eigenpairs


def built(values, seed=0):
    """A Gram with these eigenvalues, and its eigenvectors as columns."""
    basis = ortho_group.rvs(len(values), random_state=seed)
    gram = basis * values @ basis.T
    return (gram + gram.T) / 2, basis


def stripe_gram(p, d=3, seed=1):
    x, y = tasks.stripe(d).sample(p, seed)
    return kernels.ntk_one_hidden(x), y


@pytest.mark.parametrize("dense", [True, False])
def test_eigenpairs_of_a_gram_that_was_built(dense):
    values = 0.7 ** np.arange(40)
    gram, basis = built(values)
    y = np.random.default_rng(3).choice([-1.0, 1.0], 40)
    found = top_eigenpairs(gram, 6, y=y, dense=dense)
    np.testing.assert_allclose(found.values, values[:6], rtol=1e-12)
    signed = basis[:, :6] * np.sign(y @ basis[:, :6])
    np.testing.assert_allclose(found.vectors, signed, atol=1e-11)
    assert (y @ found.vectors >= 0).all()
    assert found.group.tolist() == list(range(6))
    assert not found.cut


@pytest.mark.parametrize("p", [60, 700])
def test_dense_lanczos_and_a_product_agree_on_a_kernel(p):
    gram, y = stripe_gram(p)
    matrix = gram.numpy()
    product = LinearOperator((p, p), matvec=lambda v: matrix @ v, dtype=np.float64)
    first = top_eigenpairs(gram, 8, y=y, dense=True)
    for other in (
        top_eigenpairs(gram, 8, y=y, dense=False),
        top_eigenpairs(product, 8, y=y),
        top_eigenpairs(gram, 8, y=y),
    ):
        np.testing.assert_allclose(other.values, first.values, rtol=1e-10)
        np.testing.assert_allclose(other.vectors, first.vectors, atol=1e-7)
    np.testing.assert_allclose(first.vectors.T @ first.vectors, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(matrix @ first.vectors, first.vectors * first.values, atol=1e-10 * first.values[0])


def test_without_a_label_the_largest_entry_is_positive():
    gram, _ = built(np.arange(1.0, 13.0))
    vectors = top_eigenpairs(gram, 12).vectors
    assert (vectors[np.abs(vectors).argmax(0), range(12)] > 0).all()
    np.testing.assert_array_equal(vectors, top_eigenpairs(gram.tolist(), 12).vectors)


def test_a_degenerate_group_gives_the_label_to_its_first_vector():
    values = np.array([5.0, 2, 2, 2, 1, 0.5, 0.1, 0])
    gram, basis = built(values)
    y = np.random.default_rng(0).choice([-1.0, 1.0], 8)
    found = top_eigenpairs(gram, 5, y=y)
    assert found.group.tolist() == [0, 1, 1, 1, 2]
    projections = spectrum.label_projections(found.vectors, y)
    assert projections[1] == pytest.approx(((y @ basis[:, 1:4]) ** 2).sum() / 8)
    np.testing.assert_allclose(projections[2:4], 0, atol=1e-20)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(gram @ found.vectors, found.vectors * found.values, atol=1e-12)
    assert not found.cut
    assert top_eigenpairs(gram, 3, y=y).cut
    assert not top_eigenpairs(gram, 8, y=y).cut


def test_the_identity_is_one_group():
    y = np.where(np.arange(9) < 4, 1.0, -1.0)
    found = top_eigenpairs(np.eye(9), 4, y=y)
    assert found.group.tolist() == [0] * 4
    assert found.cut


def test_all_pairs_of_a_product():
    gram, _ = built(np.arange(1.0, 6.0))
    product = LinearOperator((5, 5), matvec=lambda v: gram @ v, dtype=np.float64)
    np.testing.assert_allclose(top_eigenpairs(product, 5).values, np.arange(5.0, 0, -1))


def test_energy_of_the_whole_basis_is_one_and_accumulates():
    gram, y = stripe_gram(50)
    vectors = top_eigenpairs(gram, 50, y=y).vectors
    energy = spectrum.relative_energy(vectors, y)
    assert energy[-1] == pytest.approx(1)
    assert (np.diff(energy) >= 0).all()
    np.testing.assert_allclose(np.diff(energy), spectrum.label_projections(vectors, y)[1:])
    np.testing.assert_allclose(spectrum.relative_energy(vectors, vectors[:, 2] * 7), [0, 0] + [1] * 48, atol=1e-12)


def test_eigenfunctions_pass_through_the_training_points():
    x, y = tasks.stripe(3).sample(80, 0)
    found = top_eigenpairs(kernels.ntk_one_hidden(x), 6, y=y)
    np.testing.assert_allclose(found.extend(kernels.ntk_one_hidden(x)), found.vectors, atol=1e-10)
    assert found.extend(kernels.ntk_one_hidden(tasks.stripe(3).sample(7, 1)[0], x)).shape == (7, 6)


def gaussian_information(distance):
    """I(x; y) in nats, y = ±1 with equal odds, x ~ N(y distance / 2, 1): entropy of the mixture minus that given y."""

    def density(x):
        return sum(math.exp(-((x - s * distance / 2) ** 2) / 2) for s in (-1, 1)) / (2 * math.sqrt(2 * math.pi))

    reach = distance / 2 + 12
    entropy = quad(lambda x: -density(x) * math.log(density(x)), -reach, reach, limit=200, points=[0])[0]
    return entropy - 0.5 * math.log(2 * math.pi * math.e)


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0, 4.0])
def test_information_of_two_gaussians(distance):
    exact, n = gaussian_information(distance), 4000
    draws = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = rng.choice([-1.0, 1.0], n)
        x = rng.standard_normal(n) + y * distance / 2
        draws.append(spectrum.mutual_information(x[:, None] * 1e-6 + 3, y)[0])  # neither scale nor offset matter
    # cutting off at zero lifts the mean of a zero by up to half of its deviation, about 0.01 here
    assert np.mean(draws) == pytest.approx(exact, abs=0.012)
    assert np.std(draws) < 0.03


def test_information_against_an_estimator_written_out():
    rng = np.random.default_rng(5)
    y = rng.choice([0, 1, 2], 150)
    x = rng.standard_normal(150) + y
    psi = lambda n: sum(1 / i for i in range(1, n)) - np.euler_gamma
    total = 0.0
    for i in range(150):
        same = np.sort(np.abs(x[y == y[i]] - x[i]))
        nearer = (np.abs(x - x[i]) < same[5]).sum()  # same[0] is the point itself, which counts among all points
        total += psi(150) + psi(5) - psi(int((y == y[i]).sum())) - psi(int(nearer))
    assert spectrum.mutual_information(x[:, None], y + 1)[0] == pytest.approx(total / 150, abs=1e-6)


def test_a_vector_that_separates_the_classes_knows_all_and_noise_nothing():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(2000) < 1000, 1.0, -1.0)
    columns = np.column_stack([y + 0.01 * rng.standard_normal(2000), rng.standard_normal(2000)])
    found = spectrum.mutual_information(columns, torch.from_numpy(y))
    assert found[0] == pytest.approx(math.log(2), abs=0.01)
    assert found[1] < 0.03
    np.testing.assert_array_equal(found, spectrum.mutual_information(columns, y))
    np.testing.assert_allclose(found, spectrum.mutual_information(columns, -y), atol=1e-12)


def test_information_that_is_cut_off_everywhere_is_a_float():
    found = spectrum.mutual_information(np.tile([1.0, 2, 3, 4, 5, 6], 4)[:, None], np.repeat([1.0, -1], 12))
    assert found.dtype == np.float64
    assert found[0] == 0


def test_alignment_of_known_kernels():
    rng = np.random.default_rng(0)
    y = rng.choice([-1.0, 1.0], 30)
    outer = np.outer(y, y)
    assert spectrum.label_alignment(3 * outer + 5, y) == pytest.approx(1)  # centring removes a constant
    other = rng.standard_normal(30)
    other -= other.mean() + (y - y.mean()) * (other @ (y - y.mean())) / ((y - y.mean()) ** 2).sum()
    assert spectrum.label_alignment(np.outer(other, other), y) == pytest.approx(0, abs=1e-12)
    gram, _ = stripe_gram(30)
    assert spectrum.kernel_alignment(gram, 4 * gram + 1) == pytest.approx(1)
    assert spectrum.kernel_alignment(gram, outer) == pytest.approx(spectrum.label_alignment(gram, y))
    projector = np.eye(30) - 1 / 30
    k, label = projector @ gram.numpy() @ projector, projector @ outer @ projector
    by_hand = (k * label).sum() / math.sqrt((k * k).sum() * (label * label).sum())
    assert spectrum.label_alignment(gram, y) == pytest.approx(by_hand)


def test_effective_dimension_counts_equal_eigenvalues():
    assert spectrum.effective_dimension(np.eye(7)) == pytest.approx(7)
    gram, _ = built(np.array([2.0, 2, 2, 0, 0, 0]))
    assert spectrum.effective_dimension(gram) == pytest.approx(3)


def test_a_centred_gram_is_that_of_features_minus_their_mean():
    features = np.random.default_rng(0).standard_normal((20, 6)) + 5
    away = features - features.mean(0)
    found = spectrum.centred(torch.from_numpy(features @ features.T))
    np.testing.assert_allclose(found, away @ away.T, atol=1e-11)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(spectrum.centred(features @ features.T + 1e3), found, atol=1e-9)
    np.testing.assert_allclose(spectrum.centred(found), found, atol=1e-12)


def test_decay_of_a_power_law_and_of_a_cusp_on_the_line():
    assert spectrum.decay_exponent(3 * np.arange(1.0, 50) ** -1.7, 5, 40) == pytest.approx(1.7)
    x = torch.linspace(0, 1, 1500, dtype=torch.float64)[:, None]
    values = top_eigenpairs(kernels.laplace(x, scale=1.0), 100).values
    assert spectrum.decay_exponent(values, 40, 100) == pytest.approx(2, abs=0.05)  # 1 + ξ/d with ξ = d = 1


Y = np.array([1.0, -1, 1, 1, -1, 1, -1, -1, 1, -1, 1, -1])
GRAM = built(np.arange(1.0, 13.0))[0]
ONE_NAN = np.where(np.eye(12) > 0, np.nan, GRAM)
BAD = {
    "one point": (lambda: top_eigenpairs(np.ones((1, 1)), 1), ValueError, "p ≥ 2 points, got"),
    "one point, as a product": (
        lambda: top_eigenpairs(LinearOperator((1, 1), matvec=lambda v: v, dtype=float), 1),
        ValueError,
        "p ≥ 2 points",
    ),
    "not square": (lambda: top_eigenpairs(GRAM[:5], 2), ValueError, r"expected a Gram \(p, p\)"),
    "not symmetric": (lambda: top_eigenpairs(GRAM + np.eye(12, k=1), 2), ValueError, "symmetric Gram, got K − Kᵀ of 1"),
    "nan": (lambda: top_eigenpairs(ONE_NAN, 2), ValueError, "gram: expected finite"),
    "complex": (lambda: top_eigenpairs(GRAM * 1j, 2), TypeError, "gram: expected real numbers, got complex"),
    "too many": (lambda: top_eigenpairs(GRAM, 13), ValueError, "at most one eigenpair a point, p = 12, got 13"),
    "too many for Lanczos": (lambda: top_eigenpairs(GRAM, 11, dense=False), ValueError, "use dense=True"),
    "none": (lambda: top_eigenpairs(GRAM, 0), ValueError, "k: expected an integer ≥ 1"),
    "a label too few": (lambda: top_eigenpairs(GRAM, 2, y=Y[1:]), ValueError, r"shape \(12,\).* got shape \(11,\)"),
    "zero label": (lambda: top_eigenpairs(GRAM, 2, y=0 * Y), ValueError, "not all zero, got zeros only"),
    "projection on nan": (lambda: spectrum.label_projections(GRAM, Y * np.nan), ValueError, "y: expected finite"),
    "one vector": (lambda: spectrum.label_projections(Y, Y), ValueError, "vectors: expected an array with 2 axes"),
    "one class": (lambda: spectrum.mutual_information(GRAM, np.ones(12)), ValueError, "two classes, got 1 only"),
    "a class too small": (
        lambda: spectrum.mutual_information(GRAM, np.where(np.arange(12) < 3, 1.0, -1)),
        ValueError,
        "more than 5 points in each class, got 3 with label 1",
    ),
    "a continuous label": (lambda: spectrum.mutual_information(GRAM, GRAM[0]), ValueError, "is y continuous"),
    "a constant column": (
        lambda: spectrum.mutual_information(np.column_stack([Y, np.ones(12)]), Y),
        ValueError,
        "constant column 1",
    ),
    "alignment with one class": (lambda: spectrum.label_alignment(GRAM, np.ones(12)), ValueError, "two classes"),
    "alignment of a constant": (lambda: spectrum.label_alignment(np.ones((12, 12)), Y), ValueError, "tells points"),
    "alignment of two sizes": (lambda: spectrum.kernel_alignment(GRAM, np.eye(5)), ValueError, "same 12 points"),
    "dimension of nothing": (lambda: spectrum.effective_dimension(np.zeros((3, 3))), ValueError, "not zero everywhere"),
    "centring what is no Gram": (lambda: spectrum.centred(GRAM[:5]), ValueError, r"expected a Gram \(p, p\)"),
    "centring nan": (lambda: spectrum.centred(ONE_NAN), ValueError, "gram: expected finite"),
    "decay of one": (lambda: spectrum.decay_exponent([3.0, 2, 1], 2, 2), ValueError, "first < last ≤ k = 3"),
    "decay beyond": (lambda: spectrum.decay_exponent([3.0, 2, 1], 1, 4), ValueError, "first < last ≤ k = 3"),
    "decay below zero": (lambda: spectrum.decay_exponent([3.0, 2, -1], 1, 3), ValueError, "positive eigenvalues"),
    "extension that does not fit": (
        lambda: top_eigenpairs(GRAM, 2).extend(np.ones((4, 5))),
        ValueError,
        r"training points \(q, 12\)",
    ),
    "extension of nothing": (
        lambda: top_eigenpairs(built(np.array([1.0, 0, 0, 0]))[0], 2).extend(np.ones((1, 4))),
        ValueError,
        "ask for fewer eigenpairs",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, error, match = BAD[case]
    with pytest.raises(error, match=match):
        call()
