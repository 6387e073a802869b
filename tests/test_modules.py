"""Modules as networks: against the closed form of one hidden layer, trained to the end, and bad input."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import reference
from geocompress import flow, modules, networks, states, tasks
from geocompress.flow import Status
from reference import OneHiddenModule

NET = networks.OneHidden(d=3, width=40)


class OnlyOneByOne(OneHiddenModule):
    """A module that looks at its numbers, which no vectorisation allows."""

    def forward(self, x):
        return super().forward(x) * (1.0 if float(x.sum()) < math.inf else 0.0)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("how", [{}, {"block": 4}, {"memory_gb": 1e-9 * 8 * 200 * 20}])
def test_all_products_are_those_of_the_closed_form(how):
    params = NET.init(0)
    ours, theirs = modules.ModuleNetwork(OneHiddenModule(params), NET.width, **how), NET
    x, y = tasks.stripe(3).sample(14, 101)
    same(ours.forward(params, x), theirs.forward(params, x))
    a, b = ours.linearise(params, x), theirs.linearise(params, x)
    same(a.output, b.output)
    tangent, rows = NET.init(5), torch.tensor([1, 3, 4, 7, 8, 12, 13])
    for _ in range(2):  # before a Gram has made the Jacobian, and after
        for name, value in a.pullback(y).items():
            same(value, b.pullback(y)[name])
        same(a.pushforward(tangent), b.pushforward(tangent))
        same(a.gram(rows), b.gram(rows))
        same(a.gram(), b.gram())


def test_the_jacobian_is_held_where_half_of_the_budget_holds_it():
    """14 points of 200 weights take 22.4 kB; either way the products are the same."""
    params, (x, y) = NET.init(0), tasks.stripe(3).sample(14, 101)
    budgets = [share * 14 * 200 * 8 / 1e9 for share in (2.01, 1.99)]
    held, made = (
        modules.ModuleNetwork(OneHiddenModule(params), NET.width, memory_gb=budget).linearise(params, x)
        for budget in budgets
    )
    same(held.gram(), made.gram())
    assert held._jacobian is not None
    assert made._jacobian is None
    for name, value in held.pullback(y).items():
        same(value, made.pullback(y)[name])
    same(held.pushforward(NET.init(5)), made.pushforward(NET.init(5)))


def test_a_module_follows_the_trajectory_of_the_closed_form():
    """Their averages over a step differ (half-way against exact), so they agree as far as their tolerance goes."""
    params = NET.init(0)
    x, y = tasks.stripe(3).sample(14, 101)
    times = [0.5, 1.0, 2.0, 4.0, 8.0]
    settings = {"alpha": 1.0, "margin_tol": 1e-3, "state_tol": 1e-3, "max_time": 8.0}
    ours, theirs = (
        states.at_times(flow.hinge_flow(network, params, x, y, **settings), times)
        for network in (modules.ModuleNetwork(OneHiddenModule(params), NET.width), NET)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.margins.clamp(max=1.5), b.margins.clamp(max=1.5), rtol=0, atol=1e-2)


def double(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*(layer() for layer in layers)).double()


def dense():
    deep = (lambda: nn.Linear(3, 30), nn.ReLU, lambda: nn.Linear(30, 30), nn.ReLU, lambda: nn.Linear(30, 1))
    return double(*deep), *tasks.stripe(3).sample(24, 101)


def convolutional():
    images = torch.from_numpy(load_digits().images[:24] / 8 - 1)[:, None]
    parity = torch.from_numpy(1.0 - 2.0 * (load_digits().target[:24] % 2))
    layers = (lambda: nn.Conv2d(1, 6, 3), nn.SiLU, lambda: nn.Conv2d(6, 6, 3, groups=6, stride=2), nn.SiLU, nn.Flatten)
    return double(*layers, lambda: nn.Linear(24, 1)), images, parity


@pytest.mark.parametrize("case", [dense, convolutional])
def test_deep_and_convolutional_modules_train_to_the_end(case):
    module, x, y = case()
    network = modules.ModuleNetwork(module)
    before = network.init()
    jacobian = reference.jacobian(lambda p, z: torch.func.functional_call(module, p, (z,))[:, 0], before, x)
    same(network.linearise(before, x).gram(), jacobian @ jacobian.T)
    *_, end = flow.hinge_flow(network, before, x, y, alpha=0.1)
    assert end.status is Status.FITTED
    same(end.margins, 0.1 * y * (network.forward(end.params, x) - network.forward(before, x)))
    assert all(torch.equal(before[k], v) for k, v in module.named_parameters())  # the module itself is untouched


def test_what_needs_no_gradient_and_buffers_stay_fixed():
    module = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double().eval()
    module[0].requires_grad_(False)
    network = modules.ModuleNetwork(module)
    x, y = tasks.stripe(3).sample(5, 101)
    assert set(network.init()) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert set(network.linearise(network.init(), x).pullback(y)) == set(network.init())


def test_a_module_that_cannot_be_vectorised_works_too():
    params = NET.init(0)
    x, _ = tasks.stripe(3).sample(6, 101)
    same(modules.ModuleNetwork(OnlyOneByOne(params)).linearise(params, x).gram(), NET.linearise(params, x).gram())


NOISY = {
    "batch normalisation": (nn.BatchNorm1d(3), "'0' .BatchNorm1d. normalises by the statistics"),
    "no running statistics": (nn.BatchNorm1d(3, track_running_stats=False).eval(), "running statistics"),
    "dropout": (nn.Dropout(0.1), "drops units at random; |drops units at random"),
    "dropout of a recurrent net": (nn.LSTM(3, 3, 2, dropout=0.2), "drops units"),
}


@pytest.mark.parametrize("case", NOISY)
def test_chance_and_batch_statistics_are_refused(case):
    layer, message = NOISY[case]
    with pytest.raises(ValueError, match=message):
        modules.ModuleNetwork(nn.Sequential(layer, nn.Linear(3, 1)))


def test_a_module_switched_to_training_later_is_refused_too():
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1)).double().eval()
    network = modules.ModuleNetwork(module)
    module.train()
    with pytest.raises(ValueError, match=r"call module.eval\(\)"):
        network.linearise(network.init(), tasks.stripe(3).sample(5, 101)[0])


@pytest.mark.parametrize("module", [nn.Linear(3, 2), nn.Flatten(0), nn.LSTM(3, 1)])
def test_anything_but_one_output_a_sample_is_refused(module):
    module = nn.Sequential(nn.Linear(3, 3), module).double()
    network = modules.ModuleNetwork(module)
    with pytest.raises(ValueError, match="one output a sample"):
        network.linearise(network.init(), tasks.stripe(3).sample(5, 101)[0])


BAD = {
    "no module": ({"module": NET}, TypeError, "Module"),
    "no width": ({"width": 0}, ValueError, "width"),
    "no memory": ({"memory_gb": 0.0}, ValueError, "memory_gb"),
    "nothing to train": ({"module": nn.ReLU()}, ValueError, "requires_grad=True"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case):
    change, error, message = BAD[case]
    with pytest.raises(error, match=message):
        modules.ModuleNetwork(**({"module": nn.Linear(3, 1)} | change))


def test_a_memory_budget_below_a_block_of_rows_is_refused():
    network = modules.ModuleNetwork(OneHiddenModule(NET.init(0)), memory_gb=1e-6)
    with pytest.raises(ValueError, match=r"memory_gb: expected at least .* got 1e-06"):
        network.linearise(NET.init(0), tasks.stripe(3).sample(5, 101)[0]).gram()
