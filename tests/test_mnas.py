"""The network of sixteen convolutions: against one written out place by place, its scales, and its two faces."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import reference
from geocompress import flow, images, mnas, modules
from geocompress.empirical import empirical_ntk
from geocompress.flow import Status
from geocompress.mnas import MnasCNN

SMALL = MnasCNN(width=2, size=8)
DIGITS = images.load(size=28)


def convolve(w, x, stride, depthwise=False):
    """Σ w x / √fan_in on one image x (channels, height, width), place by place."""
    outputs, inputs, k, _ = w.shape
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    places = range(0, x.shape[1], stride)
    out = np.empty((outputs, len(places), len(places)))
    for o in range(outputs):
        seen = padded[o : o + 1] if depthwise else padded
        for a, i in enumerate(places):
            for b, j in enumerate(places):
                out[o, a, b] = (w[o] * seen[:, i : i + k, j : j + k]).sum() / math.sqrt(inputs * k * k)
    return out


# E (u / (1 + e^−u))² by the rectangle rule, which is exact to rounding for such functions
U = np.arange(-12, 12, 1e-3)
MOMENT = (1e-3 * np.exp(-(U**2) / 2) / math.sqrt(2 * math.pi) * (U / (1 + np.exp(-U))) ** 2).sum()


def sigma(z):
    return z / (1 + np.exp(-z)) / math.sqrt(MOMENT)


def one_output(params, x):
    """f(x) of one image by the description in the docstring of `MnasCNN`."""
    w = {k: v.numpy() for k, v in params.items()}
    x = sigma(convolve(w["stem"], x, 2))
    x = sigma(convolve(w["separable_depthwise"], x, 1, depthwise=True))
    x = sigma(convolve(w["separable_pointwise"], x, 1))
    for number, stride in ((1, 2), (2, 1), (3, 2), (4, 1)):
        name, before = f"inverted{number}", x
        x = sigma(convolve(w[f"{name}_expand"], x, 1))
        x = sigma(convolve(w[f"{name}_depthwise"], x, stride, depthwise=True))
        x = convolve(w[f"{name}_project"], x, 1)
        if number in (2, 4):
            x = (x + before) / math.sqrt(2)
    x = sigma(convolve(w["head"], x, 1)).mean(axis=(1, 2))
    return (w["readout"] * x).sum() / len(x) + w["bias"][0]


NETS = [MnasCNN(1, 8), MnasCNN(1, 11, channels=3), MnasCNN(2, 9, stages=(1, 3))]


@pytest.mark.parametrize("net", NETS, ids=str)
def test_forward_is_what_the_description_says(net):
    params = net.init(0)
    params["bias"] += 0.3
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((2, net.channels, net.size, net.size)))
    expected = [one_output(params, image) for image in x.numpy()]
    np.testing.assert_allclose(net.forward(params, x).numpy(), expected, rtol=1e-11)


def test_swish_has_unit_second_moment():
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    values = mnas.swish(torch.from_numpy(nodes)).numpy()
    assert (weights @ values**2) / math.sqrt(2 * math.pi) == pytest.approx(1, abs=1e-9)
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(mnas.swish(z), torch.from_numpy(sigma(z.numpy())))


# --- layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "channels"), [(1, 1), (10, 1), (7, 3)])
def test_number_of_parameters(h, channels):
    """One h² for every pair of channels of a pointwise convolution, 25 h for every channel of the others."""
    table = MnasCNN(h, channels=channels).table()
    pointwise = 4 * 2 + 2 * 6 + 6 * 3 + 3 * 9 + 9 * 3 + 3 * 9 + 9 * 5 + 5 * 15 + 15 * 5 + 5 * 20
    spread = 4 * channels + 4 + 6 + 9 + 9 + 15
    assert table.parameters.sum() == pointwise * h**2 + 25 * spread * h + 20 * h + 1
    assert table.parameters.sum() == sum(v.numel() for v in MnasCNN(h, channels=channels).init(0).values())


def test_the_table_shows_sixteen_convolutions():
    table = MnasCNN().table().set_index("layer")
    assert len(table) == 16 + 2
    assert (table["shape"].map(len) == 4).sum() == 16
    assert table.places[["stem", "inverted1_depthwise", "head"]].tolist() == ["14 × 14", "7 × 7", "4 × 4"]
    seen = MnasCNN().preactivations(MnasCNN().init(0), torch.randn(1, 1, 28, 28, dtype=torch.float64))
    assert list(seen) == list(table.index[:-1])
    places = [f"{z.shape[2]} × {z.shape[3]}" if z.ndim == 4 else "1" for z in seen.values()]
    assert places == table.places.tolist()[:-1]


@pytest.mark.parametrize(
    "layer", [one for block in MnasCNN(4).blocks for one in block.layers], ids=lambda one: one.name
)
def test_unit_second_moment_in_unit_second_moment_out(layer):
    """Fed σ(N(0, 1)), a layer gives out 1 times the share of its window that lies in the image; so over its weights."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = mnas.swish(normal(8, layer.inputs, 14, 14))
    inside = functional.avg_pool2d(torch.ones(1, 1, 14, 14), layer.kernel, layer.stride, layer.kernel // 2).mean()
    found = torch.stack([layer(normal(*layer.shape), x).square().mean() for _ in range(60)]) / inside
    error = float(found.std()) / math.sqrt(len(found))
    assert error < 0.06
    assert float(found.mean()) == pytest.approx(1, abs=4 * error + 0.02)  # x itself is a sample: two per cent


def test_second_moments_stay_of_order_one_through_all_layers():
    """Averages over seeds, on images of norm √(number of pixels)."""
    net, x = MnasCNN(), DIGITS.split(60, 0, 0, dtype=torch.float32).x
    found = [net.preactivations(net.init(seed, dtype=torch.float32), x) for seed in range(8)]
    moments = {k: torch.stack([one[k].square().mean() for one in found]) for k in found[0] if k != "readout"}
    first = moments["stem"]
    assert float(first.mean()) == pytest.approx(1, abs=0.1 + 4 * float(first.std()) / math.sqrt(len(first)))
    assert all(0.2 < float(value.mean()) < 6 for value in moments.values())


def test_the_kernel_of_the_weights_keeps_its_size_in_mean_field_time():
    """Medians over seeds, whose spread is wide; a readout over √(20h) would make them grow like h, by eight here."""
    x = DIGITS.split(2, 0, 0).x[:1]
    medians = []
    for h in (4, 32):
        shares = []
        for seed in range(9):
            module = MnasCNN(h).module(MnasCNN(h).init(seed))
            module.bias.requires_grad_(False)
            module(x).sum().backward()
            shares.append(h * sum(float(v.grad.square().sum()) for v in module.parameters() if v.requires_grad))
        medians.append(np.median(shares))
    assert 1 / 3 < medians[1] / medians[0] < 3, medians


# --- parameters and faces -------------------------------------------------------------------------------------------


def test_initial_weights_are_standard_normal_and_come_from_the_seed():
    net = MnasCNN()
    params = net.init(3)
    weights = torch.cat([v.flatten() for k, v in params.items() if k != "bias"])
    assert float(weights.mean()) == pytest.approx(0, abs=5 / math.sqrt(len(weights)))
    assert float(weights.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / len(weights)))
    assert float(params["bias"]) == 0
    single = net.init(3, dtype=torch.float32)
    assert all(torch.equal(single[k], params[k].float()) for k in params)
    assert not torch.equal(net.init(4)["stem"], params["stem"])


def test_outputs_belong_to_one_sample_each_and_single_precision_is_close():
    net, x = MnasCNN(), DIGITS.split(20, 0, 0).x
    params = net.init(0)
    together = net.forward(params, x)
    assert together.shape == (20,)
    torch.testing.assert_close(torch.cat([net.forward(params, part) for part in x.split(7)]), together)
    single = net.forward({k: v.float() for k, v in params.items()}, x.float())
    torch.testing.assert_close(single.double(), together, rtol=1e-4, atol=1e-5)


def test_the_module_is_the_same_network():
    params, x = SMALL.init(0), torch.from_numpy(np.random.default_rng(0).standard_normal((5, 1, 8, 8)))
    module = SMALL.module(params)
    assert {k: tuple(v.shape) for k, v in module.named_parameters()} == SMALL.shapes
    assert torch.equal(module(x), SMALL.forward(params, x))
    jacobian = reference.jacobian(SMALL.forward, params, x)
    network = modules.ModuleNetwork(module, SMALL.width)
    torch.testing.assert_close(network.linearise(params, x).gram(), jacobian @ jacobian.T)
    torch.testing.assert_close(empirical_ntk(network, params, x), SMALL.width * jacobian @ jacobian.T)
    with torch.no_grad():
        module.stem += 1
    assert torch.equal(params["stem"], SMALL.init(0)["stem"])


def test_it_trains_to_the_end():
    pool = images.load()
    x, y, *_ = pool.split(16, 0, 0)
    network = modules.ModuleNetwork(SMALL.module(SMALL.init(0)), SMALL.width)
    *_, end = flow.hinge_flow(network, SMALL.init(0), x, y, alpha=0.1, margin_tol=0.3, max_steps=400)
    assert end.status is Status.FITTED


BAD = {
    "no width": (lambda: MnasCNN(0), ValueError, "width"),
    "half a width": (lambda: MnasCNN(2.5), TypeError, "width"),
    "too small": (lambda: MnasCNN(size=7), ValueError, "size: expected an integer ≥ 8, got 7"),
    "no channel": (lambda: MnasCNN(channels=0), ValueError, "channels"),
    "one stage": (lambda: MnasCNN(stages=(3,)), ValueError, "stages: expected two numbers"),
    "empty stage": (lambda: MnasCNN(stages=(3, 0)), ValueError, "stages"),
    "colour": (
        lambda: SMALL.forward(SMALL.init(0), torch.zeros(2, 3, 8, 8, dtype=torch.float64)),
        ValueError,
        r"expected images \(p, 1, 8, 8\), got \(2, 3, 8, 8\)",
    ),
    "another net": (
        lambda: SMALL.forward(MnasCNN(3, 8).init(0), torch.zeros(2, 1, 8, 8, dtype=torch.float64)),
        ValueError,
        "expected parameters of h = 2, got others in head, .*another network",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
