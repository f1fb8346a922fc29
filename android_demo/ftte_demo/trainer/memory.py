"""How much memory training takes on this phone, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Gauge", "read"]

_STATUS = Path("/proc/self/status")


def read(field: str) -> int:
    """A field of ``/proc/self/status`` in bytes, such as ``RssAnon``; 0 where there is none."""
    for line in _STATUS.read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0


class Gauge:
    """Growth of anonymous memory over what this process takes when it is idle: the budget counts in it."""

    def __init__(self) -> None:
        self._idle = read("RssAnon")
        self.now = 0
        self.peak = 0

    def rest(self) -> None:
        """The process is idle, and has not trained yet: what it takes now is the floor."""
        if self.peak == 0:
            self._idle = read("RssAnon")

    def look(self) -> None:
        """Take a reading."""
        self.now = max(0, read("RssAnon") - self._idle)
        self.peak = max(self.peak, self.now)
