"""Machines on a kernel: the classifier against libsvm and a QP solver, its certificate by brute force, bad input."""

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from geocompress import classifiers, kernels, marginqp, tasks
from geocompress.classifiers import Ending, hard_margin_svc

laplace = functools.partial(kernels.laplace, scale=100.0)


def distance(x1, x2):
    """Positive on charges of sum zero only."""
    return -torch.cdist(x1, x2)


def compressed(x1, x2):
    return kernels.ntk_one_hidden(kernels.compressed(x1, 1, 20.0), kernels.compressed(x2, 1, 20.0))


KERNELS = {"laplace": laplace, "ntk": kernels.ntk_one_hidden, "distance": distance, "compressed": compressed}


def setting(p=300, d=3, seed=5):
    return tasks.stripe(d).sample(p, seed)


def full(svc, p):
    """Dual coefficients of all p points."""
    a = torch.zeros(p, dtype=torch.float64)
    a[svc.support] = svc.a
    return a


def check_optimality(svc, kernel, x, y, tol=1e-6):
    """Karush, Kuhn and Tucker by brute force, and the numbers the machine says of itself."""
    a, bias = full(svc, len(x)), svc.bias or 0.0
    gram = kernel(x, x)
    margins = y * (gram @ (a * y) + bias)
    assert svc.ending is Ending.SEPARATED
    assert float(margins.min()) >= 1 - 1e-4
    assert svc.violation == pytest.approx(max(0.0, float(1 - margins.min())), abs=tol)
    assert bool((svc.a > 0).all())
    assert float((margins[svc.support] - 1).abs().max()) <= tol
    if svc.bias is not None:
        assert abs(float((a * y).sum())) <= 1e-9 * float(a.sum())
    norm2 = float((a * y) @ gram @ (a * y))
    least = float(margins.min())
    primal, dual = norm2 / 2 / least**2, float(a.sum()) - norm2 / 2
    assert svc.gap == pytest.approx(primal / dual - 1, abs=1e-6)
    assert -1e-9 <= primal / dual - 1 <= 3e-4


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("p", [60, 900, 2500])
def test_the_certificate_holds_by_brute_force(name, p):
    x, y = setting(p)
    check_optimality(hard_margin_svc(KERNELS[name], x, y), KERNELS[name], x, y)


@pytest.mark.parametrize("task", [tasks.cylinder(5), tasks.stripe(10)], ids=lambda task: task.name)
def test_four_thousand_points_in_more_dimensions(task):
    x, y = task.sample(4096, 6)
    check_optimality(hard_margin_svc(laplace, x, y), laplace, x, y)


@pytest.mark.parametrize("name", KERNELS)
def test_agrees_with_libsvm(name):
    x, y = setting(800)
    gram = KERNELS[name](x, x)
    reference = SVC(kernel="precomputed", C=1e10, tol=1e-7).fit(gram.numpy(), y.numpy())
    svc = hard_margin_svc(KERNELS[name], x, y)
    assert svc.support.tolist() == sorted(reference.support_.tolist())
    new = tasks.stripe(3).sample(500, 99)[0]
    expected = reference.decision_function(KERNELS[name](new, x).numpy())
    np.testing.assert_allclose(svc.decision(new).numpy(), expected, atol=2e-3)  # its kernel values are float32
    assert torch.equal(svc.predict(new), torch.sign(svc.decision(new)))


@pytest.mark.parametrize("bias", [True, False])
def test_agrees_with_an_interior_point_solver(bias):
    clarabel = pytest.importorskip("clarabel")
    from scipy import sparse

    x, y = setting(150)
    matrix = (torch.outer(y, y) * laplace(x, x)).numpy()
    balance = y.numpy()[None] if bias else np.zeros((0, len(y)))
    constraints = sparse.csc_matrix(np.vstack([balance, -np.eye(len(y))]))
    cones = [clarabel.ZeroConeT(1)] * bias + [clarabel.NonnegativeConeT(len(y))]
    options = clarabel.DefaultSettings()
    options.verbose = False
    quadratic = sparse.triu(matrix).tocsc()
    right = np.zeros(constraints.shape[0])
    solution = clarabel.DefaultSolver(quadratic, -np.ones(len(y)), constraints, right, cones, options).solve()
    svc = hard_margin_svc(laplace, x, y, bias=bias)
    expected = np.array(solution.x)
    np.testing.assert_allclose(full(svc, len(x)).numpy(), expected, atol=2e-4 * expected.max())


def test_without_a_bias_the_machine_is_another_and_no_worse_certified():
    x, y = setting(2500)
    svc = hard_margin_svc(laplace, x, y, bias=False)
    assert svc.bias is None
    assert abs(float((svc.a * svc.y).sum())) > 1e-3
    check_optimality(svc, laplace, x, y)


def test_order_labels_and_scale_change_what_they_should():
    x, y = setting(2200)
    svc = hard_margin_svc(laplace, x, y)
    a = full(svc, len(x))
    turned = hard_margin_svc(laplace, x, -y)
    torch.testing.assert_close(full(turned, len(x)), a, rtol=1e-6, atol=1e-6)
    assert turned.bias == pytest.approx(-svc.bias, abs=1e-6)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    mixed = hard_margin_svc(laplace, x[order], y[order])
    torch.testing.assert_close(full(mixed, len(x)), a[order], rtol=1e-6, atol=1e-6)
    louder = hard_margin_svc(lambda x1, x2: 1e3 * laplace(x1, x2), x, y)
    torch.testing.assert_close(1e3 * full(louder, len(x)), a, rtol=1e-6, atol=1e-6)
    sorted_by_class = y.argsort()
    assert hard_margin_svc(laplace, x[sorted_by_class], y[sorted_by_class]).ending is Ending.SEPARATED


def test_start_and_budget_do_not_change_the_answer():
    x, y = setting(4000, d=4)
    svc = hard_margin_svc(laplace, x, y)
    a = full(svc, len(x))
    smaller = hard_margin_svc(laplace, x[:1000], y[:1000])
    starts = (smaller.support, svc.support, torch.arange(8))
    for other in (
        *(hard_margin_svc(laplace, x, y, start=start) for start in starts),
        hard_margin_svc(laplace, x, y, memory_gb=0.035),
    ):
        assert other.ending is Ending.SEPARATED
        torch.testing.assert_close(full(other, len(x)), a, rtol=1e-5, atol=1e-5)
    assert hard_margin_svc(laplace, x, y, start=svc.support).rounds == 1


def test_screened_points_are_really_beyond_the_margin():
    x, y = setting(8000, d=3)
    asked = []

    def counting(x1, x2):
        asked.append(len(x1) * len(x2))
        return laplace(x1, x2)

    svc = hard_margin_svc(counting, x, y)
    assert svc.rounds >= 2
    check_optimality(svc, laplace, x, y)
    assert sum(asked) < 0.35 * len(x) ** 2


def test_equal_points_count_once():
    x, y = setting(200)
    svc = hard_margin_svc(laplace, x, y)
    twice = hard_margin_svc(laplace, torch.cat([x, x]), torch.cat([y, y]))
    assert torch.equal(twice.support, svc.support)
    torch.testing.assert_close(twice.a, svc.a)


def test_equal_points_of_two_labels_are_listed():
    x, y = setting(50)
    x[31], y[31] = x[7], -y[7]
    with pytest.raises(ValueError, match=r"1 pairs of rows .* \(7, 31\); drop one"):
        hard_margin_svc(laplace, x, y)


def test_classes_that_overlap_in_the_kernel_are_named_so():
    x, y = setting(300)
    svc = hard_margin_svc(lambda x1, x2: x1 @ x2.T, x, y)
    assert svc.ending is Ending.INSEPARABLE
    assert svc.violation > 0.1
    assert svc.gap == math.inf
    assert hard_margin_svc(lambda x1, x2: x1 @ x2.T, x, y, bias=False).ending is not Ending.SEPARATED


def test_too_few_rounds_are_named_and_measured():
    x, y = setting(4096, d=5)
    svc = hard_margin_svc(laplace, x, y, max_rounds=1, start=torch.arange(10))
    assert svc.ending is Ending.MAX_ROUNDS
    assert svc.violation == pytest.approx(float(1 - (y * svc.decision(x)).min()), abs=1e-8)


BAD = {
    "one class": ({"y": torch.ones(40, dtype=torch.float64)}, ValueError, "both classes"),
    "other labels": ({"y": torch.arange(40, dtype=torch.float64)}, ValueError, "must be −1 or"),
    "nan": ({"x": torch.full((40, 2), math.nan, dtype=torch.float64)}, ValueError, "finite"),
    "float32": ({"x": torch.zeros(40, 2)}, TypeError, "float64"),
    "array": ({"x": np.zeros((40, 2))}, TypeError, "(?i)type|float64"),
    "shape": ({"x": torch.zeros(40, dtype=torch.float64)}, ValueError, r"shape \(p, d\)"),
    "lengths": ({"x": torch.zeros(39, 2, dtype=torch.float64)}, ValueError, "expected x"),
    "negative kernel": ({"kernel": torch.cdist}, ValueError, "positive semi-definite"),
    "skew kernel": ({"kernel": lambda x1, x2: x1[:, :1] - x2[:, :1].T}, ValueError, "symmetric"),
    "nan kernel": ({"kernel": lambda x1, x2: torch.cdist(x1, x2).log()}, ValueError, "finite kernel"),
    "tol": ({"tol": 2.0}, ValueError, "tol"),
    "tol of zero": ({"tol": 0.0}, ValueError, r"tol: expected a finite number in \(0, 1\)"),
    "tol below zero": ({"tol": -1e-4}, ValueError, r"tol: expected a finite number in \(0, 1\)"),
    "tol nan": ({"tol": math.nan}, ValueError, r"tol: expected a finite number in \(0, 1\)"),
    "rounds": ({"max_rounds": 0}, ValueError, "max_rounds"),
    "memory": ({"memory_gb": 1e-6}, ValueError, "memory_gb: expected"),
    "start": ({"start": torch.tensor([0, 40])}, ValueError, "start"),
    "start of one class": ({"start": torch.tensor([0])}, ValueError, "both classes"),
    "start of floats": ({"start": torch.zeros(2)}, TypeError, "start"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    change, error, match = BAD[case]
    x, y = setting(40, d=2)
    good = {"kernel": laplace, "x": x, "y": y}
    with pytest.raises(error, match=match):
        hard_margin_svc(**(good | change))


def test_pivoting_from_any_start_finds_the_same_set_and_reuses_its_factor():
    x, y = setting(400)
    gram = laplace(x, x)
    everyone = torch.ones(len(y), dtype=torch.bool)
    first = marginqp.pivot(gram, y, everyone)
    assert first.solved
    near = first.free.clone()
    near[:6] ^= True
    second = marginqp.pivot(gram, y, near, factor=first.factor)
    assert second.factor is first.factor
    assert torch.equal(first.free, second.free)
    torch.testing.assert_close(first.q, second.q, rtol=1e-7, atol=1e-7)
    assert not marginqp.pivot(gram, y, ~everyone).solved


def test_ridge_regression_against_the_normal_equations():
    x, y = setting(80)
    gram = laplace(x, x)
    for ridge in (0.0, 0.3):
        a = classifiers.kernel_ridge(gram, y, ridge)
        torch.testing.assert_close(gram @ a + ridge * a, y, rtol=1e-9, atol=1e-9)
    both = classifiers.kernel_ridge(gram, torch.stack([y, 2 * y], dim=1), 0.3)
    torch.testing.assert_close(both[:, 1], 2 * a)


def test_ridge_regression_refuses_what_it_cannot_solve():
    x, y = setting(20)
    gram = laplace(x, x)
    flat = torch.ones(20, 20, dtype=torch.float64)
    for arguments, error, match in (
        ((gram.float(), y), TypeError, "float64"),
        ((gram[:10], y), ValueError, "expected a Gram"),
        ((gram, y * math.nan), ValueError, "finite y"),
        ((gram, y, -1.0), ValueError, "≥ 0"),
        ((gram.tril(), y), ValueError, "symmetric"),
        ((flat, y), ValueError, "raise the ridge"),
    ):
        with pytest.raises(error, match=match):
            classifiers.kernel_ridge(*arguments)


def shifted(task, offset):
    """A classifier that is wrong in a shell next to every edge, of known probability."""
    return lambda x: (
        task.label(x) * torch.sign((task.coordinate(x)[:, None] - torch.tensor(task.edges)).abs().amin(1) - offset)
    )


@pytest.mark.parametrize("task", [tasks.stripe(3), tasks.cylinder(4), tasks.sphere(3)], ids=lambda task: task.name)
@pytest.mark.parametrize("offset", [0.003, 0.2])
def test_the_stratified_error_is_unbiased_and_knows_its_error(task, offset):
    from geocompress.classifiers import _law

    cumulative, _ = _law(task)
    exact = sum(cumulative(np.array(e + offset)) - cumulative(np.array(e - offset)) for e in task.edges)
    found = [classifiers.stratified_error(task, shifted(task, offset), 20_000, seed) for seed in range(40)]
    pulls = np.array([(one.error - exact) / one.standard_error for one in found])
    assert abs(pulls.mean()) < 4 / math.sqrt(len(pulls))
    assert 0.7 < pulls.std() < 1.4
    assert found[0].standard_error < math.sqrt(2 * exact * (1 - exact) / 20_000)
    assert all(19_000 <= one.points <= 20_000 for one in found)


def test_the_stratified_error_finds_errors_far_from_every_edge_too():
    task = tasks.stripe(2)
    estimate = classifiers.stratified_error(task, lambda x: x[:, 1], 50_000, 3)
    assert abs(estimate.error - 0.5) < 5 * estimate.standard_error
    assert estimate.standard_error < 5e-3
    perfect = classifiers.stratified_error(task, task.label, 50_000, 3)
    assert perfect.error == perfect.standard_error == 0
    nothing = classifiers.stratified_error(task, lambda x: x[:, 0] * math.nan, 50_000, 3)
    assert (nothing.error, nothing.standard_error) == (pytest.approx(1), 0)


def test_the_stratified_error_refuses_too_few_points_and_unknown_coordinates():
    with pytest.raises(ValueError, match="at least"):
        classifiers.stratified_error(tasks.stripe(2), lambda x: x[:, 0], 1000, 1)
    odd = tasks.Task("odd", 2, 1, tasks.Bands(lambda x: x[:, 0] ** 3, (0.0,)))
    with pytest.raises(ValueError, match="use plain test points"):
        classifiers.stratified_error(odd, lambda x: x[:, 0], 100_000, 1)


def test_test_errors_agree_with_plain_points():
    task = tasks.stripe(3)
    svc = hard_margin_svc(laplace, *task.sample(500, 1))
    x, y = task.sample(60_000, 2)
    plain = float((y * svc.decision(x) <= 0).double().mean())
    estimate = classifiers.stratified_error(task, svc.decision, 60_000, 3)
    assert abs(plain - estimate.error) < 4 * math.hypot(estimate.standard_error, math.sqrt(plain / 60_000))


def test_layer_measures_are_what_they_say():
    task = tasks.stripe(2)
    low, high = task.edges
    points = torch.tensor([[low + 0.1, 0.0], [low - 0.2, 3.0], [high, 3.0]], dtype=torch.float64)
    assert classifiers.layer_width(task, points) == pytest.approx(0.1)
    gaps = torch.cdist(points, points).fill_diagonal_(math.inf).amin(1)
    assert classifiers.layer_spacing(points) == pytest.approx(float(gaps.mean()))
    assert classifiers.layer_charge(torch.tensor([1.0, 2.0, 6.0])) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="at least one"):
        classifiers.layer_width(task, points[:0])
    with pytest.raises(ValueError, match="at least one"):
        classifiers.layer_charge(points[:0, 0])
    with pytest.raises(ValueError, match="two support vectors"):
        classifiers.layer_spacing(points[:1])
