"""Losses of the margin: values, slopes and curvatures, the hinge as a limit, and where points stop pulling."""

import math

import pytest
import torch

from geocompress.losses import NEGLIGIBLE, Loss, SoftHinge, Square

LOSSES = [SoftHinge(0.5), SoftHinge(3.0), SoftHinge(200.0), Square()]
MARGINS = torch.linspace(-1, 3, 401, dtype=torch.float64)


def difference(function):
    step = 1e-5
    return (function(MARGINS + step) - function(MARGINS - step)) / (2 * step)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_slopes_are_those_of_the_values(loss):
    torch.testing.assert_close(loss.slope(MARGINS), difference(loss.value), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_curvatures_are_those_of_the_values(loss):
    torch.testing.assert_close(loss.curvature(MARGINS), difference(loss.slope), rtol=1e-5, atol=1e-7)
    assert float(loss.curvature(MARGINS).min()) >= 0


@pytest.mark.parametrize("sharpness", [0.5, 3.0, 200.0])
def test_beyond_the_cap_a_point_pulls_by_less_than_a_hundredth(sharpness):
    loss = SoftHinge(sharpness)
    at = torch.tensor([loss.cap], dtype=torch.float64)
    assert float(-loss.slope(at)) == pytest.approx(NEGLIGIBLE, rel=1e-9)
    assert float(-loss.slope(at + 0.1 / sharpness)) < NEGLIGIBLE
    assert loss.cap > loss.fitted_margin == 1


def test_the_square_loss_pulls_for_ever():
    loss = Square()
    assert loss.cap == loss.fitted_margin == math.inf
    torch.testing.assert_close(loss.slope(MARGINS), MARGINS - 1)


def test_the_soft_hinge_is_within_log_2_over_s_of_the_hinge_and_never_overflows():
    m = torch.linspace(-1e3, 1e3, 10_001, dtype=torch.float64)
    for s in (0.3, 3.0, 300.0):
        gap = SoftHinge(s).value(m) - (1 - m).clamp(min=0)
        assert float(gap.min()) >= -1e-9
        assert float(gap.max()) <= math.log(2) / s * (1 + 1e-9)
        assert bool((SoftHinge(s).curvature(m).isfinite() & SoftHinge(s).slope(m).isfinite()).all())


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_losses_are_what_flows_take(loss):
    assert isinstance(loss, Loss)
    assert not isinstance(loss.cap, Loss)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, math.nan, math.inf])
def test_a_sharpness_out_of_range_is_refused(sharpness):
    with pytest.raises(ValueError, match="sharpness"):
        SoftHinge(sharpness)
