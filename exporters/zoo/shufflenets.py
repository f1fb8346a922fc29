"""A small ShuffleNet (Zhang et al. 2018), with frozen batch normalisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..task import Task
from .examples import classifier

__all__ = ["shufflenet"]

GROUPS = 4


class _Unit(nn.Module):
    """Grouped 1x1 convolutions around a depthwise one, channels shuffled between groups, beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.reduce = nn.Conv2d(channels, inner, 1, groups=GROUPS, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.grow = nn.Conv2d(inner, channels, 1, groups=GROUPS, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.channel_shuffle(F.relu(self.norm1(self.reduce(x))), GROUPS)
        return F.relu(x + self.norm3(self.grow(self.norm2(self.depthwise(y)))))


def _model() -> nn.Module:
    stem = [nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, nn.MaxPool2d(2), _Unit(64), _Unit(64), *head)


def shufflenet() -> Task:
    """Two units of four groups, 32x32 colour."""
    return classifier("shufflenet", _model, (3, 32, 32), 10)
