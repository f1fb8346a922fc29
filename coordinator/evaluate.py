"""Central evaluation: the newest weights on the operator's own held-out data, in the native runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk import safetensors
from mobile_sdk.engines.base import Engine
from mobile_sdk.layout import Vector

__all__ = ["Evaluator"]


class Evaluator:
    """
    Mean loss and metrics over held-out data.

    Args:
        engine: a program of the run; its ``evaluate`` is the same in every tier.
        content: safetensors file with ``x`` and ``y``.

    """

    def __init__(self, engine: Engine, content: bytes) -> None:
        arrays, _ = safetensors.loads(content)
        self._engine = engine
        self._x: npt.NDArray[Any] = arrays["x"]
        self._y: npt.NDArray[Any] = arrays["y"]

    def __call__(self, vector: Vector) -> dict[str, float]:
        """Metrics of the weights ``vector``: ``loss`` and what the task defines, as means per sample."""
        manifest = self._engine.manifest
        weights = manifest.layout.views(vector)
        totals = dict.fromkeys(("loss", *manifest.metrics), 0.0)
        for start in range(0, len(self._x), manifest.micro_batch):
            stop = start + manifest.micro_batch
            x, y = self._x[start:stop], self._y[start:stop]
            loss, metrics = self._engine.evaluate(x, y, np.ones(len(x), np.float32), weights)
            totals["loss"] += loss
            for name, value in metrics.items():
                totals[name] += value
        return {name: total / len(self._x) for name, total in totals.items()}
