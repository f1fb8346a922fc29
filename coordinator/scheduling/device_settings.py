"""What each device is asked to do with its samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import TrainingSection

__all__ = ["DeviceSettings"]


class DeviceSettings:
    """
    The settings that go out with an assignment; one object for all devices that make as many passes.

    Args:
        training: of the run file, with a learning rate.

    """

    def __init__(self, training: TrainingSection) -> None:
        self._training = training
        self._known: dict[int, Mapping[str, Any]] = {}

    def of(self, samples: int | None) -> Mapping[str, Any]:
        """
        What a device is asked to do; nobody changes it.

        Args:
            samples: how many it has; none if it has not said so.

        """
        epochs = self._training.epochs_for(samples)
        if epochs not in self._known:
            self._known[epochs] = {**self._training.settings.to_json(), "epochs": epochs}
        return self._known[epochs]
