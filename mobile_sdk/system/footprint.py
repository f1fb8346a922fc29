"""
Memory that a process has for itself alone: what a budget counts.

Linux calls it anonymous (``RssAnon``), macOS its physical footprint. Files that are mapped and unchanged count in
neither.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

from .memory import status_bytes

__all__ = ["footprint_bytes", "peak_footprint_bytes", "resident_bytes", "return_free_memory"]


def return_free_memory() -> None:
    """
    Give what the C library keeps of freed memory back to the system, where it can (glibc).

    Some 250 KB at the end of its heap stay resident otherwise, or not, by what came before: what is counted as growth
    from here on would begin with those pages in one process and without them in the next.
    """
    trim = None if sys.platform == "win32" else getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


if sys.platform == "darwin":
    _RUSAGE_INFO_V4 = 4
    _COUNTERS = (
        "user_time", "system_time", "pkg_idle_wkups", "interrupt_wkups", "pageins", "wired_size", "resident_size",
        "phys_footprint", "proc_start_abstime", "proc_exit_abstime", "child_user_time", "child_system_time",
        "child_pkg_idle_wkups", "child_interrupt_wkups", "child_pageins", "child_elapsed_abstime", "diskio_bytesread",
        "diskio_byteswritten", "cpu_time_qos_default", "cpu_time_qos_maintenance", "cpu_time_qos_background",
        "cpu_time_qos_utility", "cpu_time_qos_legacy", "cpu_time_qos_user_initiated", "cpu_time_qos_user_interactive",
        "billed_system_time", "serviced_system_time", "logical_writes", "lifetime_max_phys_footprint", "instructions",
        "cycles", "billed_energy", "serviced_energy", "interval_max_phys_footprint", "runnable_time",
    )  # fmt: skip

    class _Usage(ctypes.Structure):
        """``struct rusage_info_v4`` of <sys/resource.h>, whose fields begin with ``ri_``."""

        _fields_ = (("uuid", ctypes.c_uint8 * 16), *((name, ctypes.c_uint64) for name in _COUNTERS))

    def _usage() -> _Usage:
        usage = _Usage()
        if ctypes.CDLL(None, use_errno=True).proc_pid_rusage(os.getpid(), _RUSAGE_INFO_V4, ctypes.byref(usage)):
            raise OSError(ctypes.get_errno(), "the system does not say how much memory this process takes")
        return usage

    def footprint_bytes() -> int:
        """
        What this process takes for itself alone now, in bytes.

        Raises:
            OSError: if the system does not say.

        """
        return int(_usage().phys_footprint)

    def resident_bytes() -> int:
        """
        All memory of this process that is resident now, in bytes.

        Raises:
            OSError: if the system does not say.

        """
        return int(_usage().resident_size)

    def peak_footprint_bytes(work: Callable[[], None]) -> int:
        """
        The largest footprint during ``work``, in bytes.

        The system keeps the maximum of an interval, which begins anew by ``proc_reset_footprint_interval``.

        Raises:
            OSError: if the system does not say.

        """
        if ctypes.CDLL(None, use_errno=True).proc_reset_footprint_interval(os.getpid()):
            raise OSError(ctypes.get_errno(), "the system does not begin a new interval of memory's maximum")
        work()
        return int(_usage().interval_max_phys_footprint)

else:
    _TRIES = 5

    def footprint_bytes() -> int:
        """
        What this process takes for itself alone now, in bytes.

        Raises:
            OSError: if the system does not say.

        """
        return _status("RssAnon")

    def resident_bytes() -> int:
        """
        All memory of this process that is resident now, in bytes.

        Raises:
            OSError: if the system does not say.

        """
        return _status("VmRSS")

    def peak_footprint_bytes(work: Callable[[], None]) -> int:
        """
        The largest footprint during ``work``, in bytes. ``work`` may be called several times.

        The kernel keeps the peak of all resident memory only. What of it is file-backed is known if that is the same
        before and after; a kernel that is short of memory takes such pages away and brings them back, so it is done
        again then.

        Raises:
            OSError: if the system does not say.

        """
        peak = 0
        for _ in range(_TRIES):
            before = _mapped()
            Path("/proc/self/clear_refs").write_text("5")
            work()
            after = _mapped()
            peak = _status("VmHWM") - min(before, after)
            if after == before:
                break
        return peak

    def _mapped() -> int:
        return _status("RssFile") + _status("RssShmem")

    def _status(field: str) -> int:
        found = status_bytes(field)
        if found is None:
            raise OSError(f"the system does not say {field}: memory is measured on Linux and macOS")
        return found
