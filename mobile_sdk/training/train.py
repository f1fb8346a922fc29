"""
Local training as one pure function: the same arguments give the same update, bit for bit.

A batch of the effective size is split into micro-batches of the program's size; gradients of
sums are added and divided once by the sum of sample weights, so the split changes nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from ..engines.base import Engine
from ..engines.dropout import generator
from ..errors import DataError, FtteError
from ..layout import Arrays, Vector
from ..manifest import Manifest
from .checkpoint import Checkpoint, Keeper
from .optimisers import clip_gradients
from .settings import TrainingSettings
from .steps import micro_batches, step_spans

__all__ = [
    "Cancelled",
    "Diverged",
    "Execute",
    "TrainingProgress",
    "TrainingResult",
    "train",
    "train_in_thread",
]


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """
    What local training gives.

    ``update`` maps the trained parameters to new minus old weights, in compact shape. ``loss`` and
    ``metrics`` are means per sample over the last pass over the samples, as far as it went; ``samples`` counts the
    device's samples that took part. ``local`` has the new weights of what stays on the device, whole.
    """

    update: dict[str, Vector]
    samples: int
    steps: int
    loss: float
    metrics: dict[str, float]
    local: dict[str, Vector] = dataclasses.field(default_factory=dict)


class Cancelled(FtteError):
    """Training was asked to stop."""


class Diverged(FtteError):
    """The loss became infinite or not a number."""


_log = logging.getLogger(__name__)

# How often a training that goes on keeps how far it went: what an app that is ended loses at the most.
KEEP_SECONDS = 60.0

# Called after each optimiser step with (steps done, steps in all, mean loss of the batch).
TrainingProgress = Callable[[int, int, float], None]


def train(
    engine: Engine,
    weights: Arrays,
    data: Dataset,
    settings: TrainingSettings,
    seed: int,
    progress: TrainingProgress | None = None,
    now: Callable[[], float] = time.monotonic,
    keeper: Keeper | None = None,
) -> TrainingResult:
    """
    Train the program's subset on a device's samples.

    Args:
        engine: the loaded program.
        weights: name -> full float32 array of every parameter; they are not changed.
        data: the device's samples.
        settings: what the coordinator asked for.
        seed: fixes the order of samples and the masks of dropout.
        progress: called after each step; what it raises ends the training.
        now: seconds, for the time limit.
        keeper: where it is kept how far the training went, and where that is looked for at the beginning.

    Raises:
        Diverged: if the loss stops being finite.
        ProgramError: if the samples do not fit the program.

    """
    local = _Local(engine, weights, settings)
    whole = _whole_samples(engine.manifest, len(data), settings)
    rounds = _rounds(len(data), settings, np.random.default_rng(seed), whole)
    steps = settings.count_steps(whole)
    dropout = generator(seed)
    done, seen, spent = 0, 0, 0.0
    totals = _Totals(dict.fromkeys(engine.manifest.metrics, 0.0))
    began = kept_at = now()

    def keep() -> None:
        if keeper is not None:
            arrays, optimiser = local.state()
            numbers = {"done": done, "seen": seen, "seconds": spent + now() - began, "optimiser": optimiser}
            numbers |= {"totals": dataclasses.asdict(totals), "dropout": dropout.bit_generator.state}
            keeper.save(Checkpoint(arrays, numbers))

    if keeper is not None and (before := keeper.load()) is not None:
        local.restore(before.arrays, before.numbers["optimiser"])
        done, seen, spent = (before.numbers[name] for name in ("done", "seen", "seconds"))
        totals = _Totals(**before.numbers["totals"])
        dropout.bit_generator.state = before.numbers["dropout"]
    for begins, indices in itertools.islice(rounds, done, None):
        if begins:
            totals = _Totals(dict.fromkeys(engine.manifest.metrics, 0.0))
        loss, metrics, gradients = _gradients(engine, local.current, data, indices, dropout)
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss} in step {done + 1} of {steps}: lower the learning rate")
        local.step(gradients)
        done += 1
        seen += len(indices)
        totals.add(len(indices), loss, metrics)
        if progress is not None:
            try:
                progress(done, steps, loss / len(indices))
            except Cancelled:
                keep()
                raise
        moment = now()
        if settings.is_over(spent + moment - began):
            break
        if moment - kept_at >= KEEP_SECONDS:
            keep()
            kept_at = moment
    update, kept = local.update(), local.kept()
    if not all(np.isfinite(array).all() for array in (*update.values(), *kept.values())):
        raise Diverged(f"the weights became infinite within {done} steps: lower the learning rate")
    return TrainingResult(
        update=update,
        samples=min(seen, whole),
        steps=done,
        loss=totals.loss / totals.samples,
        metrics={name: total / totals.samples for name, total in totals.metrics.items()},
        local=kept,
    )


def _rounds(
    samples: int, settings: TrainingSettings, order: np.random.Generator, whole: int | None = None
) -> Iterator[tuple[bool, npt.NDArray[np.int64]]]:
    """The batches of a training, each with whether it begins a pass over the samples, or over ``whole`` of them."""
    shuffled = np.empty(0, np.int64)
    for start, stop in step_spans(samples if whole is None else whole, settings):
        if start == 0:
            shuffled = order.permutation(samples)
        yield start == 0, shuffled[start:stop]


def _whole_samples(manifest: Manifest, samples: int, settings: TrainingSettings) -> int:
    """
    Samples that a pass takes: all, or whole micro-batches where samples of a batch see each other.

    Raises:
        DataError: if there is not one whole micro-batch.

    """
    if "train_step" not in manifest.whole:
        return samples
    size = manifest.micro_batch
    if settings.batch_size % size:
        raise DataError(
            f"a batch of {settings.batch_size} cannot be split into full micro-batches of {size}, which this model "
            "needs, since its samples see each other (as in batch normalisation): set batch_size to a multiple of "
            f"{size}"
        )
    if samples < size:
        raise DataError(
            f"this device has {samples} samples, and the model needs {size} at a time, since its samples see each "
            "other (as in batch normalisation): collect more, or export with a smaller micro_batch"
        )
    if samples % size:
        left = samples % size
        _log.info("each pass leaves out %d of %d samples, which fill no micro-batch of %d", left, samples, size)
    return samples - samples % size


@dataclasses.dataclass
class _Totals:
    """Sums over the samples of a pass."""

    metrics: dict[str, float]
    samples: int = 0
    loss: float = 0.0

    def add(self, samples: int, loss: float, metrics: Mapping[str, float]) -> None:
        self.samples += samples
        self.loss += loss
        self.metrics = {name: total + metrics[name] for name, total in self.metrics.items()}


class _Local:
    """A device's own copy of what is trained; the rest stays where it is, usually mapped from a file."""

    def __init__(self, engine: Engine, weights: Arrays, settings: TrainingSettings) -> None:
        self._subset = engine.manifest.trained
        self._shared = engine.manifest.subset
        self._kept = engine.manifest.local
        self._moved = engine.manifest.moved
        self._settings = settings
        self._given = weights
        self._optimiser = settings.make_optimiser()
        self.current = {name: weights[name].copy() if name in self._subset else weights[name] for name in weights}

    def step(self, gradients: dict[str, Vector]) -> None:
        """Move the weights; the gradients are overwritten."""
        gradients = dict(gradients)
        for name in self._moved:
            self.current[name] -= gradients.pop(name)
        if self._settings.proximal:
            for name in (n for n in self._shared if n not in self._moved):  # what is local has nothing to stay near to
                gradient = gradients[name]
                # The gradient of mu/2 * |w - w0|^2 (FedProx: Li et al. 2020).
                gradient += np.float32(self._settings.proximal) * (self._part(name) - self._start(name))
        if self._settings.clip_norm:
            clip_gradients(gradients, self._settings.clip_norm)
        for name, step in self._optimiser.steps(gradients, self._part):
            self.current[name][self._subset.selector(name)] -= step

    def update(self) -> dict[str, Vector]:
        """New minus old weights, compact, of what is shared."""
        update = self._shared.compact(self.current)
        for name, array in update.items():
            array -= self._start(name)
        return update

    def kept(self) -> dict[str, Vector]:
        """The new weights of what stays on the device."""
        return {name: self.current[name] for name in self._kept}

    def state(self) -> tuple[dict[str, Vector], list[float]]:
        """What is trained, and the optimiser's state; the arrays go on changing."""
        arrays, numbers = self._optimiser.state()
        trained = {f"trained/{name}": self._part(name) for name in self._subset}
        return trained | {f"optimiser/{name}": array for name, array in arrays.items()}, numbers

    def restore(self, arrays: Arrays, numbers: Sequence[float]) -> None:
        """Go on from what :meth:`state` gave."""
        for name in self._subset:
            self.current[name][self._subset.selector(name)] = arrays[f"trained/{name}"]
        optimiser = {k.removeprefix("optimiser/"): a for k, a in arrays.items() if k.startswith("optimiser/")}
        self._optimiser.restore(optimiser, numbers)

    def _part(self, name: str) -> Vector:
        part: Vector = self.current[name][self._subset.selector(name)]
        return part

    def _start(self, name: str) -> Vector:
        part: Vector = self._given[name][self._subset.selector(name)]
        return part


def _gradients(
    engine: Engine, weights: Arrays, data: Dataset, indices: Any, dropout: np.random.Generator
) -> tuple[float, dict[str, float], dict[str, Vector]]:
    """Loss sum, metric sums and mean gradients of one batch, accumulated over micro-batches."""
    size = engine.manifest.micro_batch
    total = 0.0
    sums: dict[str, float] = dict.fromkeys(engine.manifest.metrics, 0.0)
    gradients: dict[str, Vector] = {}
    for start, stop in micro_batches(len(indices), size):
        x, y = data.batch(indices[start:stop])
        loss, metrics, micro = engine.train_step(x, y, np.ones(len(x), np.float32), weights, dropout)
        total += loss
        sums = {name: value + metrics[name] for name, value in sums.items()}
        if start == 0:
            gradients = micro if len(indices) <= size else {name: g.copy() for name, g in micro.items()}
        else:
            for name, gradient in gradients.items():
                gradient += micro[name]
    for name, gradient in gradients.items():
        # A buffer that a step moves by itself moves by the mean over the micro-batches.
        gradient /= np.float32(math.ceil(len(indices) / size) if name in engine.manifest.moved else len(indices))
    return total, sums, gradients


# How the client runs training; the simulator puts a worker pool and virtual time here.
Execute = Callable[
    [Engine, Arrays, Dataset, TrainingSettings, int, Keeper, TrainingProgress], Awaitable[TrainingResult]
]


async def train_in_thread(
    engine: Engine,
    weights: Arrays,
    data: Dataset,
    settings: TrainingSettings,
    seed: int,
    keeper: Keeper,
    progress: TrainingProgress,
) -> TrainingResult:
    """
    Train in a thread, so that the connection stays alive.

    Cancelling ends it after the current step, which is waited for; how far it went is kept.

    Args:
        engine: runs the program; nobody else uses it meanwhile.
        weights: name -> full float32 array, read-only.
        data: the device's samples.
        settings: what the coordinator asks for.
        seed: the assignment's; the order of samples, dropout and rounding follow from it.
        keeper: keeps how far it went, and finds it again.
        progress: called in the event loop with done steps, all steps, and the loss.

    Raises:
        asyncio.CancelledError: after the current step, if the caller is cancelled.
        FtteError: as :func:`train`.

    """
    cancelled = threading.Event()
    loop = asyncio.get_running_loop()

    def report(done: int, steps: int, loss: float) -> None:
        if cancelled.is_set():
            raise Cancelled("training was cancelled")
        loop.call_soon_threadsafe(progress, done, steps, loss)

    thread = asyncio.create_task(asyncio.to_thread(train, engine, weights, data, settings, seed, report, keeper=keeper))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([thread])
        if not thread.cancelled():
            thread.exception()  # it was told to stop, and whatever it says now is too late
        raise
