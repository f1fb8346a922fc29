"""
What the comparison with the paper trains: CIFAR-10 (Krizhevsky 2009), a convolutional net of 13.3 M multiply-adds.

``FTTE_CIFAR10`` names where the data are, in a form that :mod:`benchmarks.cifar10` reads.

The 50,000 training images are used as follows, in an order fixed by a seed:

    0 ... 19,999        a backbone is pre-trained on them; no device has them
    20,000 ... 47,499   the devices' samples
    47,500 ... 49,999   validation: learning rates and cohorts are chosen on them

Reported accuracy is that on the first 5,000 test images.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters import Task

from . import cifar10

__all__ = [
    "BACKBONE",
    "backbone",
    "from_pretrained",
    "from_pretrained_tuning",
    "from_random",
    "from_random_tuning",
    "part",
    "proxy",
    "task_of",
    "train_backbone",
    "training",
]

Samples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

TRAIN_PARTS = {"pretraining": slice(0, 20_000), "devices": slice(20_000, 47_500), "validation": slice(47_500, 50_000)}
TEST_PARTS = {"reported": slice(0, 5_000)}
PRETRAINING_EPOCHS = 12
# Its convolutions, trained once: runs on several machines are comparable only if they begin at the same weights.
BACKBONE = Path(__file__).parent / "results" / "backbone.npz"
# The layers before this index are the backbone; those from it on are new, and know nothing.
TOP = 21
MEAN, DEVIATION = np.float32(0.473), np.float32(0.251)


def _source() -> Path:
    place = os.environ.get("FTTE_CIFAR10", "")
    if not place or not Path(place).exists():
        raise FileNotFoundError(
            f"FTTE_CIFAR10 is {place!r}; it must name the folder cifar-10-batches-py "
            "(https://www.cs.toronto.edu/~kriz/cifar.html), or an .npz file of JPEGs"
        )
    return Path(place)


@functools.cache
def part(name: str) -> Samples:
    """
    A part of the images: ``pretraining``, ``devices``, ``validation`` or ``reported``.

    Returns:
        x float32, shape (n, 3, 32, 32), normalised; y int64, shape (n,); mapped from files that are made once.

    """
    source = _source().resolve()
    folder = cifar10.cache_folder() / f"paper-20000-{hashlib.sha256(str(source).encode()).hexdigest()[:16]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            _prepare(source, Path(temporary) / "parts")
            with contextlib.suppress(OSError):  # another process was faster
                (Path(temporary) / "parts").rename(folder)
    return np.load(folder / f"{name}-x.npy", mmap_mode="r"), np.load(folder / f"{name}-y.npy", mmap_mode="r")


def _prepare(source: Path, folder: Path) -> None:
    folder.mkdir()
    for (pixels, labels), parts in zip(cifar10.load(source), (TRAIN_PARTS, TEST_PARTS), strict=True):
        order = np.random.default_rng(0).permutation(len(labels))
        for name, which in parts.items():
            chosen = order[which]
            np.save(folder / f"{name}-x.npy", (pixels[chosen].astype(np.float32) / 255 - MEAN) / DEVIATION)
            np.save(folder / f"{name}-y.npy", labels[chosen])


def proxy() -> Samples:
    """What selectors may look at: the validation part, which no device has."""
    return part("validation")


def training() -> Samples:
    """The devices' samples, all together."""
    return part("devices")


def backbone(seed: int = 0) -> nn.Sequential:
    """3x32x32 -> 10 logits: eight convolutions with group normalisation, pooling, a linear layer; 113,178 weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, channels, stride in [
            (3, 16, 1),
            (16, 16, 1),
            (16, 16, 1),
            (16, 32, 2),
            (32, 32, 1),
            (32, 64, 2),
            (64, 80, 1),
            (80, 40, 2),
        ]:
            conv = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
            layers += [conv, nn.GroupNorm(channels // 8, channels), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10))


def pretrained() -> nn.Sequential:
    """The net after central training on the pre-training part, but for its last convolution and what follows it."""
    model = backbone()
    with np.load(BACKBONE) as arrays:
        model.load_state_dict({n: torch.from_numpy(arrays[n]) for n in arrays.files}, strict=False)
    return model


def train_backbone(file: Path) -> None:
    """Make what :data:`BACKBONE` holds. Half an hour; another processor makes slightly other weights of it."""
    trained = train_centrally(backbone(seed=1), "pretraining", PRETRAINING_EPOCHS, seed=1)
    convolutions = {n: t.numpy() for n, t in trained.state_dict().items() if int(n.split(".")[0]) < TOP}
    np.savez_compressed(file, **convolutions)


def train_centrally(model: nn.Sequential, name: str, epochs: int, seed: int, rate: float = 0.05) -> nn.Sequential:
    """Plain SGD with momentum over a part of the training images, cosine schedule."""
    x, y = (torch.from_numpy(np.array(array)) for array in part(name))
    order = np.random.default_rng(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for batch in np.array_split(order.permutation(len(x)), -(-len(x) // 64)):
            optimiser.zero_grad()
            F.cross_entropy(model(_varied(x[batch], order)), y[batch]).backward()
            optimiser.step()
        schedule.step()
    return model


def _varied(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Every image flipped or not, and the batch shifted by up to four pixels."""
    flip = torch.from_numpy(rng.random(len(x)) < 0.5)[:, None, None, None]
    rows, cols = rng.integers(0, 9, 2)
    x = torch.where(flip, x.flip(3), x)
    return F.pad(x, (4, 4, 4, 4))[:, :, rows : rows + 32, cols : cols + 32]


def _loss(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y, reduction="none")


def _correct(output: Tensor, y: Tensor) -> Tensor:
    return (output.argmax(1) == y).float()


def task_of(model: nn.Sequential, held_out: Any, name: str) -> Task:
    """CIFAR-10 for a model, evaluated on what ``held_out`` gives."""
    x, y = training()
    return Task(
        model,
        _loss,
        np.array(x[:16]),
        np.array(y[:16]),
        name=name,
        metrics={"accuracy": _correct},
        held_out=held_out,
        normalisation="(value / 255 - 0.473) / 0.251",
        labels=cifar10.CLASSES,
    )


def from_random() -> Task:
    """From random weights; reported on test images."""
    return task_of(backbone(), lambda: part("reported"), "cifar10-random")


def from_random_tuning() -> Task:
    """The same, evaluated on the validation part."""
    return task_of(backbone(), lambda: part("validation"), "cifar10-random")


def from_pretrained() -> Task:
    """From the pre-trained backbone; reported on test images."""
    return task_of(pretrained(), lambda: part("reported"), "cifar10-pretrained")


def from_pretrained_tuning() -> Task:
    """The same, evaluated on the validation part."""
    return task_of(pretrained(), lambda: part("validation"), "cifar10-pretrained")
