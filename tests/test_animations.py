"""Interactive figures: what a frame shows, and a page that needs no other host."""

import re

import numpy as np
import pytest

from geocompress import animations

PLANES = np.random.default_rng(0).standard_normal((9, 30, 2)).astype(np.float32) * 10.0 ** np.arange(9)[:, None, None]
TIMES, LAMBDAS = np.arange(9.0), np.linspace(1, 5, 9)


def test_each_frame_is_drawn_in_units_of_its_own_longest_arrow():
    figure = animations.moving_neurons(PLANES, TIMES, LAMBDAS, neurons=30, frames=9)
    assert len(figure.frames) > 5
    for frame in figure.frames:
        plane = PLANES[int(frame.name)]
        drawn = np.stack([frame.data[0].x, frame.data[0].y], axis=1)
        assert np.linalg.norm(drawn, axis=1).max() == pytest.approx(1)
        np.testing.assert_allclose(drawn, plane / np.linalg.norm(plane, axis=1).max(), rtol=1e-6)


def test_frames_keep_the_first_and_the_last_step_and_say_when_they_are():
    figure = animations.moving_neurons(PLANES, TIMES, LAMBDAS, neurons=5, frames=5)
    assert [frame.name for frame in figure.frames] == ["0", "1", "2", "4", "8"]  # even in log t
    assert len(figure.data[0].x) == 5
    assert figure.frames[-1].layout.title.text == "t = 8,  λ = 5"
    assert [step.label for step in figure.layout.sliders[0].steps] == ["0", "1", "2", "4", "8"]


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="got 9, 8, 9"):
        animations.moving_neurons(PLANES, TIMES[:8], LAMBDAS)


def test_embedded_html_takes_plotly_from_the_shared_copy_and_can_be_read_aloud():
    figure = animations.moving_neurons(PLANES, TIMES, LAMBDAS)
    html = animations.embed(figure, "some-neurons", 'arrows "turn"')
    assert re.findall(r'src="([^"]*)"', html) == [animations.PLOTLY_FROM_CHAPTER]
    assert 'id="some-neurons"' in html
    assert 'aria-label="arrows &quot;turn&quot;"' in html
    assert animations.embed(figure, "some-neurons", 'arrows "turn"') == html  # the same build gives the same page
