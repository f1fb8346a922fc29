"""What every engine does: run the methods of one program on numpy arrays."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..layout import Arrays, Vector
from ..manifest import Manifest

__all__ = ["Engine"]


class Engine(Protocol):
    """
    One loaded program.

    ``weights`` maps every parameter of ``manifest.layout`` to its full float32 array; arrays are read
    in place, never copied or kept. Batches may be shorter than ``manifest.micro_batch``: the rest is
    filled with samples of weight 0, which change nothing. Longer ones are a :exc:`ProgramError`, as is
    any array of another shape or dtype than the manifest's, and whatever the runtime reports.

    ``runtime`` names what runs it, and the build: a device checks each once. It is empty where the engine stands for
    none, as in a simulation.
    """

    manifest: Manifest
    runtime: str

    def train_step(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        sample_weight: Vector,
        weights: Arrays,
        dropout: np.random.Generator | None = None,
    ) -> tuple[float, dict[str, float], dict[str, Vector]]:
        """
        Loss and gradients of one micro-batch.

        Args:
            x: inputs, shape ``(n, *contract.x_shape)``, ``1 <= n <= micro_batch``.
            y: targets, shape ``(n, *contract.y_shape)``.
            sample_weight: float32, shape ``(n,)``.
            weights: name -> full array.
            dropout: draws the masks of a model with dropout (:mod:`mobile_sdk.engines.dropout`); :obj:`None`
                turns dropout off.

        Returns:
            ``sum(sample_weight * loss)``, the task's weighted metric sums, and the gradients of that loss
            sum in compact form (``manifest.trained.shape(name)``). The gradient arrays belong to the
            engine and are overwritten by its next call.

        """
        ...

    def evaluate(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], sample_weight: Vector, weights: Arrays
    ) -> tuple[float, dict[str, float]]:
        """
        Loss sum and metric sums as in :meth:`train_step`, without gradients.

        Args:
            x: inputs, of the dtype of the contract, shape ``(n, *contract.x_shape)``, ``1 <= n <= micro_batch``.
            y: targets, shape ``(n, *contract.y_shape)``.
            sample_weight: float32, shape ``(n,)``.
            weights: name -> full float32 array.

        Raises:
            ProgramError: if an array is not as the manifest says, or the runtime fails.

        """
        ...

    def predict(self, x: npt.NDArray[Any], weights: Arrays) -> npt.NDArray[np.float32]:
        """The model's output for ``x`` of at most ``micro_batch`` samples, shape ``(n, ...)``."""
        ...

    def close(self) -> None:
        """Free the program; the engine must not be used afterwards."""
        ...
