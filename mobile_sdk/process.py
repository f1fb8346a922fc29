"""What the operating system says of this process, and what it can be given back."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

__all__ = [
    "ProcessFacts",
    "ThisProcess",
    "cpu_seconds",
    "peak_rss_bytes",
    "release_code",
    "release_memory",
    "torch_loaded",
]

MADV_DONTNEED = 4
# In /proc/self/smaps: a private mapping of a file that nobody may write to.
MAPPING = re.compile(
    r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) r-(?P<executable>[-x])p \S+ \S+ \S+ +(?P<path>/.*)\n(?:[A-Z].*\n)*?"
    r"Rss: +(?P<resident>\d+) kB\n(?:[A-Z].*\n)*?Anonymous: +(?P<anonymous>\d+) kB$",
    re.MULTILINE,
)


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

    def release_memory(self, *, garbage: bool = True) -> None:
        release_memory(garbage=garbage)


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


def release_memory(*, garbage: bool = True) -> None:
    """
    Give back what the C library keeps of freed memory, where it can be told to (glibc), and :func:`release_code`.

    Args:
        garbage: look for objects that only each other hold, first: half of the time that this takes.

    """
    if garbage:
        gc.collect()
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
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if sys.platform != "linux" or hasattr(sys, "getandroidapilevel") or advise is None:
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
