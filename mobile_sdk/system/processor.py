"""Processor time and priority of this process."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time

__all__ = ["cpu_seconds", "device_model", "end_at_once", "lower_priority"]

if sys.platform != "win32":
    import resource


def cpu_seconds() -> float:
    """Processor time of all threads so far."""
    if sys.platform == "win32":
        return time.process_time()
    else:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime


def end_at_once() -> None:
    """End this process as a power cut would: nothing is flushed, closed or told. For tests of what survives."""
    if sys.platform == "win32":
        os._exit(1)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def lower_priority(niceness: int) -> None:
    """
    Let other processes go first: a nice value of at least ``niceness`` (0 to 19), or Windows' class below normal.

    Never raises the priority again, which only privileged processes may.
    """
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        below_normal = 0x4000  # BELOW_NORMAL_PRIORITY_CLASS
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), below_normal)
    else:
        os.nice(max(0, niceness - os.getpriority(os.PRIO_PROCESS, 0)))


def device_model() -> str:
    """Manufacturer and model on Android, from Python 3.13 on; elsewhere the kind of processor."""
    android = getattr(platform, "android_ver", None)
    facts = android() if android is not None and sys.platform == "android" else None
    return f"{facts.manufacturer} {facts.model}".strip() if facts is not None else platform.machine()
