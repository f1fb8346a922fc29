"""Small tasks for the exporter's tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from exporters import Task


def per_sample(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output, y, reduction="none")


def correct(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == y).float()


def task_of(model: nn.Module, shape: tuple[int, ...] = (2, 6, 6), classes: int = 3, batch: int = 4) -> Task:
    """A classification task with a random example, for a model that gives ``classes`` logits."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *shape, generator=generator)
    y = torch.randint(0, classes, (batch,), generator=generator)
    return Task(model, per_sample, x, y, metrics={"correct": correct})


def tiny_task() -> Task:
    """A convolution and a linear layer."""
    torch.manual_seed(0)
    return task_of(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)))
