"""The implicit flow against brute force, its optimality conditions, conservation laws, limits, and bad input."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import reference
from geocompress import checks, compression, flow, networks, screening, states, tasks
from geocompress.flow import Status

NET = networks.OneHidden(d=3, width=40)


def data(p=14, seed=101):
    return tasks.stripe(3).sample(p, seed)


def run(alpha=1e-6, params=None, **settings):
    x, y = data()
    return list(flow.hinge_flow(NET, params or NET.init(0), x, y, alpha=alpha, **settings))


def distance(states, times, margins):
    """Largest difference of any margin at any common time."""
    common = [s for s in states if s.t <= times[-1]]
    assert len(common) > 10
    truth = np.stack([np.interp([s.t for s in common], times, column) for column in margins.T], axis=1)
    found = np.stack([s.margins.numpy() for s in common])
    return np.abs(np.minimum(truth, screening.CAP) - np.minimum(found, screening.CAP)).max()


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 1e-2])
def test_margins_converge_to_those_of_a_brute_force_integration(alpha):
    x, y = data()
    times, margins = reference.explicit_hinge_flow(NET.init(0), x, y, alpha=alpha, dt=2e-4, t_end=60)
    errors = [distance(run(alpha, margin_tol=tol, state_tol=tol), times, margins) for tol in (1e-2, 1e-3)]
    assert errors[1] < 0.01
    assert errors[1] < 0.35 * errors[0]


def smooth_problem():
    """A net whose neurons are switched on or off for good by their biases: no kink is ever crossed."""
    params = NET.init(0)
    params["b"] = 8 * params["b"].sign()
    x, _ = tasks.stripe(3).sample(6, 104)
    return params, x, torch.sign(x[:, 0] + 0.2 * x[:, 1])


def test_the_step_is_of_second_order_where_no_kink_is_crossed():
    """Through points that meet the margin, leave it, and slide along it: only the kinks of the ReLU cost an order."""
    params, x, y = smooth_problem()
    ends = []
    for tol in (1e-6, 3e-3, 1e-3, 3e-4, 1e-4):
        *_, end = flow.hinge_flow(NET, params, x, y, alpha=1.0, margin_tol=tol, state_tol=tol, max_time=8.0)
        ends.append(end)
    exact, *others = ends
    assert ((exact.multipliers > 0) & (exact.multipliers < 1)).sum() >= 2
    errors = [float((end.params["omega"] - exact.params["omega"]).abs().max()) for end in others]
    order = -np.polyfit(np.log([end.step for end in others]), np.log(errors), 1)[0]
    assert order > 1.8


def test_every_point_is_fitted_and_the_loss_is_exactly_zero():
    end = run()[-1]
    assert end.status is Status.FITTED
    assert end.loss == 0.0
    assert bool((end.margins >= 1).all())


def test_multipliers_are_complementary_to_the_margins_after_every_step():
    tol = 0.02
    states = run(margin_tol=tol)
    assert max(s.kkt for s in states) < 1e-6
    on_margin = 0
    for state in states[1:]:
        c, margins = state.multipliers, state.margins
        assert 0 <= float(c.min()) <= float(c.max()) <= 1
        assert bool((margins[c < 1] >= 1 - tol).all())
        assert bool((margins[c > 0] <= 1 + tol).all())
        on_margin += int(((c > 0) & (c < 1)).sum())
    assert on_margin > 20  # or the test has tested nothing


def test_the_loss_never_grows_by_more_than_the_tolerance_of_a_step():
    for tol in (0.1, 0.01):
        losses = [s.loss for s in run(margin_tol=tol, state_tol=tol)]
        assert losses[0] == 1.0
        assert max(np.diff(losses)) <= 0.1 * tol


def test_balance_is_conserved_in_the_limit_of_small_steps():
    drift = []
    for tol in (3e-2, 3e-3):
        states = run(1.0, margin_tol=tol, state_tol=tol)
        change = compression.balance(states[-1].params) - compression.balance(states[0].params)
        drift.append(float(change.abs().max()))
    assert drift[1] < 0.02
    assert drift[1] < 0.5 * drift[0]


def test_small_alpha_is_the_same_as_small_weights():
    params = NET.init(0)
    unit = 2.0**-10  # a power of two, so that rounding is the same
    small = {k: unit * v for k, v in params.items()}
    for a, b in zip(run(unit**2), run(1.0, small), strict=True):
        assert a.t == pytest.approx(b.t, rel=1e-9)
        torch.testing.assert_close(a.margins, b.margins, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(unit * a.params["omega"], b.params["omega"], rtol=1e-9, atol=1e-12)


def test_large_alpha_leaves_the_weights_where_they_were():
    states = run(1e6)
    assert states[-1].status is Status.FITTED
    params, start = states[-1].params, states[0].params
    assert all(float((params[k] - start[k]).abs().max()) < 1e-3 for k in params)
    assert compression.amplification(params, 1) == pytest.approx(compression.amplification(start, 1), rel=1e-3)


def test_large_alpha_ends_on_the_same_function_as_the_constant_kernel():
    """With K constant the end state satisfies margins = K·(∫c dt)/p, with ∫c dt non-negative."""
    x, y = data()
    states = run(1e6)
    kernel = torch.outer(y, y) * NET.ntk(NET.init(0), x) * 1e6 / len(y)
    force = torch.linalg.lstsq(kernel, states[-1].margins[:, None]).solution[:, 0]
    torch.testing.assert_close(kernel @ force, states[-1].margins, rtol=1e-4, atol=1e-4)
    assert float(force.min()) > -1e-3 * float(force.max())


@pytest.mark.parametrize("alpha", [1e-6, 1.0, 1e6])
def test_a_restart_from_any_state_gives_the_same_trajectory(alpha):
    """From a state on the way, and from the end of a run of so many steps."""
    whole = run(alpha)
    for number in sorted({0, 1, len(whole) // 4, len(whole) // 2, len(whole) - 2}):
        starts = [whole[number]] + ([run(alpha, max_steps=number)[-1]] if number else [])
        assert [s.status for s in starts] == [Status.RUNNING, Status.MAX_STEPS][: len(starts)]
        for start in starts:
            again = run(alpha, start=start)
            assert [(s.step, s.status) for s in again] == [(s.step, s.status) for s in whole[number:]]
            assert [s.t for s in again] == pytest.approx([s.t for s in whole[number:]], rel=1e-9)
            torch.testing.assert_close(again[-1].margins, whole[-1].margins, rtol=1e-8, atol=1e-8)
    assert [s.status for s in run(alpha, start=whole[-1])] == [Status.FITTED]


def test_a_run_that_ended_at_a_time_goes_on_from_there():
    """What the cut of one step changes is within the tolerance; limits that are passed already are named at once."""
    whole = run(1.0, margin_tol=3e-3, state_tol=3e-3)
    for share in (0.03, 0.3, 0.9):
        stop, later = share * whole[-1].t, 0.98 * whole[-1].t
        first = run(1.0, margin_tol=3e-3, state_tol=3e-3, max_time=stop)[-1]
        assert (first.status, first.t) == (Status.MAX_TIME, stop)
        again = run(1.0, margin_tol=3e-3, state_tol=3e-3, start=first, max_time=later)
        assert (again[0].t, again[0].status) == (stop, Status.RUNNING)
        assert (again[-1].t, again[-1].status) == (later, Status.MAX_TIME)
        (expected,) = states.at_times(whole, [later])
        torch.testing.assert_close(again[-1].margins, expected.margins, rtol=0, atol=0.01)
        assert run(1.0, margin_tol=3e-3, state_tol=3e-3, start=first)[-1].status is Status.FITTED
    assert [s.status for s in run(start=first, max_time=stop / 2)] == [Status.RUNNING, Status.MAX_TIME]
    assert [s.status for s in run(start=first, max_steps=1)] == [Status.RUNNING, Status.MAX_STEPS]
    barely = first.t * (1 + 1e-13)
    assert [s.t for s in run(1.0, start=first, max_time=barely)[1:]] == [barely] * 2


WIDE = networks.OneHidden(d=3, width=200)


def big_run(**settings):
    x, y = tasks.stripe(3).sample(120, 7)
    return list(flow.hinge_flow(WIDE, WIDE.init(1), x, y, alpha=1e-6, **settings))


def test_what_is_left_out_of_a_step_changes_nothing(monkeypatch):
    """Points beyond the cap, awake or asleep, against steps that treat all points alike."""
    left_out, rows = [], flow.Problem.among

    def among(problem, chosen):
        left_out.append(len(problem.y) - len(chosen))
        return rows(problem, chosen)

    monkeypatch.setattr(flow.Problem, "among", among)
    fast = big_run()
    assert max(left_out) > 80
    monkeypatch.setattr(screening, "CAP", math.inf)
    slow = big_run()
    assert fast[-1].status is slow[-1].status is Status.FITTED
    first = next(i for i, s in enumerate(slow) if float((s.margins >= 1.5).double().mean()) > 0.3)
    for a, b in zip(fast[:first], slow[:first], strict=False):
        torch.testing.assert_close(a.margins, b.margins, rtol=1e-7, atol=1e-7)


def test_margins_may_be_old_only_where_they_are_large():
    exact, lazy = big_run(), big_run(all_margins=False)
    stale = 0
    for a, b in zip(exact, lazy, strict=True):
        assert a.t == pytest.approx(b.t, rel=1e-6)
        seen = b.margins < screening.CAP
        assert torch.equal(seen, a.margins < screening.CAP)
        torch.testing.assert_close(a.margins[seen], b.margins[seen], rtol=1e-6, atol=1e-6)
        stale += int((a.margins != b.margins).sum())
    assert stale > 0
    torch.testing.assert_close(exact[-1].margins, lazy[-1].margins, rtol=1e-6, atol=1e-6)


def test_kinks_of_the_network_do_not_make_it_chatter():
    """40 neurons, many of which die on the way: a rule that looks at the middle of a step only takes 19 000 steps."""
    x, y = tasks.stripe(2).sample(14, 0)
    net = networks.OneHidden(d=2, width=40)
    *_, end = flow.hinge_flow(net, net.init(0), x, y, alpha=1e-3)
    assert end.status in (Status.FITTED, Status.STATIONARY)  # which one hangs on when the last neurons die
    assert end.step < 600


def test_margins_agree_with_brute_force_to_a_thousandth_at_every_checkpoint():
    x, y = tasks.stripe(3).sample(30, 3)
    times, margins = reference.explicit_hinge_flow(NET.init(2), x, y, alpha=0.1, dt=1e-4, t_end=12)
    path = flow.hinge_flow(NET, NET.init(2), x, y, alpha=0.1, margin_tol=5e-5, state_tol=1e-4, max_time=12)
    checkpoints = np.linspace(0.5, 11.5, 23)
    truth = np.stack([np.interp(checkpoints, times, column) for column in margins.T], axis=1)
    found = np.stack([s.margins.numpy() for s in states.at_times(path, checkpoints)])
    assert np.abs(np.minimum(truth, screening.CAP) - np.minimum(found, screening.CAP)).max() < 1e-3
    assert (truth[-1] >= 1).mean() > 0.3  # or nothing slid along the margin


def test_contradictory_points_are_named():
    x, y = data()
    x, y = torch.cat([x, x[3:4]]), torch.cat([y, -y[3:4]])
    *_, end = flow.hinge_flow(NET, NET.init(0), x, y, alpha=1e-2)
    assert end.status is Status.STATIONARY
    assert set(end.pulling.tolist()) >= {3, 14}


def test_the_order_of_the_points_does_not_matter():
    """To rounding where no kink is crossed; else to the tolerance, for on a kink a neuron is on or off by rounding."""
    params, x, y = smooth_problem()
    settings = {"alpha": 1.0, "margin_tol": 1e-2, "state_tol": 1e-2}
    for start, points, labels, atol in ((params, x, y, 1e-7), (NET.init(0), *data(), 0.03)):
        back = torch.arange(len(labels) - 1, -1, -1)
        *_, there = flow.hinge_flow(NET, start, points, labels, **settings)
        *_, again = flow.hinge_flow(NET, start, points[back], labels[back], **settings)
        found, expected = again.margins[back].clamp(max=1.5), there.margins.clamp(max=1.5)
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_a_run_ends_with_the_reason():
    assert run(max_steps=5)[-1].status is Status.MAX_STEPS
    stopped = run(max_time=12.5)[-1]
    assert (stopped.status, stopped.t) == (Status.MAX_TIME, 12.5)
    assert [s.status for s in run(max_steps=5)[:-1]] == [Status.RUNNING] * 6


def test_a_run_lands_on_its_last_time_whatever_rounding_does():
    """t + (T − t) falls short of T by a last digit for about one T in a hundred."""
    x, y = data()
    for max_time in np.random.default_rng(0).uniform(1, 2, 60):
        *_, end = flow.hinge_flow(NET, NET.init(0), x, y, alpha=1e-6, max_time=float(max_time))
        assert (end.status, end.t) == (Status.MAX_TIME, max_time)


def test_a_diverging_network_is_reported_and_not_followed():
    class Exploding(networks.OneHidden):
        def linearise(self, params, x):
            at = super().linearise(params, x)
            if float(params["beta"].abs().max()) > 3.5:
                at.output = at.output + math.nan
            return at

    x, y = data()
    *_, end = flow.hinge_flow(Exploding(d=3, width=40), NET.init(0), x, y, alpha=1e-6)
    assert end.status is Status.DIVERGED
    assert bool(end.margins.isfinite().all())


def test_a_step_that_overflows_is_taken_again_shorter():
    x, y = data()
    state = run()[3]
    far = dataclasses.replace(state, dt=1e200)
    *_, end = flow.hinge_flow(NET, NET.init(0), x, y, alpha=1e-6, start=far)
    assert end.status is Status.FITTED


def test_fitted_data_need_no_step():
    x, y = data()
    done = run()[-1]
    start = dataclasses.replace(done, status=Status.RUNNING)
    states = list(flow.hinge_flow(NET, NET.init(0), x, y, alpha=1e-6, start=start))
    assert states[-1].step <= done.step + 1
    torch.testing.assert_close(states[-1].margins, done.margins)


def test_float32_reaches_the_end_too():
    x, y = data()
    params = {k: v.float() for k, v in NET.init(0).items()}
    *_, end = flow.hinge_flow(NET, params, x.float(), y.float(), alpha=1e-6)
    assert end.status is Status.FITTED
    assert end.margins.dtype == torch.float32


X, Y = data()
BAD = {
    "alpha of zero": ({"alpha": 0.0}, ValueError, "alpha: expected"),
    "alpha below zero": ({"alpha": -1.0}, ValueError, "alpha: expected"),
    "alpha nan": ({"alpha": math.nan}, ValueError, "alpha: expected"),
    "alpha infinite": ({"alpha": math.inf}, ValueError, "alpha: expected"),
    "margin tolerance": ({"margin_tol": 0.0}, ValueError, "margin_tol: expected"),
    "state tolerance of zero": ({"state_tol": 0.0}, ValueError, "state_tol: expected"),
    "state tolerance below zero": ({"state_tol": -1.0}, ValueError, "state_tol: expected"),
    "state tolerance nan": ({"state_tol": math.nan}, ValueError, "state_tol: expected"),
    "no steps": ({"max_steps": 0}, ValueError, "max_steps: expected"),
    "no time": ({"max_time": math.nan}, ValueError, "max_time: expected"),
    "flat x": ({"x": X[:, 0]}, ValueError, r"expected x \(p, d\)"),
    "no points": ({"x": X[:0], "y": Y[:0]}, ValueError, "p ≥ 1"),
    "x too narrow": ({"x": X[:, :2]}, ValueError, r"shape \(p, 3\)"),
    "y too short": ({"y": Y[:-1]}, ValueError, r"y \(p,\)"),
    "dtype": ({"x": X.float()}, TypeError, "share one floating-point dtype"),
    "integers": ({"y": Y.long()}, TypeError, "share one floating-point dtype"),
    "labels 0 and 1": ({"y": (Y + 1) / 2}, ValueError, "−1 or \\+1"),
    "one class": ({"y": torch.ones_like(Y)}, ValueError, "both classes"),
    "nan": ({"x": X.where(X > 0, math.nan)}, ValueError, "finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_the_first_step(case):
    change, error, message = BAD[case]
    arguments = {"x": X, "y": Y, "alpha": 1e-6} | change
    with pytest.raises(error, match=message):
        flow.hinge_flow(NET, NET.init(0), **arguments)


def test_arrays_of_numpy_are_refused():
    with pytest.raises(TypeError, match="torch tensors, got ndarray"):
        checks.training_data(NET.init(0), X.numpy(), Y, caller="hinge_flow")
