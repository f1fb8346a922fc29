"""Small nets in the manner of MobileNetV2 and V3 (Sandler et al. 2018, Howard et al. 2019), 32x32 colour."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..task import Task
from .examples import classifier

__all__ = ["mobilenet_v2", "mobilenet_v2_folded", "mobilenet_v3"]


class _SqueezeExcite(nn.Module):
    """Scale each channel by a small net of all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.excite(scale))


class _Bottleneck(nn.Module):
    """Widen, filter each channel, narrow; a shortcut where the shape stays."""

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        stride: int,
        *,
        kernel: int,
        activation: type[nn.Module],
        excite: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            activation(),
            nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False),
            nn.BatchNorm2d(width),
            activation(),
            *([_SqueezeExcite(width)] if excite else []),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


def _v2() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int, expansion: int) -> nn.Module:
        width = inputs * expansion
        return _Bottleneck(inputs, width, outputs, stride, kernel=3, activation=nn.ReLU6, excite=False)

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        block(16, 16, 1, 1),
        block(16, 24, 2, 4),
        block(24, 24, 1, 4),
        block(24, 32, 2, 4),
        nn.Conv2d(32, 96, 1, bias=False),
        nn.BatchNorm2d(96),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def _v3() -> nn.Module:
    def block(inputs: int, width: int, outputs: int, stride: int) -> nn.Module:
        return _Bottleneck(inputs, width, outputs, stride, kernel=5, activation=nn.Hardswish, excite=True)

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.Hardswish(),
        block(16, 32, 16, 1),
        block(16, 64, 24, 2),
        block(24, 72, 24, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 64),
        nn.Hardswish(),
        nn.Linear(64, 10),
    )


def mobilenet_v2() -> Task:
    """Inverted residuals: depthwise convolutions, ReLU6, frozen batch normalisation."""
    return classifier("mobilenet_v2", _v2, (3, 32, 32), 10)


def mobilenet_v2_folded() -> Task:
    """The same function, every batch normalisation folded into the convolution before it."""
    return classifier("mobilenet_v2_folded", _v2, (3, 32, 32), 10, fold=True)


def mobilenet_v3() -> Task:
    """The same with hard-swish, 5x5 kernels, and squeeze-and-excite."""
    return classifier("mobilenet_v3", _v3, (3, 32, 32), 10)
