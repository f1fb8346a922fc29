"""Small tasks for the exporter's tests."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from exporters import Program, Task


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


def wide_task() -> Task:
    """Three layers whose memory differs by megabytes, so that budgets tell them apart."""
    torch.manual_seed(0)
    return task_of(
        nn.Sequential(nn.Flatten(), nn.Linear(72, 4000), nn.ReLU(), nn.Linear(4000, 60), nn.ReLU(), nn.Linear(60, 3))
    )


def error_of(program: Program) -> float:
    """What verification found."""
    assert program.gradient_error is not None
    return program.gradient_error


def few_samples() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Proxy data for both tasks, arrays as a user has them."""
    task = task_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), batch=60)
    return task.example_x.numpy(), task.example_y.numpy()
