"""An engine that stands for a slower processor: for demonstrations and tests."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ..layout import Arrays, Vector
from .base import Engine

__all__ = ["PacedEngine"]


class PacedEngine:
    """
    Runs ``engine``, but a training step takes at least ``step_seconds``.

    The numbers are those of the real engine; only time is added.
    """

    def __init__(self, engine: Engine, step_seconds: float) -> None:
        self.manifest = engine.manifest
        self.runtime = engine.runtime
        self._engine = engine
        self._step_seconds = step_seconds

    def train_step(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        sample_weight: Vector,
        weights: Arrays,
        dropout: np.random.Generator | None = None,
    ) -> tuple[float, dict[str, float], dict[str, Vector]]:
        began = time.perf_counter()
        result = self._engine.train_step(x, y, sample_weight, weights, dropout)
        time.sleep(max(0.0, self._step_seconds - (time.perf_counter() - began)))
        return result

    def evaluate(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], sample_weight: Vector, weights: Arrays
    ) -> tuple[float, dict[str, float]]:
        return self._engine.evaluate(x, y, sample_weight, weights)

    def predict(self, x: npt.NDArray[Any], weights: Arrays) -> Vector:
        return self._engine.predict(x, weights)

    def close(self) -> None:
        self._engine.close()
