"""States in between accepted steps."""

import pytest
import torch

from geocompress import flow, networks, states, tasks

NET = networks.OneHidden(d=3, width=40)
X, Y = tasks.stripe(3).sample(14, 101)


def path():
    return flow.hinge_flow(NET, NET.init(0), X, Y, alpha=1.0, margin_tol=0.03, state_tol=0.03)


def test_on_an_accepted_time_the_state_is_the_accepted_one():
    accepted = list(path())
    chosen = accepted[3::10]
    for found, expected in zip(states.at_times(path(), [s.t for s in chosen]), chosen, strict=True):
        torch.testing.assert_close(found.margins, expected.margins)
        torch.testing.assert_close(found.params["omega"], expected.params["omega"])


def test_in_between_the_error_is_of_the_order_of_the_step():
    times = [0.7, 1.3, 2.9, 6.1]
    for found in states.at_times(path(), times):
        *_, there = flow.hinge_flow(
            NET, NET.init(0), X, Y, alpha=1.0, margin_tol=0.03, state_tol=0.03, max_time=found.t
        )
        assert there.t == pytest.approx(found.t)
        torch.testing.assert_close(found.margins.clamp(max=1.5), there.margins.clamp(max=1.5), rtol=0, atol=0.06)


def test_after_the_end_nothing_moves():
    *_, end = path()
    late = list(states.at_times(path(), [2 * end.t, 3 * end.t]))
    assert [s.t for s in late] == [2 * end.t, 3 * end.t]
    assert all(torch.equal(s.margins, end.margins) and s.status is end.status for s in late)


@pytest.mark.parametrize("times", [[2.0, 1.0], [-1.0], [float("nan")]])
def test_times_that_do_not_ascend_are_refused(times):
    with pytest.raises(ValueError, match="ascending times"):
        list(states.at_times(path(), times))
