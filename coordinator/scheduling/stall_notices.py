"""Saying what a run waits for when it cannot go on by itself: in the log, and to devices that wait for work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from ..background import BackgroundTasks
from ..programs.tiers import Tier
from ..run_state import RunState

__all__ = ["StallNotices", "Waiting"]

log = logging.getLogger(__name__)


class Waiting(Protocol):
    """A device that waits for work."""

    async def wait(self, reason: str) -> None:
        """Tell it what it waits for."""
        ...


class StallNotices:
    """
    Tells of each stall once: the log, and every device that waits.

    Args:
        run: whose :meth:`~coordinator.run_state.RunState.stall` is looked at.

    """

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._stall = ""
        self._told: set[str] = set()
        self._tasks = BackgroundTasks()

    def look(self, waiting: Mapping[str, tuple[Waiting, Tier]]) -> None:
        """To be called whenever something has changed; ``waiting`` are the devices that wait, by name."""
        stall = self._run.stall()
        if stall != self._stall:
            self._stall = stall
            self._told.clear()
            if stall:
                log.warning("version %d waits for %s", self._run.versions.newest.version + 1, stall)
        for device in waiting.keys() - self._told if stall else ():
            self._told.add(device)
            applicant, _ = waiting[device]
            self._tasks.start(applicant.wait(stall), f"telling {device} what it waits for")

    def forget(self, device: str) -> None:
        """The device waits no more, or has left: the next time it hears the reason again."""
        self._told.discard(device)
