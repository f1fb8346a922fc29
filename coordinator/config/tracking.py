"""``[tracking]``: where curves go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from .section import Section

__all__ = ["TrackingSection"]


class TrackingSection(Section):
    """
    Where the run's curves go, besides ``history`` in the state directory.

    ``tensorboard``: a folder for TensorBoard's event files, one below it for each run. ``mlflow``: the address of an
    MLflow server, or a database such as ``sqlite:///mlflow.db``. ``wandb``: the name of a Weights & Biases project; the
    environment variable ``WANDB_MODE=offline`` keeps it on this machine. ``opentelemetry``: the address of a collector,
    such as ``http://127.0.0.1:4318``, which gets a trace of each merged update's way. Each needs the extra of its name
    (``pip install 'ftte[tensorboard]'``). A tracker that fails is reported once and stops no run.
    """

    tensorboard: Path | None = None
    mlflow: str | None = None
    wandb: str | None = None
    opentelemetry: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
