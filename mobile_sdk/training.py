"""
Local training as one pure function: the same arguments give the same update, bit for bit.

A batch of the effective size is split into micro-batches of the program's size; gradients of
sums are added and divided once by the sum of sample weights, so the split changes nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

from .data import Dataset
from .engines.base import Engine
from .errors import FtteError, ProtocolError
from .layout import Arrays, Vector
from .optimisers import SGD

__all__ = [
    "Cancelled",
    "Diverged",
    "Execute",
    "Progress",
    "TrainingResult",
    "TrainingSettings",
    "train",
    "train_in_thread",
]


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """
    What the coordinator asks of a device.

    Args:
        epochs: passes over the device's samples.
        batch_size: samples per optimiser step.
        learning_rate: of SGD.
        momentum: of SGD; 0 keeps no optimiser state.

    """

    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.05
    momentum: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As it travels in an assignment."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingSettings:
        """
        Parse and check.

        Raises:
            ProtocolError: if a field is unknown, missing or out of range.

        """
        if set(data) != {field.name for field in dataclasses.fields(cls)}:
            raise ProtocolError(f"training settings have the fields {sorted(data)}: update the SDK")
        settings = cls(**data)
        for name in ("epochs", "batch_size"):
            value = data[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ProtocolError(f"training setting {name} is {value!r}; it must be a whole number of at least 1")
        for name, low, high in (("learning_rate", 0.0, math.inf), ("momentum", 0.0, 1.0)):
            value = data[name]
            if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value < high or value > 1e30:
                raise ProtocolError(
                    f"training setting {name} is {value!r}; it must be at least {low:g}, below {high:g}"
                )
        return settings


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """
    What local training gives.

    ``update`` maps the trained parameters to new minus old weights, in compact shape. ``loss`` and
    ``metrics`` are means per sample over the last epoch; ``samples`` counts the device's samples.
    """

    update: dict[str, Vector]
    samples: int
    steps: int
    loss: float
    metrics: dict[str, float]


class Cancelled(FtteError):
    """Training was asked to stop."""


class Diverged(FtteError):
    """The loss became infinite or not a number."""


# Called after each optimiser step with (steps done, steps in all, mean loss of the batch).
Progress = Callable[[int, int, float], None]


def train(
    engine: Engine,
    weights: Arrays,
    data: Dataset,
    settings: TrainingSettings,
    seed: int,
    progress: Progress | None = None,
) -> TrainingResult:
    """
    Train the program's subset on a device's samples.

    Args:
        engine: the loaded program.
        weights: name -> full float32 array of every parameter; they are not changed.
        data: the device's samples.
        settings: what the coordinator asked for.
        seed: fixes the order of samples.
        progress: called after each step; what it raises ends the training.

    Raises:
        Diverged: if the loss stops being finite.
        ProgramError: if the samples do not fit the program.

    """
    subset = engine.manifest.subset
    # Only what is trained is copied; the rest stays where it is, usually mapped from a file.
    current = {name: weights[name].copy() if name in subset else weights[name] for name in weights}
    optimiser = SGD(learning_rate=settings.learning_rate, momentum=settings.momentum)
    order = np.random.default_rng(seed)
    samples = len(data)
    steps = settings.epochs * -(-samples // settings.batch_size)
    done = 0
    loss_sum = 0.0
    metric_sums: dict[str, float] = {}
    for _ in range(settings.epochs):
        loss_sum, metric_sums = 0.0, dict.fromkeys(engine.manifest.metrics, 0.0)
        shuffled = order.permutation(samples)
        for start in range(0, samples, settings.batch_size):
            indices = shuffled[start : start + settings.batch_size]
            loss, metrics, gradients = _gradients(engine, current, data, indices)
            if not math.isfinite(loss):
                raise Diverged(f"the loss became {loss} in step {done + 1} of {steps}: lower the learning rate")
            for name, step in optimiser.steps(gradients):
                current[name][subset.selector(name)] -= step
            done += 1
            loss_sum += loss
            metric_sums = {name: total + metrics[name] for name, total in metric_sums.items()}
            if progress is not None:
                progress(done, steps, loss / len(indices))
    update = subset.compact(current)
    for name, old in ((name, weights[name][subset.selector(name)]) for name in subset):
        update[name] -= old
    if not all(np.isfinite(array).all() for array in update.values()):
        raise Diverged(f"the weights became infinite within {done} steps: lower the learning rate")
    return TrainingResult(
        update=update,
        samples=samples,
        steps=done,
        loss=loss_sum / samples,
        metrics={name: total / samples for name, total in metric_sums.items()},
    )


def _gradients(
    engine: Engine, weights: Arrays, data: Dataset, indices: Any
) -> tuple[float, dict[str, float], dict[str, Vector]]:
    """Loss sum, metric sums and mean gradients of one batch, accumulated over micro-batches."""
    size = engine.manifest.micro_batch
    total = 0.0
    sums: dict[str, float] = dict.fromkeys(engine.manifest.metrics, 0.0)
    gradients: dict[str, Vector] = {}
    for start in range(0, len(indices), size):
        x, y = data.batch(indices[start : start + size])
        loss, metrics, micro = engine.train_step(x, y, np.ones(len(x), np.float32), weights)
        total += loss
        sums = {name: value + metrics[name] for name, value in sums.items()}
        if start == 0:
            gradients = micro if len(indices) <= size else {name: g.copy() for name, g in micro.items()}
        else:
            for name, gradient in gradients.items():
                gradient += micro[name]
    for gradient in gradients.values():
        gradient /= np.float32(len(indices))
    return total, sums, gradients


# How the client runs training; the simulator puts a worker pool and virtual time here.
Execute = Callable[[Engine, Arrays, Dataset, TrainingSettings, int, Progress], Awaitable[TrainingResult]]


async def train_in_thread(
    engine: Engine, weights: Arrays, data: Dataset, settings: TrainingSettings, seed: int, progress: Progress
) -> TrainingResult:
    """Train in a thread, so that the connection stays alive; cancelling ends it after the current step."""
    cancelled = threading.Event()
    loop = asyncio.get_running_loop()

    def report(done: int, steps: int, loss: float) -> None:
        if cancelled.is_set():
            raise Cancelled("training was cancelled")
        loop.call_soon_threadsafe(progress, done, steps, loss)

    try:
        return await asyncio.to_thread(train, engine, weights, data, settings, seed, report)
    except asyncio.CancelledError:
        cancelled.set()
        raise
