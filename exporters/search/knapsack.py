"""
The best plan under a budget where gains and memory are sums: a multiple-choice knapsack, solved exactly.

Memory is a sum once the first trained layer is fixed, since that alone says how far back-propagation runs. One table
over layers from the last to the first serves every choice of it (dynamic programming; Kellerer, Pferschy and Pisinger
2004, chapter 11). Bytes are rounded up to a grid of at most 8,192 steps, so a plan that is found fits, and the gain
is the best on that grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..importance.scores import Gains
from ..space import FROZEN, Levels
from .memory_model import Costs

__all__ = ["best_levels"]

_STEPS = 8192


def best_levels(
    gains: Gains, costs: Costs, allowed: Sequence[Sequence[int]], budget: float, steps: int = _STEPS
) -> Levels | None:
    """
    The levels of the largest summed gain whose predicted memory is within ``budget``.

    Args:
        gains: shape (layers, levels).
        costs: predicted bytes.
        allowed: per layer, the levels to choose from; without frozen, the layer must be trained.
        budget: bytes.
        steps: of the grid that bytes are rounded up to.

    Returns:
        One level per layer, or :obj:`None` if nothing fits.

    """
    n = len(gains)
    grid = budget / steps
    # table[c]: the best gain of layers i.. within c steps; taken[i][c]: the level that layer i has in it.
    table = np.zeros(steps + 1)
    taken: list[np.ndarray] = [np.empty(0, np.int64)] * n
    best: tuple[float, int, int, int] | None = None
    first_forced = min((i for i in range(n) if FROZEN not in allowed[i]), default=n)
    for i in range(n - 1, -1, -1):
        room = int(np.floor((budget - costs.base[i]) / grid + 1e-9))
        if room >= 0 and i <= first_forced:
            for level in allowed[i]:
                left = room - _steps(costs.layer[i, level], grid)
                if level != FROZEN and left >= 0 and table[left] > -np.inf:
                    gain = float(gains[i, level] + table[left])
                    if best is None or gain > best[0]:
                        best = (gain, i, level, left)
        rows = []
        for level in allowed[i]:
            need = _steps(costs.layer[i, level], grid)
            row = np.full(steps + 1, -np.inf)
            if need <= steps:
                row[need:] = gains[i, level] + table[: steps + 1 - need]
            rows.append(row)
        stacked = np.array(rows)
        choice = stacked.argmax(0)
        table = stacked[choice, np.arange(steps + 1)]
        taken[i] = np.array(allowed[i])[choice]
    if best is None:
        return None
    _, first, level, left = best
    levels = [FROZEN] * n
    levels[first] = level
    for i in range(first + 1, n):
        levels[i] = int(taken[i][left])
        left -= _steps(costs.layer[i, levels[i]], grid)
    return tuple(levels)


def _steps(size: float, grid: float) -> int:
    return int(np.ceil(size / grid - 1e-9))
