"""How much memory training takes on this phone, as the kernel counts it."""

from __future__ import annotations

from mobile_sdk.system.footprint import footprint_bytes, resident_bytes

__all__ = ["Gauge", "process_bytes"]


def process_bytes() -> int:
    """All that this process has in memory; 0 where the system does not say."""
    try:
        return resident_bytes()
    except OSError:
        return 0


def _taken() -> int:
    try:
        return footprint_bytes()
    except OSError:
        return 0


class Gauge:
    """Growth of anonymous memory over what this process takes when it is idle: the budget counts in it."""

    def __init__(self) -> None:
        self._idle = _taken()
        self.now = 0
        self.peak = 0

    def rest(self) -> None:
        """The process is idle, and has not trained yet: what it takes now is the floor."""
        if self.peak == 0:
            self._idle = _taken()

    def look(self) -> None:
        """Take a reading."""
        self.now = max(0, _taken() - self._idle)
        self.peak = max(self.peak, self.now)
