"""
Evolution over plans, for what no knapsack covers: several good plans, not one, and any way of counting.

Plans are rows of levels. Each generation keeps the best, crosses pairs of them layer by layer, changes a few levels,
and takes layers down again, those with the least gain per byte first, until the plan fits (as in MCUNetV3's search,
which starts from random plans; ours starts from the knapsack's).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..importance.scores import Gains
from ..space import Levels
from .memory_model import Costs

__all__ = ["evolve"]

Population = npt.NDArray[np.int64]


def evolve(
    gains: Gains,
    costs: Costs,
    allowed: Sequence[Sequence[int]],
    budget: float,
    *,
    seed: int,
    starts: Sequence[Levels] = (),
    population: int = 64,
    generations: int = 60,
) -> list[Levels]:
    """
    Plans within ``budget``, best first, all different; none if none was found.

    Args:
        gains: shape (layers, levels).
        costs: predicted bytes.
        allowed: per layer, the levels to choose from, rising.
        budget: bytes.
        seed: fixes the course.
        starts: plans to begin with, beside random ones.
        population: plans kept from a generation to the next.
        generations: how many.

    """
    random = np.random.default_rng(seed)
    n = len(gains)
    choices = [np.array(levels) for levels in allowed]

    def draw() -> Population:
        # Sparse on the whole: a plan of uniform levels never fits.
        dense = random.uniform(0.05, 0.9)
        return np.array([random.choice(c) if random.uniform() < dense else c[0] for c in choices])

    plans = np.array([*starts, *(draw() for _ in range(population))], np.int64).reshape(-1, n)
    plans = _fitting(plans, gains, costs, choices, budget)
    for _ in range(generations):
        parents = plans if len(plans) else np.array([draw() for _ in range(population)], np.int64)
        mothers, fathers = random.integers(len(parents), size=(2, population))
        children = np.where(random.uniform(size=(population, n)) < 0.5, parents[mothers], parents[fathers])
        changed = random.uniform(size=(population, n)) < 1.5 / n
        for row, column in np.argwhere(changed):
            children[row, column] = random.choice(choices[column])
        children = _fitting(children, gains, costs, choices, budget)
        plans = np.unique(np.concatenate([plans, children]), axis=0)
        plans = plans[np.lexsort((costs.of(plans), -_worth(plans, gains)))][:population]
    return [tuple(int(level) for level in plan) for plan in plans]


def _worth(plans: Population, gains: Gains) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = gains[np.arange(plans.shape[1]), plans].sum(1)
    return result


def _fitting(
    plans: Population, gains: Gains, costs: Costs, choices: Sequence[npt.NDArray[np.int64]], budget: float
) -> Population:
    """Plans taken down, a level at a time, until they fit; what cannot fit is left out."""
    n = len(choices)
    layers = np.arange(n)
    # The next lower level that the layer may have; itself at its lowest.
    lower = np.tile(np.arange(gains.shape[1]), (n, 1))
    for row, levels in zip(lower, choices, strict=True):
        row[levels[1:]] = levels[:-1]
    plans = plans.copy()
    while (over := costs.of(plans) > budget).any():
        down = lower[layers, plans]
        lost = gains[layers, plans] - gains[layers, down]
        saved = np.maximum(costs.layer[layers, plans] - costs.layer[layers, down], 1.0)
        worth = np.where(down < plans, lost / saved, np.inf)
        least = worth.argmin(1)
        stuck = over & np.isinf(worth.min(1))
        plans[over, least[over]] = down[over, least[over]]
        plans = plans[~stuck]
    return plans
