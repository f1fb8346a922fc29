"""What the operating system says of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["cpu_seconds", "peak_rss_bytes", "torch_loaded"]


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
