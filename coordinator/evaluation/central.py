"""Central evaluation: the newest weights on the operator's own held-out data, in the native runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mobile_sdk import safetensors
from mobile_sdk.data import ArrayDataset
from mobile_sdk.engines import load_engine
from mobile_sdk.engines.base import Engine
from mobile_sdk.fields import named_in
from mobile_sdk.layout import Vector
from mobile_sdk.manifest import MANIFEST_FILE, PROGRAM_FILE
from mobile_sdk.training.evaluation import evaluate_dataset

__all__ = ["Evaluator", "engine_of"]


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
        self._data = ArrayDataset(named_in(arrays, "x"), named_in(arrays, "y"))

    def __call__(self, vector: Vector) -> dict[str, float]:
        """
        Metrics of the weights ``vector``: ``loss`` and what the task defines, as means per sample.

        Args:
            vector: float32, shape ``(layout.size,)``.

        """
        weights = self._engine.manifest.layout.views(vector)
        return evaluate_dataset(self._engine, weights, self._data)[1]


def engine_of(manifest: bytes, program: bytes) -> Engine:
    """The engine of a program that is not in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        # The runtime maps the file, so it may be gone once it is loaded.
        (Path(folder) / MANIFEST_FILE).write_bytes(manifest)
        (Path(folder) / PROGRAM_FILE).write_bytes(program)
        return load_engine(folder)
