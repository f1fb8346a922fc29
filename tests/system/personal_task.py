"""A task whose devices disagree: what one calls 0 another calls 1. Only a head of its own can serve both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from exporters import Task

FEATURES = 8


def samples(device: int, count: int = 200) -> tuple[Any, Any]:
    """The sign of a common direction; devices with an odd number say it the other way round."""
    rng = np.random.default_rng(device)
    x = rng.standard_normal((count, FEATURES)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    return x, y if device % 2 == 0 else 1 - y


class Net(nn.Module):
    """A body that is learnt together and a head that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(x)))


def task() -> Task:
    """The task, its head local."""
    torch.manual_seed(0)
    x, y = samples(0, 16)
    return Task(
        Net(),
        lambda output, y: nn.functional.cross_entropy(output, y, reduction="none"),
        x,
        y,
        name="personal",
        metrics={"accuracy": lambda output, y: (output.argmax(1) == y).float()},
        held_out=lambda: samples(100, 400),
        local=["head"],
    )
