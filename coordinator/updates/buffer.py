"""Accepted updates that wait to be merged."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Sequence

from ..merge.squares import norm
from ..merge.sums import Elements, largest_magnitude
from ..store.records import UpdateRecord

__all__ = ["Buffer", "BufferedUpdate"]


@dataclasses.dataclass(frozen=True)
class BufferedUpdate:
    """
    An accepted update with its elements, in the order of its tier's positions: float32, or integers on steps.

    ``largest`` bounds their magnitude, where they are multiples of the merge's step already; ``length`` is their norm.
    """

    record: UpdateRecord
    delta: Elements
    largest: float | None = None
    length: float | None = None

    @classmethod
    def measured(cls, record: UpdateRecord, delta: Elements) -> BufferedUpdate:
        """An update of multiples of the merge's step, looked at once, so that no merge has to."""
        largest = largest_magnitude(delta)
        return cls(record, delta, largest, norm(delta, largest))


class Buffer:
    """
    Gathers updates until there are enough to merge; never waits for any particular device.

    Enough are ``capacity`` updates by ``contributors`` distinct devices. More may come while a merge is under
    way: they wait for the next one. With ``limit`` of them waiting there is no room, except for devices whose updates
    are what a merge waits for; those that were on their way by then find a place among twice as many.

    ``arrivals`` counts all that ever came, ``tiers`` those that wait, by tier.

    Args:
        capacity: updates of a merge.
        contributors: distinct devices of a merge, at least.
        limit: updates that may wait; :obj:`None` for any number.

    """

    def __init__(self, capacity: int, contributors: int = 1, limit: int | None = None) -> None:
        self.capacity = capacity
        self._contributors = contributors
        self._limit = limit
        self._updates: list[BufferedUpdate] = []
        self._full = asyncio.Event()
        self._closed = False
        self._reserved: collections.Counter[str] = collections.Counter()  # places, by who will fill them
        self._places = 0  # of all of them
        # Who waits for room, in the order they came: not to take a place, and to take one.
        self._waiting: tuple[dict[asyncio.Future[None], str], ...] = ({}, {})
        self.arrivals = 0
        self.tiers: collections.Counter[str] = collections.Counter()
        self._devices: collections.Counter[str] = collections.Counter()
        self._merged: set[str] = set()  # devices of the last merge

    def __len__(self) -> int:
        return len(self._updates)

    @property
    def devices(self) -> set[str]:
        """Devices whose updates wait, or were in the last merge."""
        return self._merged | self._devices.keys()

    def resize(self, capacity: int, limit: int | None) -> None:
        """Merge so many at a time from now on, and let ``limit`` wait."""
        if (capacity, limit) == (self.capacity, self._limit):
            return
        self.capacity, self._limit = capacity, limit
        if self.is_full:
            self._full.set()
        else:
            self._full.clear()
        for reserve in (True, False):
            self._wake(reserve=reserve)

    @property
    def is_full(self) -> bool:
        """Whether there is enough to merge."""
        enough = len(self._updates) >= max(self.capacity, 1)
        return enough and len(self._devices) >= self._contributors

    @property
    def is_open(self) -> bool:
        """Whether an update of any device may come now."""
        return self._closed or self._has_place(False)

    @property
    def missing_contributors(self) -> int:
        """How many more devices must send an update before there can be a merge."""
        return max(self._contributors - len(self._devices), 0)

    async def room(self, device: str, *, reserve: bool = False) -> None:
        """
        Wait until an update of ``device`` may come; first come, first served.

        Args:
            device: whose update it is.
            reserve: take a place, until :meth:`release`; without it, others may have come first by then.

        """
        if self.enter(device, reserve=reserve):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reserve][future] = device
        try:
            await future
        except asyncio.CancelledError:
            if self._waiting[reserve].pop(future, None) is None and reserve:  # it had got its place in this very moment
                self.release(device)
            raise

    def enter(self, device: str, *, reserve: bool = False) -> bool:
        """As :meth:`room`, if nothing has to be waited for; else nothing changes, and the answer is false."""
        may = self._closed or self.has_room(device, reserve=reserve)
        if may and reserve:
            self._reserve(device)
        return may

    def release(self, device: str) -> None:
        """Give a place of ``device`` back: its update is here, or will not come."""
        self._places -= 1
        self._reserved[device] -= 1
        if self._reserved[device] == 0:
            del self._reserved[device]
        if self._waiting[True]:
            self._wake(reserve=True)

    def _reserve(self, device: str) -> None:
        self._places += 1
        self._reserved[device] += 1

    def close(self) -> None:
        """Nothing is merged any more: nobody needs to wait."""
        self._closed = True
        for reserve in (True, False):
            self._wake(reserve=reserve)

    def open(self) -> None:
        """Merges go on."""
        self._closed = False

    def has_room(self, device: str, *, reserve: bool = False) -> bool:
        """Whether an update of ``device`` may come now, or take a place."""
        return self._has_place(reserve) or self._is_awaited(device)

    def _has_place(self, reserve: bool, let_in: int = 0) -> bool:
        if self._limit is None:
            return True
        if reserve:
            return len(self._updates) + self._places < 2 * self._limit
        return len(self._updates) + let_in < self._limit

    def _is_awaited(self, device: str) -> bool:
        """Whether a merge waits for updates by other devices than there are, and this is one."""
        if len(self._devices) >= self._contributors:
            return False
        known = self._coming
        return len(known) < self._contributors and device not in known

    @property
    def _coming(self) -> set[str]:
        """Devices whose updates wait, or have a place."""
        return self._devices.keys() | self._reserved.keys()

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

    def holds(self, updates: Sequence[BufferedUpdate]) -> bool:
        """Whether all of ``updates`` are still here: neither merged, nor discarded, nor withdrawn."""
        here = {update.record.assignment for update in self._updates}
        return here.issuperset(update.record.assignment for update in updates)

    def all(self) -> list[BufferedUpdate]:
        """Every update that waits, oldest first."""
        return list(self._updates)

    def remove(self, updates: list[BufferedUpdate]) -> None:
        """Forget updates that were merged."""
        gone = {update.record.assignment for update in updates}
        self._merged = {update.record.device for update in updates}
        kept = [update for update in self._updates if update.record.assignment not in gone]
        if len(kept) < len(self._updates):
            self._updates = kept
            self.tiers = collections.Counter([update.record.tier for update in kept])
            self._devices = collections.Counter([update.record.device for update in kept])
        for reserve in (True, False):
            self._wake(reserve=reserve)
        if not self.is_full:
            self._full.clear()

    def _wake(self, *, reserve: bool) -> None:
        """Let in who waits, as far as there is room, of those who take a place or of those who do not."""
        let_in = 0  # who only begins to send takes no place yet, but not all of them should begin at once
        for future, device in list(self._waiting[reserve].items()):
            if not (self._closed or self._has_place(reserve, let_in) or self._is_awaited(device)):
                if len(self._coming) >= self._contributors:
                    break  # pragma: no mutate: nobody behind could come in either
                continue
            del self._waiting[reserve][future]
            if not future.done():
                future.set_result(None)
                if reserve:
                    self._reserve(device)
                else:
                    let_in += 1
