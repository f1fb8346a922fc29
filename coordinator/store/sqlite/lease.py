"""The lead of a run whose state is one directory: whoever has the directory's lock."""

from __future__ import annotations

import math

from ..records import LeaseRecord

__all__ = ["FolderLease"]


class FolderLease:
    """
    The :class:`~coordinator.store.interface.LeaseStore` of a state directory, which one process has at a time.

    So the first who asks gets the lease, it never runs out, and nobody is superseded. The process's death ends it.
    """

    def __init__(self) -> None:
        self._holder = ""
        self._epoch = 0
        self._address = ""

    def take(self, holder: str, seconds: float) -> int | None:
        if self._holder not in ("", holder):
            return None
        if not self._holder:
            self._holder, self._epoch = holder, self._epoch + 1
        return self._epoch

    def renew(self, seconds: float) -> bool:
        return bool(self._holder)

    def announce(self, address: str) -> None:
        self._address = address

    def release(self) -> None:
        self._holder = self._address = ""

    @property
    def lost(self) -> bool:
        return False

    def look(self) -> bool:
        return self.lost

    def current(self) -> LeaseRecord | None:
        return LeaseRecord(self._holder, self._epoch, math.inf, self._address) if self._holder else None
