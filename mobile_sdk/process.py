"""What a device reports of the process that it runs in."""

from __future__ import annotations

import sys
from typing import Protocol

from .system.memory import peak_rss_bytes, release_memory
from .system.processor import cpu_seconds, device_model

__all__ = ["ProcessFacts", "ThisProcess", "torch_loaded"]


class ProcessFacts(Protocol):
    """What a device reports of the process that it runs in; the simulator's devices share one, and say their own."""

    def peak_rss_bytes(self) -> int:
        """The most resident memory so far, in bytes."""
        ...

    def cpu_seconds(self) -> float:
        """Processor time of all threads so far."""
        ...

    def torch_loaded(self) -> bool:
        """Whether PyTorch is in this process."""
        ...

    def device_model(self) -> str:
        """Manufacturer and model of the device, so that its kind can be told where programs fail on it."""
        ...

    def release_memory(self, *, garbage: bool = True) -> None:
        """
        Give memory that is not needed now back to the system, before more is taken for something else.

        Without ``garbage`` it is quicker, and leaves what only a search among all objects would find.
        """
        ...


class ThisProcess:
    """What the operating system says."""

    def peak_rss_bytes(self) -> int:
        return peak_rss_bytes()

    def cpu_seconds(self) -> float:
        return cpu_seconds()

    def torch_loaded(self) -> bool:
        return torch_loaded()

    def device_model(self) -> str:
        return device_model()

    def release_memory(self, *, garbage: bool = True) -> None:
        release_memory(garbage=garbage)


def torch_loaded() -> bool:
    """Whether PyTorch is in this process; it must never be."""
    return "torch" in sys.modules
