"""Smooth losses: closed forms, the hinge as a limit, conservation laws, endings, and bad input."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import DOP853
from scipy.linalg import expm

from geocompress import compression, flow, frozen, networks, smooth, tasks
from geocompress.flow import Status
from geocompress.losses import SoftHinge, Square
from geocompress.smooth import smooth_flow

NET = networks.OneHidden(d=3, width=40)
X, Y = tasks.stripe(3).sample(14, 101)
LOSSES = [SoftHinge(3.0), SoftHinge(200.0), Square()]


def run(loss, alpha=1.0, **settings):
    return list(smooth_flow(NET, NET.init(0), X, Y, alpha=alpha, loss=loss, **settings))


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e6])
def test_the_square_loss_relaxes_exponentially_at_constant_kernel(alpha):
    gram = NET.ntk(NET.init(0), X)
    kernel = frozen.FrozenKernel(gram)
    states = list(
        smooth_flow(
            kernel,
            kernel.init(),
            kernel.points,
            Y,
            alpha=alpha,
            loss=Square(),
            rtol=1e-7,
            method=DOP853,
            max_time=40 / alpha,
        )
    )
    assert states[-1].status is Status.MAX_TIME
    rate = alpha * (torch.outer(Y, Y) * gram).numpy() / len(Y)
    for state in states:
        exact = 1 - expm(-rate * state.t) @ np.ones(len(Y))
        np.testing.assert_allclose(state.margins.numpy(), exact, rtol=0, atol=1e-5)
    assert states[-1].loss < 0.5 * states[0].loss


def test_the_lazy_network_relaxes_like_its_kernel():
    states = run(Square(), alpha=1e6, max_time=40e-6)
    rate = (torch.outer(Y, Y) * NET.ntk(NET.init(0), X)).numpy() / len(Y)
    exact = 1 - expm(-rate * 40) @ np.ones(len(Y))
    np.testing.assert_allclose(states[-1].margins.numpy(), exact, rtol=0, atol=5e-3)
    assert len(states) > 5


def test_a_sharp_soft_hinge_follows_the_hinge():
    hinge = list(flow.hinge_flow(NET, NET.init(0), X, Y, alpha=1.0, margin_tol=1e-3, state_tol=1e-3, max_time=1.5))[-1]
    distance = []
    for s in (10.0, 40.0, 160.0):
        end = run(SoftHinge(s), rtol=1e-4, max_time=1.5)[-1]
        assert end.t == hinge.t == 1.5
        distance.append(float((end.margins - hinge.margins).abs().max()))
    assert distance[2] < 0.01
    assert distance[2] < 0.7 * distance[1] < 0.5 * distance[0]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_loss_falls_and_balance_is_kept_better_by_a_smaller_tolerance(loss):
    drift = []
    for rtol in (1e-2, 1e-4):
        states = run(loss, rtol=rtol, max_time=3.0)
        assert max(np.diff([s.loss for s in states])) <= 0.0
        change = compression.balance(states[-1].params) - compression.balance(states[0].params)
        drift.append(float(change.abs().max()))
    moved = max(float((states[-1].params[k] - states[0].params[k]).abs().max()) for k in states[0].params)
    assert moved > 0.1
    assert drift[1] < 2e-3
    assert drift[1] < 0.2 * drift[0]


def test_the_loss_falls_in_the_feature_regime():
    states = run(SoftHinge(3.0), 1e-6, max_steps=150)
    assert max(np.diff([s.loss for s in states])) <= 0.0
    assert states[-1].loss < states[0].loss - 0.01


def test_a_smaller_tolerance_is_closer():
    ends = [run(SoftHinge(3.0), rtol=rtol, max_time=3.0)[-1].margins for rtol in (1e-2, 1e-3, 1e-4)]
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:2]]
    assert errors[1] < 0.01
    assert errors[1] < 0.5 * errors[0]


def test_states_carry_their_multipliers_and_loss():
    for loss in LOSSES[::2]:
        state = run(loss, max_steps=20)[-1]
        torch.testing.assert_close(state.multipliers, -loss.slope(state.margins))
        assert state.loss == pytest.approx(float(loss.value(state.margins).mean()))
        output = NET.forward(state.params, X) - NET.forward(NET.init(0), X)
        torch.testing.assert_close(state.margins, Y * output)


def test_equal_points_with_opposite_labels_are_named():
    x, y = torch.cat([X, X[3:4]]), torch.cat([Y, -Y[3:4]])
    assert run(Square(), max_steps=1)[0].conflicts.shape == (0, 2)
    path = smooth_flow(NET, NET.init(0), x, y, alpha=1.0, loss=Square(), max_steps=3)
    assert [s.conflicts.tolist() for s in path] == [[[3, 14]]] * 5


def test_contradicting_points_end_a_soft_hinge_when_the_others_are_fitted():
    x, y = torch.cat([X, X[3:4]]), torch.cat([Y, -Y[3:4]])
    *_, before, end = smooth_flow(NET, NET.init(0), x, y, alpha=1.0, loss=SoftHinge(3.0))
    others = [n for n in range(15) if n not in (3, 14)]
    assert end.status is Status.STATIONARY
    assert bool((end.margins[others] >= 1).all())
    assert float(end.margins[[3, 14]].min()) < 1
    assert not bool((before.margins[others] >= 1).all())


def test_a_run_ends_with_the_reason():
    fitted = run(SoftHinge(3.0))[-1]
    assert fitted.status is Status.FITTED
    assert bool((fitted.margins >= 1).all())
    small = run(Square(), loss_tol=1e-2)
    assert small[-1].status is Status.LOSS_REACHED
    assert small[-1].loss <= 1e-2 < small[-2].loss
    assert run(Square(), max_steps=3)[-1].status is Status.MAX_STEPS
    assert (run(Square(), max_time=2.0)[-1].status, run(Square(), max_time=2.0)[-1].t) == (Status.MAX_TIME, 2.0)
    assert [s.status for s in run(Square(), max_steps=3)[:-1]] == [Status.RUNNING] * 4


class Broken(networks.OneHidden):
    """Not a number from some weight on (`DIVERGED`), or a velocity that jumps without end (`STALLED`)."""

    kind = math.nan

    def linearise(self, params, x):
        at = super().linearise(params, x)
        if float((params["beta"] - NET.init(0)["beta"]).abs().max()) > 0.01:
            noise = float(torch.frac(1e9 * params["beta"].sum()))
            at.pullback = lambda v, pull=at.pullback: {k: (self.kind or 1e15 * noise) * g for k, g in pull(v).items()}
        return at


@pytest.mark.parametrize(("kind", "status"), [(math.nan, Status.DIVERGED), (0.0, Status.STALLED)])
def test_a_flow_that_cannot_go_on_is_named_and_left_where_it_was(kind, status, monkeypatch):
    monkeypatch.setattr(Broken, "kind", kind)
    *_, end = smooth_flow(Broken(d=3, width=40), NET.init(0), X, Y, alpha=1.0, loss=Square(), max_steps=500)
    assert end.status is status
    assert bool(end.margins.isfinite().all())


def test_a_restart_from_any_state_gives_the_same_trajectory():
    """From a state on the way, and from the end of a run of so many steps."""
    states = run(SoftHinge(3.0))
    for number in (1, len(states) // 4, len(states) // 2, len(states) - 2):
        stopped = run(SoftHinge(3.0), max_steps=number)[-1]
        assert stopped.status is Status.MAX_STEPS
        for start in (states[number], stopped):
            again = run(SoftHinge(3.0), start=start)
            assert [(s.step, s.status) for s in again] == [(s.step, s.status) for s in states[number:]]
            assert [s.t for s in again] == pytest.approx([s.t for s in states[number:]], rel=1e-9)
            torch.testing.assert_close(again[-1].margins, states[-1].margins, rtol=1e-8, atol=1e-8)
    assert [s.status for s in run(SoftHinge(3.0), start=states[-1])] == [Status.FITTED]


def test_a_run_that_ended_at_a_limit_goes_on_from_there():
    whole = run(SoftHinge(3.0), max_time=2.0)[-1]
    for stop in (0.1, 0.7, 1.9):
        first = run(SoftHinge(3.0), max_time=stop)[-1]
        assert (first.status, first.t) == (Status.MAX_TIME, stop)
        again = run(SoftHinge(3.0), start=first, max_time=2.0)
        assert (again[0].t, again[-1].t, again[-1].status) == (stop, 2.0, Status.MAX_TIME)
        torch.testing.assert_close(again[-1].margins, whole.margins, rtol=0, atol=3e-3)
    assert [s.status for s in run(SoftHinge(3.0), start=first, max_time=1.0)] == [Status.RUNNING, Status.MAX_TIME]
    small = run(Square(), loss_tol=1e-1)[-1]
    assert small.status is Status.LOSS_REACHED
    assert run(Square(), start=small, loss_tol=5e-2)[-1].loss <= 5e-2
    at_once = run(Square(), loss_tol=1.0)
    assert (len(at_once), at_once[0].dt) == (1, 0.0)
    assert run(Square(), start=at_once[0], max_steps=3)[-1].step == 3


def test_float32_follows_float64():
    params = {k: v.float() for k, v in NET.init(0).items()}
    *_, end = smooth_flow(NET, params, X.float(), Y.float(), alpha=1.0, loss=SoftHinge(3.0), rtol=1e-4, max_time=3.0)
    assert end.margins.dtype == torch.float32
    torch.testing.assert_close(
        end.margins.double(), run(SoftHinge(3.0), rtol=1e-4, max_time=3.0)[-1].margins, rtol=0, atol=2e-3
    )


BAD = {
    "alpha": ({"alpha": 0.0}, ValueError, "alpha"),
    "rtol of zero": ({"rtol": 0.0}, ValueError, "rtol"),
    "rtol below rounding": ({"rtol": 1e-15}, ValueError, r"rtol in \[2.2e-14, 1\)"),
    "rtol above one": ({"rtol": 1.0}, ValueError, "rtol"),
    "loss_tol": ({"loss_tol": -1.0}, ValueError, "loss_tol"),
    "no time": ({"max_time": math.nan}, ValueError, "max_time"),
    "no steps": ({"max_steps": 0}, ValueError, "max_steps"),
    # while testing, jaxtyping says it in words of its own before the flow does
    "no loss": ({"loss": "hinge"}, TypeError, "loss"),
    "the class of a loss": ({"loss": Square}, TypeError, r"loss: expected .*, got the class Square; call it"),
    "labels": ({"y": 2 * Y}, ValueError, "smooth_flow: labels must be"),
    "dtype": ({"x": X.float()}, TypeError, "smooth_flow: x, y and parameters must share"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_the_first_step(case):
    change, error, message = BAD[case]
    with pytest.raises(error, match=message):
        smooth_flow(NET, NET.init(0), **({"x": X, "y": Y, "alpha": 1.0, "loss": Square()} | change))


def test_a_start_of_other_data_is_refused():
    other = next(iter(smooth_flow(NET, NET.init(0), X[:9], Y[:9], alpha=1.0, loss=Square(), max_steps=1)))
    with pytest.raises(ValueError, match="`start` has 9 points, the data have 14"):
        smooth.smooth_flow(NET, NET.init(0), X, Y, alpha=1.0, loss=Square(), start=other)
