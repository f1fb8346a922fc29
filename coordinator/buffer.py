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

    More may come while a merge is under way: they wait for the next one.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._updates: list[BufferedUpdate] = []
        self._full = asyncio.Event()

    def __len__(self) -> int:
        return len(self._updates)

    def add(self, update: BufferedUpdate) -> None:
        """Take an update in."""
        self._updates.append(update)
        if len(self._updates) >= self.capacity:
            self._full.set()

    async def full(self) -> list[BufferedUpdate]:
        """Wait until the buffer is full; the oldest ``capacity`` updates, which stay until :meth:`remove`."""
        await self._full.wait()
        return self._updates[: self.capacity]

    def remove(self, updates: list[BufferedUpdate]) -> None:
        """Forget updates that were merged."""
        gone = {update.record.assignment for update in updates}
        self._updates = [update for update in self._updates if update.record.assignment not in gone]
        if len(self._updates) < self.capacity:
            self._full.clear()
