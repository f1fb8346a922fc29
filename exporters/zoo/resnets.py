"""ResNet-20 (He et al. 2015) for 32x32 colour images, with frozen batch normalisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..task import Task
from .examples import classifier

__all__ = ["resnet20"]


class _Block(nn.Module):
    """Two convolutions and a shortcut; where the shape changes, every other position and zeros for new channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new, self.new))
        return F.relu(x + y)


def _model() -> nn.Module:
    blocks = []
    for inputs, outputs in ((16, 16), (16, 32), (32, 64)):
        blocks += [_Block(inputs, outputs, 1 if inputs == outputs else 2), *(_Block(outputs, outputs, 1) for _ in "12")]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet20() -> Task:
    """Nine blocks of two convolutions."""
    return classifier("resnet20", _model, (3, 32, 32), 10)
