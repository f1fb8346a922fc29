"""Memory of this process: what it takes, and what can be given back to the system."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["peak_rss_bytes", "release_code", "release_memory", "status_bytes"]

if sys.platform != "win32":
    import resource

# ``ru_maxrss`` is in kilobytes on Linux and in bytes on macOS (getrusage(2) of either).
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024

MADV_DONTNEED = 4
# In /proc/self/smaps: a private mapping of a file that nobody may write to.
MAPPING = re.compile(
    r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) r-(?P<executable>[-x])p \S+ \S+ \S+ +(?P<path>/.*)\n(?:[A-Z].*\n)*?"
    r"Rss: +(?P<resident>\d+) kB\n(?:[A-Z].*\n)*?Anonymous: +(?P<anonymous>\d+) kB$",
    re.MULTILINE,
)


def status_bytes(field: str) -> int | None:
    """A field of Linux's ``/proc/self/status`` in bytes, such as ``"RssAnon"``; none where there is no such file."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def peak_rss_bytes() -> int:
    """
    The most resident memory that this program ever had, in bytes.

    Linux's ``VmHWM`` counts from the start of the program; ``ru_maxrss`` would include what the parent process had when
    it forked. Windows says its peak working set.
    """
    if sys.platform == "win32":
        return _peak_working_set()
    else:
        peak = status_bytes("VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES if peak is None else peak


def release_memory(*, garbage: bool = True) -> None:
    """
    Give back what the C library keeps of freed memory, where it can be told to (glibc), and :func:`release_code`.

    Args:
        garbage: look for objects that only each other hold, first: half of the time that this takes.

    """
    if garbage:
        gc.collect()
    if sys.platform != "win32":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    release_code()


def release_code() -> int:
    """
    Unmap the pages of code and constants that are resident, where they are the file's own (Linux, but not Android).

    Starting takes some 10 MB of code that is never run again. A page that is needed after all is mapped
    again from the system's cache when it is touched.

    Returns:
        Bytes that were resident in what was let go.

    """
    if sys.platform != "linux" or hasattr(sys, "getandroidapilevel"):
        return 0
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is None:
        return 0
    try:
        text = Path("/proc/self/smaps").read_text()
    except OSError:
        return 0
    clean = list(_clean_mappings(text))
    known = ctypes.cast(advise, ctypes.c_void_p).value or 0
    if not any(start <= known < start + size for start, size, _ in clean):
        return 0  # an emulator whose addresses are not ours
    for start, size, _ in clean:
        advise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_DONTNEED)
    return sum(resident for _, _, resident in clean)


def _clean_mappings(smaps: str) -> Iterator[tuple[int, int, int]]:
    """
    Start, size and resident bytes of what is mapped of programs and libraries, read-only and not altered.

    Nothing of other files: another thread may unmap those at any time, and what it maps there next must not be let go.
    """
    mappings = list(re.finditer(MAPPING, smaps))
    code = {mapping["path"] for mapping in mappings if mapping["executable"] == "x"}
    for mapping in mappings:
        resident, anonymous = (int(mapping[name]) * 1024 for name in ("resident", "anonymous"))
        if resident and not anonymous and mapping["path"] in code:
            start, end = (int(mapping[name], 16) for name in ("start", "end"))
            yield start, end - start, resident


if sys.platform == "win32":
    from ctypes import wintypes

    class _MemoryCounters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of psapi.h."""

        _fields_ = (
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            ("PeakWorkingSetSize", ctypes.c_size_t),
            ("WorkingSetSize", ctypes.c_size_t),
            ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
            ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
            ("PagefileUsage", ctypes.c_size_t),
            ("PeakPagefileUsage", ctypes.c_size_t),
        )

    def _peak_working_set() -> int:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.GetCurrentProcess.restype = wintypes.HANDLE
        query = kernel.K32GetProcessMemoryInfo
        query.argtypes = (wintypes.HANDLE, ctypes.POINTER(_MemoryCounters), wintypes.DWORD)
        counters = _MemoryCounters(cb=ctypes.sizeof(_MemoryCounters))
        if not query(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
            return 0
        return int(counters.PeakWorkingSetSize)
