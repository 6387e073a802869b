"""Flows side by side against the same flows one by one. All on CPU tensors, unless there is a GPU."""

import dataclasses
import math

import pytest
import torch

from geocompress import batched, flow, implicit_batched, networks, networks_batched, tasks
from geocompress.flow import Status

NET = networks.OneHidden(d=3, width=60)
SEEDS = (1, 5, 8)  # at α = 1 rounding is not amplified on their way, see `reliable`


def stack(params):
    return {k: torch.stack([part[k] for part in params]) for k in params[0]}


def data(seeds, p=24):
    pairs = [tasks.stripe(3).sample(p, 100 + seed) for seed in seeds]
    return tuple(torch.stack(part) for part in zip(*pairs, strict=True))


def start(seeds):
    return stack([NET.init(seed) for seed in seeds])


def together(seeds=SEEDS, alpha=1.0, **settings):
    """Every replica's own states, as `flow.hinge_flow` yields them."""
    x, y = data(seeds)
    paths = [[] for _ in seeds]
    for state in batched.hinge_flows(NET, start(seeds), x, y, alpha=alpha, **settings):
        for i, path in enumerate(paths):
            if not path or state.step[i] > path[-1].step:
                path.append(state.replica(i))
    for i, path in enumerate(paths):  # the last word on it
        path[-1] = state.replica(i)
    return paths


def last(**settings):
    *_, end = batched.hinge_flows(NET, start(SEEDS), *data(SEEDS), alpha=1.0, **settings)
    return end


def alone(seed, alpha=1.0, **settings):
    x, y = data([seed])
    return list(flow.hinge_flow(NET, NET.init(seed), x[0], y[0], alpha=alpha, **settings))


def assert_same(found, expected, tol=1e-6):
    assert [s.step for s in found] == [s.step for s in expected]
    assert [s.t for s in found] == pytest.approx([s.t for s in expected], rel=tol)
    assert [s.dt for s in found] == pytest.approx([s.dt for s in expected], rel=tol)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.margins, b.margins, rtol=tol, atol=tol)
        torch.testing.assert_close(a.multipliers, b.multipliers, rtol=100 * tol, atol=100 * tol)
    assert found[-1].status is expected[-1].status
    assert found[-1].loss == pytest.approx(expected[-1].loss, abs=tol)


def reliable(seed, expected, tol, **settings):
    """How many states of a run are its own: those that a few last digits more or less in the weights do not change.

    A neuron that dies on the one point that it is active on lands on its kink, to rounding, and rounding then says
    whether it takes part in the next step: no state after that counts.
    """
    x, y = data([seed])
    ones = torch.ones(24, 1, dtype=x.dtype)
    own = len(expected)
    for n, state in enumerate(expected):
        weights = torch.cat([state.params["omega"], state.params["b"][:, None]], dim=1)
        if float((torch.cat([x[0] / math.sqrt(3), ones], dim=1) @ weights.T).abs().min()) < 1e-9:
            own = n
            break
    noise = torch.Generator().manual_seed(0)
    params = {k: v + 1e-15 * torch.randn(v.shape, generator=noise, dtype=v.dtype) for k, v in NET.init(seed).items()}
    other = flow.hinge_flow(NET, params, x[0], y[0], **settings)
    for n, (a, b) in enumerate(zip(expected[:own], other, strict=False)):
        if abs(a.t - b.t) > tol * a.t or float((a.margins - b.margins).abs().max()) > tol:
            return n
    return own


@pytest.mark.parametrize(("alpha", "tol"), [(1e3, 0.1), (1.0, 0.1), (1.0, 0.03), (1e-6, 0.1)])
def test_every_replica_takes_the_steps_that_it_takes_alone(alpha, tol):
    """Until rounding is amplified; at small α the first margins are differences of nearly equal outputs."""
    x_test, y_test = tasks.stripe(3).sample(2000, 9)
    settings = {"alpha": alpha, "margin_tol": tol, "state_tol": tol / 2}
    accuracy, shared = max(1e-9, 1e-13 / alpha), 0.0
    for seed, path in zip(SEEDS, together(**settings), strict=True):
        expected = alone(seed, **settings)
        own = reliable(seed, expected, accuracy, **settings)
        assert_same(path[:own], expected[:own], 1e-4)
        shared += own / len(expected) / len(SEEDS)
        assert path[-1].status is expected[-1].status is Status.FITTED
        assert path[-1].loss == 0.0
        assert path[-1].t == pytest.approx(expected[-1].t, rel=0.3)
        moved = [NET.forward(s.params, x_test) - NET.forward(NET.init(seed), x_test) for s in (path[-1], expected[-1])]
        errors = [float((y_test * output <= 0).double().mean()) for output in moved]
        assert abs(errors[0] - errors[1]) <= 0.03
    assert shared > {1e3: 0.99, 1.0: 0.3}.get(alpha, 0.02)


def test_one_replica_is_a_run_like_any_other():
    assert_same(together([5])[0], alone(5))


def test_a_small_budget_changes_nothing(monkeypatch):
    """Tiles of few neurons, and quadratic programs of one replica at a time."""
    expected = together()
    monkeypatch.setattr(networks_batched, "LANES", 7)
    monkeypatch.setattr(implicit_batched, "COPIES", 24)
    lots, split = [], implicit_batched._lots
    monkeypatch.setattr(implicit_batched, "_lots", lambda *given: lots.append(split(*given)) or lots[-1])
    x, _ = data(SEEDS)
    budget = 2 * 6 * 3 * 24 * 7 * 8 / batched.TILES
    assert len(networks_batched.tiles(x, 60, networks_batched.tile_cells(x, NET, batched.TILES * budget))) == 5
    for found, path in zip(together(memory_gb=budget / 1e9), expected, strict=True):
        assert_same(found, path)
    assert max(len(lot) for lot in lots) > 1


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"memory_gb: expected room for 6 tiles .* raise it, or train fewer nets"):
        together(memory_gb=1e-5)


def test_a_program_that_does_not_fit_is_named(monkeypatch):
    monkeypatch.setattr(implicit_batched, "COPIES", 10**6)
    with pytest.raises(ValueError, match=r"memory_gb: expected .* GB for the quadratic program of \d+ points"):
        together(memory_gb=1)


def test_times_and_steps_at_which_to_stop():
    stopped = together(max_time=12.5)
    assert {path[-1].status for path in stopped} == {Status.MAX_TIME}
    assert [path[-1].t for path in stopped] == [12.5] * 3
    for seed, path in zip(SEEDS, stopped, strict=True):
        torch.testing.assert_close(path[-1].margins, alone(seed, max_time=12.5)[-1].margins, rtol=1e-6, atol=1e-6)
    assert [(path[-1].status, path[-1].step) for path in together(max_steps=5)] == [(Status.MAX_STEPS, 5)] * 3


def test_each_replica_ends_for_its_own_reason_and_harms_no_other():
    """One contradicts itself, one overflows at once, one is fitted."""
    x, y = data(SEEDS)
    x[0, 1], y[0, 1] = x[0, 0], -y[0, 0]
    x[1] *= 1e170
    *_, end = batched.hinge_flows(NET, start(SEEDS), x, y, alpha=1.0)
    assert end.statuses == (Status.STATIONARY, Status.DIVERGED, Status.FITTED)
    assert set(end.replica(0).pulling.tolist()) >= {0, 1}
    assert bool(end.margins.isfinite().all())
    torch.testing.assert_close(end.margins[2], alone(SEEDS[2])[-1].margins, rtol=1e-6, atol=1e-6)
    for i in (0, 1):
        *_, single = flow.hinge_flow(NET, NET.init(SEEDS[i]), x[i], y[i], alpha=1.0)
        assert single.status is end.statuses[i]


def test_numbers_that_are_not_finite_on_the_way_end_one_replica(monkeypatch):
    forward = networks_batched.OneHiddenBatch.forward

    def explodes(nets, params, x):
        beta, mine = params["beta"][:, :1], NET.init(SEEDS[1])["beta"][0]
        moved = (beta != mine) & ((beta - mine).abs() < 0.1)  # the second replica after its first step
        return forward(nets, params, x).masked_fill(moved, math.nan)

    monkeypatch.setattr(networks_batched.OneHiddenBatch, "forward", explodes)
    paths = together(alpha=1e3)
    assert [path[-1].status for path in paths] == [Status.FITTED, Status.DIVERGED, Status.FITTED]
    assert bool(paths[1][-1].margins.isfinite().all())
    assert_same(paths[2], alone(SEEDS[2], 1e3))


def test_the_last_state_says_why_it_is_the_last(monkeypatch):
    """Also where the last replica ends because it has no step left."""
    forward = networks_batched.OneHiddenBatch.forward
    beta = NET.init(1)["beta"]

    def explodes(nets, params, x):
        return forward(nets, params, x).masked_fill((params["beta"][:, :1] != beta[0]), math.nan)

    monkeypatch.setattr(networks_batched.OneHiddenBatch, "forward", explodes)
    *_, end = batched.hinge_flows(NET, start([1]), *data([1]), alpha=1.0)
    assert end.statuses == (Status.DIVERGED,)


def test_replicas_that_have_ended_stay_where_they_are():
    x, y = data(range(4))
    params = start(range(4))
    kept = {k: v.clone() for k, v in params.items()}
    states = list(batched.hinge_flows(NET, params, x, y, alpha=1.0))
    assert all(torch.equal(params[k], kept[k]) for k in params)
    rounds = [next(n for n, s in enumerate(states) if s.statuses[i] is Status.FITTED) for i in range(4)]
    assert len(set(rounds)) > 2  # or the batch has never become smaller
    for i, n in enumerate(rounds):
        for k in params:
            assert torch.equal(states[n].params[k][i], states[-1].params[k][i])
        assert states[n].t[i] == states[-1].t[i]


def test_a_restart_from_any_state_gives_the_same_trajectory():
    x, y = data(SEEDS)
    states = list(batched.hinge_flows(NET, start(SEEDS), x, y, alpha=1.0))
    on_the_way = [states[len(states) // 4], states[len(states) // 2], states[-2]]  # in the last, some are fitted
    least = min(path[-1].step for path in together())
    stopped = [last(max_steps=steps) for steps in (1, least // 2, least + 1)]
    assert [set(s.statuses) for s in stopped[:2]] == [{Status.MAX_STEPS}] * 2
    assert set(stopped[2].statuses) == {Status.MAX_STEPS, Status.FITTED}
    for middle in (*on_the_way, *stopped):
        again = last(start=middle)
        assert again.statuses == states[-1].statuses
        assert again.step.tolist() == states[-1].step.tolist()
        assert again.t == pytest.approx(states[-1].t, rel=1e-9)
        torch.testing.assert_close(again.margins, states[-1].margins, rtol=1e-8, atol=1e-8)


def test_replicas_that_ended_at_a_time_go_on_from_there():
    for stop in (2.0, 12.5):
        first = last(max_time=stop)
        assert set(first.statuses) == {Status.MAX_TIME}
        for i, seed in enumerate(SEEDS):
            expected = alone(seed, start=alone(seed, max_time=stop)[-1], max_time=15.0)[-1]
            found = last(start=first, max_time=15.0).replica(i)
            assert (found.t, found.status, found.step) == (15.0, Status.MAX_TIME, expected.step)
            torch.testing.assert_close(found.margins, expected.margins, rtol=1e-6, atol=1e-6)
    for limits, status in (({"max_time": 1.0}, Status.MAX_TIME), ({"max_steps": 1}, Status.MAX_STEPS)):
        again = last(start=first, **limits)
        assert set(again.statuses) == {status}
        assert again.t.tolist() == [12.5] * 3
    barely = 12.5 * (1 + 1e-13)
    assert last(start=first, max_time=barely).t.tolist() == [barely] * 3


def test_a_fitted_batch_needs_no_round():
    *_, end = batched.hinge_flows(NET, start([0]), *data([0]), alpha=1.0)
    assert len(list(batched.hinge_flows(NET, start([0]), *data([0]), alpha=1.0, start=end))) == 1
    again = dataclasses.replace(end, statuses=(Status.RUNNING,))
    *_, end_again = batched.hinge_flows(NET, start([0]), *data([0]), alpha=1.0, start=again)
    torch.testing.assert_close(end_again.margins, end.margins)


def test_float32_reaches_the_end_too():
    x, y = (part.float() for part in data(range(2)))
    params = {k: v.float() for k, v in start(range(2)).items()}
    *_, end = batched.hinge_flows(NET, params, x, y, alpha=1e-6)
    assert end.statuses == (Status.FITTED, Status.FITTED)
    assert end.margins.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_steps():
    x, y = (part.cuda() for part in data(SEEDS))
    params = {k: v.cuda() for k, v in start(SEEDS).items()}
    *_, end = batched.hinge_flows(NET, params, x, y, alpha=1.0)
    for i, seed in enumerate(SEEDS):
        expected = alone(seed)[-1]
        assert (int(end.step[i]), end.statuses[i]) == (expected.step, expected.status)
        torch.testing.assert_close(end.margins[i].cpu(), expected.margins, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cells", [1, 2**18])
@pytest.mark.parametrize("averaged", [False, True])
def test_products_with_the_jacobians_are_those_of_each_net(cells, averaged):
    nets = networks_batched.OneHiddenBatch(NET, cells)
    params, ends, x = start(range(2)), start([5, 6]), data(range(2), p=9)[0]
    at = nets.linearise(params, nets.augment(x))
    single = [NET.linearise({k: v[i] for k, v in params.items()}, x[i]) for i in range(2)]
    if averaged:
        at = at.secant(ends)
        single = [part.secant({k: v[i] for k, v in ends.items()}) for i, part in enumerate(single)]
    v, rows = torch.linspace(-1, 2, 18, dtype=x.dtype).view(2, 9), torch.tensor([[7, 2, 3]])
    torch.testing.assert_close(at.pullback(v), stack([part.pullback(v[i]) for i, part in enumerate(single)]))
    tangents = [{k: v[i] for k, v in ends.items()} for i in range(2)]
    pushed = [part.pushforward(tangent) for part, tangent in zip(single, tangents, strict=True)]
    torch.testing.assert_close(at.pushforward(ends), torch.stack(pushed))
    torch.testing.assert_close(at.among(torch.tensor([1]), rows).gram()[0], single[1].gram(rows[0]))
    forward = torch.stack([NET.forward({k: v[i] for k, v in params.items()}, x[i]) for i in range(2)])
    torch.testing.assert_close(nets.forward(params, nets.augment(x)), forward)


def test_padded_sizes_are_few_and_waste_little():
    sizes = [implicit_batched.padded_size(n, 10**4) for n in range(1, 10**4 + 1)]
    assert all(n <= size < max(1.26 * n, n + 16) for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) < 45
    assert implicit_batched.padded_size(70, 72) == 72


X, Y = data(range(2))
BAD = {
    "alpha": ({"alpha": 0.0}, ValueError, "alpha: expected"),
    "margin tolerance": ({"margin_tol": -1.0}, ValueError, "margin_tol: expected"),
    "state tolerance of zero": ({"state_tol": 0.0}, ValueError, "state_tol: expected"),
    "state tolerance below zero": ({"state_tol": -1.0}, ValueError, "state_tol: expected"),
    "budget": ({"memory_gb": 0}, ValueError, "memory_gb: expected"),
    "no steps": ({"max_steps": 0}, ValueError, "max_steps: expected"),
    "no batch axis": ({"x": X[0]}, ValueError, "stack the replicas in front"),
    "other width": (
        {"params": {k: v[:, :-1] for k, v in start(range(2)).items()}},
        ValueError,
        "hinge_flows: expected",
    ),
    "two batches": ({"y": Y[:1]}, ValueError, "hinge_flows: expected"),
    "dtype": ({"x": X.float()}, TypeError, "replica 0: .* share one floating-point dtype"),
    "one class": ({"y": torch.stack([Y[0], torch.ones(24, dtype=Y.dtype)])}, ValueError, "replica 1: both classes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_the_first_step(case):
    change, error, message = BAD[case]
    arguments = {"params": start(range(2)), "x": X, "y": Y, "alpha": 1.0} | change
    with pytest.raises(error, match=message):
        batched.hinge_flows(NET, **arguments)
