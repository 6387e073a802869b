"""The machine found one point at a time: the same as by the other way, and its conditions where that way is lost."""

import functools

import pytest
import torch

from geocompress import activeset, kernels, svc, tasks

KERNELS = {
    "laplace": functools.partial(kernels.laplace, scale=100.0),
    "tangent": kernels.ntk_one_hidden,
}


def nearly_linear(p=400, d=6, share=1e-8, seed=0):
    """A linear kernel, and a small share of a curved one on which the label depends."""
    x, y = tasks.stripe(d).sample(p, seed)
    return 1 + x @ x.T / d + share * kernels.laplace(x, scale=1.0), y


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("task", [tasks.stripe(3), tasks.cylinder(4)])
def test_the_same_machine_as_by_the_other_way(name, task):
    x, y = task.sample(150, 2)
    found = activeset.hard_margin(KERNELS[name](x), y)
    other = svc.hard_margin_svc(KERNELS[name], x, y)
    assert found.support.tolist() == other.support.tolist()
    torch.testing.assert_close(found.charges, other.a * other.y, rtol=1e-6, atol=1e-9)
    assert found.bias == pytest.approx(other.bias, rel=1e-6, abs=1e-9)
    assert found.violation < 1e-6
    assert found.steps >= len(found.support) - 2


@pytest.mark.parametrize("share", [1e-4, 1e-7, 1e-9])
def test_the_conditions_of_the_optimum_on_a_gram_of_nearly_low_rank(share):
    gram, y = nearly_linear(share=share)
    found = activeset.hard_margin(gram, y)
    margins = y * (gram[:, found.support] @ found.charges + found.bias)
    assert (found.charges * y[found.support] > 0).all()
    assert float(found.charges.sum().abs()) < 1e-9 * float(found.charges.abs().sum())
    assert found.violation == pytest.approx(1 - float(margins.min()), abs=1e-12)
    # rounding of charges that grow as 1 / share
    assert float((margins[found.support] - 1).abs().max()) < max(1e-6, 1e-13 / share)
    assert found.violation < max(2e-6, 1e-13 / share)


def test_the_order_of_the_points_changes_nothing():
    gram, y = nearly_linear(p=200, share=1e-6)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    found, shuffled = activeset.hard_margin(gram, y), activeset.hard_margin(gram[order][:, order], y[order])
    assert sorted(order[shuffled.support].tolist()) == found.support.tolist()
    assert shuffled.bias == pytest.approx(found.bias, rel=1e-4)


def test_two_points_carry_the_machine_between_them():
    x = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    found = activeset.hard_margin(x @ x.T, torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert found.charges.tolist() == pytest.approx([2 / 9, -2 / 9])
    assert found.bias == pytest.approx(1)
    assert found.steps == 0


def test_classes_that_touch_have_none():
    x, y = tasks.stripe(2).sample(30, 0)
    x, y = torch.cat([x, x[:1]]), torch.cat([y, -y[:1]])
    assert activeset.hard_margin(kernels.laplace(x, scale=1.0), y) is None
    x, y = tasks.stripe(1).sample(30, 1)  # no linear function separates a stripe
    assert activeset.hard_margin(x @ x.T, y) is None
