"""
Weight magnitude: what is large matters.

Needs neither data nor a forward pass. The score of a slice is the sum of its squared weights.
"""

from __future__ import annotations

import numpy as np

from .evidence import Evidence
from .scores import Scores, additive

__all__ = ["scores"]


def scores(evidence: Evidence) -> Scores:
    """Sums of squared weights."""
    space = evidence.space
    views = space.task.layout.views(space.task.initial_weights())
    biases, weights = [], []
    for layer in space.layers:
        biases.append(sum(float((views[n].astype(np.float64) ** 2).sum()) for n in layer.biases))
        squares = [views[n].astype(np.float64) ** 2 for n in layer.weights]
        if layer.order:
            others = tuple(i for i in range(squares[0].ndim) if i != layer.axis)
            weights.append(list(np.cumsum(squares[0].sum(others)[list(layer.order)])))
        else:
            weights.append([float(sum(s.sum() for s in squares))])
    return additive(space, biases, weights, "squared weight")
