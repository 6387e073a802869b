"""Which points a step of the flow has to look at: those that could have come near the margin since last seen.

Late in training nearly all points lie far beyond the margin, where they pull on nothing. The output at a point cannot
change by more than `Network.distance` times the size of the point. So points with margin to spare are left alone,
provably without consequence, until the weights have gone far enough that one of them might matter.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

CAP = 1.5  # margins at or above it pull on nothing and count for nothing in the control of steps
LOOK = (
    0.1  # cost of one forward pass on a point, relative to that of a step that works with it (measured: 0.08 to 0.12)
)


def awake(margins: Float[Tensor, " p"], sizes: Float[Tensor, " p"], speed: float) -> tuple[Int[Tensor, " s"], float]:
    """Points to work with, and how far the weights may go before the others must be looked at again.

    A point of margin m and size s (in margin units per unit of `Network.distance`) stays at or above `CAP` while the
    distance is at most (m − CAP) / s. Leaving out the points that allow more than some distance D costs a step for each
    other point and, each time D is used up, one look at all. The D with the smallest cost is taken, if the weights
    go on moving by `speed` a step (0 or ∞ for unknown: all points are awake).

    Returns:
        Numbers of the points, ascending, and D (∞ if all points are awake).
    """
    if not 0 < speed < math.inf:
        return torch.arange(len(margins), device=margins.device), math.inf
    allowed = ((margins - CAP) / sizes).clamp(min=0).double().cpu().numpy()
    order = np.argsort(allowed, kind="stable")
    reach = np.append(allowed[order], math.inf)  # of the set that leaves out order[k:]
    looks = LOOK * len(order) * speed / np.maximum(reach, speed)
    cost = np.where(reach > 2 * speed, np.arange(len(reach)) + looks, math.inf)
    chosen = int(np.argmin(cost))
    rows = torch.from_numpy(np.sort(order[:chosen])).to(margins.device)
    return rows, float(reach[chosen])
