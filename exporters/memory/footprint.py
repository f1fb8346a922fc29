"""
A program's memory, as measured or as predicted: the same parts either way.

The **budget** is the growth of anonymous memory from "runtime ready" to the peak of a training step. What is mapped
from files, and what the runtime and Python take before any program is opened, stand beside it.
"""

from __future__ import annotations

import dataclasses

__all__ = ["Footprint"]


@dataclasses.dataclass(frozen=True)
class Footprint:
    """
    Anonymous memory of a training step, in bytes.

    Args:
        arena_bytes: what ExecuTorch planned for tensors between delegates, gradients apart.
        workspace_bytes: the delegates': XNNPACK's workspace, its operators and the tensors that it describes. XNNPACK
            does not report its workspace, so in a measurement this is what the other parts leave of the total.
        trained_bytes: the device's copy of the trained parameters, whole ones where a slice is trained.
        gradient_bytes: compact gradients.
        optimiser_bytes: the optimiser's state: SGD's momentum.
        batch_bytes: x, y, sample weights, and what else a step takes as input.
        mapped_bytes: frozen weights, mapped from their file: the kernel can drop them at any time. Not in the total.
        idle_bytes: resident memory of the process before the program is opened. Not in the total; 0 in a prediction.

    """

    arena_bytes: int
    workspace_bytes: int
    trained_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    batch_bytes: int
    mapped_bytes: int
    idle_bytes: int

    @property
    def total_bytes(self) -> int:
        """What counts against the budget."""
        return (
            self.arena_bytes
            + self.workspace_bytes
            + self.trained_bytes
            + self.gradient_bytes
            + self.optimiser_bytes
            + self.batch_bytes
        )
