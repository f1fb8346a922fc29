"""How much memory training takes on this phone, counted as a budget counts it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from mobile_sdk.engines.base import Engine
from mobile_sdk.process import ThisProcess
from mobile_sdk.system.footprint import footprint_bytes, resident_bytes

__all__ = ["Gauge", "GaugedProcess", "process_bytes"]


def process_bytes() -> int:
    """All that this process has in memory; 0 where the system does not say."""
    try:
        return resident_bytes()
    except OSError:
        return 0


def _anonymous() -> int:
    try:
        return footprint_bytes()
    except OSError:
        return 0


class Gauge:
    """
    Anonymous memory of the loaded program and its steps at their peak: bytes.

    What connecting, downloading and Python's own objects take between two trainings is no part of a budget, so the
    process's whole growth would be too much. Other threads of the process only add to a training's peak: of several
    trainings the least is nearest to what the program takes.

    Args:
        read: gives the anonymous memory of the process, in bytes.

    """

    def __init__(self, read: Callable[[], int] = _anonymous) -> None:
        self._read = read
        self._before: int | None = None  # when a program began to load
        self._held = 0
        self._base: int | None = None  # with the program, before its steps
        self._highest = 0  # of the training that runs
        self._least = 0  # of those that ended

    @property
    def peak(self) -> int:
        """Of the program that is loaded; 0 before it has trained."""
        return self._least or self._highest

    def load(self, folder: Path, load: Callable[[Path], Engine]) -> Engine:
        """The engine that ``load`` makes of a program's folder; what it takes counts from here."""
        gc.collect()
        self._before = self._read()
        self._highest = self._least = 0
        return load(folder)

    def ready(self) -> None:
        """Training is about to begin: what a program that was loaded holds is known now."""
        if self._highest:
            self._least = min(self._least or self._highest, self._highest)
            self._highest = 0
        self._base = self._read()
        if self._before is not None:
            self._held = max(0, self._base - self._before)
            self._before = None

    def look(self) -> None:
        """Take a reading, during training."""
        if self._base is not None:
            self._highest = max(self._highest, self._held + max(0, self._read() - self._base))


class GaugedProcess(ThisProcess):
    """Tells a gauge when the SDK has made room for training."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def release_memory(self, *, garbage: bool = True) -> None:
        super().release_memory(garbage=garbage)
        self._gauge.ready()
