"""The flow by implicit steps: closed forms, explicit integration in numpy, its limits, its endings, and bad input."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from scipy.special import expit
from scipy.stats import ortho_group

from geocompress import flow, frozen, modules, multipliers, networks, states, stiff, tasks
from geocompress.flow import Status
from geocompress.losses import SoftHinge, Square
from geocompress.stiff import stiff_flow

NET = networks.OneHidden(d=3, width=40)
X, Y = tasks.stripe(3).sample(14, 101)
SOFT = SoftHinge(3.0)


def run(loss=SOFT, alpha=1.0, params=None, x=X, y=Y, **settings):
    return list(stiff_flow(NET, params or NET.init(0), x, y, alpha=alpha, loss=loss, **settings))


def explicit(t, alpha=1.0, inertia=0.0, params=None, x=X, y=Y, sharpness=3.0, steps=1000):
    """Margins and weights at time t under the soft hinge, by equal Runge–Kutta steps, written out in numpy.

    Equal, because each of the many kinks would hold up a method that chooses.
    """
    params = params or NET.init(0)
    x, y, p, h = x.numpy(), y.numpy(), len(y), NET.width
    start = np.concatenate([params[k].numpy().ravel() for k in ("omega", "b", "beta")])

    def parts(w):
        return w[: 3 * h].reshape(h, 3), w[3 * h : 4 * h], w[4 * h :]

    def preactivations(w):
        omega, b, _ = parts(w)
        return x @ omega.T / math.sqrt(3) + b

    def output(w):
        return math.sqrt(2) / h * np.maximum(preactivations(w), 0) @ parts(w)[2]

    output_init = output(start)

    def force(w):
        z, beta = preactivations(w), parts(w)[2]
        c = expit(sharpness * (1 - alpha * y * (output(w) - output_init)))
        pull = math.sqrt(2) / p * c * y  # of (h/p) Σ c y ∇f
        through = pull[:, None] * (z > 0) * beta
        return np.concatenate([(through.T @ x / math.sqrt(3)).ravel(), through.sum(0), np.maximum(z, 0).T @ pull])

    def velocity(both):
        if not inertia:
            return force(both)
        w, v = np.split(both, 2)
        return np.concatenate([v, (force(w) - v) / inertia])

    state, dt = np.concatenate([start, np.zeros_like(start)]) if inertia else start, t / steps
    for _ in range(steps):
        first = velocity(state)
        second = velocity(state + dt / 2 * first)
        third = velocity(state + dt / 2 * second)
        state = state + dt / 6 * (first + 2 * second + 2 * third + velocity(state + dt * third))
    end = state[: len(start)]
    return torch.from_numpy(alpha * y * (output(end) - output_init)), torch.from_numpy(end)


def weights(state):
    return torch.cat([state.params[k].flatten() for k in ("omega", "b", "beta")])


def largest(a, b):
    return float((a - b).abs().max())


# --- the path -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1.0, 1e-3, 1e-6])
def test_margins_half_way_are_those_of_an_explicit_integration(alpha):
    whole = run(alpha=alpha)
    assert whole[-1].status is Status.FITTED
    t = whole[-1].t / 2
    margins, _ = explicit(t, alpha)
    assert float(margins.max()) > 0.2  # or nothing has happened yet
    errors = [largest(run(alpha=alpha, margin_tol=tol, max_time=t)[-1].margins, margins) for tol in (0.1, 3e-3)]
    assert errors[0] < 0.2
    assert errors[1] < 0.01
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize("inertia", [0.0, 1.0])
def test_the_observed_order_is_that_asked_for(inertia):
    """On neurons that their biases switch on or off for good: no kink is ever crossed."""
    params = NET.init(0)
    params["b"] = 8 * params["b"].sign()
    x, _ = tasks.stripe(3).sample(6, 104)
    data = {"params": params, "x": x, "y": torch.sign(x[:, 0] + 0.2 * x[:, 1])}
    _, exact = explicit(4.0, inertia=inertia, **data)
    observed = []
    for order, tolerances in ((1, (3e-2, 1e-2, 3e-3)), (2, (3e-3, 1e-3, 3e-4))):
        ends = [run(margin_tol=tol, order=order, inertia=inertia, max_time=4.0, **data)[-1] for tol in tolerances]
        errors = [largest(weights(end), exact) for end in ends]
        observed.append(-np.polyfit(np.log([end.step for end in ends]), np.log(errors), 1)[0])
    assert observed[0] == pytest.approx(1, abs=0.4)
    assert observed[1] == pytest.approx(2, abs=0.4)


KERNEL = frozen.FrozenKernel(NET.ntk(NET.init(0), X))
RATE = (torch.outer(Y, Y) * KERNEL.gram).numpy() / len(Y)


def on_kernel(alpha=1.0, loss=None, **settings):
    loss = loss or Square()
    return list(stiff_flow(KERNEL, KERNEL.init(), KERNEL.points, Y, alpha=alpha, loss=loss, **settings))


def square_loss(t, inertia):
    """Margins of τ m̈ + ṁ = R (1 − m) from rest at zero."""
    n = len(RATE)
    if not inertia:
        return 1 - expm(-RATE * t) @ np.ones(n)
    matrix = np.block([[np.zeros((n, n)), np.eye(n)], [-RATE / inertia, -np.eye(n) / inertia]])
    return 1 + (expm(matrix * t) @ np.concatenate([-np.ones(n), np.zeros(n)]))[:n]


@pytest.mark.parametrize("inertia", [0.0, 0.01, 0.3, 3.0, 30.0])
def test_the_square_loss_at_constant_kernel_is_a_matrix_exponential(inertia):
    """Whatever the inertia: it is as if the time were as fine as the tolerance asks, though steps grow threefold."""
    errors = []
    for tol in (0.1, 1e-4):
        path = on_kernel(margin_tol=tol, inertia=inertia, max_time=40.0)
        assert (path[-1].status, path[-1].t) == (Status.MAX_TIME, 40.0)
        assert len(path) < 12
        errors.append(max(np.abs(s.margins.numpy() - square_loss(s.t, inertia)).max() for s in path))
    assert errors[0] < 0.15
    assert errors[1] < 0.003
    assert errors[1] < 0.05 * errors[0]


@pytest.mark.parametrize("alpha", [1e-3, 1e6])
def test_alpha_sets_the_time_of_a_constant_kernel(alpha):
    for slow, fast in zip(on_kernel(max_time=40.0), on_kernel(alpha, max_time=40.0 / alpha), strict=True):
        assert alpha * fast.t == pytest.approx(slow.t, rel=1e-9)
        torch.testing.assert_close(fast.margins, slow.margins, rtol=1e-9, atol=1e-9)


def test_the_velocity_is_that_of_the_weights():
    """At constant kernel: after many τ it is the force, and early on it grows by force/τ."""
    inertia = 0.5
    for state in on_kernel(margin_tol=1e-5, inertia=inertia, max_time=20.0)[1:]:
        step = 1e-5
        ahead, behind = (square_loss(state.t + s * step, inertia) for s in (1, -1))
        moving = KERNEL.gram @ state.velocity["coefficients"] * Y
        np.testing.assert_allclose(moving.numpy(), (ahead - behind) / (2 * step), rtol=0, atol=1e-3)


@pytest.mark.parametrize("inertia", [0.3, 3.0])
def test_inertia_is_that_of_an_explicit_integration(inertia):
    margins, _ = explicit(4.0, inertia=inertia)
    plain, _ = explicit(4.0)
    errors = [largest(run(margin_tol=tol, inertia=inertia, max_time=4.0)[-1].margins, margins) for tol in (0.1, 3e-3)]
    assert largest(plain, margins) > 0.05  # or inertia makes no difference
    assert errors[0] < 0.1
    assert errors[1] < 6e-3
    assert errors[1] < 0.2 * errors[0]


def test_inertia_that_vanishes_leaves_the_plain_flow():
    tol = 1e-3  # where rounding decides whether a step stands, the two part by no more
    plain = run(margin_tol=tol, max_time=3.0)[-1]
    distances = [
        largest(run(margin_tol=tol, inertia=tau, max_time=3.0)[-1].margins, plain.margins) for tau in (0.3, 1e-2, 1e-9)
    ]
    assert distances[0] > 0.02 > distances[1] > 3 * tol
    assert distances[2] < tol


def test_a_sharp_soft_hinge_follows_the_hinge():
    hinge = list(flow.hinge_flow(NET, NET.init(0), X, Y, alpha=1.0, margin_tol=3e-3, state_tol=3e-3, max_time=1.5))[-1]
    distance = [
        largest(run(SoftHinge(s), margin_tol=3e-3, max_time=1.5)[-1].margins, hinge.margins)
        for s in (10.0, 40.0, 200.0)
    ]
    assert distance[2] < 0.02
    assert distance[2] < 0.7 * distance[1] < 0.5 * distance[0]


def test_a_sharp_soft_hinge_comes_to_the_end_of_the_hinge():
    """At constant kernel, points that the hinge holds on the margin included."""
    *_, hinge = frozen.kernel_flow(KERNEL.gram, Y, margin_tol=1e-3)
    assert hinge.status is on_kernel(loss=SoftHinge(200.0))[-1].status is Status.FITTED
    soft = on_kernel(loss=SoftHinge(200.0), margin_tol=1e-2, max_time=hinge.t)[-1]
    torch.testing.assert_close(soft.margins, hinge.margins, rtol=0, atol=0.05)
    assert float(hinge.margins.max()) > 1.3


def test_the_loss_falls_and_states_are_what_they_say():
    for loss in (SOFT, SoftHinge(200.0), Square()):
        path = run(loss, max_time=10.0)
        assert len(path) > 10
        assert max(np.diff([s.loss for s in path])) <= 0
        assert np.all(np.diff([s.t for s in path if s.status is Status.RUNNING]) > 0)
        for s in path[:: len(path) // 4]:
            output = NET.forward(s.params, X) - NET.forward(NET.init(0), X)
            torch.testing.assert_close(s.margins, Y * output, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(s.multipliers, -loss.slope(s.margins))
            assert s.loss == pytest.approx(float(loss.value(s.margins).mean()))
            assert s.velocity is None


def test_the_initial_parameters_are_left_alone():
    params = NET.init(0)
    run(params=params, max_steps=3)
    run(params=params, max_steps=3, inertia=1.0)
    assert all(torch.equal(params[k], v) for k, v in NET.init(0).items())


def test_float32_follows_float64():
    params = {k: v.float() for k, v in NET.init(0).items()}
    for inertia in (0.0, 0.5):
        end = run(params=params, x=X.float(), y=Y.float(), inertia=inertia, margin_tol=1e-2, max_time=3.0)[-1]
        assert end.margins.dtype == torch.float32
        other = run(inertia=inertia, margin_tol=1e-2, max_time=3.0)[-1]
        torch.testing.assert_close(end.margins.double(), other.margins, rtol=0, atol=2e-3)


@pytest.mark.parametrize("inertia", [0.0, 0.5])
def test_a_restart_from_any_state_gives_the_same_trajectory(inertia, tmp_path):
    whole = run(inertia=inertia, alpha=1e-3)
    assert whole[-1].status is Status.FITTED
    for number, limit in itertools.product((0, 1, len(whole) // 4, len(whole) // 2, len(whole) - 2), (False, True)):
        stopped = whole[number]
        if limit and number:
            stopped = run(inertia=inertia, alpha=1e-3, max_steps=number)[-1]
            assert stopped.status is Status.MAX_STEPS
        states.save(stopped, tmp_path / "state.pt")
        start, _ = states.load(tmp_path / "state.pt")
        again = run(inertia=inertia, alpha=1e-3, start=start)
        assert [(s.t, s.step, s.status) for s in again] == [(s.t, s.step, s.status) for s in whole[number:]]
        assert all(torch.equal(a.margins, b.margins) for a, b in zip(again, whole[number:], strict=True))


def test_a_run_can_stop_on_the_way_and_go_on():
    whole = run(margin_tol=1e-2, max_time=2.0)[-1]
    first = run(margin_tol=1e-2, max_time=1.0)[-1]
    assert first.dt > 1e-3  # the step that was cut to land on the time did not shorten the next
    torch.testing.assert_close(
        run(margin_tol=1e-2, start=first, max_time=2.0)[-1].margins, whole.margins, rtol=0, atol=1e-2
    )


# --- a step at constant kernel --------------------------------------------------------------------------------------


def stiff_rate(p=12, seed=0):
    """A rate with eigenvalues from 1e-3 to 1e4."""
    basis = ortho_group.rvs(p, random_state=seed)
    return torch.from_numpy(basis * np.logspace(-3, 4, p) @ basis.T)


@pytest.mark.parametrize("inertia", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("loss", [SOFT, Square()], ids=str)
def test_a_stiff_step_against_an_implicit_integrator_of_scipy(loss, inertia):
    rate, dt = stiff_rate(), 0.7
    generator = torch.Generator().manual_seed(1)
    margins = torch.randn(12, generator=generator, dtype=torch.float64)
    drift = rate @ torch.rand(12, generator=generator, dtype=torch.float64) * 1e-3 if inertia else None

    def velocity(_, both):
        m = both[:12]
        force = -(rate @ loss.slope(torch.from_numpy(m))).numpy()
        return np.concatenate([both[12:], (force - both[12:]) / inertia]) if inertia else force

    begin = torch.cat([margins, drift]) if inertia else margins
    exact = torch.from_numpy(
        solve_ivp(velocity, (0, dt), begin.numpy(), method="Radau", rtol=1e-9, atol=1e-10).y[:, -1]
    )
    errors = []
    for tol in (1e-2, 1e-4):
        found = multipliers.integrate(loss, rate, margins, dt, tol, drift, inertia)
        errors.append(largest(found.margins.clamp(max=loss.cap), exact[:12].clamp(max=loss.cap)))
        coast, decay = multipliers.coasting(dt, inertia)
        carried, left = (0.0, 0.0) if drift is None else (coast * drift, decay * drift)
        torch.testing.assert_close(found.margins, margins + carried + rate @ found.pushes, rtol=1e-7, atol=1e-7)
        if inertia:
            torch.testing.assert_close(found.drift, left + rate @ found.pulls, rtol=1e-7, atol=1e-6)
        else:
            mean = found.pushes / dt
            assert loss != SOFT or 0 < float(mean.min()) <= float(mean.max()) < 1
    assert errors[0] < 0.3  # of steps right to 1e-2, hundreds of them where margins swing
    assert errors[1] < 0.03
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("dt", [1e-2, 1.0, 1e6])
def test_one_step_has_the_stability_function_of_the_method(dt):
    """R(z) = (1 − (1 − 2γ) z)/(1 + γ z)², z = λ dt, γ = 1 − 1/√2, which vanishes as z → ∞."""
    basis = ortho_group.rvs(6, random_state=0)
    values, gamma = np.logspace(-3, 2, 6), 1 - 1 / math.sqrt(2)
    rate = torch.from_numpy(basis * values @ basis.T)
    found = multipliers.integrate(Square(), rate, torch.zeros(6, dtype=torch.float64), dt, 1e-9, splits=0)
    left = (1 - (1 - 2 * gamma) * values * dt) / (1 + gamma * values * dt) ** 2
    exact = 1 - basis @ (left * (basis.T @ np.ones(6)))
    np.testing.assert_allclose(found.margins.numpy(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "size"), [*itertools.product([SOFT, SoftHinge(500.0), Square()], [1e-6, 1.0, 1e3]), (Square(), 1e7)]
)
def test_a_stage_satisfies_its_equation(loss, size):
    gram = size * stiff_rate() / 1e4
    margins = 3 * torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    c = multipliers.stage(loss, gram, margins)
    assert largest(c, -loss.slope(margins + gram @ c)) < 1e-6


@pytest.mark.parametrize("loss", [SOFT, SoftHinge(500.0), Square()])
def test_a_stage_on_a_gram_that_is_none_is_solved_or_lost(loss):
    generator = torch.Generator().manual_seed(5)
    endings = set()
    for _ in range(200):
        root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        gram, margins = (root + root.T) / 4, 2 * torch.randn(4, generator=generator, dtype=torch.float64)
        c = multipliers.stage(loss, gram, margins)
        endings.add(c is None)
        assert c is None or largest(gram @ c, -gram @ loss.slope(margins + gram @ c)) < 1e-6
    assert endings == {False, True}


def test_a_kernel_that_is_none_has_no_step():
    rate = -10 * torch.eye(3, dtype=torch.float64)
    assert multipliers.integrate(Square(), rate, torch.zeros(3, dtype=torch.float64), 1.0, 0.1) is None
    assert multipliers.stage(SOFT, rate[:1, :1] / 20, torch.zeros(1, dtype=torch.float64)) is None


@pytest.mark.parametrize(("dt", "inertia"), [(0.3, 2.0), (5.0, 0.1), (1e-7, 1.0)])
def test_coasting_is_the_integral_of_what_is_left(dt, inertia):
    integral = quad(lambda t: math.exp(-t / inertia), 0, dt, epsabs=0)[0]
    assert multipliers.coasting(dt, inertia) == pytest.approx((integral, math.exp(-dt / inertia)), rel=1e-12)


def test_without_inertia_nothing_coasts():
    assert multipliers.coasting(1.0, 0.0) == (0.0, 0.0)


# --- endings --------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_the_reason():
    fitted = run()
    assert fitted[-1].status is Status.FITTED
    assert bool((fitted[-1].margins >= 1).all())
    assert not bool((fitted[-2].margins >= 1).all())
    small = run(Square(), loss_tol=1e-2)
    assert small[-1].status is Status.LOSS_REACHED
    assert small[-1].loss <= 1e-2 < small[-2].loss
    few = run(max_steps=3)
    assert [s.status for s in few] == [Status.RUNNING] * 4 + [Status.MAX_STEPS]
    assert few[-1].step == 3


def test_a_run_lands_on_its_last_time_whatever_rounding_does():
    for max_time in [1e-12, *np.random.default_rng(0).uniform(1, 2, 20)]:
        end = on_kernel(max_time=float(max_time))[-1]
        assert (end.status, end.t) == (Status.MAX_TIME, max_time)


def test_a_run_with_next_to_nothing_left_of_its_time_lands_on_it_too():
    middle = run(max_steps=5)[-1]
    later = middle.t * (1 + 1e-13)
    end = run(start=middle, max_time=later)[-1]
    assert (end.status, end.t) == (Status.MAX_TIME, later)
    assert run(start=middle, max_time=middle.t / 2)[-1].t == middle.t


@pytest.mark.parametrize("inertia", [0.0, 0.5])
def test_contradictory_points_end_where_their_pulls_cancel(inertia):
    """A linear net under the square loss: least squares, far from every label."""
    x, y = torch.cat([X, X[3:4]]), torch.cat([Y, -Y[3:4]])
    network = modules.ModuleNetwork(torch.nn.Linear(3, 1).double())
    *_, end = stiff_flow(network, network.init(), x, y, alpha=1.0, loss=Square(), inertia=inertia)
    assert end.status is Status.STATIONARY
    assert set(end.pulling.tolist()) >= {3, 14}
    assert end.conflicts.tolist() == [[3, 14]]
    design = torch.cat([x, torch.ones(15, 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    torch.testing.assert_close(end.margins, y * (design @ best), rtol=0, atol=1e-6)


def test_what_cannot_move_is_stationary():
    dead = {k: torch.zeros_like(v) for k, v in NET.init(0).items()}
    assert run(params=dead)[-1].status is Status.STATIONARY


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contradicting_points_end_a_soft_hinge_when_the_others_are_fitted(dtype):
    """It would push those for ever: no run of it is at rest."""
    x, y = (torch.cat([part, sign * part[3:4]]).to(dtype) for part, sign in ((X, 1), (Y, -1)))
    params = {k: v.to(dtype) for k, v in NET.init(0).items()}
    *_, end = run(params=params, x=x, y=y, max_steps=500)
    assert end.status is Status.STATIONARY
    assert {14} <= set((end.margins < 1).nonzero()[:, 0].tolist()) <= {3, 14}
    assert float(end.margins[3] + end.margins[14]) == pytest.approx(0, abs=1e-5)
    assert end.conflicts.tolist() == [[3, 14]]
    (again,) = run(params=params, x=x, y=y, start=end)
    assert again.status is Status.STATIONARY


def test_a_rate_that_overflows_is_named():
    huge = {k: 1e80 * v for k, v in NET.init(0).items()}
    *_, end = run(params=huge, alpha=1e300, loss=Square())
    assert end.status is Status.DIVERGED


class Broken(networks.OneHidden):
    """Not a number from some weight on (`DIVERGED`), or outputs that jump whatever the step (`STALLED`)."""

    kind = math.nan

    def forward(self, params, x):
        output = super().forward(params, x)
        if float((params["beta"] - NET.init(0)["beta"]).abs().max()) > 0.01:
            noise = torch.frac(1e9 * params["beta"].sum())
            output = output + (math.nan if math.isnan(self.kind) else 100 + noise)
        return output


@pytest.mark.parametrize(("kind", "status"), [(math.nan, Status.DIVERGED), (0.0, Status.STALLED)])
@pytest.mark.parametrize("inertia", [0.0, 0.5])
def test_a_flow_that_cannot_go_on_is_named_and_left_where_it_was(kind, status, inertia, monkeypatch):
    monkeypatch.setattr(Broken, "kind", kind)
    *_, end = stiff_flow(Broken(d=3, width=40), NET.init(0), X, Y, alpha=1.0, loss=SOFT, inertia=inertia, max_steps=500)
    assert end.status is status
    assert bool(end.margins.isfinite().all())
    assert largest(end.params["beta"], NET.init(0)["beta"]) <= 0.01


def test_margins_that_nothing_was_wrong_with_have_not_diverged(monkeypatch):
    monkeypatch.setattr(stiff, "integrate", lambda *_, **__: None)
    first, end = stiff_flow(NET, NET.init(0), X, Y, alpha=1.0, loss=SOFT)
    assert end.status is Status.STALLED
    assert torch.equal(end.margins, first.margins)


# --- bad input ------------------------------------------------------------------------------------------------------

BAD = {
    "alpha": ({"alpha": 0.0}, ValueError, "alpha: expected"),
    "alpha nan": ({"alpha": math.nan}, ValueError, "alpha: expected"),
    "margin_tol": ({"margin_tol": 0.0}, ValueError, "margin_tol: expected"),
    "order": ({"order": 3}, ValueError, "order: expected 1 or 2, got 3"),
    "inertia": ({"inertia": -1.0}, ValueError, "inertia: expected"),
    "inertia without end": ({"inertia": math.inf}, ValueError, "inertia: expected"),
    "loss_tol": ({"loss_tol": -1.0}, ValueError, "loss_tol: expected"),
    "no time": ({"max_time": math.nan}, ValueError, "max_time: expected"),
    "time backwards": ({"max_time": -1.0}, ValueError, "max_time: expected"),
    "no steps": ({"max_steps": 0}, ValueError, "max_steps: expected"),
    # while testing, jaxtyping says it in words of its own before the flow does
    "no loss": ({"loss": "hinge"}, TypeError, "loss"),
    "the class of a loss": ({"loss": Square}, TypeError, r"loss: expected .*, got the class Square; call it"),
    "labels": ({"y": 2 * Y}, ValueError, "stiff_flow: labels must be"),
    "one class": ({"y": torch.ones_like(Y)}, ValueError, "stiff_flow: both classes must be present"),
    "dtype": ({"x": X.float()}, TypeError, "stiff_flow: x, y and parameters must share"),
    "nan": ({"x": X.where(X > 0, math.nan)}, ValueError, "stiff_flow: x, y and parameters must be finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_the_first_step(case):
    change, error, message = BAD[case]
    with pytest.raises(error, match=message):
        stiff_flow(NET, NET.init(0), **({"x": X, "y": Y, "alpha": 1.0, "loss": SOFT} | change))


def test_a_start_of_other_data_is_refused():
    other = run(x=X[:9], y=Y[:9], max_steps=1)[-1]
    with pytest.raises(ValueError, match="`start` has 9 points, the data have 14"):
        run(start=other)


def test_a_start_of_another_inertia_is_refused():
    with_velocity = run(inertia=0.5, max_steps=1)[-1]
    with pytest.raises(ValueError, match="with inertia 0 expected a `start` with no velocity, got one"):
        run(start=with_velocity)
    with pytest.raises(ValueError, match=r"with inertia 0.5 expected a `start` with a velocity, got none"):
        run(inertia=0.5, start=dataclasses.replace(with_velocity, velocity=None))
