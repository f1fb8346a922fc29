"""Looks at a run, made once for all pages that show it, and only while there are any."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ..runs.served_run import ServedRun
from .happenings import Cursor, Happenings, point_values, read_happenings
from .looks import RECENT_TRIPS, fleet_look, run_card, trips_look

__all__ = ["Feed", "Look", "Message"]

log = logging.getLogger(__name__)

# At most four looks a second, and no more of them than take so small a share of the event loop's time.
REFRESH_SECONDS = 0.25
LOOP_SHARE = 0.02

# What changes slowly, or costs more, is looked at so often.
SLOW_SECONDS = 2.0

# Increments that are kept for pages that lag behind.
KEPT = 64


class Look:
    """
    A run at one moment.

    ``text`` is its JSON; ``number`` grows with every change.
    """

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text


@dataclasses.dataclass(frozen=True)
class Message:
    """What a page is told, as JSON, and how far it has read then."""

    text: str
    cursor: Cursor


class Feed:
    """
    Looks at one run.

    Args:
        running: the run.

    """

    def __init__(self, running: ServedRun) -> None:
        self._running = running
        self._run = running.coordinator.state
        self._changed = asyncio.Condition()
        self._look = Look(0, "{}")
        self._made_for = self._look
        self._made: dict[Cursor, Message] = {}
        self._increments: collections.deque[tuple[Cursor, Happenings]] = collections.deque(maxlen=KEPT)
        self._cursor = Cursor()
        self._slow: dict[str, Any] = {}
        self._slow_at = 0.0
        self._readers = 0
        self._spent = 0.0
        self._task: asyncio.Task[None] | None = None

    def shows(self, running: ServedRun) -> bool:
        """Whether it is this run, and not an earlier one of the same name."""
        return self._running is running

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Looks are made while somebody reads."""
        if self._readers == 0:
            newest = await self._run.offload(lambda: read_happenings(self._running.store, Cursor()))
            self._cursor = newest.cursor
            self._increments.clear()
        self._readers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look_again())
        try:
            yield
        finally:
            self._readers -= 1
            if self._readers == 0 and self._task is not None:
                self._task.cancel()
                self._task = None

    async def next(self, seen: int, seconds: float) -> Look | None:
        """The first look after number ``seen``; none if nothing has changed for so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._look.number > seen)
        return self._look if self._look.number > seen else None

    async def message(self, cursor: Cursor, look: Look) -> Message:
        """A look with what has happened after a cursor; made once for all pages that are equally far."""
        if self._made_for is not look:
            self._made_for = look
            self._made.clear()
        made = self._made.get(cursor)
        if made is None:
            new = await self._since(cursor)
            rest = json.dumps({"versions": point_values(new.versions), "lines": new.lines}, separators=(",", ":"))
            made = Message(f'{{"run":{look.text},{rest[1:]}', new.cursor)
            if self._made_for is look:
                self._made[cursor] = made
        return made

    async def _since(self, cursor: Cursor) -> Happenings:
        """What has happened after a cursor, from memory where it is there."""
        if cursor == self._cursor:
            return Happenings((), (), cursor)
        for before, increment in self._increments:
            if before == cursor and increment.cursor == self._cursor:
                return increment
        found: Happenings = await self._run.offload(lambda: read_happenings(self._running.store, cursor))
        return found

    async def _look_again(self) -> None:
        while True:
            self._spent = 0.0
            try:
                await self._refresh()
            except Exception:
                log.exception("the dashboard could not look at the run %s", self._running.name)
            await asyncio.sleep(max(REFRESH_SECONDS, self._spent / LOOP_SHARE))

    async def _refresh(self) -> None:
        store, now = self._running.store, time.monotonic()
        before = self._cursor
        increment: Happenings = await self._run.offload(lambda: read_happenings(store, before))
        if increment.cursor != before:
            self._cursor = increment.cursor
            self._increments.append((before, increment))
        if now >= self._slow_at + SLOW_SECONDS:
            self._slow_at = now
            trips = await self._run.offload(lambda: store.updates.trips(RECENT_TRIPS))
            with self._counted():
                devices = self._run.status().devices
                self._slow = fleet_look(devices, self._run.tiers) | trips_look(trips, self._run.clock.wall())
        with self._counted():
            text = json.dumps(run_card(self._running) | self._slow, separators=(",", ":"))
        if text != self._look.text or increment.cursor != before:
            async with self._changed:
                self._look = Look(self._look.number + 1, text)
                self._changed.notify_all()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Time in which the event loop does nothing else."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._spent += time.perf_counter() - began
