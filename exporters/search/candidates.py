"""The plan to measure next."""

from __future__ import annotations

from collections.abc import Sequence

from ..importance import Scores
from ..importance.contribution import merits
from ..importance.evidence import Evidence
from ..space import Levels, Space
from .evolution import evolve
from .knapsack import best_levels
from .memory_model import Costs

__all__ = ["candidates"]

# Finalists are fine-tuned this many times as long as a single layer was.
_LONGER = 3


def candidates(
    evidence: Evidence, scores: Scores, costs: Costs, bounds: tuple[Levels, Levels], budget: float
) -> Levels | None:
    """
    The plan of the largest expected gain within ``budget`` bytes as predicted, between two bounds.

    The knapsack's, where gains are sums. Scores that ask for finalists get more plans by evolution, and the one that
    does best in a short fine-tuning is taken.

    Args:
        evidence: samples, seed, workers.
        scores: expected gains.
        costs: predicted bytes.
        bounds: the smallest and the largest plan that may be taken, one level per layer each.
        budget: bytes.

    Returns:
        One level per layer; none if nothing between the bounds is predicted to fit.

    """
    allowed = _between(evidence.space, *bounds)
    best = best_levels(scores.gains, costs, allowed, budget)
    if best is None or not scores.finalists:
        return best
    evolved = evolve(scores.gains, costs, allowed, budget, seed=evidence.seed, starts=[best])
    finalists = list(dict.fromkeys([best, *_different(evolved, scores.finalists)]))
    if len(finalists) == 1:
        return best
    reached = merits(evidence, "fine-tuning finalists", finalists, _LONGER)
    return max(zip(reached, finalists, strict=True), key=lambda pair: pair[0])[1]


def _between(space: Space, floor: Levels, top: Levels) -> list[list[int]]:
    return [
        [level for level in layer.levels if least <= level <= most]
        for layer, least, most in zip(space.layers, floor, top, strict=True)
    ]


def _different(plans: Sequence[Levels], count: int) -> list[Levels]:
    """The first plans that differ from each other in at least two layers."""
    kept: list[Levels] = []
    for plan in plans:
        if all(sum(a != b for a, b in zip(plan, other, strict=True)) > 1 for other in kept):
            kept.append(plan)
        if len(kept) == count:
            break
    return kept
