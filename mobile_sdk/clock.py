"""Time, and what leaves the event loop: the two seams that the simulator replaces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["Clock", "Offload", "SystemClock", "offload"]


class Clock(Protocol):
    """Where all code of FTTE takes the time from. Waiting is the event loop's business."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since 1970: for deadlines that survive a restart and for what people read."""
        ...


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


# Calls ``function(*args)`` outside the event loop. Virtual time stands still until it is done.
Offload = Callable[..., Awaitable[Any]]


async def offload(function: Callable[..., Any], *args: Any) -> Any:
    """Run ``function(*args)`` in a thread: files, SQLite, evaluation and training."""
    # `asyncio.to_thread` would copy the context of each call, which nobody looks at.
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)
