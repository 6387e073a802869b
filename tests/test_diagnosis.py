"""The diagnostic of a net: every number against its own room on kernels written out, and what is refused."""

import copy
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.func import functional_call

import geocompress
import reference
from geocompress import classifiers, diagnosis_checks, input_gradients, spectrum
from geocompress.diagnosis import diagnose

P, Q, D = 40, 30, 4


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def net(outputs=1, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 12), nn.ReLU(), nn.Linear(12, outputs)).eval()


def data(classes=2):
    x, x_test = drawn(P, D), drawn(Q, D, seed=1)
    cuts = torch.tensor([-0.5, 0.5])[: classes - 1] if classes > 2 else torch.zeros(1)
    return x, torch.bucketize(x[:, 0].clone(), cuts), x_test, torch.bucketize(x_test[:, 0].clone(), cuts)


def kernel(module, x, z):
    """Σ_c Θ_cc from whole Jacobians in float64."""
    module = copy.deepcopy(module).double()
    params = {name: value.detach() for name, value in module.named_parameters()}

    def row(c, points):
        return reference.jacobian(lambda p, y: functional_call(module, p, (y,))[:, c], params, points.double())

    return sum(row(c, x) @ row(c, z).T for c in range(module[-1].out_features))


@pytest.fixture
def states():
    return [net(seed=0).state_dict(), net(seed=1).state_dict()]


def test_every_number_of_two_classes(states):
    x, y, x_test, y_test = data()
    signs, signs_test = 2.0 * y - 1, 2.0 * y_test - 1
    report = diagnose(net(), x, signs, checkpoints=states, holdout=(x_test, signs_test), times=[0, 7.5])
    assert (report.kind, report.points, report.holdout, report.shared) == ("two classes", P, Q, 0)
    assert (report.module, report.weights, report.shape) == ("Sequential", 12 * D + 12 + 13, (D,))
    assert report.table.checkpoint.tolist() == ["state 0", "state 1"]
    assert report.table.time.tolist() == [0, 7.5]
    for number, line in enumerate(report.table.itertuples()):
        module = net(seed=number)
        gram, cross = kernel(module, x, x), kernel(module, x_test, x)
        assert line.alignment == pytest.approx(spectrum.label_alignment(gram, signs), rel=1e-9)
        assert line.effective_dimension == pytest.approx(spectrum.effective_dimension(gram), rel=1e-9)
        pairs = spectrum.top_eigenpairs(gram, 10)
        np.testing.assert_allclose(report.eigenvalues[number], pairs.values, rtol=1e-9)
        truth = spectrum.mutual_information(pairs.vectors, signs)
        np.testing.assert_allclose(report.information[number], truth, atol=1e-9)
        assert line.information == report.information[number].max()
        wrong = signs_test * module(x_test)[:, 0] <= 0
        assert line.net_error == pytest.approx(float(wrong.double().mean()))
        numbers = torch.arange(P).double()[:, None]
        machine = classifiers.hard_margin_svc(
            lambda a, b, gram=gram: gram[a[:, 0].long()][:, b[:, 0].long()], numbers, signs.double()
        )
        decision = cross[:, machine.support] @ (machine.a * machine.y) + machine.bias
        assert line.kernel_status == "SEPARATED"
        assert line.kernel_error == pytest.approx(float((signs_test * decision <= 0).double().mean()))
        truth = input_gradients.covariance(copy.deepcopy(module).double(), x.double())
        np.testing.assert_allclose(report.covariances[number].values, truth.values, rtol=1e-9)
        assert line.compression == truth.compression(report.informative)
        assert math.isnan(line.compression_along)
    assert report.direction(1, 0).shape == (D,)


def test_classes_take_the_sum_of_all_outputs():
    x, y, x_test, y_test = data(3)
    report = diagnose(module := net(3), x, y, holdout=(x_test, y_test))
    (line,) = report.table.itertuples()
    assert report.kind == "classes"
    gram, cross = kernel(module, x, x), kernel(module, x_test, x)
    one_hot = torch.eye(3).double()[y]
    assert line.alignment == pytest.approx(spectrum.kernel_alignment(gram, one_hot @ one_hot.T), rel=1e-9)
    ridge = 1e-6 * float(gram.diagonal().mean())
    told = cross @ torch.linalg.solve(gram + ridge * torch.eye(P).double(), one_hot - one_hot.mean(0)) + one_hot.mean(0)
    assert line.kernel_error == pytest.approx(float((told.argmax(1) != y_test).double().mean()))
    assert line.net_error == pytest.approx(float((module(x_test).argmax(1) != y_test).double().mean()))


def test_regression():
    x, _, x_test, _ = data()
    y, y_test = x[:, 0] ** 2, x_test[:, 0] ** 2
    report = diagnose(module := net(), x, y, holdout=(x_test, y_test))
    (line,) = report.table.itertuples()
    assert report.kind == "regression"
    assert report.ceiling == math.inf
    residual = (module(x_test)[:, 0] - y_test).square().sum() / (y_test - y.mean()).square().sum()
    assert line.net_error == pytest.approx(residual.item(), rel=1e-5)
    assert line.kernel_status == "FITTED"


def test_chosen_outputs_are_those_of_a_smaller_net():
    x, y, *_ = data()
    two = net(2)
    one = net(1)
    with torch.no_grad():
        one[0].load_state_dict(two[0].state_dict())
        one[2].weight.copy_(two[2].weight[1:] - two[2].weight[:1])
        one[2].bias.copy_(two[2].bias[1:] - two[2].bias[:1])
    chosen = diagnose(two, x, 2 * y - 1, output=(1, 0))
    difference = diagnose(one, x, 2 * y - 1)
    assert chosen.table.train_error[0] == difference.table.train_error[0]
    np.testing.assert_allclose(chosen.covariances[0].values, difference.covariances[0].values, rtol=1e-5, atol=1e-12)
    assert diagnose(two, x, 2 * y - 1, output=1).kind == "two classes"


def test_known_directions_are_a_space():
    x, y, *_ = data()
    one = diagnose(net(), x, y, directions=torch.eye(D)[:2])
    other = diagnose(net(), x, y, directions=torch.eye(D)[:2] + torch.eye(D)[:2].flip(0) * 0.3)
    assert one.informative == 2
    assert one.table.compression_along[0] == pytest.approx(other.table.compression_along[0])
    assert one.table.compression[0] >= one.table.compression_along[0]


def test_frozen_parameters_and_statistics_stay_what_they_are():
    x, y, *_ = data()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(D, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 1)).eval()
    module[0].requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    report = diagnose(module, x, y)
    assert report.weights == 24 + 13
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module[0].weight.dtype == torch.float32


def test_shared_parameters_are_counted_once():
    x, y, *_ = data()
    torch.manual_seed(0)
    layer = nn.Linear(D, D)
    module = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(D, 1)).eval()
    report = diagnose(module, x, y, checkpoints=[module.state_dict()])
    assert report.weights == D * D + D + D + 1
    gram = kernel(module, x, x)
    assert report.table.effective_dimension[0] == pytest.approx(spectrum.effective_dimension(gram), rel=1e-9)


def test_whole_numbers_have_no_input_gradients():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 1)).eval()
    x = torch.randint(0, 5, (P, 3), generator=torch.Generator().manual_seed(0))
    report = diagnose(module, x, (x[:, 0] > 1).long())
    assert report.covariances == ()
    assert report.informative == 0
    assert report.table[["compression", "gradient_dimension", "compression_along"]].isna().all(axis=None)


def test_points_that_are_in_both_sets_are_counted():
    x, y, x_test, y_test = data()
    both = torch.cat([x_test, x[:3]]), torch.cat([y_test, y[:3]])
    assert diagnose(net(), x, y, holdout=both).shared == 3
    with pytest.raises(ValueError, match="training points only"):
        diagnose(net(), x, y, holdout=(x[:7], y[:7]))


@pytest.mark.parametrize("whole", [False, True])
def test_points_may_be_single_numbers(whole):
    torch.manual_seed(0)
    first = nn.Embedding(5, 8) if whole else nn.Linear(1, 8)
    columns = nn.Sequential(first, nn.Flatten(), nn.Tanh(), nn.Linear(8, 1)).eval()
    plain = nn.Sequential(nn.Unflatten(0, (-1, 1)), columns).eval()
    x, x_test = (torch.arange(4).repeat(10), torch.tensor([3, 4])) if whole else (drawn(P), drawn(2, seed=1))
    y, y_test = (x > x.double().mean()).long(), torch.tensor([0, 1])
    expected = diagnose(columns, x[:, None], y, holdout=(x_test[:, None], y_test))
    report = diagnose(plain, x, y, holdout=(x_test, y_test))
    pd.testing.assert_frame_equal(report.table, expected.table)
    assert (report.shared, report.shape, report.informative) == (int(whole), (), 0)
    assert len(report.covariances) == (not whole)
    assert all(
        np.array_equal(a.values, b.values) for a, b in zip(report.covariances, expected.covariances, strict=True)
    )


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, 1)
        self.offset = torch.ones(D)

    def forward(self, x):
        return nn.functional.linear(x + self.offset, (self.layer.weight - 2).sqrt(), self.layer.bias)


class Loose(Noisy):
    def forward(self, x):
        return self.layer(x @ torch.diag(self.offset))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"module": nn.Sequential(net(), nn.Dropout(0.5))}, ValueError, r"drops units .* module\.eval\(\)"),
        ({"module": nn.Sequential(nn.BatchNorm1d(D), net())}, ValueError, "statistics of the batch"),
        ({"module": nn.Flatten()}, ValueError, "requires_grad=True, got none"),
        ({"module": net(3)}, ValueError, "choose one with output=k"),
        ({"module": net().double()}, TypeError, "one floating-point dtype"),
        ({"module": net().to("meta")}, ValueError, "one device"),
        ({"module": Noisy()}, ValueError, "finite outputs"),
        ({"module": Loose()}, ValueError, "fails in float64 .* make tensors that it holds buffers"),
        ({"x": drawn(1, D), "y": torch.ones(1)}, ValueError, "p ≥ 2 points, got p = 1"),
        ({"x": drawn(P, D) / 0}, ValueError, "finite numbers in x"),
        ({"x": drawn(P + 1, D)}, ValueError, r"y \(p,\) with p ≥ 1"),
        ({"x": drawn(P, D + 1)}, ValueError, "the shape that it takes"),
        ({"y": torch.ones(P)}, ValueError, "at least two classes"),
        ({"checkpoints": [net(2).state_dict()]}, ValueError, r"another shape: 2\.weight"),
        ({"checkpoints": "a.pt"}, TypeError, "a list of state_dicts"),
        ({"memory_gb": 1e-9}, ValueError, "memory_gb"),
        ({"memory_gb": -1}, ValueError, "memory_gb"),
        ({"times": [1]}, ValueError, "2 increasing numbers"),
        ({"times": [1, 1]}, ValueError, "2 increasing numbers"),
        ({"output": 1}, ValueError, "numbers below the 1 outputs"),
        ({"output": (0, 0)}, ValueError, "of two outputs"),
        ({"holdout": (drawn(5, D + 1), torch.ones(5))}, ValueError, "holdout points"),
        ({"holdout": (drawn(5, D).double(), torch.ones(5))}, TypeError, "holdout x in torch.float32"),
        ({"directions": torch.eye(D)}, ValueError, "1 ≤ k < D"),
        ({"directions": torch.ones(2, D)}, ValueError, "linearly independent"),
        ({"informative": D}, ValueError, "1 ≤ k < D"),
        ({"directions": torch.eye(D)[:2], "informative": 1}, ValueError, "as many as directions"),
    ],
)
def test_bad_input(states, change, error, message):
    x, y, *_ = data()
    told = {"module": net(), "x": x, "y": 2.0 * y - 1, "checkpoints": states} | change
    if "module" in change:
        told["checkpoints"] = None
    with pytest.raises(error, match=message):
        diagnose(told.pop("module"), told.pop("x"), told.pop("y"), **told)


def test_what_is_no_tensor_is_refused():
    x, y, *_ = data()
    with pytest.raises(TypeError, match=r"a torch\.nn\.Module, got str"):
        diagnosis_checks.module_and_points("net", x, y)
    with pytest.raises(TypeError, match="x as a torch tensor, got ndarray"):
        diagnosis_checks.module_and_points(net(), x.numpy(), y)
    with pytest.raises(TypeError, match=r"a pair \(x_test, y_test\)"):
        diagnosis_checks.held_out(3, x, y)


def test_the_package_has_it_and_stays_light():
    assert geocompress.diagnose is diagnose
    with pytest.raises(AttributeError, match="no attribute 'diagnos'"):
        geocompress.diagnos  # noqa: B018
    code = "import sys, geocompress; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
