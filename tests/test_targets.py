"""Two classes, several, or a number: how labels are read, and each answer against one written out."""

import math

import numpy as np
import pytest
import torch

from geocompress import spectrum, targets


def points(p=60, seed=0):
    return torch.randn(p, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel(a, b):
    return torch.exp(-torch.cdist(a, b))


@pytest.mark.parametrize(
    ("y", "outputs", "kind"),
    [
        (torch.tensor([-1.0, 1.0]).repeat(10), 1, targets.Signs),
        (torch.tensor([-1, 1]).repeat(10), 1, targets.Signs),
        (torch.tensor([0, 1]).repeat(10), 1, targets.Signs),
        (torch.tensor([0, 1]).repeat(10), 2, targets.Classes),
        (torch.tensor([0, 1, 2]).repeat(10), 3, targets.Classes),
        (torch.linspace(0, 1, 20), 1, targets.Values),
    ],
)
def test_what_labels_mean(y, outputs, kind):
    target = targets.read(y, outputs)
    assert type(target) is kind
    assert target.outputs == outputs


def test_zero_and_one_are_minus_and_plus():
    assert targets.read(torch.tensor([0, 1]).repeat(10), 1).y.tolist() == [-1.0, 1.0] * 10


@pytest.mark.parametrize(
    ("y", "outputs", "error", "message"),
    [
        (torch.ones(20), 1, ValueError, "at least two classes or values"),
        (torch.tensor([0.0, 1.0]).repeat(10), 1, ValueError, r"0 and 1 in floating point; use y.long\(\)"),
        (torch.tensor([0.0, math.nan]).repeat(10), 1, ValueError, "finite labels"),
        (torch.tensor([True, False]).repeat(10), 1, TypeError, "integers for classes"),
        (torch.tensor([-1.0, 1.0]).repeat(10), 2, ValueError, "choose one with output=k"),
        (torch.tensor([-1, 1]).repeat(10), 2, ValueError, "choose one with output=k"),
        (torch.linspace(0, 1, 20), 3, ValueError, "choose one with output=k"),
        (torch.tensor([0, 3]).repeat(10), 3, ValueError, "classes 0 … 2"),
        (torch.tensor([0, 1, 2]).repeat(10), 1, ValueError, "labels −1 and"),
        (torch.tensor([0, 1] * 9 + [2] * 2), 3, ValueError, "one with 2"),
    ],
)
def test_labels_that_are_no_target(y, outputs, error, message):
    with pytest.raises(error, match=message):
        targets.read(y, outputs)


def test_held_out_labels_follow_the_same_rule():
    assert targets.read(torch.tensor([0, 1]).repeat(10), 1).read(torch.tensor([1, 1]), "h").tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"h: expected classes 0 … 2"):
        targets.read(torch.tensor([0, 1, 2]).repeat(10), 3).read(torch.tensor([3]), "h")
    with pytest.raises(TypeError, match="floating point like y"):
        targets.read(torch.linspace(0, 1, 20), 1).read(torch.tensor([3]), "h")


def test_errors():
    signs = targets.read(torch.tensor([-1.0, 1.0]).repeat(10), 1)
    assert signs.error(torch.tensor([[2.0], [-1.0], [0.0], [1.0]]), torch.tensor([1.0, 1.0, 1.0, 1.0])) == 0.5
    classes = targets.read(torch.tensor([0, 1, 2]).repeat(10), 3)
    assert signs.error(torch.tensor([[2.0], [math.nan]]), torch.ones(2)) == 0.5
    assert classes.error(torch.tensor([[0.0, 1.0, 0.0], [0.0, math.nan, 0.0]]), torch.tensor([1, 1])) == 0.5
    assert classes.error(torch.eye(3), torch.tensor([0, 1, 0])) == pytest.approx(1 / 3)
    values = targets.read(torch.tensor([0.0, 2.0, 4.0]), 1)
    assert values.error(torch.full((2, 1), 2.0).double(), torch.tensor([1.0, 5.0]).double()) == pytest.approx(1)


def test_machine_of_two_classes_has_margin_one_and_knows_no_unit():
    x = points()
    y = torch.sign(x[:, 0])
    gram = kernel(x, x)
    told, status = targets.read(y, 1).machine(gram, gram)
    assert status == "SEPARATED"
    assert float((y * told[:, 0]).min()) == pytest.approx(1, abs=1e-3)
    assert torch.allclose(targets.read(y, 1).machine(1e9 * gram, 1e9 * gram)[0], told, atol=1e-3)


def test_no_machine_where_the_kernel_does_not_separate():
    x = points(200)
    y = torch.sign(x[:, 0])
    x[1], y[1] = x[0], -y[0]
    told, status = targets.read(y, 1).machine(kernel(x, x), kernel(x, x))
    assert told is None
    assert status != "SEPARATED"


def test_machines_of_classes_and_values_interpolate():
    x = points()
    gram = kernel(x, x)
    y = (x[:, 0] > 0).long() + (x[:, 0] > 0.7).long()
    classes = targets.read(y, 3)
    assert classes.error(classes.machine(gram, gram)[0], y) == 0
    values = targets.read(x[:, 0] + 5, 1)
    assert values.error(values.machine(gram, gram)[0], values.y) < 1e-8


def test_alignment_of_two_classes_is_the_same_either_way():
    x = points()
    y = (x[:, 0] > 0.3).long()
    gram = kernel(x, x)
    assert targets.read(y, 2).alignment(gram) == pytest.approx(targets.read(y, 1).alignment(gram), rel=1e-12)


def test_information_and_its_ceiling():
    y = torch.tensor([0, 0, 1]).repeat(100)
    target = targets.read(y, 1)
    assert target.ceiling == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    column = y.double().numpy()[:, None] + 0.01 * np.random.default_rng(0).standard_normal((300, 1))
    assert target.information(column)[0] == pytest.approx(target.ceiling, abs=0.05)
    assert target.information(column)[0] == pytest.approx(spectrum.mutual_information(column, 2 * y - 1)[0])


def test_information_of_values_against_the_gaussian():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2000, 2))
    rho = 0.8
    target = targets.read(torch.from_numpy(rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]), 1)
    found = target.information(np.column_stack([3 * z[:, 0] + 1, rng.standard_normal(2000)]))
    assert found[0] == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.06)
    assert found[1] < 0.05
    assert target.ceiling == math.inf
