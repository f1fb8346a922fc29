"""
What a worker does: the SDK's own local training, with the torch step in the place of the program.

Every job is one device's training, whole, and each worker computes with one thread, so a result depends on the job
alone: not on how many workers there are, nor on what else they do.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobile_sdk.data import ArrayDataset
from mobile_sdk.layout import Vector
from mobile_sdk.manifest import Manifest
from mobile_sdk.settings import TrainingSettings
from mobile_sdk.training import TrainingResult, train

__all__ = ["Job", "Workshop", "WorkshopFiles", "open_workshop", "train_job"]


@dataclasses.dataclass(frozen=True)
class WorkshopFiles:
    """
    What every worker needs, once: the task by its name, the programs' manifests by their tier, and where the
    samples lie.

    ``path`` lists folders in which the task's module is looked for. ``frozen_bits`` is the grid of the weights that are
    inside the programs; the others come with each job.
    """

    task: str
    manifests: Mapping[str, bytes]
    x: Path
    y: Path
    path: tuple[str, ...] = ()
    frozen_bits: int | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """One device's training: full weights by name, the indices of its samples, and what the client was told."""

    tier: str
    weights: Mapping[str, Vector]
    samples: npt.NDArray[np.int64]
    settings: TrainingSettings
    seed: int


class Workshop:
    """Task, engines and samples, loaded."""

    def __init__(self, files: WorkshopFiles) -> None:
        import torch  # in workers alone

        from exporters.frozen import frozen_matrices, rounded
        from exporters.plan import Plan
        from exporters.task import load_task

        from .torch_engine import TorchEngine

        torch.set_num_threads(1)
        sys.path[:0] = [folder for folder in files.path if folder not in sys.path]
        task = load_task(files.task)
        manifests = {tier: Manifest.from_bytes(content) for tier, content in files.manifests.items()}
        if files.frozen_bits is not None:
            plans = [Plan(manifest.trained, manifest.micro_batch) for manifest in manifests.values()]
            task = rounded(task, frozen_matrices(task, plans), files.frozen_bits)
        self.engines = {tier: TorchEngine(task, manifest) for tier, manifest in manifests.items()}
        self._x = np.load(files.x, mmap_mode="r")
        self._y = np.load(files.y, mmap_mode="r")

    def train(self, job: Job) -> TrainingResult:
        """Raises what :func:`mobile_sdk.training.train` raises."""
        data = ArrayDataset(self._x[job.samples], self._y[job.samples])
        # Once for all steps, where they are mapped.
        weights = {name: array if array.flags.writeable else array.copy() for name, array in job.weights.items()}
        return train(self.engines[job.tier], weights, data, job.settings, job.seed)


_workshop: Workshop | None = None


def open_workshop(files: WorkshopFiles) -> None:
    """Prepare this process for jobs."""
    global _workshop  # noqa: PLW0603  a worker process has no other place to keep it
    _workshop = Workshop(files)


def train_job(job: Job) -> TrainingResult:
    """Do a job in a process that :func:`open_workshop` prepared."""
    if _workshop is None:
        raise RuntimeError("the worker was not prepared")
    return _workshop.train(job)
