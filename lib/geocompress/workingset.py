"""How a hard-margin classifier is found without its Gram: few points at a time, and proof that the others agree.

A working set holds the support vectors and whoever violates the margin. It is solved exactly (`marginqp`), all points
are measured against the answer in blocks, the violators join, and so on until there is none. Only points near the
boundary ever join, and a machine of half the points knows where that is: sets are doubled from a thousand points up.
Nothing is solved here: this decides which points `marginqp` sees.
"""

from __future__ import annotations

import enum
import math

import torch
from jaxtyping import Float
from torch import Tensor

from geocompress import marginqp, svc_checks
from geocompress.kernels import Kernel, matvec

FIRST = 1024  # points of the smallest nested set, at least
NEAR = 0.05  # points within this of margin 1 stay in the working set when libsvm has spoken
COPIES = 3  # of a working set's Gram that are alive at once: the Gram, a block of it, its factor
STRIP = 64  # points of a diagonal block of the Gram
TOUCH = 1e-10  # squared distance of the classes below which they touch, in units of max |K|
BLOCKS = 0.1  # share of the budget for blocks of kernel values


class Ending(enum.Enum):
    """How a fit ended."""

    SEPARATED = "SEPARATED"  # no point violates margin 1 by more than the tolerance
    INSEPARABLE = "INSEPARABLE"  # the classes touch in the space of the kernel, to 1e-5 of its size: no such machine
    UNSOLVED = "UNSOLVED"  # the working set has resisted: a Gram singular to rounding, as of a kernel of low rank
    MAX_ROUNDS = "MAX_ROUNDS"


class WorkingSet:
    """The state of one fit on distinct points: a working set `rows` with its Gram, and the machine (q, b) on it."""

    def __init__(self, kernel: Kernel, x: Tensor, y: Tensor, bias: bool, tol: float, memory_gb: float) -> None:
        self.kernel, self.x, self.y, self.bias, self.tol = kernel, x, y, bias, tol
        self.blocks_gb = BLOCKS * memory_gb
        self.memory_gb = memory_gb
        self.largest = int(math.sqrt((1 - BLOCKS) * memory_gb * 1e9 / (8 * COPIES)))
        self.pivots, self.factor = 0, None

    def nested(self) -> None:
        """Machines of every 2^k-th point of each class, k falling to 0: each tells the next one where to look."""
        place = torch.empty(len(self.y), dtype=torch.long, device=self.y.device)  # number of a point in its class
        for label in (-1.0, 1.0):
            members = (self.y == label).nonzero()[:, 0]
            place[members] = torch.arange(len(members), device=place.device)
        level = max(0, int(math.log2(len(self.y) / FIRST)))
        self.begin((place % 2**level == 0).nonzero()[:, 0])
        for stride in (2**k for k in reversed(range(level))):
            fresh = ((place % stride == 0) & (place % (2 * stride) != 0)).nonzero()[:, 0]
            margins = self.margins(fresh)
            self.join(fresh[margins < 1 - self.tol], margins[margins < 1 - self.tol])

    def begin(self, rows: Tensor) -> None:
        """Solve a first set, after a look at its Gram."""
        self.rows, self.q, self.b = rows[:0], self.y[:0], 0.0
        part = self.x[rows[:: -(-len(rows) // FIRST)]]
        svc_checks.kernel_on_points(self.kernel(part, part), self.bias)
        self.join(rows, torch.zeros_like(rows))

    def join(self, rows: Tensor, margins: Tensor) -> None:
        """Support vectors and newcomers, the worst first if memory is short, as a new working set, nearly solved."""
        support = self.rows[self.q != 0]
        rows = torch.cat([support, rows[margins.argsort()[: self.room(len(support), len(rows))]]])
        x, y = self.x[rows], self.y[rows]
        self.gram = None  # so that the old Gram is gone before the new one comes
        gram = self.kernel(x, x)
        if self.bias:
            q, b = marginqp.approximate(gram, y)
        else:
            free = torch.ones_like(y, dtype=torch.bool)
            q, b, *_, pivots, _ = marginqp.pivot(gram, y, free, bias=False, tol=self.tol)
            self.pivots += pivots
        near = (q != 0) | (y * (gram @ q + b) < 1 + NEAR)
        self.rows, self.q, self.b = rows[near], q[near], b
        self.gram = gram[near][:, near]
        self.factor, self.lower = None, torch.full_like(self.y, -math.inf)

    def extend(self, rows: Tensor, margins: Tensor) -> None:
        """A few newcomers: the Gram grows by their rows, and the factor of the old set stays useful."""
        rows = rows[margins.argsort()[: self.room(len(self.rows), len(rows))]]
        new, w = self.x[rows], len(self.rows)
        gram = self.gram.new_empty(w + len(rows), w + len(rows))
        gram[:w, :w] = self.gram
        gram[w:, :w] = self.kernel(new, self.x[self.rows])
        gram[:w, w:] = gram[w:, :w].T
        gram[w:, w:] = self.kernel(new, new)
        self.gram, self.rows = gram, torch.cat([self.rows, rows])
        self.q = torch.cat([self.q, self.q.new_zeros(len(rows))])

    def room(self, held: int, wanted: int) -> int:
        """How many of the points that want to join a set of `held` points may; refuses when memory lets hardly any."""
        room = self.largest - held
        if room < max(2 - held, min(wanted, 1 + held // 50)):
            need = COPIES * 8 * (1.2 * (held + min(wanted, held))) ** 2 / (1 - BLOCKS) / 1e9
            raise ValueError(
                f"hard_margin_svc: memory_gb: expected room for more than {held} points in the working set, about "
                f"{need:.2g} or more, got {self.memory_gb:g}; raise it, or train on fewer points"
            )
        return room

    def finish(self, max_rounds: int) -> tuple[int, Ending]:
        """Solve exactly, measure all points, let the violators join; until there are none."""
        for rounds in range(1, max_rounds + 1):
            before, solved = (self.q, self.b), self.polish()
            margins = self.measure(*before)
            violators = (margins < 1 - self.tol).nonzero()[:, 0]
            if not len(violators):
                return rounds, Ending.SEPARATED
            if not solved:
                return rounds, Ending.INSEPARABLE if self.touching() else Ending.UNSOLVED
            if rounds == max_rounds:
                return rounds, Ending.MAX_ROUNDS
            worst = margins[violators].argsort()[: max(FIRST, 2 * len(self.rows))]
            violators = violators[worst]
            few = len(violators) <= len(self.rows) // 8
            (self.extend if few else self.join)(violators, margins[violators])

    def polish(self) -> bool:
        """Pivot to the exact machine on the working set; without success the machine stays what it was."""
        y = self.y[self.rows]
        found = marginqp.pivot(self.gram, y, self.q != 0, bias=self.bias, tol=self.tol / 100, factor=self.factor)
        self.pivots, self.factor = self.pivots + found.pivots, found.factor
        if found.solved:
            self.q, self.b = found.q, found.b
        return found.solved

    def touching(self) -> bool:
        """True when Σ q φ(x) is nothing beside Σ |q|: a point common to the hulls of both classes (Σq = 0)."""
        size, total = float(self.gram.abs().max()), float(self.q.abs().sum())
        return float(self.q @ (self.gram @ self.q)) <= TOUCH * size * total**2

    def measure(self, q_before: Tensor, b_before: float) -> Float[Tensor, " p"]:
        """Margins of all points, or a lower bound of at least 1 where that is known without computing them.

        Two machines f and g differ at x by at most |Δf(x) − Δf(z)| ≤ |f − g| √(K(x,x) + K(z,z) − 2K(x,z)) from what
        they differ by at one point z, in the norm |f − g|² = Δqᵀ K Δq of the kernel (Cauchy and Schwarz).
        """
        change = self.q - q_before
        at_z = float(self.gram[0] @ change) + self.b - b_before
        norm = math.sqrt(max(0.0, float(change @ (self.gram @ change))))
        if bool(self.lower.isfinite().all()):
            self.lower += self.y * at_z - norm * self.distance_to(self.rows[0]) - 1e-9
        doubtful = (self.lower < 1).nonzero()[:, 0]
        self.lower[doubtful] = self.margins(doubtful)
        known = self.y[self.rows] * (self.gram @ self.q + self.b)
        self.least = float(torch.cat([self.lower[doubtful], known]).min())
        return self.lower

    def margins(self, rows: Tensor) -> Float[Tensor, " r"]:
        """Margins y f of the points `rows`, in blocks."""
        held = self.q != 0
        x = self.x[self.rows[held]]
        return self.y[rows] * (matvec(self.kernel, self.x[rows], x, self.q[held], memory_gb=self.blocks_gb) + self.b)

    def distance_to(self, row: Tensor) -> Float[Tensor, " p"]:
        """Distance of every point to one of them in the space of the kernel, shape (p,)."""
        diagonal = torch.cat([self.kernel(part, part).diagonal() for part in self.x.split(STRIP)])
        to_row = self.kernel(self.x, self.x[row : row + 1])[:, 0]
        return (diagonal + diagonal[row] - 2 * to_row).clamp(min=0).sqrt()
