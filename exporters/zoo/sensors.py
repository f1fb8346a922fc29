"""Nets for sound and motion: a keyword spotter, a 1-d convolutional net, and recurrent ones."""

from __future__ import annotations

from torch import Tensor, nn

from ..task import Task
from .examples import classifier

__all__ = ["ds_cnn", "gru", "lstm", "motion"]


def _ds_cnn() -> nn.Module:
    def block(channels: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, channels, 3, 1, 1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]

    return nn.Sequential(
        nn.Conv2d(1, 64, (10, 4), (2, 2), (5, 1)),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        *(layer for _ in range(4) for layer in block(64)),
        nn.AvgPool2d((25, 5)),
        nn.Flatten(),
        nn.Linear(64, 12),
    )


def ds_cnn() -> Task:
    """Keyword spotting (Zhang et al. 2017): 49 frames of 10 coefficients, depthwise separable convolutions."""
    return classifier("ds_cnn", _ds_cnn, (1, 49, 10), 12)


def motion() -> Task:
    """Six axes of motion over 128 instants, three 1-d convolutions."""
    return classifier(
        "motion",
        lambda: nn.Sequential(
            nn.Conv1d(6, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Conv1d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(64, 6),
        ),
        (6, 128),
        6,
    )


class _Recurrent(nn.Module):
    """The class of a sequence from the last state."""

    def __init__(self, layer: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size, 6)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(x)[0][:, -1])
        return logits


def gru() -> Task:
    """Six axes over 16 instants; a program unrolls them."""
    return classifier("gru", lambda: _Recurrent(nn.GRU(6, 32, batch_first=True)), (16, 6), 6)


def lstm() -> Task:
    """The same with long short-term memory."""
    return classifier("lstm", lambda: _Recurrent(nn.LSTM(6, 32, batch_first=True)), (16, 6), 6)
