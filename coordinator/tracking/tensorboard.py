"""Curves in TensorBoard's event files, by tensorboardX, which needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from tensorboardX import SummaryWriter

from .tracker import TrackedPhase, TrackedUpdate, TrackedVersion

__all__ = ["TensorBoardTracker"]


class TensorBoardTracker:
    """
    One run of TensorBoard; the step is the version.

    Args:
        folder: the log directory of this run: ``tensorboard --logdir`` of it or of its parent.

    """

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))
        self._version = 0

    def on_version(self, version: TrackedVersion) -> None:
        self._version = version.version
        numbers = {f"metrics/{name}": value for name, value in version.metrics.items()}
        numbers |= {"bytes/up": version.bytes_up, "bytes/down": version.bytes_down}
        numbers |= {"merge/updates": version.updates, "merge/buffer": version.buffer}
        if version.staleness is not None and version.weight is not None:
            numbers |= {"merge/staleness": version.staleness, "merge/weight": version.weight}
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, version.version, walltime=version.at)
        self._writer.flush()

    def on_update(self, update: TrackedUpdate) -> None:
        pass  # their means are in the version's curves

    def on_phase(self, phase: TrackedPhase) -> None:
        self._writer.add_text("phase", f"{phase.phase}: {phase.reason}", self._version, walltime=phase.at)

    def close(self) -> None:
        self._writer.close()
