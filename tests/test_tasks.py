"""Tasks: class balance is a theorem about the edges, labels ignore x_⊥, samples come from their seed alone."""

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import chi2, norm

from geocompress import checks, tasks

EVERY = [
    tasks.stripe(5),
    tasks.stripe(2, x_min=-1.5),
    tasks.stripes(4, 1),
    tasks.stripes(4, 3, x_min=-1),
    tasks.cylinder(5),
    tasks.sphere(3),
    tasks.ball(6, 1),
    tasks.ball(6, 4),
]
each_task = pytest.mark.parametrize("task", EVERY, ids=lambda task: f"{task.name}-d{task.d}")


def mass_below(task, s):
    """Exact P(coordinate < s)."""
    return norm.cdf(s) if task.rule.coordinate is tasks.axis else chi2.cdf(np.square(s), task.d_parallel)


@each_task
def test_classes_balance_exactly(task):
    bands = np.diff(np.concatenate([[0], mass_below(task, task.edges), [1]]))
    assert bands[::2].sum() == pytest.approx(0.5, abs=1e-14)


@each_task
def test_labels_flip_at_every_edge_and_nowhere_else(task):
    s = np.linspace(0 if task.rule.coordinate is tasks.radius else -4, 4, 2001)
    x = torch.zeros(len(s), task.d, dtype=torch.float64)
    x[:, 0] = torch.from_numpy(s)
    y = task.label(x).numpy()
    crossed = (s[:, None] >= np.array(task.edges)).sum(axis=1)
    assert y[0] == 1
    np.testing.assert_array_equal(y, (-1.0) ** crossed)
    np.testing.assert_allclose(task.coordinate(x), s)


@each_task
def test_label_depends_on_x_parallel_alone(task):
    x, y = task.sample(500, seed=1)
    moved = x.clone()
    moved[:, task.d_parallel :] = 7.0
    assert torch.equal(task.label(moved), y)
    assert task.d_perp == task.d - task.d_parallel
    # every relevant coordinate does matter
    for i in range(task.d_parallel):
        moved = x.clone()
        moved[:, i] = 0.0
        assert not torch.equal(task.label(moved), y)


@each_task
def test_a_task_is_a_value_that_travels(task):
    twin = pickle.loads(pickle.dumps(task))
    assert twin == task
    assert hash(twin) == hash(task)
    assert tasks.by_name(task.name, task.d) == task


def test_thresholds_of_the_paper():
    assert tasks.stripe(10).edges == pytest.approx((-0.3, 1.185492), abs=1e-6)
    assert tasks.cylinder(10).edges == pytest.approx((np.sqrt(2 * np.log(2)),), abs=1e-14)
    assert tasks.sphere(3).d_parallel == 3
    assert tasks.cylinder(3).d_parallel == 2


def test_limits_of_the_stripe():
    assert tasks.stripe(2, x_min=-30).edges[1] == pytest.approx(0, abs=1e-15)  # a half-space
    assert tasks.stripe(2, x_min=-1e-9).edges[1] > 5.9  # the edge runs away as Φ(x_min) → ½
    assert tasks.stripes(7, 1).edges == tasks.stripe(7).edges
    stripe_mass = np.diff(norm.cdf(tasks.stripes(2, 4, x_min=-0.8).edges))[::2]
    assert stripe_mass == pytest.approx(np.full(4, 1 / 8), abs=1e-14)


def test_samples_are_standard_gaussian_and_balanced():
    x, y = tasks.cylinder(3).sample(100_000, seed=3)
    assert (x.dtype, y.dtype, x.shape, y.shape) == (torch.float64, torch.float64, (100_000, 3), (100_000,))
    five_sigma = 5 / np.sqrt(100_000)
    assert x.mean(0).abs().max() < five_sigma
    assert (torch.cov(x.T) - torch.eye(3)).abs().max() < 2 * five_sigma
    assert abs(y.mean()) < five_sigma
    assert set(y.tolist()) == {-1.0, 1.0}


def test_the_seed_alone_decides_the_sample():
    torch.manual_seed(0)
    x, y = tasks.stripe(4).sample(50, seed=5)
    torch.manual_seed(1)
    again, _ = tasks.stripe(4).sample(np.int64(50), seed=np.int64(5))
    head, _ = tasks.stripe(4).sample(20, seed=5)
    other, _ = tasks.stripe(4).sample(50, seed=6)
    assert torch.equal(x, again)
    assert torch.equal(x[:20], head)
    assert not torch.isclose(x, other).any()
    assert torch.equal(tasks.stripe(4).label(x), y)
    # the stream of numpy's PCG64 is part of a published result: it may not drift between versions or platforms
    assert x[0, 0].item() == np.random.Generator(np.random.PCG64(5)).standard_normal()


def test_labels_follow_dtype_of_x():
    x, y = tasks.stripe(4).sample(50, seed=5)
    labels = tasks.stripe(4).label(x.float())
    assert labels.dtype == torch.float32
    assert torch.equal(labels.double(), y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.stripe(0), "d: expected an integer ≥ 1, got 0"),
        (lambda: tasks.cylinder(1), "expected d_parallel ≤ d, got d_parallel = 2 in dimension d = 1"),
        (lambda: tasks.ball(3, 4), "expected d_parallel ≤ d"),
        (lambda: tasks.ball(3, 0), "d_parallel: expected an integer ≥ 1"),
        (lambda: tasks.stripes(3, 0), "count: expected an integer ≥ 1"),
        (lambda: tasks.stripe(3, x_min=0.0), "x_min: expected a negative number, got 0.0"),
        (lambda: tasks.stripe(3, x_min=-1e-300), "x_min: expected a negative number"),
        (lambda: tasks.stripe(3, x_min=float("nan")), "x_min: expected a finite number"),
        (lambda: tasks.stripe(3, x_min=float("-inf")), "x_min: expected a finite number"),
        (lambda: tasks.stripe(3).sample(0, seed=0), "p: expected an integer ≥ 1, got 0"),
        (lambda: tasks.stripe(3).sample(5, seed=-1), "seed: expected an integer ≥ 0, got -1"),
        (lambda: tasks.stripe(3).label(torch.zeros(3)), r"x: expected shape \(p, 3\), got \(3,\)"),
        (lambda: tasks.stripe(3).label(torch.zeros(3, 4)), r"x: expected shape \(p, 3\), got \(3, 4\)"),
        (lambda: tasks.stripe(1).label(torch.tensor([[0.0], [torch.nan]])), "got nan or inf in 1 rows, first 1"),
        (lambda: tasks.by_name("strip", 3), "task: expected one of stripe, .*got 'strip'"),
        (lambda: tasks.by_name("stripe[width=2]", 3), "task .* in dimension 3: .*width"),
        (lambda: tasks.by_name("stripe[x_min=left]", 3), "task .* in dimension 3: .*left"),
        (lambda: tasks.Bands(tasks.axis, (1.0, 0.0)), "edges: expected at least one, finite and increasing"),
        (lambda: tasks.Bands(tasks.axis, ()), "edges: expected at least one"),
    ],
)
def test_bad_values_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("bad", [2.0, "3", None, True, np.float64(2)])
def test_wrong_types_are_refused(bad):
    with pytest.raises(TypeError, match=f"d: expected an integer ≥ 1, got .* \\({type(bad).__name__}\\)"):
        checks.integer(bad, "d")
    with pytest.raises(TypeError):
        tasks.stripe(bad)
    with pytest.raises(TypeError):
        tasks.stripe(3).sample(bad, seed=0)


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), [[0.0, 0.0, 0.0]], torch.zeros(2, 3, dtype=torch.int64)])
def test_points_must_be_floating_tensors(bad):
    with pytest.raises(TypeError):
        tasks.stripe(3).label(bad)
    with pytest.raises(TypeError, match="x: expected a floating-point torch tensor"):
        tasks.stripe(3)._checked(bad)
