"""Accepted updates that wait to be merged."""

from __future__ import annotations

import asyncio
import collections
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
    Gathers updates until there are enough to merge; never waits for any particular device.

    Enough are ``capacity`` updates by ``contributors`` distinct devices. More may come while a merge is under
    way: they wait for the next one. With ``limit`` of them waiting there is no room, except for devices whose
    updates are what a merge waits for.

    ``arrivals`` counts all that ever came, ``tiers`` those that wait, by tier.
    """

    def __init__(self, capacity: int, contributors: int = 1, limit: int | None = None) -> None:
        self.capacity = capacity
        self._contributors = contributors
        self._limit = limit
        self._updates: list[BufferedUpdate] = []
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False
        self.arrivals = 0
        self.tiers: collections.Counter[str] = collections.Counter()
        self._devices: collections.Counter[str] = collections.Counter()

    def __len__(self) -> int:
        return len(self._updates)

    @property
    def is_full(self) -> bool:
        """Whether there is enough to merge."""
        return bool(self.oldest())

    async def room(self, device: str) -> None:
        """Wait until an update of ``device`` may come. Those on their way up by then do not wait."""
        while not (self._closed or self.has_room(device)):
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """Nothing is merged any more: nobody needs to wait."""
        self._closed = True
        self._room.set()

    def open(self) -> None:
        """Merges go on."""
        self._closed = False

    def has_room(self, device: str) -> bool:
        """Whether an update of ``device`` may come now."""
        if self._limit is None or len(self._updates) < self._limit:
            return True
        return len(self._devices) < self._contributors and device not in self._devices

    def add(self, update: BufferedUpdate) -> None:
        """Take an update in."""
        self._updates.append(update)
        self.arrivals += 1
        self.tiers[update.record.tier] += 1
        self._devices[update.record.device] += 1
        if self.is_full:
            self._full.set()

    async def filled(self) -> None:
        """Wait until the buffer is full."""
        await self._full.wait()

    def oldest(self) -> list[BufferedUpdate]:
        """What the next merge takes, oldest first; nothing if there is not enough. They stay until :meth:`remove`."""
        devices = set()
        for count, update in enumerate(self._updates, 1):
            devices.add(update.record.device)
            if count >= self.capacity and len(devices) >= self._contributors:
                return self._updates[:count]
        return []

    def remainder(self) -> list[BufferedUpdate]:
        """Every update, to be merged though there are not enough; nothing if too few devices sent them."""
        return self.all() if len(self._devices) >= self._contributors else []

    def all(self) -> list[BufferedUpdate]:
        """Every update that waits, oldest first."""
        return list(self._updates)

    def remove(self, updates: list[BufferedUpdate]) -> None:
        """Forget updates that were merged."""
        gone = {update.record.assignment for update in updates}
        self.tiers.subtract(update.record.tier for update in self._updates if update.record.assignment in gone)
        self._updates = [update for update in self._updates if update.record.assignment not in gone]
        self._devices = collections.Counter(update.record.device for update in self._updates)
        self._room.set()
        if not self.is_full:
            self._full.clear()
