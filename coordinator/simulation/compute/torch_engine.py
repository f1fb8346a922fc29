"""
The training step in torch: what a program was verified against, for workers that simulate many devices.

A test compares it with the exported program over 50 steps of every plan in use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from exporters.batches import Batch, like
from exporters.plan import Plan
from exporters.program.step import Step
from exporters.task import Task
from mobile_sdk.engines.dropout import DRAWN, draw
from mobile_sdk.fields import parts
from mobile_sdk.layout import Arrays, Vector
from mobile_sdk.manifest import Manifest

__all__ = ["TorchEngine"]


class TorchEngine:
    """
    An :class:`~mobile_sdk.engines.base.Engine` that runs the eager step of ``task`` for the plan in ``manifest``.

    Args:
        task: of the program, or of its layers from some place before the first trained one on.
        manifest: of the program: its subset and micro-batch are the plan.

    """

    def __init__(self, task: Task, manifest: Manifest) -> None:
        self.manifest = manifest
        self.runtime = ""  # it is no device's
        baked = tuple(name for name in manifest.baked if name in task.layout)
        self._step = Step(task, Plan(manifest.subset, manifest.micro_batch, baked))

    def train_step(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        sample_weight: Vector,
        weights: Arrays,
        dropout: np.random.Generator | None = None,
    ) -> tuple[float, dict[str, float], dict[str, Vector]]:
        arguments = (_tensor(weights[name]) for name in self._step.order)
        masks = self._masks(len(x), dropout)
        batch = self._batch("x", x), self._batch("y", y), torch.from_numpy(sample_weight)
        outputs = self._step.train_step(*batch, *arguments, *masks)
        metrics = self.manifest.metrics
        sums = dict(zip(metrics, (float(value) for value in outputs[1 : 1 + len(metrics)]), strict=True))
        gradients = (gradient.numpy() for gradient in outputs[1 + len(metrics) :])
        return float(outputs[0]), sums, dict(zip(self._step.trained, gradients, strict=True))

    def evaluate(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], sample_weight: Vector, weights: Arrays
    ) -> tuple[float, dict[str, float]]:
        arguments = (_tensor(weights[name]) for name in self._step.names)
        batch = self._batch("x", x), self._batch("y", y), torch.from_numpy(sample_weight)
        outputs = self._step.evaluate(*batch, *arguments)
        sums = (float(value) for value in outputs[1:])
        return float(outputs[0]), dict(zip(self.manifest.metrics, sums, strict=True))

    def predict(self, x: npt.NDArray[Any], weights: Arrays) -> npt.NDArray[np.float32]:
        output = self._step.predict(self._batch("x", x), *(_tensor(weights[name]) for name in self._step.names))
        array: npt.NDArray[np.float32] = output.numpy()
        return array

    def close(self) -> None:
        """Nothing is held."""

    def _batch(self, array: str, given: npt.NDArray[Any]) -> Batch:
        example = getattr(self._step.task, f"example_{array}")
        return like(example, [_tensor(np.ascontiguousarray(part)) for part in parts(given).values()])

    def _masks(self, count: int, dropout: np.random.Generator | None) -> list[torch.Tensor]:
        """Those that a program would get, for the ``count`` samples that are there."""
        masks = []
        for spec in self.manifest.methods["train_step"].inputs:
            if spec.role in DRAWN:
                mask = np.empty(spec.shape, np.float32)
                draw(spec, dropout, mask)
                masks.append(torch.from_numpy(mask[:count]))
        return masks


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    # What lies in a mapped file is read-only, which torch does not know.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
