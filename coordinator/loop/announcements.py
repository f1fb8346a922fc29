"""Telling devices of new versions, at a bounded rate."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Protocol

from mobile_sdk.protocol.messages import Announce, Finished

from ..store.records import VersionRecord

__all__ = ["ANNOUNCEMENTS_PER_SECOND", "Announcements", "Listener"]

# Messages per second to all devices together: a large fleet hears of the newest version a little later, not of each.
ANNOUNCEMENTS_PER_SECOND = 250


class Listener(Protocol):
    """A connected device, as far as announcements are concerned."""

    def push(self, message: Announce | Finished) -> None:
        """Tell the device, without waiting; of several messages that wait for a slow link only the newest is sent."""
        ...


class Announcements:
    """
    What all connected devices are told.

    Each announcement goes to every device, so the time to the next one grows with the fleet:
    ``len(listeners) / ANNOUNCEMENTS_PER_SECOND`` seconds. A version that comes within that time is announced at its
    end, unless a newer one has taken its place.

    Args:
        listeners: connected devices by name; read at each announcement.
        newest: gives the newest version.
        present: how many devices are connected in all; by default the listeners.

    """

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        newest: Callable[[], VersionRecord],
        present: Callable[[], int] | None = None,
    ) -> None:
        self._present = present or (lambda: len(listeners))
        self._listeners = listeners
        self._newest = newest
        self._announced_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    def announce(self) -> None:
        """There is a new version: tell everybody, now or as soon as the rate allows."""
        if self._timer is not None:
            return  # the announcement that is due will tell of this version
        loop = asyncio.get_running_loop()
        wait = self._announced_at + len(self._listeners) / ANNOUNCEMENTS_PER_SECOND - loop.time()
        if wait > 0:
            self._timer = loop.call_later(wait, self._announce_now)
        else:
            self._announce_now()

    def finish(self, message: Finished) -> None:
        """Tell everybody of the end, at once; an announcement that is due is left out."""
        self._push(message)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _announce_now(self) -> None:
        self._announced_at = asyncio.get_running_loop().time()
        newest = self._newest()
        self._push(Announce(newest.version, newest.metrics, self._present()))

    def _push(self, message: Announce | Finished) -> None:
        """Tell every device, without waiting for any."""
        self.close()
        for listener in self._listeners.values():
            listener.push(message)
