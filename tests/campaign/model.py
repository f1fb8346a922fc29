"""The model that every federation trains: small enough that training it costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from mobile_sdk.layout import Layout, Parameter, Subset, Vector
from mobile_sdk.manifest import InputContract, Manifest, Memory

__all__ = ["BUDGETS", "LAYOUT", "START_WEIGHTS", "SUBSETS", "TARGET", "evaluate", "manifest_of"]

LAYOUT = Layout([Parameter("frozen", (6,)), Parameter("body", (8, 6)), Parameter("head", (24,))])
SUBSETS = {"small": Subset(LAYOUT, {"head": None}), "large": Subset(LAYOUT, {"body": None, "head": None})}
BUDGETS = {"small": 1_000, "large": 2_000}
START_WEIGHTS = np.linspace(-0.5, 0.5, LAYOUT.size, dtype=np.float32)

# Where training goes: every device's samples want these weights.
TARGET = 1.0


def manifest_of(name: str, run: str, task: str, files: dict[str, Any]) -> Manifest:
    """The manifest of a tier's stand-in program."""
    return Manifest(
        run=run,
        serial=1,
        tier=name,
        task=task,
        files=files,
        methods={},
        layout=LAYOUT,
        subset=SUBSETS[name],
        contract=InputContract((1,), "float32", (), "int64"),
        metrics=("accuracy",),
        micro_batch=8,
        memory=Memory(BUDGETS[name], 0, BUDGETS[name]),
    )


def evaluate(vector: Vector) -> dict[str, float]:
    """Held-out metrics: how far the weights are from what training goes to."""
    distance = float(np.square(vector.astype(np.float64) - TARGET).sum())
    return {"loss": distance, "accuracy": 1.0 / (1.0 + distance)}
