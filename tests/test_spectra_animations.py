"""The moving spectrum: what each frame shows, and that it stays light."""

import numpy as np
import pandas as pd
import pytest

from geocompress import animations, spectra_animations

RNG = np.random.default_rng(0)
N, P, K = 4, 30, 3
SERIES = pd.DataFrame({"t": [0.0, 1.0, 10.0, 100.0], "amplification": [1.0, 2.0, 5.0, 3.0], "alignment": [0.1] * 4})
VECTORS = np.stack([np.linalg.qr(RNG.standard_normal((P, K)))[0] for _ in range(N)])
PROJECTIONS, INFORMATION = RNG.random((N, K)), RNG.random((N, K))
X_1, Y = RNG.standard_normal(P), np.where(np.arange(P) % 3, 1, -1)


def moving(**changes):
    given = {"series": SERIES, "vectors": VECTORS, "projections": PROJECTIONS, "information": INFORMATION}
    given |= {"x_1": X_1, "y": Y} | changes
    return spectra_animations.moving_spectrum(**given)


def test_a_frame_shows_the_most_informative_vector_by_label_and_the_bars_of_its_time():
    figure = moving()
    assert [frame.name for frame in figure.frames] == ["0", "1", "2", "3"]
    for i, frame in enumerate(figure.frames):
        best = INFORMATION[i].argmax()
        assert frame.layout.title.text.endswith(f"above: r = {best + 1}")
        for dots, label in zip(frame.data[:2], (-1, 1), strict=True):
            np.testing.assert_allclose(dots.x, X_1[label == Y], rtol=1e-6)
            np.testing.assert_allclose(dots.y, np.sqrt(P) * VECTORS[i, label == Y, best], rtol=1e-5)
        np.testing.assert_allclose(frame.data[2].y, PROJECTIONS[i], atol=1e-4)
        np.testing.assert_allclose(frame.data[3].y, INFORMATION[i], atol=1e-4)
    for drawn, first in zip(figure.data, figure.frames[0].data, strict=True):
        np.testing.assert_array_equal(drawn.y, first.y)
    assert figure.layout.title.text.startswith("t = 0,  λ = 1,  alignment 0.10")


def test_few_points_are_drawn_when_asked_and_the_page_takes_the_shared_plotly():
    figure = moving(points=7)
    assert sum(len(dots.x) for dots in figure.data[:2]) == 7
    html = animations.embed(figure, "some-spectrum", "bars")
    assert animations.PLOTLY_FROM_CHAPTER in html
    assert len(html) < 60_000


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"got \[3, 4, 4, 4\] times"):
        moving(series=SERIES[:3])
    with pytest.raises(ValueError, match="30 components, 29 points and 30 labels"):
        moving(x_1=X_1[1:])
