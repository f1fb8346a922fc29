"""Random scores: the control. A selector that does not beat it has learned nothing."""

from __future__ import annotations

import numpy as np

from .evidence import Evidence
from .scores import Scores, additive

__all__ = ["scores"]


def scores(evidence: Evidence) -> Scores:
    """Uniform in 0 to 1 for each layer's biases and for its weights; half of the channels are worth half of it."""
    random = np.random.default_rng(evidence.seed)
    space = evidence.space
    biases = random.uniform(size=len(space))
    whole = random.uniform(size=len(space))
    weights = [
        [float(gain) * n / max(len(layer.order), 1) for n in range(1, max(len(layer.order), 1) + 1)]
        for layer, gain in zip(space.layers, whole, strict=True)
    ]
    return additive(space, [float(b) for b in biases], weights, "chance")
