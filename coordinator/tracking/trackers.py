"""Tell all trackers of a run, without making the run wait."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping

from .tracker import TrackedPhase, TrackedUpdate, TrackedVersion, Tracker

__all__ = ["Trackers"]

log = logging.getLogger(__name__)

# Events that wait for a slow tracker. What comes beyond is left out, and counted: curves bear gaps, a run no leak.
MOST_WAITING = 10_000

_Event = TrackedVersion | TrackedUpdate | TrackedPhase


class Trackers:
    """
    The trackers of one run, each behind a queue and a thread of its own.

    Args:
        run: the run's name, for the log.
        trackers: by the name that the log calls them.

    """

    def __init__(self, run: str, trackers: Mapping[str, Tracker]) -> None:
        self._followers = [_Follower(run, name, tracker) for name, tracker in trackers.items()]

    @property
    def followed(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._followers)

    def tell(self, event: TrackedVersion | TrackedUpdate | TrackedPhase) -> None:
        """Pass an event on. Never blocks, never raises."""
        for follower in self._followers:
            follower.tell(event)

    def close(self) -> None:
        """Wait until every tracker has had what was told, and is closed. Blocks."""
        for follower in self._followers:
            follower.close()


class _Follower:
    def __init__(self, run: str, name: str, tracker: Tracker) -> None:
        self._what = f"the tracker {name} of the run {run}"
        self._tracker = tracker
        self._queue: queue.Queue[_Event | None] = queue.Queue()
        self._left_out = 0
        self._failed = False
        self._thread = threading.Thread(target=self._work, name=f"ftte-{name}", daemon=True)
        self._thread.start()

    def tell(self, event: _Event) -> None:
        if self._failed:
            return
        if self._queue.qsize() >= MOST_WAITING:
            if self._left_out == 0:
                log.warning("%s is too slow: events are left out", self._what)
            self._left_out += 1
            return
        self._queue.put(event)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._left_out:
            log.warning("%s missed %d events", self._what, self._left_out)

    def _work(self) -> None:
        while (event := self._queue.get()) is not None:
            if not self._failed:
                self._guard(event)
        self._guard(None)

    def _guard(self, event: _Event | None) -> None:
        """Tell the tracker; whatever it raises is said once and goes no further."""
        try:
            match event:
                case TrackedVersion():
                    self._tracker.on_version(event)
                case TrackedUpdate():
                    self._tracker.on_update(event)
                case TrackedPhase():
                    self._tracker.on_phase(event)
                case None:
                    self._tracker.close()
        except Exception as error:
            if not self._failed:
                log.error("%s has failed and is told nothing more: %s: %s", self._what, type(error).__name__, error)
            self._failed = True
