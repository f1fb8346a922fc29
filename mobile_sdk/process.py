"""What the operating system says of this process."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path
from typing import Protocol

__all__ = ["ProcessFacts", "ThisProcess", "cpu_seconds", "peak_rss_bytes", "release_memory", "torch_loaded"]


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

    def release_memory(self) -> None:
        """Give memory that is free back to the system, before more is taken for something else."""
        ...


class ThisProcess:
    """What the operating system says."""

    def peak_rss_bytes(self) -> int:
        return peak_rss_bytes()

    def cpu_seconds(self) -> float:
        return cpu_seconds()

    def torch_loaded(self) -> bool:
        return torch_loaded()

    def release_memory(self) -> None:
        release_memory()


def peak_rss_bytes() -> int:
    """
    The most resident memory that this program ever had, in bytes.

    Linux's ``VmHWM`` counts from the start of the program; ``ru_maxrss`` would include what the
    parent process had when it forked.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_seconds() -> float:
    """Processor time of all threads so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def torch_loaded() -> bool:
    """Whether PyTorch is in this process; it must never be."""
    return "torch" in sys.modules


def release_memory() -> None:
    """Give what the C library keeps of freed memory back to the system, where it can be told to (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
