"""Where a run is kept, for tests of what every kind of store promises."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.store.interface import Store

__all__ = ["KINDS", "Place"]

KINDS = ("sqlite", "postgres")


class Place:
    """
    A place for one run, empty at first.

    Args:
        kind: of :data:`KINDS`.
        open_store: opens it.

    """

    def __init__(self, kind: str, open_store: Callable[[], Store]) -> None:
        self.kind = kind
        self._open = open_store
        self._opened: list[Store] = []

    def open(self) -> Store:
        """The store; closed when the test ends."""
        store = self._open()
        self._opened.append(store)
        return store

    def reopen(self) -> Store:
        """As after the end of the process that had it open."""
        self.close()
        return self.open()

    def close(self) -> None:
        """Close every store that was opened."""
        while self._opened:
            self._opened.pop().close()
