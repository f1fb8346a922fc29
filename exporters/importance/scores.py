"""What selectors give: the expected gain of every layer at every level."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..space import BIAS, LEVELS, Levels, Space

__all__ = ["Gains", "Scores", "additive", "shuffled"]

Gains = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Scores:
    """
    Expected gains.

    Args:
        gains: float64, shape (layers, levels): what a layer adds at a level over being frozen. A plan is worth the sum.
            Levels that a layer does not have hold the gain of the level below.
        unit: what is counted, such as ``accuracy``.
        chain: only the last layers, whole, are candidates: one layer, two, and so on.
        finalists: how many of the best plans are fine-tuned before one is taken; 0 where sums are trusted.
        rivals: scores of cheaper selectors, whose plans are fine-tuned beside this one's.

    """

    gains: Gains
    unit: str
    chain: bool = False
    finalists: int = 0
    rivals: tuple[Scores, ...] = ()

    def of(self, levels: Levels) -> float:
        """The sum over layers."""
        return float(self.gains[np.arange(len(levels)), list(levels)].sum())


def additive(space: Space, biases: Sequence[float], weights: Sequence[Sequence[float]], unit: str) -> Scores:
    """
    Scores from what biases add, and weights on top of them.

    Args:
        space: the layers.
        biases: per layer.
        weights: per layer, the gain of the first n channels of its order, n = 1 to all; one value without an order.
        unit: as in :class:`Scores`.

    """
    gains = np.zeros((len(space), len(LEVELS)))
    for row, layer, bias, weight in zip(gains, space.layers, biases, weights, strict=True):
        for level in range(1, len(LEVELS)):
            if level not in layer.levels:
                row[level] = row[level - 1]
            elif level == BIAS:
                row[level] = bias
            else:
                row[level] = (bias if layer.biases else 0.0) + weight[(layer.channels(level) or 1) - 1]
    return Scores(gains, unit)


def shuffled(scores: Scores, seed: int) -> Scores:
    """The same gains given to other layers: the control that tells a search from decoration."""
    order = np.random.default_rng(seed).permutation(len(scores.gains))
    return dataclasses.replace(scores, gains=scores.gains[order], finalists=0, rivals=())
