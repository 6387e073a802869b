"""The box quadratic program against projected gradients, and against its own optimality conditions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from geocompress import boxqp


def random_problem(n, rank, scale, seed):
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((n, rank))
    return scale * factor @ factor.T, 2 * rng.standard_normal(n), rng.random(n)


def test_agrees_with_projected_gradients():
    for seed in range(5):
        matrix, q, start = random_problem(12, 20, 1.0, seed)
        solution = boxqp.boxqp(matrix, q, start)
        np.testing.assert_allclose(solution.c, reference.box_qp(matrix, q), atol=1e-7)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 60),
    rank=st.integers(1, 70),
    log_scale=st.floats(-4, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_optimality_conditions_hold_for_any_rank_and_scale(n, rank, log_scale, seed):
    matrix, q, start = random_problem(n, rank, 10**log_scale, seed)
    solution = boxqp.boxqp(matrix, q, start)
    assert solution.c.min() >= 0
    assert solution.c.max() <= 1
    gradient = matrix @ solution.c - q
    goal = 1e-7 * max(1, np.abs(q).max())
    assert (gradient[solution.c < 1] >= -goal).all()
    assert (gradient[solution.c > 0] <= goal).all()
    assert solution.residual == pytest.approx(boxqp.kkt_residual(gradient, solution.c).max(), abs=1e-9)


def test_the_same_steps_without_numba(monkeypatch):
    problems = [random_problem(n, n // 2 + 3, 1.0, n) for n in (1, 7, 40)]
    compiled = [boxqp.boxqp(*problem) for problem in problems]
    for name in ("kkt_residual", "_violations", "_among", "_step"):
        function = getattr(boxqp, name)
        monkeypatch.setattr(boxqp, name, getattr(function, "py_func", function))
    for problem, expected in zip(problems, compiled, strict=True):
        found = boxqp.boxqp(*problem)
        np.testing.assert_allclose(found.c, expected.c, atol=1e-12)
        assert found.factorisations == expected.factorisations


def test_single_precision_is_taken_as_it_is():
    matrix, q, start = (np.float32(values) for values in random_problem(9, 20, 1.0, 3))
    found = boxqp.boxqp(matrix, q, start)
    assert found.c.dtype == float
    np.testing.assert_array_equal(found.c, boxqp.boxqp(*(v.astype(float) for v in (matrix, q, start))).c)


def test_the_interior_point_method_stands_on_its_own():
    for seed, rank in ((0, 30), (1, 8)):
        matrix, q, _ = random_problem(25, rank, 1.0, seed)
        inner = boxqp._interior_point(matrix, q, 1e-9)
        assert boxqp._active_set(matrix, q, inner.c, 1e-9).residual < 1e-7
        reached = 0.5 * inner.c @ matrix @ inner.c - q @ inner.c
        slow = reference.box_qp(matrix, q)
        assert reached == pytest.approx(0.5 * slow @ matrix @ slow - q @ slow, rel=1e-6)


def test_singular_programs_are_solved_where_no_force_holds_the_points_on_their_bounds():
    for seed in (40, 49, 69, 103, 107):  # a few in a hundred are hard
        rng = np.random.default_rng(seed)
        matrix, _, start = random_problem(75, 50, 100.0, seed)
        q = matrix @ np.clip(rng.normal(0.5, 1, 75), 0, 1)
        assert boxqp.boxqp(matrix, q, start).residual <= 1e-9 * np.abs(q).max()


def test_the_interior_point_method_ends_optimal_where_no_force_holds_the_points_on_their_bounds():
    for n in (10, 40):
        matrix, _, _ = random_problem(n, 2 * n, 1.0, n)
        answer = np.arange(n) % 3 / 2  # 0, ½ and 1
        q = matrix @ answer
        inner = boxqp._interior_point(matrix, q, 1e-9)
        assert boxqp.kkt_residual(matrix @ inner.c - q, inner.c).max() <= 1e-8
        np.testing.assert_allclose(inner.c, answer, atol=1e-8)


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
def test_grams_of_smooth_kernels_are_solved_from_a_cold_start(width):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.random((80, 2))
        matrix = np.exp(-((x[:, None] - x) ** 2).sum(-1) / width**2)
        q = 3 * rng.random(80)
        assert boxqp.boxqp(matrix, q, rng.random(80)).residual <= 1e-9 * max(1, q.max())


def test_many_unknowns_are_put_on_their_bounds_by_the_active_set_alone(monkeypatch):
    """As in a long training: hundreds of points, a Gram of low rank, every multiplier at first on the wrong bound."""
    monkeypatch.setattr(boxqp, "_interior_point", None)
    for seed in range(3):
        matrix, q, _ = random_problem(300, 8, 1.0, seed)
        solution = boxqp.boxqp(matrix, q, (q < 0).astype(float))
        assert solution.residual <= 1e-9 * np.abs(q).max()
        assert ((solution.c > 0) & (solution.c < 1)).sum() <= 8


def test_a_regular_program_takes_few_factorisations_however_many_unknowns_are_free():
    matrix, _, _ = random_problem(300, 900, 1e-3, 0)
    answer = np.random.default_rng(0).uniform(0.1, 0.9, 300)
    solution = boxqp.boxqp(matrix, matrix @ answer, np.zeros(300))
    np.testing.assert_allclose(solution.c, answer, atol=1e-6)
    assert solution.factorisations < 20


def test_where_the_active_set_fails_the_interior_point_method_helps(monkeypatch):
    solve, results = boxqp._active_set, []

    def lame(matrix, q, c, goal):
        results.append(boxqp.BoxQPSolution(c, np.inf, 0) if not results else solve(matrix, q, c, goal))
        return results[-1]

    monkeypatch.setattr(boxqp, "_active_set", lame)
    matrix, q, start = random_problem(30, 20, 1.0, 1)
    assert boxqp.boxqp(matrix, q, start).c is results[1].c
    assert results[1].residual <= 1e-9 * np.abs(q).max()


def test_starting_from_the_answer_needs_no_factorisation():
    matrix, q, start = random_problem(20, 40, 1.0, 7)
    answer = boxqp.boxqp(matrix, q, start).c
    assert boxqp.boxqp(matrix, q, answer).factorisations == 0


def test_residual_sees_each_kind_of_violation():
    gradient = np.array([-0.5, 0.5, -0.5, 0.5, 0.25])
    c = np.array([0.0, 0.0, 1.0, 1.0, 0.5])
    np.testing.assert_array_equal(boxqp.kkt_residual(gradient, c), [0.5, 0, 0, 0.5, 0.25])


def test_nothing_to_solve_is_solved():
    assert boxqp.boxqp(np.zeros((0, 0)), np.zeros(0), np.zeros(0)).residual == 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"expected A \(2, 2\)"):
        boxqp.boxqp(np.eye(3), np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        boxqp.boxqp(np.eye(2), np.array([1.0, np.nan]), np.zeros(2))


@pytest.mark.parametrize("tol", [0, -1.0, np.nan, np.inf])
def test_a_tolerance_out_of_range_is_refused(tol):
    with pytest.raises(ValueError, match=r"tol: expected a finite number in \(0, inf\)"):
        boxqp.boxqp(np.eye(2), np.ones(2), np.zeros(2), tol=tol)


@pytest.mark.parametrize("n", [2, 7, 40])
def test_a_matrix_that_is_no_gram_is_refused_and_one_with_rounding_is_not(n):
    matrix, q, start = random_problem(n, max(1, n // 2), 1e3, n)
    boxqp.boxqp(matrix, q, start)
    boxqp.boxqp(matrix.astype(np.float32).astype(float), q, start)
    size = np.abs(matrix).max()
    skew = np.zeros((n, n))
    skew[0, 1] = size
    with pytest.raises(ValueError, match=r"expected a symmetric A, got A − Aᵀ of .*; average the two"):
        boxqp.boxqp(matrix + skew, q, start)
    lowered = matrix - 1e-3 * size * np.eye(n)
    with pytest.raises(ValueError, match=r"(?s)positive semi-definite A, got an eigenvalue of -.*compute A in float64"):
        boxqp.boxqp(lowered, q, start)
    with pytest.raises(ValueError, match="positive semi-definite A, got an eigenvalue of -"):
        boxqp.boxqp(-np.eye(n), q, start)
    with pytest.raises(ValueError, match="positive semi-definite A"):
        boxqp.boxqp(skew + skew.T, q, start)
    assert boxqp.boxqp(np.zeros((n, n)), q, start).residual == 0
