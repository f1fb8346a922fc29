"""Curves in Weights & Biases; offline where ``WANDB_MODE=offline`` says so."""

from __future__ import annotations

import hashlib
from pathlib import Path

import wandb

from .tracker import TrackedPhase, TrackedUpdate, TrackedVersion

__all__ = ["WandbTracker"]


class WandbTracker:
    """
    One run of a project. A restart goes on with the same run, whose id follows from name and state directory.

    Args:
        project: its name there.
        run: the run's name.
        state: the state directory.
        folder: W&B's own files go below it, in ``wandb``.

    """

    def __init__(self, project: str, run: str, state: Path, folder: Path) -> None:
        identity = hashlib.sha256(f"{run} {state.absolute()}".encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project,
            name=run,
            id=identity,
            resume="allow",
            dir=str(folder),
            settings=wandb.Settings(silent=True),
        )

    def on_version(self, version: TrackedVersion) -> None:
        numbers: dict[str, float] = {f"metrics/{name}": value for name, value in version.metrics.items()}
        numbers |= {"bytes/up": version.bytes_up, "bytes/down": version.bytes_down, "merge/updates": version.updates}
        if version.staleness is not None and version.weight is not None:
            numbers |= {"merge/staleness": version.staleness, "merge/weight": version.weight}
        self._run.log(numbers, step=version.version)

    def on_update(self, update: TrackedUpdate) -> None:
        pass  # their means are in the version's curves

    def on_phase(self, phase: TrackedPhase) -> None:
        self._run.summary["phase"] = phase.phase

    def close(self) -> None:
        self._run.finish()
