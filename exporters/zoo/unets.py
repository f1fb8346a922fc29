"""Nets whose output is an image: a U-Net (Ronneberger et al. 2015) and an autoencoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..task import Task
from .examples import BATCH, seeded

__all__ = ["autoencoder", "unet"]


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(4, outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(4, outputs),
        nn.ReLU(),
    )


class _UNet(nn.Module):
    """Two halvings and two doublings; what was before a halving is put beside what comes after its doubling."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.first = _twice(3, width)
        self.second = _twice(width, 2 * width)
        self.lowest = _twice(2 * width, 4 * width)
        self.up_second = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.back_second = _twice(4 * width, 2 * width)
        self.up_first = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.back_first = _twice(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        lowest = self.lowest(F.max_pool2d(second, 2))
        y = self.back_second(torch.cat([self.up_second(lowest), second], 1))
        y = self.back_first(torch.cat([self.up_first(y), first], 1))
        logits: Tensor = self.head(y)
        return logits


def _pixel_cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """(n, classes, h, w) and int64 (n, h, w) -> (n,): the mean over pixels, but those of class 255."""
    return F.cross_entropy(output, y, ignore_index=255, reduction="none").mean((1, 2))


def _pixels_right(output: Tensor, y: Tensor) -> Tensor:
    """The part of the pixels whose class is right, shape (n,)."""
    return (output.argmax(1) == y).float().mean((1, 2))


def unet() -> Task:
    """A class of four for every pixel of 16x16 colour; pixels of class 255 are ignored."""
    model, x, y = seeded(lambda: (_UNet(4), torch.randn(BATCH, 3, 16, 16), torch.randint(0, 4, (BATCH, 16, 16))))
    y[:, :2] = 255
    return Task(model, _pixel_cross_entropy, x, y, name="unet", metrics={"accuracy": _pixels_right})


def _autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 32),
        nn.Linear(32, 32 * 7 * 7),
        nn.ReLU(),
        nn.Unflatten(1, (32, 7, 7)),
        nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),
        nn.Sigmoid(),
    )


def _squared_error(output: Tensor, y: Tensor) -> Tensor:
    """The mean over pixels, shape (n,)."""
    return (output - y).square().mean((1, 2, 3))


def autoencoder() -> Task:
    """28x28 grey through 32 numbers and back, by transposed convolutions."""
    model, x = seeded(lambda: (_autoencoder(), torch.rand(BATCH, 1, 28, 28)))
    return Task(model, _squared_error, x, x, name="autoencoder", range=(0.0, 1.0))
