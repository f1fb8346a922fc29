"""A small convolutional net for handwritten digits: the task of the quickstart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..task import Task
from . import digits_data

__all__ = ["personal", "task"]


def _model() -> nn.Module:
    """1x8x8 -> 10 logits; three convolutions, two of them with stride, and a two-layer head."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.GroupNorm(4, 64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def _loss(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y, reduction="none")


def _correct(output: Tensor, y: Tensor) -> Tensor:
    return (output.argmax(1) == y).float()


def _task(local: Sequence[str] = ()) -> Task:
    x, y = digits_data.load()[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _model()
    return Task(
        model,
        _loss,
        x[:16],
        y[:16],
        name="digits",
        metrics={"accuracy": _correct},
        held_out=digits_data.held_out,
        range=(0.0, 1.0),
        normalisation="grey levels 0..16 divided by 16",
        labels=tuple("0123456789"),
        local=local,
    )


# Digits, 16 samples a step.
task = _task()


def personal() -> Task:
    """The same, with a last layer that every device has to itself."""
    return _task(["11"])
