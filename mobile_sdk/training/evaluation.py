"""How well a weight vector does on samples: on a device's own, or on the operator's held-out ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..data import Dataset
from ..engines.base import Engine
from ..errors import DataError
from ..layout import Arrays

__all__ = ["evaluate_dataset", "finite"]


def evaluate_dataset(engine: Engine, weights: Arrays, data: Dataset) -> tuple[int, dict[str, float]]:
    """
    Mean loss and metrics over all samples, without training.

    Args:
        engine: a program of the run.
        weights: name -> full float32 array of every parameter.
        data: the samples.

    Returns:
        The number of samples, and ``loss`` and the task's metrics as means per sample. Values that are
        no numbers (a diverged model's loss) are left out.

    Raises:
        DataError: if there are no samples.
        ProgramError: if the samples do not fit the program.

    """
    samples, manifest = len(data), engine.manifest
    if samples == 0:
        raise DataError("there are no samples to evaluate on")
    totals = dict.fromkeys(("loss", *manifest.metrics), 0.0)
    for start in range(0, samples, manifest.micro_batch):
        x, y = data.batch(np.arange(start, min(start + manifest.micro_batch, samples)))
        loss, metrics = engine.evaluate(x, y, np.ones(len(x), np.float32), weights)
        totals["loss"] += loss
        for name, value in metrics.items():
            totals[name] += value
    return samples, finite({name: total / samples for name, total in totals.items()})


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics that are numbers: a diverged model's loss is none, and cannot be told."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
