"""The empirical kernel against the p × N Jacobian, however a network uses its parameters; budgets; bad input."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

import reference
from geocompress import empirical, kernels, modules, networks, tasks
from geocompress.empirical import CONTRACTED, ONE_BY_ONE, VECTORISED
from geocompress.gradients import arguments, assembly, blocks, one_hidden

NTK = kernels.empirical_ntk


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def shaken(module, seed=0):
    """In float64, evaluating, and with every parameter and statistic away from its special values."""
    module = module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in module.named_buffers():
            if value.is_floating_point():
                value += (0.5 if "var" in name else 0.3) * torch.rand(value.shape, generator=generator).double()
    return module


def full_truth(module, x, z=None):
    """Θ (p, C, q, C) and its parts from whole Jacobians."""
    params = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    sides = []
    for side in (x, x if z is None else z):
        count = functional_call(module, params, (side,)).reshape(len(side), -1).shape[1]

        def output(some, points, c):
            unused = 0 * sum(value.sum() for value in some.values())  # autograd wants every parameter in the graph
            return functional_call(module, some, (points,)).reshape(len(points), -1)[:, c] + unused

        rows = [reference.jacobian(lambda p, y, c=c: output(p, y, c), params, side) for c in range(count)]
        sides.append(torch.stack(rows, dim=1).split([value.numel() for value in params.values()], dim=2))
    parts = [torch.einsum("icn,jdn->icjd", a, b) for a, b in zip(*sides, strict=True)]
    return sum(parts), dict(zip(params, parts, strict=True))


def same(ours, theirs, tolerance=1e-10):
    assert ours.shape == theirs.shape
    assert float((ours - theirs).norm()) <= tolerance * float(theirs.norm()) + 1e-300


def trace(theta):
    return torch.einsum("icjc->ij", theta)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return (x + self.inner(x)) / math.sqrt(2)


class Scaled(nn.Module):
    """NTK parametrisation: the weights are scaled in the forward pass, here in several spellings."""

    def __init__(self, d, h):
        super().__init__()
        self.first, self.second = nn.Parameter(drawn(h, d)), nn.Parameter(drawn(h, h, seed=1))
        self.shift, self.last = nn.Parameter(drawn(h, seed=2)), nn.Parameter(drawn(h, seed=3))

    def forward(self, x):
        x = torch.tanh(x @ self.first.T / math.sqrt(x.shape[1]) + self.shift)
        x = torch.tanh(F.linear(x, self.second / math.sqrt(len(self.second))) - 0.1 * self.shift)
        return torch.tanh(-x @ (2 * self.second)) @ self.last / len(self.last)


class Numbers(nn.Module):
    """Parameters that are single numbers: a gain, a shift and an output that one of them is added to."""

    def __init__(self):
        super().__init__()
        self.gain, self.shift, self.last = (nn.Parameter(drawn(1, seed=seed)[0]) for seed in range(3))
        self.first = nn.Linear(4, 5, dtype=torch.float64)

    def forward(self, x):
        return (self.gain * torch.tanh(self.first(x) + self.shift)).sum(1) + self.last


class ScaledConvolution(nn.Module):
    """As published code for such nets has it: a weight in parts, joined and scaled before it is used."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(drawn(n, 2, 3, 3, seed=n)) for n in (2, 3)])

    def forward(self, x):
        weight = torch.cat(list(self.parts))
        return F.silu(F.conv2d(x, weight / weight[0].numel() ** 0.5, stride=2)).mean((1, 2, 3))


class Shared(nn.Module):
    """One module twice, and one of its parameters once more by hand."""

    def __init__(self, by_hand):
        super().__init__()
        self.layer, self.readout, self.by_hand = nn.Linear(4, 4), nn.Linear(4, 2), by_hand

    def forward(self, x):
        x = self.layer(torch.tanh(self.layer(x)))
        if self.by_hand:
            x = x + torch.einsum("ij,nj->ni", self.layer.weight, x) * self.layer.weight.square().sum()
        return self.readout(torch.tanh(x))


class SharedConvolution(nn.Module):
    """One filter on two scales."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        x = torch.tanh(self.filter(x))
        return self.filter(F.avg_pool2d(x, 2)).flatten(1).sum(1)


class Tied(nn.Module):
    """Embedding and readout share their weights; whole numbers come in."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=2)
        self.position = nn.Parameter(drawn(1, 5, 4))
        self.mix = nn.Linear(4, 4)

    def forward(self, tokens):
        x = torch.tanh(self.mix(self.embedding(tokens) + self.position))
        return F.linear(x.mean(1), self.embedding.weight)


class Attention(nn.Module):
    """Layers that torch fuses, with parameters that no module call shows."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.readout = nn.Linear(4, 1)

    def forward(self, x):
        return self.readout(self.layer(x).mean(1))


class PositionsFirst(nn.Module):
    """Turns samples and positions around inside; there may be as many of one as of the other."""

    def __init__(self):
        super().__init__()
        self.layer, self.readout = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        x = torch.tanh(self.layer(x.transpose(0, 1)))
        return self.readout(x.mean(0))


class Flattened(PositionsFirst):
    """Joins samples and positions to rows."""

    def forward(self, x):
        rows = torch.tanh(self.layer(x.reshape(-1, 3)))
        return self.readout(rows.reshape(len(x), -1, 4).mean(1))


class WrittenTo(nn.Module):
    """Writes to the output of a layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        x = self.first(x)
        F.leaky_relu_(x)
        return self.second(x).squeeze(1)


class Untouched(nn.Module):
    """Parameters without a gradient on the way, in part or at all."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.idle = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            aside = self.first(x)
        return self.second(torch.tanh(self.first(x)) + aside + self.second.bias.detach().sum())


def sequential(*layers):
    return nn.Sequential(*layers)


FLAT, IMAGES, SEQUENCES = drawn(6, 4), drawn(5, 4, 9, 9), drawn(5, 5, 3)
CASES = {
    "numbers": (Numbers, FLAT),
    "dense": (lambda: sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 1)), FLAT),
    "without bias": (lambda: sequential(nn.Linear(4, 9, bias=False), nn.SiLU(), nn.Linear(9, 3, bias=False)), FLAT),
    "convolution": (
        lambda: sequential(
            nn.Conv2d(4, 6, 3, 2, 1), nn.SiLU(), nn.Conv2d(6, 3, (1, 3), bias=False), nn.Flatten(), nn.Linear(45, 2)
        ),
        IMAGES,
    ),
    "groups": (
        lambda: sequential(
            nn.Conv2d(4, 8, 3, groups=2, dilation=2),
            nn.SiLU(),
            nn.Conv2d(8, 4, 2, 2, groups=4),
            nn.Flatten(),
            nn.Linear(16, 1),
        ),
        IMAGES,
    ),
    "depthwise": (
        lambda: sequential(
            nn.Conv2d(4, 4, 5, 2, 2, groups=4, bias=False),
            nn.SiLU(),
            nn.Conv2d(4, 8, (3, 2), groups=4, padding="same", dilation=(1, 2)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 1),
        ),
        IMAGES,
    ),
    "circular": (
        lambda: sequential(
            nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.Flatten(), nn.Linear(162, 1)
        ),
        IMAGES,
    ),
    "one dimension": (
        lambda: sequential(
            nn.Conv1d(5, 6, 2, padding=1),
            nn.Tanh(),
            nn.Conv1d(6, 6, 2, groups=6, stride=2),
            nn.Flatten(),
            nn.Linear(12, 1),
        ),
        SEQUENCES,
    ),
    "three dimensions": (
        lambda: sequential(
            nn.Unflatten(1, (1, 4)),
            nn.Conv3d(1, 4, 3, 2, 1),
            nn.Tanh(),
            nn.Conv3d(4, 4, 2, groups=4),
            nn.Flatten(),
            nn.Linear(64, 1),
        ),
        IMAGES,
    ),
    "residual": (
        lambda: sequential(
            nn.Linear(4, 5),
            Residual(sequential(nn.Linear(5, 5), nn.ReLU(inplace=True), nn.Linear(5, 5))),
            nn.Linear(5, 1),
        ),
        FLAT,
    ),
    "normalisation": (
        lambda: sequential(
            nn.Conv2d(4, 6, 3),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.GroupNorm(3, 6),
            nn.Flatten(1, 2),
            nn.LayerNorm(7),
            nn.InstanceNorm1d(42, affine=True),
            nn.Flatten(),
            nn.BatchNorm1d(294),
            nn.Linear(294, 2),
        ),
        IMAGES,
    ),
    "sequences": (
        lambda: sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.Flatten(), nn.Linear(20, 1)),
        SEQUENCES,
    ),
    "scaled": (lambda: Scaled(4, 6), FLAT),
    "joined": (ScaledConvolution, drawn(4, 2, 8, 8)),
    "weight normalisation": (
        lambda: sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 1)),
        FLAT,
    ),
    "shared": (lambda: Shared(by_hand=False), FLAT),
    "shared, once by hand": (lambda: Shared(by_hand=True), FLAT),
    "shared filter": (SharedConvolution, drawn(5, 2, 6, 6)),
    "tied": (Tied, torch.randint(7, (6, 5), generator=torch.Generator().manual_seed(0))),
    "attention": (Attention, drawn(4, 5, 4)),
    "positions first": (PositionsFirst, drawn(7, 5, 3)),
    "positions first, two": (PositionsFirst, drawn(6, 2, 3)),
    "rows of positions": (Flattened, SEQUENCES),
    "written to": (WrittenTo, FLAT),
    "untouched": (Untouched, FLAT),
    "recurrent": (lambda: sequential(nn.LSTM(3, 2, batch_first=True), Last(), nn.Linear(2, 1)), SEQUENCES),
    "transposed convolution": (
        lambda: sequential(nn.ConvTranspose2d(4, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(200, 1)),
        IMAGES,
    ),
}


class Last(nn.Module):
    def forward(self, x):
        return x[0][:, -1]


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_product_of_whole_jacobians(name):
    module, x = CASES[name][0](), CASES[name][1]
    module = shaken(module)
    theta, parts = full_truth(module, x)
    ours = NTK(module, None, x, outputs="full")
    same(ours, theta)
    gram = NTK(module, None, x, outputs="trace")
    same(gram, trace(theta))
    assert torch.equal(gram, gram.T)
    rows = ours.flatten(0, 1).flatten(1)
    assert torch.equal(rows, rows.T)
    for a, b in ((x[:2], x), (x, x[1:3]), (x, x.clone())):
        same(NTK(module, None, a, b, outputs="full"), full_truth(module, a, b)[0])
    layers = NTK(module, None, x, outputs="full", layers=True)
    assert list(layers) == list(parts)
    for key, part in parts.items():
        assert float((layers[key] - part).norm()) <= 1e-10 * float(theta.norm())
    same(sum(layers.values()), theta)


@pytest.mark.parametrize("name", ["depthwise", "tied", "shared, once by hand", "scaled"])
@pytest.mark.parametrize("strategy", [VECTORISED, ONE_BY_ONE], ids=["vectorised", "one by one"])
def test_all_strategies_agree(name, strategy):
    module, x = shaken(CASES[name][0]()), CASES[name][1]
    same(NTK(module, None, x, outputs="full", strategy=strategy), NTK(module, None, x, outputs="full"))


LEFT_TO_AUTOGRAD = {
    "shared, once by hand": {"layer.weight"},
    "attention": {
        "layer.self_attn.in_proj_weight",
        "layer.self_attn.in_proj_bias",
        "layer.self_attn.out_proj.weight",
        "layer.self_attn.out_proj.bias",
    },
    "positions first": {"layer.weight", "layer.bias"},
    "positions first, two": {"layer.weight", "layer.bias"},
    "recurrent": {"0.weight_ih_l0", "0.weight_hh_l0", "0.bias_ih_l0", "0.bias_hh_l0"},
    "transposed convolution": {"0.weight", "0.bias"},
}


@pytest.mark.parametrize("name", CASES)
def test_only_what_is_not_understood_is_left_to_autograd(name):
    function = empirical.as_function(shaken(CASES[name][0]()), None)
    assert assembly.looked_at(function, CASES[name][1], CONTRACTED).general == LEFT_TO_AUTOGRAD.get(name, set())


@st.composite
def architectures(draw):
    """A random net of convolutions, normalisations and dense layers on small images, and points for it."""
    channels, side = draw(st.sampled_from([1, 2, 4])), draw(st.integers(5, 8))
    x = drawn(draw(st.integers(1, 5)), channels, side, side, seed=draw(st.integers(0, 99)))
    layers = []
    for _ in range(draw(st.integers(0, 3))):
        groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
        out, kernel = groups * draw(st.integers(1, 3)), draw(st.integers(1, 3))
        stride, dilation, bias = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.booleans())
        padding = draw(st.integers(1 if kernel > 1 else 0, 2))
        layers.append(nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias))
        layers.append(draw(st.sampled_from([nn.Tanh, nn.SiLU, lambda out=out: nn.GroupNorm(1, out)]))())
        channels = out
        if sequential(*layers).double()(x).shape[-1] < 3:
            break
    layers.append(nn.Flatten())
    size = sequential(*layers).double()(x).shape[1]
    for width in draw(st.lists(st.integers(1, 6), max_size=2)):
        layers += [nn.Linear(size, width, bias=draw(st.booleans())), nn.Tanh()]
        size = width
    layers.append(nn.Linear(size, draw(st.integers(1, 3))))
    return shaken(sequential(*layers), seed=draw(st.integers(0, 99))), x


@settings(max_examples=25, deadline=None)
@given(architectures(), st.sampled_from(["trace", "full"]), st.floats(3e-5, 1e-3))
def test_random_architectures_whatever_the_budget(drawn_net, outputs, memory_gb):
    module, x = drawn_net
    theta, _ = full_truth(module, x)
    with pytest.raises(ValueError, match="memory_gb: expected at least") as refusal:
        NTK(module, None, x, outputs=outputs, memory_gb=1e-9)
    enough = 1.01 * float(str(refusal.value).split("at least ")[1].split(" ")[0])
    ours = NTK(module, None, x, outputs=outputs, memory_gb=max(enough, memory_gb))
    same(ours, theta if outputs == "full" else trace(theta))


@pytest.mark.parametrize("name", ["depthwise", "convolution", "residual", "normalisation"])
def test_single_precision_is_as_good_as_its_rounding(name):
    """Depthwise layers take another way in float32, where fast kernels for it exist."""
    module, x = shaken(CASES[name][0]()), CASES[name][1]
    theta = trace(full_truth(module, x)[0])
    ours = NTK(module.float(), None, x.float(), outputs="trace")
    assert ours.dtype == torch.float32
    same(ours.double(), theta, tolerance=1e-5)


def wide():
    return shaken(sequential(nn.Linear(4, 60), nn.Tanh(), nn.Linear(60, 50), nn.Tanh(), nn.Linear(50, 2)))


@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("outputs", ["trace", "full"])
@pytest.mark.parametrize("factors", [False, True])
def test_small_chunks_tiles_and_groups_leave_no_seam(chunk, outputs, factors, monkeypatch):
    module, x, z = wide(), drawn(11, 4), drawn(5, 4, seed=1)  # 3452 weights
    monkeypatch.setitem(blocks.CHUNK, "cpu", chunk)
    monkeypatch.setattr(blocks, "_HELD", 0)
    monkeypatch.setattr(blocks, "_TILE", (2, 3))
    monkeypatch.setattr(blocks, "_pays", lambda *_: factors)
    gradients = assembly.looked_at(empirical.as_function(module, None), x, CONTRACTED)
    small = 6e3 if factors else 2e4
    whole, cut = (
        blocks.plan(gradients, 11, None, separate=outputs == "full", budget=budget) for budget in (1e6, small)
    )
    assert len(whole.groups) == 1
    assert len(cut.groups) > 1
    theta_cross = full_truth(module, x, z)[0]
    for a, b, theta in (
        (x, None, full_truth(module, x)[0]),
        (x, z, theta_cross),
        (z, x, theta_cross.permute(2, 3, 0, 1)),
    ):
        for memory_gb in (small * 8e-9, 1):
            ours = NTK(module, None, a, b, outputs=outputs, memory_gb=memory_gb)
            same(ours, theta if outputs == "full" else trace(theta))


def test_factors_are_used_where_they_save_work_and_only_there():
    """Two factors of 60 and 50 numbers against 3000; but a filter on 49 places shares too much for that."""
    gradients = assembly.looked_at(empirical.as_function(wide(), None), FLAT, CONTRACTED)
    pieces = itertools.chain(*blocks.plan(gradients, 500, None, separate=False, budget=1e8).groups)
    assert {piece.name for piece in pieces if piece.positions} == {"0.weight", "2.weight", "4.weight"}
    module, x = shaken(sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(294, 1))), IMAGES
    gradients = assembly.looked_at(empirical.as_function(module, None), x, CONTRACTED)
    assert gradients.factored["0.weight"] == (49, 36, 6)
    pieces = itertools.chain(*blocks.plan(gradients, 500, None, separate=False, budget=1e8).groups)
    assert {piece.name for piece in pieces if piece.positions} == set()


def test_factors_with_shared_positions_are_right(monkeypatch):
    monkeypatch.setattr(blocks, "_pays", lambda *_: True)
    for name in ("dense", "convolution", "sequences", "scaled"):
        module, x = shaken(CASES[name][0]()), CASES[name][1]
        for outputs in ("trace", "full"):
            theta = full_truth(module, x, x[:3])[0]
            ours = NTK(module, None, x, x[:3], outputs=outputs)
            same(ours, theta if outputs == "full" else trace(theta))


PEAK = """
import sys, torch
from pathlib import Path
from torch import nn
from geocompress import kernels
torch.manual_seed(0); torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(1, 16, 5, 2), nn.SiLU(), nn.Conv2d(16, 48, 1), nn.SiLU(),
                    nn.Conv2d(48, 48, 5, groups=48), nn.SiLU(), nn.Conv2d(48, 64, 3), nn.SiLU(),
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))
x = torch.randn(600, 1, 28, 28)
kernels.empirical_ntk(net, None, x[:4], memory_gb=0.1)
Path("/proc/self/clear_refs").write_text("5")
def peak(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024
before = peak()
kernels.empirical_ntk(net, None, x, memory_gb=float(sys.argv[1]))
print(peak() - before, sum(v.numel() for v in net.parameters()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_the_peak_stays_within_the_budget():
    budget = 0.04
    done = subprocess.run([sys.executable, "-c", PEAK, str(budget)], capture_output=True, text=True, check=True)
    peak, weights = map(int, done.stdout.split())
    result = 600**2 * 4
    assert peak - result < budget * 1e9 < 600 * weights * 4


WIDTHS = networks.OneHidden(d=3, width=300)


@pytest.mark.parametrize("memory_gb", [1, 1e-3, 2e-5])
def test_one_hidden_layer_in_closed_form_is_that_of_the_network(memory_gb, monkeypatch):
    monkeypatch.setattr(one_hidden, "_SIDES", (16, 4, 1))
    params, (x, _), (z, _) = WIDTHS.init(0), tasks.stripe(3).sample(40, 1), tasks.stripe(3).sample(30, 2)
    for a, b in ((x, None), (x, z), (z, x)):
        same(NTK(WIDTHS, params, a, b, memory_gb=memory_gb), WIDTHS.ntk(params, a, b))
    gram = NTK(WIDTHS, params, x, memory_gb=memory_gb)
    assert torch.equal(gram, gram.T)
    layers = NTK(WIDTHS, params, x, z, layers=True, memory_gb=memory_gb)
    jacobians = [reference.jacobian(reference.one_hidden, params, side[:4]) for side in (x, z)]
    start = 0
    for name, value in params.items():
        some = slice(start, start := start + value.numel())
        same(layers[name][:4, :4], WIDTHS.width * jacobians[0][:, some] @ jacobians[1][:, some].T)
    assert start == jacobians[0].shape[1]


def test_module_function_and_closed_form_are_one_kernel_in_mean_field_time():
    params, (x, _) = WIDTHS.init(0), tasks.stripe(3).sample(40, 1)
    module = reference.OneHiddenModule(params)
    theta = NTK(WIDTHS, params, x)
    same(NTK(modules.ModuleNetwork(module, WIDTHS.width), params, x), theta)
    same(WIDTHS.width * NTK(module, None, x), theta)
    same(WIDTHS.width * NTK(lambda some, points: functional_call(module, some, (points,)), params, x), theta)


def test_what_is_not_trained_does_not_count():
    module, x = shaken(CASES["normalisation"][0]()), IMAGES
    module[0].requires_grad_(False)
    layers = NTK(module, None, x, outputs="trace", layers=True)
    assert set(layers) == {name for name, value in module.named_parameters() if value.requires_grad}
    same(sum(layers.values()), trace(full_truth(module, x)[0]))


def test_a_checkpoint_is_taken_at_its_own_parameters_and_leaves_the_module_alone():
    module, other = (shaken(CASES["normalisation"][0](), seed) for seed in (0, 1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    same(NTK(module, other.state_dict(), IMAGES, outputs="trace"), NTK(other, None, IMAGES, outputs="trace"))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    tied, tokens = CASES["tied"][0](), CASES["tied"][1]
    shaken(tied)
    same(NTK(tied, tied.state_dict(), tokens, outputs="trace"), NTK(tied, None, tokens, outputs="trace"))


def test_a_gram_is_positive_and_a_linear_model_has_that_of_its_points():
    x = drawn(30, 4)
    same(NTK(nn.Linear(4, 1).double(), None, x), x @ x.T + 1)
    eigenvalues = torch.linalg.eigvalsh(NTK(wide(), None, x, outputs="trace"))
    assert float(eigenvalues[0]) > -1e-12 * float(eigenvalues[-1])
    assert NTK(wide(), None, x[:1], outputs="trace").shape == (1, 1)


class Routed(nn.Module):
    """Sends some samples through a layer, as a mixture of experts does."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        some = x[:, 0] > 0
        return x.new_zeros(x.shape).index_put((some,), self.first(x[some])).sum(1) + self.second(x).sum(1)


def test_use_that_depends_on_the_data_is_right_or_refused():
    module, x = shaken(Routed()), drawn(8, 4)
    theta = trace(full_truth(module, x)[0])
    same(NTK(module, None, x, strategy=ONE_BY_ONE), theta)
    few = x[x[:, 0] > 0][:2]  # looked at, both go through the layer
    with pytest.raises(ValueError, match="strategy=ONE_BY_ONE"):
        NTK(module, None, torch.cat([few[:1], x, few[1:]]))
    same(NTK(module, None, few), trace(full_truth(module, few)[0]))


class Gated(PositionsFirst):
    """A branch, behind a gate, with positions first; `joined`, each position of each sample has a row of its own."""

    def __init__(self, joined):
        super().__init__()
        self.joined, self.beside = joined, nn.Linear(3, 1)

    def forward(self, x):
        turned = x.transpose(0, 1)
        rows = torch.tanh(self.layer(turned.reshape(-1, 3) if self.joined else turned)).unflatten(0, (x.shape[1], -1))
        gate = torch.relu(x[:, 0, 0])
        return gate * rows.reshape(x.shape[1], len(x), 4).mean(0).sum(1) + self.beside(x[:, 0])[:, 0]


@pytest.mark.parametrize("joined", [False, True])
def test_a_branch_that_is_shut_where_one_looked_is_right_elsewhere(joined):
    x = drawn(6, 4, 3)
    x[[0, -1], 0, 0] = -1.0  # looked at, and shut
    x[1, 0, 0] = 1.0
    module = shaken(Gated(joined))
    theta = trace(full_truth(module, x)[0])
    same(NTK(module, None, x), theta)
    network = modules.ModuleNetwork(module, memory_gb=1e-3)
    same(network.linearise(network.init(), x).gram(), theta)
    same(network.linearise(network.init(), x).gram(torch.tensor([0, 1, 5])), theta[[0, 1, 5]][:, [0, 1, 5]])


class Noisy(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.layer, self.noise = nn.Linear(4, 1), noise

    def forward(self, x):
        return self.noise(self.layer(x))


class Squared(nn.Module):
    """Looks at its numbers, which no vectorisation allows, and at a parameter by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(drawn(4))

    def forward(self, x):
        return torch.einsum("ij,j->i", x, self.weight) ** 2 * (1.0 if float(x.sum()) < math.inf else 0.0)


def test_a_network_that_cannot_be_vectorised_is_taken_one_by_one_unless_told_otherwise():
    module = Squared()
    same(NTK(module, None, FLAT), trace(full_truth(module, FLAT)[0]))
    with pytest.raises(RuntimeError, match="pass strategy=ONE_BY_ONE"):
        NTK(module, None, FLAT, strategy=VECTORISED)


LINEAR = nn.Linear(4, 1).double()
NAN = FLAT.clone().fill_(math.nan)
BAD = {
    "dropout": (nn.Sequential(nn.Linear(4, 1), nn.Dropout()), {}, ValueError, "drops units at random.*module.eval"),
    "batch statistics": (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)), {}, ValueError, "statistics of the batch"),
    "chance": (Noisy(lambda f: f + torch.rand_like(f)).double(), {}, ValueError, "depend on chance"),
    "other samples": (
        Noisy(lambda f: f - f.mean()).double(),
        {},
        ValueError,
        "depend on chance or on the other samples",
    ),
    "other samples, seen by a point that differs": (
        nn.Sequential(Noisy(lambda f: f - f.mean()), nn.Tanh()).double(),
        {"x1": FLAT[[0, 1, 2, 0, 0]]},
        ValueError,
        "depend on chance or on the other samples",
    ),
    "nothing trained": (nn.Linear(4, 1).double().requires_grad_(False), {}, ValueError, "requires_grad=True, got none"),
    "no parameters": (lambda params, x: x[:, 0], {"params": {}}, ValueError, "got none"),
    "several outputs": (nn.Linear(4, 2).double(), {}, ValueError, "expected one output a sample, got 2; pass 'trace'"),
    "no such choice": (LINEAR, {"outputs": "mean"}, ValueError, "expected 'single', 'trace' or 'full', got 'mean'"),
    "no params": (lambda params, x: x[:, 0], {}, TypeError, "expected params of the callable"),
    "mixed dtypes": (LINEAR, {"x1": FLAT.float()}, TypeError, "expected x1 in torch.float64 like the parameters"),
    "mixed dtypes of points": (LINEAR, {"x2": FLAT.float()}, TypeError, "expected x2 in torch.float64"),
    "half precision": (nn.Linear(4, 1).bfloat16(), {"x1": FLAT.bfloat16()}, TypeError, "float32 or float64, got"),
    "mixed parameters": (nn.Sequential(nn.Linear(4, 4), LINEAR), {"x1": FLAT.float()}, TypeError, "1.weight in torch"),
    "two devices": (LINEAR, {"x2": FLAT.to("meta")}, ValueError, "expected x2 on cpu like the parameters, got meta"),
    "no points": (LINEAR, {"x1": FLAT[:0]}, ValueError, "at least one point"),
    "points of two shapes": (LINEAR, {"x2": FLAT[:, :3]}, ValueError, r"x2 \(6, 3\) with x1 \(6, 4\)"),
    "nan in points": (LINEAR, {"x1": NAN}, ValueError, "finite numbers in x1"),
    "nan out": (Noisy(lambda f: (f - 1e9).sqrt()).double(), {}, ValueError, "expected finite outputs"),
    "nan in one gradient": (
        Noisy(lambda f: f * 0 + (f - f).abs().sqrt()).double(),
        {},
        ValueError,
        "expected finite outputs and gradients",
    ),
    "no rows": (Noisy(torch.sum).double(), {}, ValueError, r"expected outputs \(2, …\) of 2 samples, got \(\)"),
    "outputs of another kind": (nn.LSTM(4, 1).double(), {}, TypeError, "expected a tensor of outputs, got tuple"),
    "memory": (LINEAR, {"memory_gb": 0}, ValueError, "memory_gb: expected a finite number"),
    "below one block": (wide(), {"memory_gb": 1e-7, "outputs": "trace"}, ValueError, "at least .* one row block"),
    "closed form below one block": (
        WIDTHS,
        {"memory_gb": 1e-7, "params": WIDTHS.init(0), "x1": FLAT[:, :3]},
        ValueError,
        "at least .* for one row block",
    ),
    "closed form without params": (WIDTHS, {"x1": FLAT[:, :3]}, TypeError, "expected params of OneHidden"),
    "closed form of other params": (
        WIDTHS,
        {"params": networks.OneHidden(3, 5).init(0), "x1": FLAT[:, :3]},
        ValueError,
        "another network",
    ),
    "closed form of other points": (WIDTHS, {"params": WIDTHS.init(0)}, ValueError, r"shape \(p, 3\)"),
    "closed form by another way": (
        WIDTHS,
        {"params": WIDTHS.init(0), "strategy": ONE_BY_ONE},
        ValueError,
        "closed form",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_the_remedy(case):
    network, change, error, message = BAD[case]
    with pytest.raises(error, match=message):
        NTK(**({"network": network, "params": None, "x1": FLAT} | change))


def test_arguments_of_other_types_are_refused():
    for network, params, message in (
        ("net", None, "pass one of these"),
        (LINEAR, [1.0], "dictionary of tensors, got list"),
        (LINEAR, {"weight": 1.0}, "dictionary of tensors"),
    ):
        with pytest.raises(TypeError, match=message):
            arguments.as_function(network, params)
    with pytest.raises(TypeError, match="expected x1 as a torch tensor, got list"):
        arguments.points([[1.0]], None, arguments.as_function(LINEAR, None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other": FLAT}, "has no 'other'"),
        ({"weight": drawn(2, 4)}, "has other shapes of 'weight'"),
        ({"weight": None}, "also needs 'weight'"),
        ({"weight": drawn(1, 4) * math.nan}, "finite numbers in weight"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(change, message):
    params = {name: value for name, value in (LINEAR.state_dict() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        NTK(LINEAR, params, FLAT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_the_values_of_the_cpu(name):
    module, x = shaken(CASES[name][0]()), CASES[name][1]
    here = NTK(module, None, x, outputs="full")
    same(NTK(module.cuda(), None, x.cuda(), outputs="full").cpu(), here)
