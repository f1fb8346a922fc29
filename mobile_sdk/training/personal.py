"""
What a device keeps to itself: parameters that it trains for its own samples and never sends.

The idea is FedPer's (Arivazhagan et al. 2019, https://arxiv.org/abs/1912.00818): a body is learnt together, a head by
everybody alone. Whether that helps shows in two numbers side by side: the global model's metrics on this device's
samples, and those of the same version with the device's own parameters.
"""

from __future__ import annotations

from typing import Any

from ..data.base import Dataset
from ..engines.base import Engine
from ..events import Personal
from ..layout import Arrays
from .evaluation import evaluate_dataset

__all__ = ["side_by_side", "to_report"]


def side_by_side(engine: Engine, weights: Arrays, own: Arrays, data: Dataset, held_out: bool) -> Personal:
    """
    Evaluate the global and the personal model on the same samples.

    Args:
        engine: a program with local parameters.
        weights: the version as the coordinator has it.
        own: this device's local parameters.
        data: the samples.
        held_out: whether they are kept from training.

    """
    samples, together = evaluate_dataset(engine, weights, data)
    _, alone = evaluate_dataset(engine, {**weights, **own}, data)
    return Personal(samples, held_out, together, alone)


def to_report(personal: Personal) -> dict[str, Any]:
    """What the coordinator is told: means only."""
    return {"global_metrics": dict(personal.global_metrics), "personal_metrics": dict(personal.personal_metrics)}
