"""Accepted updates that wait to be merged."""

from __future__ import annotations

import asyncio
import dataclasses

from mobile_sdk.layout import Vector

from .store.base import UpdateRecord

__all__ = ["Buffer", "BufferedUpdate"]


@dataclasses.dataclass(frozen=True)
class BufferedUpdate:
    """An accepted update with its elements, float32, in the order of its tier's positions."""

    record: UpdateRecord
    delta: Vector


class Buffer:
    """
    Gathers updates until there are ``capacity`` of them; never waits for any particular device.

    More may come while a merge is under way: they wait for the next one. ``arrivals`` counts all that ever came.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._updates: list[BufferedUpdate] = []
        self._full = asyncio.Event()
        self.arrivals = 0

    def __len__(self) -> int:
        return len(self._updates)

    def add(self, update: BufferedUpdate) -> None:
        """Take an update in."""
        self._updates.append(update)
        self.arrivals += 1
        if len(self._updates) >= self.capacity:
            self._full.set()

    async def filled(self) -> None:
        """Wait until the buffer is full."""
        await self._full.wait()

    def oldest(self) -> list[BufferedUpdate]:
        """The oldest ``capacity`` updates; they stay until :meth:`remove`."""
        return self._updates[: self.capacity]

    def all(self) -> list[BufferedUpdate]:
        """Every update that waits, oldest first."""
        return list(self._updates)

    def remove(self, updates: list[BufferedUpdate]) -> None:
        """Forget updates that were merged."""
        gone = {update.record.assignment for update in updates}
        self._updates = [update for update in self._updates if update.record.assignment not in gone]
        if len(self._updates) < self.capacity:
            self._full.clear()
