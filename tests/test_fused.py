"""`FusedLinearisation` against `OneHiddenLinearisation`, which stores what the compiled loops never do."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geocompress import fused, jit, networks

pytestmark = pytest.mark.skipif(jit.numba is None, reason="numba is not installed (pip install geocompress[fast])")

SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 600), st.integers(1, 13))
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def drawn(p, h, d, seed=0, dtype=torch.float64):
    net = networks.OneHidden(d=d, width=h)
    x = torch.randn(p, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1)).to(dtype)
    return net.init(seed, dtype=dtype), net._augment(x)


def moved(params, step, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return {k: v + step * torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in params.items()}


def flat(tangent):
    return torch.cat([tangent[k].flatten() for k in ("omega", "b", "beta")])


def close(actual, expected):
    """Equal up to rounding of the largest entry: single entries are sums that may cancel."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    error = float((actual - expected).abs().max()) if len(actual) else 0.0
    assert error <= TOLERANCE[actual.dtype] * float(expected.abs().max() if len(expected) else 1), error


def agree(ours, theirs, v, tangent, rows):
    close(flat(ours.pullback(v)), flat(theirs.pullback(v)))
    assert {k: g.shape for k, g in ours.pullback(v).items()} == {k: g.shape for k, g in tangent.items()}
    # a sum over neurons may cancel: its rounding is that of its terms, which |∇f| |δ| bounds
    error = (ours.pushforward(tangent) - theirs.pushforward(tangent)).abs()
    size = theirs.gram().diagonal().sqrt() * flat(tangent).norm()
    assert (error <= TOLERANCE[v.dtype] * size).all(), float((error / size).max())
    close(ours.gram(), theirs.gram())
    close(ours.gram(rows), theirs.gram(rows))


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 99), st.sampled_from(list(TOLERANCE)), st.sampled_from([0.0, 1e-3, 1.0]), st.booleans())
def test_products_agree_with_the_plain_ones(shape, seed, dtype, step, sparse):
    params, x = drawn(*shape, seed, dtype)
    end, tangent = moved(params, step), moved(params, 1.0, seed=4)
    v = torch.randn(shape[0], generator=torch.Generator().manual_seed(seed), dtype=dtype)
    if sparse:
        v[::2] = 0
    rows = torch.randperm(shape[0], generator=torch.Generator().manual_seed(seed))[: shape[0] // 2 + 1]
    ours, theirs = fused.FusedLinearisation(params, x), networks.OneHiddenLinearisation(params, x)
    size = theirs._scale * (theirs._activations @ theirs._beta.abs()).max()
    assert (ours.output - theirs.output).abs().max() <= TOLERANCE[dtype] * float(size)
    agree(ours, theirs, v, tangent, rows)
    agree(ours.secant(end), theirs.secant(end), v, tangent, rows)
    close(
        ours.gram_with(fused.FusedLinearisation(params, x[: len(rows)])),
        theirs.gram_with(networks.OneHiddenLinearisation(params, x[: len(rows)])),
    )


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("step", [0.0, 1e-9, 0.1, 10.0])
def test_the_secant_is_exact_between_its_ends(dtype, step):
    params, x = drawn(50, 700, 5, dtype=dtype)
    end = moved(params, step)
    start = fused.FusedLinearisation(params, x)
    way = {k: end[k] - params[k] for k in params}
    change = fused.FusedLinearisation(end, x).output - start.output
    size = max(float(start.output.abs().max()), float(change.abs().max()))
    assert (start.secant(end).pushforward(way) - change).abs().max() <= 10 * TOLERANCE[dtype] * size


def test_kinks_are_counted_by_the_share_of_the_way_above_zero():
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)  # x̃ = (1, 1), so z = ω + b
    params = {"omega": torch.tensor([[-1.0], [2.0], [-1.0], [0.0]]), "b": torch.zeros(4), "beta": torch.ones(4)}
    params = {k: v.double() for k, v in params.items()}
    end = params | {"omega": torch.tensor([[3.0], [1.0], [-2.0], [0.0]], dtype=torch.float64)}
    grad = fused.FusedLinearisation(params, x).secant(end).pullback(torch.ones(1, dtype=torch.float64))
    scale = 2**0.5 / 4
    torch.testing.assert_close(grad["b"] / scale, torch.tensor([0.75, 1, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(grad["beta"] / scale, torch.tensor([1.5, 1.5, 0, 0], dtype=torch.float64))


def test_zero_multipliers_pull_on_nothing():
    params, x = drawn(9, 40, 3)
    grad = fused.FusedLinearisation(params, x).pullback(torch.zeros(9, dtype=torch.float64))
    assert all(torch.equal(grad[k], torch.zeros_like(params[k])) for k in params)


@pytest.mark.parametrize("name", ["omega", "b", "beta"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_net_says_so(name, bad):
    params, x = drawn(6, 300, 2)
    broken = {k: v.clone() for k, v in params.items()}
    broken[name][17] = bad
    start, end = fused.FusedLinearisation(params, x), fused.FusedLinearisation(broken, x)
    assert not end.output.isfinite().all()
    if bad != bad:
        assert end.output.isnan().all()
        assert start.secant(broken).pushforward(moved(params, 1.0)).isnan().all()
        assert end.pushforward(broken).isnan().all()
        v = torch.ones(6, dtype=torch.float64)
        for jacobian in (end, start.secant(broken)):
            assert flat(jacobian.pullback(v)).isnan().any()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def everything(params, end, x):
    at = fused.FusedLinearisation(params, x)
    along = at.secant(end)
    v = x[:, 0]
    return [at.output, flat(at.pullback(v)), flat(along.pullback(v)), at.pushforward(end), along.pushforward(end)]


def test_results_do_not_depend_on_the_number_of_threads(threads):
    params, x = drawn(1003, 1501, 4)
    end = moved(params, 0.1)
    threads(1)
    alone = everything(params, end, x)
    for count in (2, 3, 7):
        threads(count)
        for ours, theirs in zip(everything(params, end, x), alone, strict=True):
            assert torch.equal(ours, theirs)


def test_several_python_threads_may_call_at_once(threads):
    params, x = drawn(500, 1200, 3)
    threads(2)
    expected = everything(params, params, x)
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda _: everything(params, params, x), range(12)):
            assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def test_only_plain_tensors_on_the_processor_are_available():
    params, _ = drawn(1, 3, 2)
    assert fused.available(params)
    assert not fused.available({k: v.half() for k, v in params.items()})
    assert not fused.available({k: v.requires_grad_() for k, v in params.items()})


@pytest.mark.parametrize(
    "setup",
    [
        "import sys; sys.modules['numba'] = None; expected = False",
        "import numba, numba.core.caching as c; c.FunctionCache._impl_class._locator_classes = []; expected = True",
    ],
    ids=["no numba", "no place for the cache"],
)
def test_the_module_is_imported_without_numba_and_without_a_cache(setup):
    check = (
        "import torch; from geocompress import fused, loops; assert fused.available({'b': torch.ones(2)}) == expected"
    )
    check += "; assert not expected or isinstance(loops.rows._cache, numba.core.caching.NullCache)"
    result = subprocess.run([sys.executable, "-W", "error", "-c", f"{setup}; {check}"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
