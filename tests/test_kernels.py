"""Kernels against wide nets, slow loops, neural-tangents and their own symmetries; blocks and budgets; bad input."""

import math
import weakref
from functools import partial

import numpy as np
import pytest
import torch

from geocompress import kernels, networks, tasks

NTK, RFK, LAPLACE = kernels.ntk_one_hidden, kernels.rfk_one_hidden, partial(kernels.laplace, scale=1.5)
KERNELS = {"ntk": NTK, "rfk": RFK, "laplace": LAPLACE}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
DTYPES = (torch.float64, torch.float32)


def points(p, d=3, seed=101, dtype=torch.float64):
    return tasks.stripe(d).sample(p, seed)[0].to(dtype)


def slow_arc_cosine(k):
    """|u||v| (sin θ + k (π − θ) cos θ) / π with θ = 2 atan2(|û − v̂|, |û + v̂|), one pair at a time."""

    def entry(x, z):
        u, v = ([*(c / math.sqrt(len(point)) for c in point), 1.0] for point in (x, z))
        norm_u, norm_v = math.hypot(*u), math.hypot(*v)
        apart = math.hypot(*(a / norm_u - b / norm_v for a, b in zip(u, v, strict=True)))
        along = math.hypot(*(a / norm_u + b / norm_v for a, b in zip(u, v, strict=True)))
        angle = 2 * math.atan2(apart, along)
        return norm_u * norm_v * (math.sin(angle) + k * (math.pi - angle) * math.cos(angle)) / math.pi

    return entry


SLOW = {"ntk": slow_arc_cosine(2), "rfk": slow_arc_cosine(1), "laplace": lambda x, z: math.exp(-math.dist(x, z) / 1.5)}


def slow(name, x1, x2):
    rows = [[SLOW[name](x, z) for z in x2.tolist()] for x in x1.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("d", "offset"), [(1, 0.0), (3, 0.0), (40, 0.0), (3, 50.0)])
def test_entries_are_those_of_a_plain_loop_at_every_distance(name, dtype, d, offset):
    x = points(9, d, dtype=dtype) + offset
    step = points(9, d, seed=7, dtype=dtype)
    for size in (1e-12, 1e-7, 1e-4, 1e-2, 0.03, 0.1, 1, 10):
        z = x + size * step
        expected, eps = slow(name, x, z), torch.finfo(dtype).eps
        bound = 100 * eps * max(1.0, float(expected.diagonal().abs().max()))
        torch.testing.assert_close(KERNELS[name](x, z).double(), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_near_duplicates_are_found_at_every_distance_from_the_mean(name, dtype):
    sizes = torch.tensor([0, 1e-3, 1, 30], dtype=dtype).repeat_interleave(3)[:, None]
    x = sizes * points(12, dtype=dtype)
    x = torch.cat([x, -x])  # of mean zero, the point from which the kernels measure
    z = x + torch.cat([sizes, sizes]) * 1e-4 * points(24, seed=7, dtype=dtype)
    expected, eps = slow(name, x, z), torch.finfo(dtype).eps
    error = (KERNELS[name](x, z).double() - expected).abs()
    assert bool((error <= 100 * eps * expected.diagonal().clamp(min=1)[:, None].sqrt() * 30).all())
    assert bool((error.diagonal() <= 20 * eps * expected.diagonal()).all())


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_far_and_opposite_points_stay_on_the_sphere(name, dtype):
    x = 1e9 * points(50, 5, dtype=dtype)
    got, size = KERNELS[name](x, -x).double(), 1 + x.double().square().sum(1) / 5
    assert bool(got.isfinite().all())
    error = (got - slow(name, x, -x)).abs() / torch.outer(size, size).sqrt()
    assert float(error.max()) < 4 * math.sqrt(torch.finfo(dtype).eps)


@every_kernel
def test_tiles_that_do_not_divide_the_points_leave_no_seam(kernel, monkeypatch):
    x, z = points(37), points(50, seed=7)
    whole, symmetric = kernel(x, z), kernel(x)
    monkeypatch.setitem(kernels._SIDE, "cpu", 16)
    torch.testing.assert_close(kernel(x, z), whole, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(kernel(x), symmetric, rtol=1e-13, atol=1e-13)


@every_kernel
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [1, 300])
def test_a_gram_is_symmetric_to_the_last_bit_and_agrees_with_its_cross_form(kernel, dtype, p):
    x = points(p, dtype=dtype)
    gram = kernel(x)
    assert gram.dtype == dtype
    assert torch.equal(gram, gram.T)
    torch.testing.assert_close(gram, kernel(x, x.clone()), rtol=0, atol=300 * torch.finfo(dtype).eps)


@every_kernel
def test_a_gram_is_positive_even_with_duplicates_and_near_duplicates(kernel):
    x = points(150)
    x = torch.cat([x, x[:20], x[:20] + 1e-9, x[:20] + 1e-5])
    eigenvalues = torch.linalg.eigvalsh(kernel(x))
    assert float(eigenvalues[0]) > -1e-12 * float(eigenvalues[-1])


def test_the_diagonal_is_exact():
    x = points(300, 5)
    squared = 1 + x.square().sum(1) / 5
    torch.testing.assert_close(NTK(x).diagonal(), 2 * squared, rtol=1e-14, atol=0)
    torch.testing.assert_close(RFK(x).diagonal(), squared, rtol=1e-14, atol=0)
    assert torch.equal(LAPLACE(x).diagonal(), torch.ones(300, dtype=torch.float64))


def finite_errors(kernel, finite, widths, seeds, d=4):
    """Root mean square of finite − infinite over pairs and seeds, one for each width, and mean over standard error."""
    x, z = points(12, d), points(15, d, seed=7)
    errors, bias = [], []
    for width in widths:
        net = networks.OneHidden(d, width)
        deviation = torch.stack([finite(net, net.init(seed), x, z) - kernel(x, z) for seed in range(seeds)])
        errors.append(float(deviation.square().mean().sqrt()))
        bias.append(float((deviation.mean(0) / (deviation.std(0) / math.sqrt(seeds))).square().mean().sqrt()))
    return np.array(errors), np.array(bias)


def readout_kernel(net, params, x, z):
    """(1/h) Σ_n σ(z_n) σ(z'_n): what `OneHidden.ntk` leaves when β is set to zero."""
    return net.ntk({**params, "beta": torch.zeros_like(params["beta"])}, x, z)


@pytest.mark.parametrize(("kernel", "finite"), [(NTK, networks.OneHidden.ntk), (RFK, readout_kernel)])
def test_wide_nets_converge_to_it_as_one_over_the_root_of_the_width(kernel, finite):
    widths, seeds = (250, 1000, 4000, 16_000), 24
    errors, bias = finite_errors(kernel, finite, widths, seeds)
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.06)
    # pairs are correlated, so the mean square t-statistic wanders about 1 more than independent ones would
    assert (bias < 2.5).all()


@pytest.mark.parametrize(("kernel", "xi"), [(NTK, 1), (LAPLACE, 1)])
def test_near_coincidence_the_kernel_has_a_cusp_of_exponent_one(kernel, xi):
    x = points(1, 5)
    aside = points(1, 5, seed=7)
    steps = torch.logspace(-9, -3, 13, dtype=torch.float64)[:, None]
    line = x + steps * aside
    squared = (kernel(x) + kernel(line).diagonal() - 2 * kernel(x, line))[0]  # |φ(x) − φ(z)|² of the feature space
    slope = np.polyfit(steps[:, 0].log(), squared.log(), 1)[0]
    assert slope == pytest.approx(xi, abs=1e-3)


def test_the_random_feature_kernel_has_no_cusp_of_first_order():
    x, aside = points(1, 5), points(1, 5, seed=7)
    steps = torch.logspace(-5, -2, 7, dtype=torch.float64)[:, None]
    line = x + steps * aside
    squared = (RFK(x) + RFK(line).diagonal() - 2 * RFK(x, line))[0]
    assert np.polyfit(steps[:, 0].log(), squared.log(), 1)[0] == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_distance_of_near_duplicates_is_told_from_zero(dtype):
    eps = torch.finfo(dtype).eps
    x = points(20, 5, dtype=dtype)
    z = x.clone()
    z[:, 0] = torch.nextafter(x[:, 0], torch.full_like(x[:, 0], math.inf))
    apart = (z[:, 0] - x[:, 0]).double()
    scale = float(apart.max())
    expected = torch.exp(-apart / scale)
    torch.testing.assert_close(kernels.laplace(x, z, scale=scale).diagonal().double(), expected, rtol=8 * eps, atol=0)


@pytest.mark.parametrize("factor", [0.25, 1024.0])
def test_laplace_knows_ratios_of_lengths_only(factor):
    x, z = points(30), points(40, seed=7)
    stretched = kernels.laplace(factor * x, factor * z, scale=factor * 0.7)
    torch.testing.assert_close(stretched, kernels.laplace(x, z, scale=0.7), rtol=1e-13, atol=0)


@pytest.mark.parametrize("kernel", [NTK, RFK])
def test_far_from_the_origin_the_bias_is_forgotten_and_the_kernel_is_homogeneous(kernel):
    x, z = points(10), points(12, seed=7)
    limits = [kernel(s * x, s * z) / s**2 for s in (1.0, 1e3, 1e4)]
    distances = [float((limit - kernel(1e6 * x, 1e6 * z) / 1e12).abs().max()) for limit in limits]
    assert distances[0] > 0.1
    assert distances[1] < 1e-3
    assert distances[2] < distances[1] / 5


@every_kernel
def test_rotations_change_nothing(kernel):
    x, z = points(30, 4), points(40, 4, seed=7)
    rotation = torch.linalg.qr(points(4, 4, seed=9)).Q
    torch.testing.assert_close(kernel(x @ rotation, z @ rotation), kernel(x, z), rtol=1e-12, atol=1e-13)


def test_neural_tangents_agrees():
    """Its Dense in NTK parametrisation, W x W_std/√n_in + b_std b, ends in (1/√h) Σ β σ without mean-field scaling.

    There Θ = ⟨∇f, ∇f⟩, here h ⟨∇f, ∇f⟩ with f smaller by √h: the two factors h cancel, and the kernels are equal.
    ABRelu(0, √2) is σ, the last layer has no bias, and its covariance ("nngp") is the kernel of the readout.
    """
    jax = pytest.importorskip("jax")
    stax = pytest.importorskip("neural_tangents").stax
    jax.config.update("jax_enable_x64", True)
    first = stax.Dense(1, W_std=1.0, b_std=1.0, parameterization="ntk")
    last = stax.Dense(1, W_std=1.0, b_std=None, parameterization="ntk")
    kernel_fn = stax.serial(first, stax.ABRelu(0.0, math.sqrt(2)), last)[2]
    x, z = points(20, 5), points(30, 5, seed=7)
    theirs = kernel_fn(x.numpy(), z.numpy(), ("ntk", "nngp"))
    np.testing.assert_allclose(NTK(x, z).numpy(), theirs.ntk, rtol=1e-10)
    np.testing.assert_allclose(RFK(x, z).numpy(), theirs.nngp, rtol=1e-10)


def test_compressed_divides_what_the_label_ignores():
    x = points(6, 4)
    kept = x.clone()
    half = kernels.compressed(x, 1, 2.0)
    assert torch.equal(half, x * torch.tensor([1, 0.5, 0.5, 0.5], dtype=x.dtype))
    assert torch.equal(x, kept)
    assert torch.equal(kernels.compressed(x, 4, 7), x)
    assert torch.equal(kernels.compressed(x, np.int64(1), np.float64(2)), half)
    assert kernels.compressed(x.float(), 1, 3).dtype == torch.float32


@every_kernel
def test_infinite_compression_leaves_a_task_of_d_parallel_dimensions(kernel):
    x, z = (kernels.compressed(points(8, 4, seed), 2, 1e12) for seed in (101, 7))
    cut = [torch.cat([c[:, :2], torch.zeros_like(c[:, 2:])], dim=1) for c in (x, z)]
    torch.testing.assert_close(kernel(x, z), kernel(*cut), rtol=1e-9, atol=0)


def one_row_gb(x2, rows=1):
    """q (2 r + 3 (d + 2)) numbers, in 10⁹ bytes, and half a byte for rounding."""
    q, d = x2.shape
    return (q * (2 * rows + 3 * (d + 2)) * x2.element_size() + 0.5) / 1e9


@every_kernel
@pytest.mark.parametrize("rows", [1, 4, 29, 30, 1000])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_blocks_are_the_kernel_whatever_the_budget(kernel, rows, dtype):
    x, z = points(30, dtype=dtype), points(41, seed=7, dtype=dtype)
    budget, whole = one_row_gb(z, rows), kernel(x, z)
    tolerance = {"rtol": 0, "atol": 300 * torch.finfo(dtype).eps}
    parts = list(kernels.in_blocks(kernel, x, z, memory_gb=budget))
    assert all(len(block) == min(rows, 30 - part.start) == part.stop - part.start for part, block in parts)
    torch.testing.assert_close(torch.cat([block for _, block in parts]), whole, **tolerance)
    for shape in ((41,), (41, 3), (41, 0)):
        v = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(3)) / 41
        product = kernels.matvec(kernel, x, z, v, memory_gb=budget)
        assert product.shape == (30, *shape[1:])
        torch.testing.assert_close(product, whole @ v, **tolerance)


def test_the_budget_holds_the_blocks_that_are_alive_together():
    x, z = points(50), points(400, seed=7)
    budget, alive, most = one_row_gb(z, 10), [], [0]

    def watched(x1, x2):
        block = LAPLACE(x1, x2)
        alive.append(weakref.ref(block))
        most[0] = max(most[0], sum(ref().nbytes for ref in alive if ref() is not None))
        return block

    for _, _block in kernels.in_blocks(watched, x, z, memory_gb=budget):
        pass
    assert len(alive) == 5
    assert most[0] == 2 * 10 * 400 * 8 < budget * 1e9
    del _block
    most[0] = 0
    kernels.matvec(watched, x, z, z[:, 0], memory_gb=budget)
    assert most[0] == 10 * 400 * 8


def test_blocks_do_not_grow_with_the_budget_beyond_what_is_fast(monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCK", 100)
    monkeypatch.setitem(kernels._SIDE, "cpu", 8)
    for q, rows in ((10, 10), (50, 8)):
        parts = [part for part, _ in kernels.in_blocks(NTK, points(20), points(q), memory_gb=1)]
        assert parts[0] == slice(0, rows)


def test_no_points_give_no_kernel_values():
    none, x = points(5)[:0], points(5)
    for kernel in KERNELS.values():
        assert kernel(none, x).shape == (0, 5)
        assert kernel(x, none).shape == (5, 0)
        assert kernel(none).shape == (0, 0)
    assert kernels.matvec(NTK, x, none, none[:, 0], memory_gb=1).tolist() == [0.0] * 5
    assert kernels.matvec(NTK, none, x, x[:, 0], memory_gb=1).shape == (0,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@every_kernel
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gpu_gives_the_values_of_the_cpu(kernel, dtype):
    x, z = points(300, dtype=dtype), points(5000, seed=7, dtype=dtype)
    z[:300] = x
    tolerance = {"rtol": 0, "atol": 300 * torch.finfo(dtype).eps}
    torch.testing.assert_close(kernel(x.cuda(), z.cuda()).cpu(), kernel(x, z), **tolerance)
    gram = kernel(z.cuda())
    assert torch.equal(gram, gram.T)
    product = kernels.matvec(kernel, x.cuda(), z.cuda(), z[:, 0].cuda() / 5000, memory_gb=0.1)
    torch.testing.assert_close(product.cpu(), kernel(x, z) @ z[:, 0] / 5000, **tolerance)
    with pytest.raises(ValueError, match="expected one device"):
        kernel(x.cuda(), z)


@every_kernel
@pytest.mark.parametrize(
    ("x1", "x2", "error", "message"),
    [
        (torch.zeros(3), None, ValueError, r"x1 of shape \(p, d\), d ≥ 1, got \(3,\)"),
        (torch.zeros(3, 0), None, ValueError, "d ≥ 1"),
        (torch.zeros(3, 2), torch.zeros(3, 4), ValueError, r"of one d, got \(3, 2\) and \(3, 4\)"),
        (torch.zeros(3, 2), torch.zeros(2), ValueError, r"x2 of shape \(p, d\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.float64), TypeError, "expected one dtype, got x1 torch.fl"),
        (torch.zeros(3, 2, dtype=torch.int64), None, TypeError, "float32 or float64 torch tensor, got torch.int64"),
        (torch.zeros(3, 2, dtype=torch.float16), None, TypeError, "got torch.float16"),
        (torch.full((3, 2), math.nan), None, ValueError, "expected finite x1"),
        (torch.zeros(3, 2), torch.full((3, 2), math.inf), ValueError, "expected finite x2"),
    ],
)
def test_points_no_kernel_is_defined_on_are_refused(kernel, x1, x2, error, message):
    with pytest.raises(error, match=message):
        kernel(x1, x2)


@pytest.mark.parametrize("scale", [0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_no_length_is_refused(scale):
    with pytest.raises(ValueError, match="scale: expected a finite number"):
        kernels.laplace(points(3), scale=scale)


@pytest.mark.parametrize(
    ("d_parallel", "amplification", "message"),
    [(0, 2.0, "integer ≥ 1"), (4, 2.0, "at most d = 3"), (1, 0.0, "amplification"), (1, -2.0, "amplification")],
)
def test_compressions_that_mean_nothing_are_refused(d_parallel, amplification, message):
    with pytest.raises(ValueError, match=message):
        kernels.compressed(points(3), d_parallel, amplification)


def test_a_budget_below_one_row_is_refused_at_the_call_and_the_one_named_is_enough():
    x = points(100)
    with pytest.raises(ValueError, match=r"at least 1\.36e-05 for one row of 100 columns, got 1e-05; raise it"):
        kernels.in_blocks(NTK, x, x, memory_gb=1e-5)
    assert next(iter(kernels.in_blocks(NTK, x, x, memory_gb=1.36e-5)))[0] == slice(0, 1)
    with pytest.raises(ValueError, match="memory_gb: expected a finite number"):
        kernels.in_blocks(NTK, x, x, memory_gb=0)


@pytest.mark.parametrize(
    ("v", "error", "message"),
    [
        (torch.zeros(3), TypeError, "expected v of torch.float64 on cpu like the points, got torch.float32"),
        (torch.zeros(4, dtype=torch.float64), ValueError, r"q = 3 points, got \(4,\)"),
        (torch.zeros((), dtype=torch.float64), ValueError, r"got \(\)"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(v, error, message):
    with pytest.raises(error, match=message):
        kernels.matvec(NTK, points(5), points(3), v, memory_gb=1)
