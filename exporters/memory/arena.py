"""
Where tensors that live at different times can share memory: greedy by size, each into the smallest gap that holds it.

XNNPACK and ExecuTorch both plan so, after Y. Pisarchyk and J. Lee, "Efficient Memory Management for Deep Neural Net
Inference" (2020). Replaying it gives what they will need without running anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Block", "arena"]

_Offsets = npt.NDArray[np.int64]


@dataclasses.dataclass
class Block:
    """A tensor of ``size`` bytes, in use from step ``first`` to step ``last``, both included."""

    size: int
    first: int
    last: int


def arena(blocks: Sequence[Block]) -> int:
    """Bytes of the arena that holds ``blocks``."""
    order = sorted((b for b in blocks if b.size), key=lambda b: -b.size)
    count = len(order)
    firsts, lasts = np.array([b.first for b in order], np.int64), np.array([b.last for b in order], np.int64)
    starts, ends = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for i, block in enumerate(order):
        live = np.flatnonzero((firsts[:i] <= block.last) & (lasts[:i] >= block.first))
        starts[i] = _place(starts[live], ends[live], block.size)
        ends[i] = starts[i] + block.size
    return int(ends.max(initial=0))


def _place(starts: _Offsets, ends: _Offsets, size: int) -> int:
    """The offset of the smallest gap between occupied stretches that holds ``size``, or their end."""
    if not len(starts):
        return 0
    order = np.argsort(starts, kind="stable")
    reached = np.maximum.accumulate(ends[order])
    gaps = starts[order] - np.concatenate(([0], reached[:-1]))
    fitting = np.flatnonzero(gaps >= size)
    if not len(fitting):
        return int(reached[-1])
    best = fitting[np.argmin(gaps[fitting])]
    return int(reached[best - 1]) if best else 0
