"""Seeded example batches and what the classifiers of the zoo share. Only digits has data of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..task import Task

__all__ = ["BATCH", "classifier", "correct", "cross_entropy", "seeded"]

BATCH = 16
_Made = TypeVar("_Made")


def seeded(make: Callable[[], _Made]) -> _Made:
    """What ``make`` gives under a fixed seed; torch's own random numbers go on as if nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """
    One value per sample.

    Args:
        output: float32, shape ``(n, classes)``.
        y: int64, shape ``(n,)``.

    Returns:
        float32, shape ``(n,)``.

    """
    return F.cross_entropy(output, y, reduction="none")


def correct(output: Tensor, y: Tensor) -> Tensor:
    """
    1 where the class is right; its mean is the accuracy.

    Args:
        output: float32, shape ``(n, classes)``.
        y: int64, shape ``(n,)``.

    Returns:
        float32, shape ``(n,)``.

    """
    return (output.argmax(1) == y).float()


def classifier(
    name: str, make: Callable[[], nn.Module], shape: Sequence[int], classes: int, words: int = 0, fold: bool = False
) -> Task:
    """
    A classification task over random samples.

    Args:
        name: the task's name.
        make: makes the model; runs under a fixed seed.
        shape: of one sample.
        classes: how many.
        words: size of the vocabulary where samples are texts; else they are normal noise.
        fold: whether batch normalisation is folded into what stands before it.

    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        x = torch.randint(0, words, (BATCH, *shape)) if words else torch.randn(BATCH, *shape)
        y = torch.randint(0, classes, (BATCH,))
        _settle(model, x)
    return Task(model, cross_entropy, x, y, name=name, metrics={"accuracy": correct}, fold_batch_norm=fold)


def _settle(model: nn.Module, x: Tensor) -> None:
    """Give batch normalisation statistics of the example, as a pre-trained model has them; then freeze them."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(x)
    for norm in norms:
        norm.eval()
