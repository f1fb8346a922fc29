"""
Selectors: which parameters to train first. One file per selector, all of one form.

A selector takes :class:`~exporters.importance.evidence.Evidence` and gives :class:`Scores`: what each layer is expected
to add at each level. The search then picks the levels that add most within a budget.
"""

from __future__ import annotations

from collections.abc import Callable

from . import contribution, fisher, last_layers, magnitude, sensitivity
from . import random_scores as chance
from .evidence import Evidence
from .scores import Scores, shuffled

__all__ = ["SELECTORS", "Scores", "Selector", "shuffled"]

Selector = Callable[[Evidence], Scores]

# What a run file and ``ftte plan --selector`` take.
SELECTORS: dict[str, Selector] = {
    "contribution": contribution.scores,
    "fisher": fisher.scores,
    "magnitude": magnitude.scores,
    "sensitivity": sensitivity.scores,
    "last-layers": last_layers.scores,
    "random": chance.scores,
}
