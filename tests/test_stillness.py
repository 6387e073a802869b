"""Runs that stand still are ended, runs that only look so are not, and contradicting points are all named."""

import math

import numpy as np
import pytest
import torch

from geocompress import batched, flow, frozen, implicit, networks, stillness, svc_checks, tasks
from geocompress.states import State, Status

NET = networks.OneHidden(d=5, width=200)


def contradicting(rows):
    """64 points of a stripe, two of them twice with opposite labels, as numbers 64 and 65."""
    x, y = tasks.stripe(5).sample(64, 5)
    return torch.cat([x, x[rows]]), torch.cat([y, -y[rows]])


def moved(a, b):
    """Change of any margin up to 1.5, and of the weights relative to their norm."""
    way, size = (
        math.hypot(*map(float, norms))
        for norms in (map(torch.dist, *(s.params.values() for s in (a, b))), map(torch.norm, b.params.values()))
    )
    return float((a.margins.clamp(max=1.5) - b.margins.clamp(max=1.5)).abs().max()), way / size


@pytest.mark.parametrize(("seed", "rows"), [(0, [0, 1]), (1, [0, 1]), (0, [3, 10]), (1, [3, 10])])
def test_points_that_contradict_each_other_end_the_run_and_are_all_named(seed, rows):
    """Runs in which rounding keeps steps short where pulls cancel: they took steps without end, or were lost."""
    x, y = contradicting(rows)
    path = list(flow.hinge_flow(NET, NET.init(seed), x, y, alpha=1e-6))
    end = path[-1]
    assert end.status is Status.STATIONARY
    assert end.conflicts.tolist() == [[rows[0], 64], [rows[1], 65]]
    assert all(s.conflicts is end.conflicts for s in path)
    assert end.loss >= 4 / 66 - 1e-9  # each pair costs two
    # which of the ways `Status.STATIONARY` knows a run takes, and when, is a matter of rounding
    at_once = end.t >= 1.5 * path[-2].t and max(moved(path[-2], end)) <= implicit.KKT_TOL
    margins, weights = moved(next(s for s in path if s.t >= end.t / stillness.STUCK), end)
    assert at_once or (margins <= 2 * stillness.MARGINS * 0.1 and weights <= 2 * stillness.WEIGHTS)


def test_a_plateau_before_a_burst_is_no_end():
    """Weights so small, against 1/√α, that time grows a thousandfold before any margin moves."""
    net = networks.OneHidden(3, 200)
    path = list(flow.hinge_flow(net, net.init(0), *tasks.stripe(3).sample(14, 101), alpha=1e-120))
    burst = next(n for n, s in enumerate(path) if moved(path[1], s)[0] > stillness.MARGINS * 0.1)
    assert path[burst - 1].t > stillness.TIME * path[1].t
    assert burst - 2 > stillness.STEPS
    assert path[-1].loss < path[burst].loss - 0.3


def test_a_lazy_run_that_is_slow_is_no_end():
    """Two points 10⁻⁸ apart with opposite labels: for most of the time nothing else moves, and that hardly."""
    x, y = tasks.stripe(3).sample(12, 101)
    x, y = torch.cat([x, x[:1] + 1e-8]), torch.cat([y, -y[:1]])
    path = list(frozen.kernel_flow(torch.exp(-torch.cdist(x, x)), y))
    since = [next(s for s in path if s.t >= late.t / stillness.TIME) for late in path[1:]]
    assert min(moved(a, b)[0] for a, b in zip(since, path[1:], strict=True) if a.t > 1) < stillness.MARGINS * 0.1
    assert path[-1].status is Status.FITTED


def state(step, t, margin, weight):
    margins = torch.tensor([margin, 7.0 + step], dtype=torch.float64)
    params = {"w": torch.tensor([1.0, weight], dtype=torch.float64)}
    return State(t, params, margins, margins, 1.0, step, t, 0.0, margins, Status.RUNNING)


MOTIONS = {
    "still": (lambda n: (0.5, 1.0), True),
    "rounding": (lambda n: (0.5 + 1e-3 * (-1) ** n, 1 + 1e-5 * (-1) ** n), True),
    "a margin that creeps": (lambda n: (0.5 + 5e-5 * n, 1.0), False),
    "weights that creep": (lambda n: (0.5, 1 + 3e-6 * n), False),
    "weights that grow exponentially": (lambda n: (0.5, 1 + 1e-7 * 1.1**n), False),
    "a start from nothing": (lambda n: (1e-6 * n, 1.03**n), False),
}


@pytest.mark.parametrize("case", MOTIONS)
def test_what_counts_as_still(case):
    """150 steps, time doubling every ten; alone and in a batch with others, of which some take no part in a step."""
    motion, expected = MOTIONS[case]
    path = [state(n, 2.0 ** (n / 10) * (n > 0), *motion(n)) for n in range(151)]
    anchor = stillness.Anchor(path[0], 0.1, 0.05)
    alone = [anchor.still(s) for s in path[1:]]
    assert any(alone) is expected
    assert not any(alone[: stillness.STEPS - 1])
    tensors = [({"w": s.params["w"].expand(3, 2)}, s.margins.expand(3, 2)) for s in path]
    anchors = stillness.Anchors(np.zeros(3), np.zeros(3, dtype=int), *tensors[0], 0.1, 0.05)
    anchors.compact(torch.tensor([1, 2]))
    live, accepted = np.array([1, 2]), np.array([False, True, False])
    together = []
    for s, (params, margins) in zip(path[1:], tensors[1:], strict=True):
        params, margins = {"w": params["w"][1:]}, margins[1:]
        found = np.full(3, math.nan)
        found[live] = anchors.moved(params, margins).double().numpy()
        still = anchors.still(np.full(3, s.t), np.full(3, s.step), found, accepted)
        anchors.follow(live, params, margins)
        together.append(bool(still[1]))
        assert not still[[0, 2]].any()
    assert together == alone


def test_few_long_steps_are_no_rest():
    path = [state(n, 3.0**n, 0.5, 1.0) for n in range(30)]
    anchor = stillness.Anchor(path[0], 0.1, 0.05)
    assert not any(anchor.still(s) for s in path)
    assert anchor.rested(path[-1])  # for a run that no step takes further
    assert not anchor.rested(path[3])


def test_replicas_that_contradict_themselves_end_and_are_named():
    pairs = [contradicting(rows) for rows in ([0, 1], [7, 20])]
    x, y = (torch.stack(part) for part in zip(*pairs, strict=True))
    x[1, 64:] += 1.0  # which contradict nothing now
    params = {k: torch.stack([v, v]) for k, v in NET.init(0).items()}
    *_, end = batched.hinge_flows(NET, params, x, y, alpha=1e-6, max_steps=2500)
    assert end.statuses[0] is Status.STATIONARY
    assert end.replica(0).conflicts.tolist() == [[0, 64], [1, 65]]
    assert end.replica(1).conflicts.shape == (0, 2)


def test_all_contradicting_points_are_listed():
    """Against all pairs: of three equal points two are paired with the third."""
    x = torch.tensor([[0.0, 1], [2, 3], [0, 1], [-0.0, 1], [4, 5], [2, 3], [4, 5], [4, 5], [4, 5]], dtype=torch.float64)
    y = torch.tensor([1.0, 1, -1, 1, -1, 1, 1, -1, 1], dtype=torch.float64)
    found = svc_checks.contradictions(x, y)
    clashes = (x[:, None] == x).all(2) & (y[:, None] != y)
    assert all(bool(clashes[i, j]) and i < j for i, j in found.tolist())
    assert found.flatten().unique().tolist() == clashes.any(1).nonzero()[:, 0].tolist()
    assert found.tolist() == [[0, 2], [2, 3], [4, 6], [4, 8], [6, 7]]
    images = x.view(9, 1, 2, 1)
    assert torch.equal(svc_checks.contradictions(images, y), found)
    assert svc_checks.contradictions(x[:2], y[:2]).shape == (0, 2)
