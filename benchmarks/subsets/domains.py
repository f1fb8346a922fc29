"""
Two domains: CIFAR-10 as it is, on which backbones are pre-trained, and the same through another camera.

A shifted domain rather than held-out classes: with new classes the last layer gains nearly all there is to gain,
whatever is trained below it, so selectors cannot be told apart. A camera changes what comes *in*, so the layers that
help are not known beforehand, and they are the costly ones near the input ("surgical fine-tuning", Lee et al. 2023,
finds the same). It is also what happens to phones: a backbone from a data centre meets cheap lenses and dim rooms.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import cifar10

__all__ = ["Domains", "Sizes", "load"]

Samples = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Samples of each part: ``pretrain`` clean, the others through the camera; all disjoint."""

    pretrain: int = 15_000
    proxy: int = 2_400
    finetune: int = 3_000
    test: int = 3_000


@dataclasses.dataclass(frozen=True)
class Domains:
    """x float32 (n, 3, 32, 32), about zero mean and unit variance; y int64 (n,)."""

    pretrain: Samples
    clean_test: Samples
    proxy: Samples
    finetune: Samples
    test: Samples


def load(source: Path, sizes: Sizes) -> Domains:
    """Parts by a fixed shuffle."""
    (train_x, train_y), (test_x, test_y) = cifar10.load(source)
    order = np.random.default_rng(0).permutation(len(train_x))
    cuts = np.cumsum([sizes.pretrain, sizes.proxy, sizes.finetune])
    if cuts[-1] > len(order):
        raise SystemExit(f"{cuts[-1]} training samples are asked for; CIFAR-10 has {len(order)}")
    parts = np.split(order, cuts)

    def clean(x: npt.NDArray[np.uint8], y: npt.NDArray[np.int64]) -> Samples:
        return _normalised(torch.from_numpy(x).float() / 255), torch.from_numpy(y)

    def shifted(x: npt.NDArray[np.uint8], y: npt.NDArray[np.int64], seed: int) -> Samples:
        return _normalised(camera(torch.from_numpy(x).float() / 255, seed)), torch.from_numpy(y)

    return Domains(
        clean(train_x[parts[0]], train_y[parts[0]]),
        clean(test_x[: sizes.test], test_y[: sizes.test]),
        shifted(train_x[parts[1]], train_y[parts[1]], 1),
        shifted(train_x[parts[2]], train_y[parts[2]], 2),
        shifted(test_x[: sizes.test], test_y[: sizes.test], 3),
    )


def camera(x: Tensor, seed: int) -> Tensor:
    """A dim, blurred, noisy camera whose red and blue are exchanged and whose white is not white; x in 0 to 1."""
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel[None] / 16).expand(3, 1, 3, 3)
    x = F.conv2d(F.pad(x.flip(1), (1, 1, 1, 1), "replicate"), kernel, groups=3)
    x = x.pow(1.6) * torch.tensor([0.9, 0.55, 0.35]).view(1, 3, 1, 1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + 0.06 * noise).clamp(0, 1)


def _normalised(x: Tensor) -> Tensor:
    return (x - 0.47) / 0.25
