"""Plain convolutional nets for images."""

from __future__ import annotations

from torch import nn

from ..task import Task
from .examples import classifier

__all__ = ["cifar", "group_norm", "lenet"]


def lenet() -> Task:
    """LeNet-5 (LeCun et al. 1998) with max pooling, 28x28 grey."""
    return classifier(
        "lenet",
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        ),
        (1, 28, 28),
        10,
    )


def group_norm() -> Task:
    """Two convolutions with group normalisation and average pooling, 32x32 colour."""
    return classifier(
        "group_norm",
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.GroupNorm(8, 32),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.GroupNorm(8, 64),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4096, 10),
        ),
        (3, 32, 32),
        10,
    )


def cifar() -> Task:
    """The net of ExecuTorch's own CIFAR-10 training example, its dropout included, 32x32 colour."""
    return classifier(
        "cifar",
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, 2),
            nn.Flatten(),
            nn.Linear(2048, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(512, 10),
        ),
        (3, 32, 32),
        10,
    )
