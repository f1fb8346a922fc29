"""Work that nobody awaits: kept until it ends, and watched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from mobile_sdk.net.connection import ConnectionLost

from .errors import StoreUnavailable

__all__ = ["BackgroundTasks"]

log = logging.getLogger(__name__)


class BackgroundTasks:
    """
    Tasks of one owner.

    The event loop holds tasks by weak references only, so somebody has to keep them; and an exception that
    nobody awaits would be reported when the task is garbage, if ever.
    """

    def __init__(self) -> None:
        # In the order of their start, in which they are cancelled. Most owners, of thousands, never have any.
        self._tasks: dict[asyncio.Task[None], None] | None = None

    def __len__(self) -> int:
        return len(self._tasks or ())

    def start(self, work: Coroutine[Any, Any, None], doing: str) -> None:
        """
        Run ``work`` as a task; whatever it raises is logged and goes no further.

        Args:
            work: a coroutine.
            doing: what it does, as the subject of a log line: "telling phone-1 of version 3".

        """
        task = asyncio.create_task(_watched(work, doing))
        if self._tasks is None:
            self._tasks = {}
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    def close(self) -> None:
        """Cancel what still runs."""
        for task in self._tasks or ():
            task.cancel()


async def _watched(work: Coroutine[Any, Any, None], doing: str) -> None:
    try:
        await work
    except ConnectionLost as error:
        log.debug("%s: the device left before: %s", doing, error)
    except StoreUnavailable as error:
        log.error("%s has to wait: %s", doing, error)
    except Exception:
        log.exception("%s failed", doing)
