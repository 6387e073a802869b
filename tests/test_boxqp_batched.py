"""Batches of box quadratic programs against the same programs one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geocompress.boxqp import boxqp, kkt_residual
from geocompress.boxqp_batched import _interior_point, _Programs, boxqp_batched


def random_batch(sizes, rank, scale, seed):
    """Problems of the given sizes, padded to the largest with numbers that must not matter."""
    rng = np.random.default_rng(seed)
    n = max(sizes)
    matrix, q, c = np.full((len(sizes), n, n), np.nan), np.full((len(sizes), n), np.inf), np.full((len(sizes), n), 7.0)
    for k, size in enumerate(sizes):
        factor = rng.standard_normal((size, rank))
        matrix[k, :size, :size] = scale * factor @ factor.T
        q[k, :size], c[k, :size] = 2 * rng.standard_normal(size), rng.random(size)
    exists = np.arange(n) < np.array(sizes)[:, None]
    return tuple(torch.from_numpy(part) for part in (matrix, q, c, exists))


def check(matrix, q, c, exists, goal=1e-7):
    """Every answer is optimal for its problem, as good as that of `boxqp`, and certified honestly."""
    solution = boxqp_batched(matrix, q, c, exists)
    assert bool((solution.c[~exists] == 0).all())
    assert solution.c.min() >= 0
    assert solution.c.max() <= 1
    for k, there in enumerate(exists.numpy()):
        a, b, start = matrix[k].numpy()[np.ix_(there, there)], q[k].numpy()[there], c[k].numpy()[there]
        x, single = solution.c[k].numpy()[there], boxqp(a, b, start)
        residual = kkt_residual(a @ x - b, x).max(initial=0)
        assert residual <= goal * max(1, np.abs(b).max(initial=0))
        assert float(solution.residual[k]) == pytest.approx(residual, abs=1e-9)
        value, value_single = (0.5 * v @ a @ v - b @ v for v in (x, single.c))
        assert value == pytest.approx(value_single, rel=1e-9, abs=1e-8)
    return solution


def test_agrees_with_the_single_solver_where_the_answer_is_unique():
    matrix, q, c, exists = random_batch([12] * 20, 30, 1.0, 0)
    solution = check(matrix, q, c, exists)
    for k in range(20):
        np.testing.assert_allclose(solution.c[k], boxqp(*(part[k].numpy() for part in (matrix, q, c))).c, atol=1e-8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    rank=st.integers(1, 40),
    log_scale=st.floats(-4, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_optimality_conditions_hold_for_any_sizes_rank_and_scale(sizes, rank, log_scale, seed):
    check(*random_batch(sizes, rank, 10**log_scale, seed))


def test_the_mask_may_lie_anywhere_and_be_empty():
    matrix, q, c, _ = random_batch([9] * 4, 15, 1.0, 3)
    exists = torch.from_numpy(np.random.default_rng(3).random((4, 9)) < 0.5)
    exists[2] = False
    solution = check(matrix, q, c, exists)
    assert float(solution.residual[2]) == 0


def test_without_a_mask_every_coordinate_exists():
    matrix, q, c, exists = random_batch([5], 8, 1.0, 1)
    torch.testing.assert_close(boxqp_batched(matrix, q, c), boxqp_batched(matrix, q, c, exists))


def test_neighbours_do_not_matter():
    matrix, q, c, exists = random_batch([3, 25, 25, 1], 6, 1.0, 5)
    together = boxqp_batched(matrix, q, c, exists)
    for k in range(4):
        alone = boxqp_batched(*(part[k : k + 1] for part in (matrix, q, c, exists)))
        value, value_alone = (
            0.5 * v @ matrix[k].nan_to_num() @ v - q[k].nan_to_num(posinf=0) @ v for v in (together.c[k], alone.c[0])
        )
        assert float(value) == pytest.approx(float(value_alone), abs=1e-8)


def test_answers_on_the_bounds_are_exactly_there():
    matrix, _, c, exists = random_batch([10, 10], 20, 1.0, 2)
    q = torch.stack([torch.full((10,), -1e3), torch.full((10,), 1e3)]).double()
    solution = check(matrix, q, c, exists)
    torch.testing.assert_close(solution.c, torch.stack([torch.zeros(10), torch.ones(10)]).double(), rtol=0, atol=0)


def test_duplicated_points_zero_matrices_and_smooth_kernels():
    rng = np.random.default_rng(4)
    x = rng.random((40, 2))
    smooth = np.exp(-((x[:, None] - x) ** 2).sum(-1))
    twice = np.repeat(np.repeat(smooth[:20, :20], 2, 0), 2, 1)
    matrix = torch.from_numpy(np.stack([smooth, twice, np.zeros((40, 40))]))
    q, c = torch.from_numpy(rng.standard_normal((3, 40))), torch.from_numpy(rng.random((3, 40)))
    solution = check(matrix, q, c, torch.ones(3, 40, dtype=torch.bool), goal=1e-9)
    torch.testing.assert_close(solution.c[2], (q[2] > 0).double(), rtol=0, atol=0)


def test_the_interior_point_method_ends_optimal_where_no_force_holds_the_points_on_their_bounds():
    matrix, _, _, _ = random_batch([10, 10], 20, 1.0, 6)
    answer = torch.arange(10).double().expand(2, 10) % 3 / 2
    q = (matrix @ answer[:, :, None])[:, :, 0]
    goal = torch.full((2,), 1e-9, dtype=torch.float64)
    inner = _interior_point(_Programs(matrix, q, goal, 10 * matrix.diagonal(dim1=1, dim2=2).amax(1)))
    torch.testing.assert_close(inner, answer, rtol=0, atol=1e-8)


def test_the_answer_is_a_fixed_point():
    matrix, q, c, exists = random_batch([20] * 3, 40, 1.0, 7)
    answer = boxqp_batched(matrix, q, c, exists)
    torch.testing.assert_close(boxqp_batched(matrix, q, answer.c, exists).c, answer.c, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_to_solve_is_solved(shape):
    q = torch.zeros(shape, dtype=torch.float64)
    solution = boxqp_batched(q.new_zeros(*shape, shape[1]), q, q)
    assert solution.c.shape == shape
    assert solution.residual.shape == shape[:1]


def test_bad_input_is_refused():
    matrix, q, c, exists = random_batch([3, 3], 5, 1.0, 8)
    for arguments, message in (
        ((matrix, q[0], c), r"expected q \(B, n\), got \(3,\); a single problem"),
        ((matrix[:1], q, c), r"expected A \(2, 3, 3\) for q \(2, 3\), got \(1, 3, 3\)"),
        ((matrix, q, c[:, :2]), r"expected c \(2, 3\)"),
        ((matrix, q, c, exists[:1]), r"expected exists \(2, 3\)"),
        ((matrix.float(), q, c), "float64"),
        ((matrix, q, c, exists.double()), "bool"),
        ((matrix, q.to("meta"), c), "expected A on meta"),
        ((matrix * torch.nan, q, c), "finite"),
        ((matrix, q, c / 0), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            boxqp_batched(*arguments)


@pytest.mark.parametrize("tol", [0, -1.0, np.nan, np.inf])
def test_a_tolerance_out_of_range_is_refused(tol):
    with pytest.raises(ValueError, match=r"tol: expected a finite number in \(0, inf\)"):
        boxqp_batched(*random_batch([3, 3], 5, 1.0, 8), tol=tol)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_answers():
    batch = random_batch([30] * 50 + [7], 60, 1.0, 9)
    here, there = boxqp_batched(*batch), boxqp_batched(*(part.cuda() for part in batch))
    torch.testing.assert_close(there.c.cpu(), here.c, rtol=0, atol=1e-8)
