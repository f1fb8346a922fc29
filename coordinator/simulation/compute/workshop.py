"""
What a worker does: the SDK's own local training, with the torch step in the place of the program, and the
coordinator's evaluation.

A job is one device's training, whole, or the evaluation of some held-out samples, and each worker computes with one
thread, so a result depends on the job alone: not on how many workers there are, nor on what else they do.
"""

from __future__ import annotations

import ctypes
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk.data import ArrayDataset
from mobile_sdk.layout import Vector
from mobile_sdk.manifest import Manifest
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import TrainingResult, train

__all__ = ["Evaluation", "Job", "TrainingJob", "Workshop", "WorkshopFiles", "do_job", "open_workshop"]

# Samples of an evaluation that go through the layers together: of more, what lies between layers leaves the processor's
# cache.
_AT_ONCE = 50


@dataclasses.dataclass(frozen=True)
class WorkshopFiles:
    """
    What every worker needs, once: the task by its name, the programs' manifests by their tier, and where the
    devices' samples lie, and those held out for evaluation.

    ``path`` lists folders in which the task's module is looked for. ``frozen_bits`` is the grid of the weights that are
    inside the programs; the others come with each job.
    """

    task: str
    manifests: Mapping[str, bytes]
    x: Path
    y: Path
    path: tuple[str, ...] = ()
    frozen_bits: int | None = None
    held_out: tuple[Path, Path] | None = None


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """One device's training: full weights by name, the indices of its samples, and what the client was told."""

    tier: str
    weights: Mapping[str, Vector]
    samples: npt.NDArray[np.int64]
    settings: TrainingSettings
    seed: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The held-out samples with these indices under full weights by name, in the engine of a tier."""

    tier: str
    weights: Mapping[str, Vector]
    samples: npt.NDArray[np.int64]


Job = TrainingJob | Evaluation


class Workshop:
    """Task, engines and samples, loaded."""

    def __init__(self, files: WorkshopFiles) -> None:
        import torch  # in workers alone

        from exporters.plan import Plan
        from exporters.program.rounding import frozen_matrices, round_weights
        from exporters.task import load_task

        from .frozen_prefix import behind
        from .torch_engine import TorchEngine

        torch.set_num_threads(1)
        sys.path[:0] = [folder for folder in files.path if folder not in sys.path]
        task = load_task(files.task)
        manifests = {tier: Manifest.from_bytes(content) for tier, content in files.manifests.items()}
        if files.frozen_bits is not None:
            plans = [Plan(manifest.trained, manifest.micro_batch) for manifest in manifests.values()]
            task = round_weights(task, frozen_matrices(task, plans), files.frozen_bits)
        self.engines = {tier: TorchEngine(task, manifest) for tier, manifest in manifests.items()}
        trained = {name for manifest in manifests.values() for name in manifest.trained}
        inside = {name for manifest in manifests.values() for name in manifest.baked}
        self._prefix, rest = behind(task, trained, inside)
        self._behind = {tier: TorchEngine(rest, manifest) for tier, manifest in manifests.items()}
        self._x, self._y = _mapped(files.x, files.y)
        self._held_out = None if files.held_out is None else _mapped(*files.held_out)

    def do(self, job: Job) -> Any:
        """What :meth:`train` or :meth:`evaluate` gives."""
        return self.train(job) if isinstance(job, TrainingJob) else self.evaluate(job)

    def train(self, job: TrainingJob) -> TrainingResult:
        """Raises what :func:`mobile_sdk.training.train.train` raises."""
        data = ArrayDataset(self._inputs(self._x, job.samples, job.weights), self._y[job.samples])
        # Once for all steps, where they are mapped.
        weights = {name: array if array.flags.writeable else array.copy() for name, array in job.weights.items()}
        return train(self._behind[job.tier], weights, data, job.settings, job.seed)

    def evaluate(self, job: Evaluation) -> tuple[float, dict[str, float]]:
        """
        Sums of the loss and of the metrics.

        Raises:
            ValueError: if no samples are held out.

        """
        if self._held_out is None:
            raise ValueError("no samples are held out, so there is nothing to evaluate on")
        x, y = self._held_out
        loss, metrics = 0.0, dict.fromkeys(self._behind[job.tier].manifest.metrics, 0.0)
        for start in range(0, len(job.samples), _AT_ONCE):
            samples = job.samples[start : start + _AT_ONCE]
            ones = np.ones(len(samples), np.float32)
            inputs = self._inputs(x, samples, job.weights)
            more, sums = self._behind[job.tier].evaluate(inputs, y[samples], ones, job.weights)
            loss += more
            metrics = {name: metrics[name] + value for name, value in sums.items()}
        return loss, metrics

    def _inputs(
        self, x: npt.NDArray[Any], samples: npt.NDArray[np.int64], weights: Mapping[str, Vector]
    ) -> npt.NDArray[Any]:
        """Samples, as far as the layers that nothing trains take them."""
        return x[samples] if self._prefix is None else self._prefix(x, samples, weights)


def _mapped(x: Path, y: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return np.load(x, mmap_mode="r"), np.load(y, mmap_mode="r")


_workshop: Workshop | None = None

# Of glibc's mallopt, and the most that it takes for the second.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST = -1, -3, 32 << 20


def open_workshop(files: WorkshopFiles) -> None:
    """Prepare this process for jobs."""
    _keep_freed_memory()
    global _workshop  # noqa: PLW0603  a worker process has no other place to keep it
    _workshop = Workshop(files)


def _keep_freed_memory() -> None:
    """Each step asks for the megabytes that the last one freed: kept, they need no fresh pages from the kernel."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, _LARGEST)


def do_job(job: Job) -> Any:
    """
    Do a job in a process that :func:`open_workshop` prepared.

    Raises:
        RuntimeError: if the process was not prepared.

    """
    if _workshop is None:
        raise RuntimeError("the worker was not prepared")
    return _workshop.do(job)
