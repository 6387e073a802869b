"""Which points are awake: the choice of the set, its reach, and the cases where everything is."""

import math

import pytest
import torch

from geocompress import screening

MARGINS = torch.tensor([0.3, 9.0, 1.6, 40.0, 1.2, 5.0, 30.0, 70.0], dtype=torch.float64)
SIZES = torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("speed", [0.0, math.inf])
def test_an_unknown_speed_leaves_everything_awake(speed):
    rows, reach = screening.awake(MARGINS, SIZES, speed)
    assert rows.tolist() == list(range(8))
    assert reach == math.inf


@pytest.mark.parametrize("speed", [1e-6, 0.1, 1.0, 3.0, 1e3])
def test_points_asleep_may_go_as_far_as_the_reach_and_no_step_further_is_near(speed):
    rows, reach = screening.awake(MARGINS, SIZES, speed)
    asleep = sorted(set(range(8)) - set(rows.tolist()))
    assert bool((MARGINS[asleep] - reach * SIZES[asleep] >= screening.CAP - 1e-12).all())
    assert reach > 2 * speed
    assert {0, 4} <= set(rows.tolist())  # below the cap


def test_the_faster_the_weights_move_the_more_points_are_awake():
    counts = [len(screening.awake(MARGINS, SIZES, speed)[0]) for speed in (1e-6, 0.3, 3.0, 30.0, 1e3)]
    assert counts == sorted(counts)
    assert counts[0] == 2
    assert counts[-1] == 8
