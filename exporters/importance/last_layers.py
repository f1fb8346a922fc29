"""
Train the last layers: the nearer to the output, the sooner a layer is trained.

The baseline that better selectors must beat. What lies below the first trained layer needs no backward pass.
"""

from __future__ import annotations

import numpy as np

from ..space import LEVELS, WHOLE
from .evidence import Evidence
from .scores import Scores

__all__ = ["scores"]


def scores(evidence: Evidence) -> Scores:
    """One for every layer that is trained whole; candidates are the last layer, the last two, and so on."""
    gains = np.zeros((len(evidence.space), len(LEVELS)))
    gains[:, WHOLE] = 1.0
    for row, layer in zip(gains, evidence.space.layers, strict=True):
        row[layer.levels[-1] :] = 1.0
    return Scores(gains, "layers", chain=True)
