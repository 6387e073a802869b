"""How the points of a sweep share a machine: in processes of one thread each, or in batches on a GPU.

The rule goes by `p` × `width`, the size of a training, where a config has these fields; other points count as small.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import joblib
import torch

# Memory of one training for each pair of a point and a neuron: eight arrays of eight bytes.
BYTES = 64
SHARE = 0.5  # of the memory there is
# A point that keeps to a budget of memory needs no more than this for each pair of training points, as a kernel machine
# does when all are support vectors.
BYTES_SQUARED = 32
SHARE_BUDGETS = 0.75
LARGEST = 256  # runs in a batch; more gain nothing and are all lost together


class Share(NamedTuple):
    """Processes, threads of each, and points that each computes at a time."""

    jobs: int
    threads: int
    batch: int


def choose(
    configs: Sequence[Any],
    *,
    jobs: int | None,
    threads: int | None,
    batch: int | None,
    batches: bool,
    device: str | None = None,
    memory_gb: float | None = None,
) -> Share:
    """What was told, and what was not by this rule.

    On a CPU: a process of one thread for each processor, since one training uses several threads badly, at every size
    that was measured (`bench/parallel.py`). Fewer processes where there are fewer points left, or where so many of the
    largest runs do not fit into half of the memory. Batches of 1: many in one set of tensors are for GPUs.

    On a GPU: one process, and as many runs in a batch as half of its free memory holds.

    Args:
        configs: the points that are left.
        jobs: number of processes, None for a choice, as for the next two.
        threads: threads of each process.
        batch: points computed at a time.
        batches: whether several points can be computed at a time at all.
        device: where to compute, instead of the devices of the configs unless None.
        memory_gb: budget in 10⁹ bytes that each point keeps to; None where there is none.
    """
    pairs = max((getattr(config, "p", 0) * getattr(config, "width", 0) for config in configs), default=0)
    on_gpu = [place for config in configs if is_gpu(place := device_of(config, device))]
    if on_gpu:
        room = min(_fitting(torch.cuda.mem_get_info(place)[0], pairs) for place in set(on_gpu)) if batches else 1
        return Share(jobs or 1, threads or 1, batch or max(1, min(room, LARGEST)))
    processors = joblib.cpu_count()
    room = _fitting(_memory(), pairs) if memory_gb is None else _budgets(_memory(), configs, memory_gb)
    fitting = max(1, min(processors, len(configs), room))
    return Share(jobs or fitting, threads or 1, batch or 1)


def device_of(config: Any, device: str | None) -> str:
    """Where a point is computed: on the device that was told, or on its own."""
    return device or str(getattr(config, "device", "cpu"))


def is_gpu(device: str) -> bool:
    """Whether runs do best there in one set of tensors, be it one alone."""
    return device.startswith("cuda")


def _fitting(memory: int, pairs: int) -> int:
    """Trainings of that size that fit into the share of the memory."""
    return int(SHARE * memory // (BYTES * pairs)) if pairs else sys.maxsize


def _budgets(memory: int, configs: Sequence[Any], memory_gb: float) -> int:
    """Points on that budget that fit into the share of the memory."""
    p = max((getattr(config, "p", 0) for config in configs), default=0)
    need = min(1e9 * memory_gb, BYTES_SQUARED * p**2)
    return int(SHARE_BUDGETS * memory / need) if need else sys.maxsize


def _memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
