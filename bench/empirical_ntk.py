"""How fast is the empirical tangent kernel, against per-sample gradients, other libraries, and the machine?

Gram matrices in float32: of a 16-layer convolution net in NTK parametrisation (arXiv:2007.11471; depthwise layers,
swish, residuals), of a plain convolution net and of a dense one. Contenders: this library as it chooses for itself;
`vmap(grad)` and one backward pass a sample, both assembled by the same code; the Gram matrix of nngeometry; the product
J Jᵀ of curvlinops, which has no kernel, column by column and so at few points; neural-tangents. The last three on the
plain and the dense net only: nngeometry knows modules of torch alone, and neural-tangents nets of its own. Those that
are not installed are named (`pip install nngeometry curvlinops-for-pytorch neural-tangents`; no extra of this project
brings them. neural-tangents 0.6.5 looks for three names where JAX 0.4.38 no longer has them, and was measured with
these put right).
`times_ours` is the median over rounds of the ratio of one round, `error_eps` the largest deviation from one backward
pass a sample in float64, of eight points, in ε of float32 and the largest entry.

One hidden layer in closed form is measured against the rate of a matrix product: nominally 4 p² h flops as in
`hardware.py`, of which symmetry saves nearly half; `half_share` counts those that are left.

Memory: the most that a process of its own has resident beyond that of the same process at eight points; the result is
in it, and the budget is not for it.
"""

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import NOT_MEASURED, arguments, check, interleaved, limit_threads, paired_ratio, report, seconds
from geocompress import networks
from geocompress.empirical import ONE_BY_ONE, VECTORISED, empirical_ntk
from hardware import Machine
from memory import peak_bytes

LOOP, VMAP, GEMM_SHARE, GIB = 4, 10, 0.6, 2**30
OURS, BY_ONE, BY_VMAP = "geocompress", "one backward pass a sample", "vmap(grad)"
PACKAGES = {"nngeometry": "nngeometry", "curvlinops": "curvlinops", "neural-tangents": "neural_tangents"}
MANY, MANY_GIB = 7000, 2  # points that a process of so much memory has to do
FEW = 32  # points for contenders whose cost grows as p²


class Scaled(nn.Module):
    """A convolution in NTK parametrisation, without bias."""

    def __init__(self, inside: int, outside: int, size: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside // groups, size, size))
        self.settings = {"stride": stride, "padding": size // 2, "groups": groups}

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / math.sqrt(self.weight[0].numel()), **self.settings)


class Swish(nn.Module):
    """Swish with E σ(z)² = 1 for z ~ N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        squares = F.silu(torch.from_numpy(nodes)).square().numpy()
        self.scale = 1 / math.sqrt(weights @ squares / weights.sum())

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.silu(x)


class Inverted(nn.Module):
    """Expand by three, depthwise 5 × 5, project; a residual where shapes agree."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        wide = 3 * inside
        depthwise = Scaled(wide, wide, 5, stride, wide)
        self.layers = nn.Sequential(Scaled(inside, wide), Swish(), depthwise, Swish(), Scaled(wide, outside))
        self.residual = inside == outside and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)) / math.sqrt(2) if self.residual else self.layers(x)


class Readout(nn.Module):
    """Mean over channels, with weights of order one, and a bias."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(1, inside)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / x.shape[1], self.bias)


def sixteen_layers(blocks: tuple[int, ...], h: int = 10) -> nn.Module:
    """The net with `blocks` times h channels after its four inverted residuals."""
    stem = (Scaled(1, 4 * h, 5, 2), Swish(), Scaled(4 * h, 4 * h, 5, 1, 4 * h), Swish(), Scaled(4 * h, 2 * h), Swish())
    channels = [2, *blocks]
    inverted = (Inverted(channels[i] * h, channels[i + 1] * h, (2, 1)[i % 2]) for i in range(len(blocks)))
    head = (Scaled(channels[-1] * h, 20 * h), Swish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Readout(20 * h))
    return nn.Sequential(*stem, *inverted, *head)


def plain() -> nn.Module:
    inner = (nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU())
    return nn.Sequential(nn.Conv2d(1, 16, 5, 2), nn.ReLU(), *inner, nn.Flatten(), nn.Linear(288, 1))


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)
    )


SLOWEST = "16 layers, channels 3, 3, 5, 5"
NETS = {
    "16 layers, channels 1, 1, 3, 3": lambda: sixteen_layers((1, 1, 3, 3)),
    SLOWEST: lambda: sixteen_layers((3, 3, 5, 5)),
    "plain convolutions": plain,
    "dense": dense,
}


def by_nngeometry(net: nn.Module, x: Tensor) -> Tensor:
    """Their Gram matrix, all points in one batch."""
    from nngeometry import GramMatrix

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x.clone()), batch_size=len(x))
    return GramMatrix(net, loader, function=lambda batch: net(batch)).data.reshape(len(x), len(x))


def by_curvlinops(net: nn.Module, x: Tensor) -> Tensor:
    """J (Jᵀ 1), column by column."""
    from curvlinops import JacobianLinearOperator

    targets = torch.zeros(len(x), 1)
    jacobian = JacobianLinearOperator(net, list(net.parameters()), [(x, targets)], check_deterministic=False)
    return jacobian @ (jacobian.adjoint() @ torch.eye(len(x), dtype=x.dtype))


def by_neural_tangents(name: str) -> Callable[[Tensor], object]:
    """Their empirical kernel of a net of the same layers, compiled, with weights of its own."""
    import jax
    import neural_tangents
    from neural_tangents import stax

    pieces = {
        "plain convolutions": [
            *(stax.Conv(16, (5, 5), (2, 2)), stax.Relu(), stax.Conv(32, (3, 3), (2, 2)), stax.Relu()),
            *(stax.Conv(32, (3, 3)), stax.Relu(), stax.Flatten(), stax.Dense(1)),
        ],
        "dense": [stax.Flatten(), stax.Dense(256), stax.Relu(), stax.Dense(256), stax.Relu(), stax.Dense(1)],
    }
    init, apply, _ = stax.serial(*pieces[name])
    _, params = init(jax.random.PRNGKey(0), (1, 28, 28, 1))
    kernel = jax.jit(neural_tangents.empirical_ntk_fn(apply, vmap_axes=0, implementation=3))

    def run(x: Tensor) -> object:
        return kernel(np.moveaxis(x.numpy(), 1, -1), None, params).block_until_ready()

    return run


def contenders(name: str, net: nn.Module) -> dict[str, tuple[Callable[[Tensor], object], bool]]:
    """Gram matrices as functions of points, and whether they are slow enough for few points only."""
    found = {
        OURS: (lambda x: empirical_ntk(net, None, x), False),
        BY_VMAP: (lambda x: empirical_ntk(net, None, x, strategy=VECTORISED), False),
        BY_ONE: (lambda x: empirical_ntk(net, None, x, strategy=ONE_BY_ONE), False),
    }
    if name in ("plain convolutions", "dense"):
        found["nngeometry"] = (lambda x: by_nngeometry(net, x), False)
        found["curvlinops"] = (lambda x: by_curvlinops(net, x), True)
        if installed("neural-tangents"):
            found["neural-tangents"] = (by_neural_tangents(name), False)
        else:
            found["neural-tangents"] = (lambda x: None, False)
    return found


def installed(name: str) -> bool:
    """Whether a contender can be imported."""
    if name not in PACKAGES:
        return True
    try:
        importlib.import_module(PACKAGES[name])
    except ImportError:
        return False
    return True


def net_rows(name: str, p: int, rounds: int, budget: float) -> list[dict]:
    """All contenders on one net, in turn."""
    torch.manual_seed(0)
    net = NETS[name]()
    x = torch.randn(p, 1, 28, 28)
    weights = sum(value.numel() for value in net.parameters())
    truth = empirical_ntk(
        NETS[name]().double(), {k: v.double() for k, v in net.state_dict().items()}, x[:8].double(), strategy=ONE_BY_ONE
    )
    rows, clocks = [], {}
    for contender, (gram, few) in contenders(name, net).items():
        row = {"table": "Gram", "net": name, "weights": weights, "contender": contender, "points": FEW if few else p}
        if not installed(contender):
            rows.append({**row, "note": f"{NOT_MEASURED}: not installed"})
            continue
        some = x[: row["points"]]
        result = gram(x[:8])
        if isinstance(result, Tensor):
            row["error_eps"] = (
                float((result.double() - truth).abs().max() / truth.abs().max()) / torch.finfo(x.dtype).eps
            )
        if contender == "neural-tangents":
            gram(some)  # compiles
        clocks[contender] = lambda gram=gram, some=some: seconds(lambda: gram(some))[0]
        rows.append(row)
    clocks[FEW] = lambda: seconds(lambda: empirical_ntk(net, None, x[:FEW]))[0]
    times = interleaved(clocks, rounds, budget)
    for row in rows:
        if (own := times.get(row["contender"])) is not None:
            row |= {
                "seconds": float(np.median(own)),
                "times_ours": paired_ratio(own, times[FEW if row["points"] == FEW else OURS]),
            }
    return rows


def closed_form_rows(p: int, rounds: int) -> list[dict]:
    """One hidden layer, against a matrix product."""
    rows = []
    for dtype in ("float32", "float64"):
        machine = Machine("cpu", dtype, 2000)
        network = networks.OneHidden(5, 2000)
        params = network.init(1, **machine.place)
        x = torch.randn(p, 5, **machine.place)
        flops = 4 * p**2 * network.width
        clocks = {
            "gemm": machine.gemm,
            "ours": lambda: flops / seconds(lambda: empirical_ntk(network, params, x))[0],  # noqa: B023
        }
        interleaved(clocks, 1)
        rates = interleaved(clocks, rounds)
        share = paired_ratio(rates["ours"], rates["gemm"])
        about = {"table": "one hidden layer", "dtype": dtype, "points": p, "width": network.width}
        rows.append({**about, "gemm_share": share, "half_share": share / 2})
    return rows


def be_child(p: int, memory_gb: float) -> None:
    limit_threads(1)
    torch.manual_seed(0)
    net = sixteen_layers((1, 1, 3, 3))
    wall, _ = seconds(lambda: empirical_ntk(net, None, torch.randn(p, 1, 28, 28), memory_gb=memory_gb))
    print(json.dumps({"peak": peak_bytes(), "seconds": wall}))


def memory_row(p: int, memory_gb: float) -> dict:
    """Peak of the 16-layer net in a process of its own."""

    def child(*numbers: float) -> dict:
        command = [sys.executable, __file__, "--child", *map(str, numbers)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    least, run = child(8, memory_gb), child(p, memory_gb)
    return {
        "table": "memory",
        "points": p,
        "budget_gb": memory_gb,
        "jacobian_gb": 4e-9 * p * sum(value.numel() for value in sixteen_layers((1, 1, 3, 3)).parameters()),
        "result_gb": 4e-9 * p**2,
        "own_gb": (run["peak"] - least["peak"]) / 1e9,
        "process_gib": run["peak"] / GIB,
        "seconds": run["seconds"],
    }


def main() -> None:
    """512 points, three nets for some seconds (with `--full` all nets, nine rounds, and 7000 points for the memory)."""
    if sys.argv[1:2] == ["--child"]:
        be_child(int(sys.argv[2]), float(sys.argv[3]))
        return
    chosen = arguments(
        __doc__.splitlines()[0],
        points={"type": int, "help": f"of the measurement of memory: 1500, with --full {MANY}"},
    )
    if hasattr(os, "sched_setaffinity"):  # other libraries start as many threads as they see processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    rounds, budget = (9, math.inf) if chosen.full else (5, 9.0)
    nets = [name for name in NETS if chosen.full or name != SLOWEST]
    rows = [row for name in nets for row in net_rows(name, 512, rounds, budget)]
    rows += closed_form_rows(2000, 15 if chosen.full else 5)
    points = chosen.points or (MANY if chosen.full else 1500)
    memory = memory_row(points, 1.0 if points >= MANY else 0.1)
    rows.append(memory)
    first = {row["contender"]: row.get("times_ours", math.nan) for row in rows if row.get("net") == next(iter(NETS))}
    others = [
        row["times_ours"]
        for row in rows
        if row.get("contender") in ("nngeometry", "curvlinops") and "times_ours" in row
    ]
    shares = [row["gemm_share"] for row in rows if "gemm_share" in row]
    checks = [
        check("16 layers, one backward pass a sample: times ours", first[BY_ONE], at_least=LOOP),
        check("16 layers, vmap(grad): times ours", first[BY_VMAP], at_least=VMAP),
        check("one hidden layer: share of the GEMM rate", min(shares), at_least=GEMM_SHARE),
        check(
            "memory beside the result, of the budget",
            (memory["own_gb"] - memory["result_gb"]) / memory["budget_gb"],
            at_most=1,
        ),
    ]
    if points >= MANY:
        checks.append(check(f"GiB of the process, {points} points", memory["process_gib"], at_most=MANY_GIB))
    if others:
        checks.append(check("nngeometry or curvlinops: least times ours", min(others), at_least=1))
    report("empirical_ntk", rows, chosen, checks, rounds=rounds)


if __name__ == "__main__":
    main()
