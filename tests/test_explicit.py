"""Explicit Euler of the library against the reference written without it."""

import numpy as np
import pytest

import reference
from geocompress import explicit, networks, tasks

NET = networks.OneHidden(d=3, width=20)
X, Y = tasks.stripe(3).sample(10, 3)


def test_agrees_with_the_reference_in_numpy():
    settings = {"alpha": 0.5, "dt": 0.01}
    times, margins = explicit.hinge_flow(NET, NET.init(0), X, Y, max_time=6.0, **settings)
    slow_times, slow = reference.explicit_hinge_flow(NET.init(0), X, Y, t_end=6.0, **settings)
    shared = min(len(times), len(slow_times))
    assert shared > 500
    np.testing.assert_allclose(times[:shared], slow_times[:shared], atol=1e-12)
    np.testing.assert_allclose(margins[:shared], slow[:shared], rtol=1e-9, atol=1e-9)


def test_a_fitted_point_chatters_within_one_step_of_its_margin():
    _, margins = explicit.hinge_flow(NET, NET.init(0), X, Y, alpha=0.5, dt=0.01, max_time=30.0)
    late = margins[-500:]
    crossings = (np.diff(late >= 1, axis=0) != 0).sum(0)
    assert crossings.max() > 50
    assert np.abs(late[:, crossings.argmax()] - 1).max() < 0.05


@pytest.mark.parametrize("bad", [{"dt": 0.0}, {"max_time": -1.0}, {"alpha": float("nan")}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected a finite number"):
        explicit.hinge_flow(NET, NET.init(0), X, Y, **({"alpha": 1.0, "dt": 0.1, "max_time": 1.0} | bad))
