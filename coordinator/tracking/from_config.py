"""The trackers that a run file asks for."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import ConfigError
from .files import FileTracker
from .tracker import Tracker
from .trackers import Trackers

__all__ = ["open_trackers"]

# The library of each tracker, and the extra of this package that brings it.
_LIBRARIES = {
    "tensorboard": "tensorboardX",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "opentelemetry": "opentelemetry.exporter.otlp.proto.http",
}


def open_trackers(config: Config, metrics: Sequence[str], history: Path | None) -> Trackers:
    """
    Open every tracker of ``[tracking]``, and the history. Blocks.

    Args:
        config: the run file.
        metrics: the names of the run's metrics.
        history: the folder of the history's files, and of what a library writes by itself; without one there is no
            history, and the current folder is that of libraries.

    Raises:
        ConfigError: if a tracker's library is not installed, or it cannot be opened.

    """
    section, run, state = config.tracking, config.run.name, config.run.state
    trackers: dict[str, Tracker] = {}
    name = "files"
    try:
        if history is not None:
            trackers[name] = FileTracker(history, metrics)
        if section.tensorboard is not None:
            name = "tensorboard"
            trackers[name] = _module(name).TensorBoardTracker(section.tensorboard / run)
        if section.mlflow is not None:
            name = "mlflow"
            trackers[name] = _module(name).MlflowTracker(section.mlflow, run, state)
        if section.wandb is not None:
            name = "wandb"
            trackers[name] = _module(name).WandbTracker(section.wandb, run, state, history or Path.cwd())
        if section.opentelemetry is not None:
            name = "opentelemetry"
            trackers[name] = _module(name).OpenTelemetryTracker(run, url=section.opentelemetry)
    except Exception as error:  # whatever a library raises
        for opened in trackers.values():
            with contextlib.suppress(Exception):
                opened.close()
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"tracking.{name} cannot be opened: {type(error).__name__}: {error}") from error
    return Trackers(run, trackers)


def _module(name: str) -> Any:
    try:
        importlib.import_module(_LIBRARIES[name])
    except ImportError as error:
        raise ConfigError(
            f"tracking.{name} needs the package {_LIBRARIES[name].partition('.')[0]} ({error}): "
            f"pip install 'ftte[{name}]'"
        ) from error
    return importlib.import_module(f".{name}", __package__)
