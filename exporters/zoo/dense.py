"""A multi-layer perceptron."""

from __future__ import annotations

from torch import nn

from ..task import Task
from .examples import classifier

__all__ = ["mlp"]


def mlp() -> Task:
    """64 inputs, two hidden layers."""
    return classifier(
        "mlp",
        lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
        (64,),
        10,
    )
