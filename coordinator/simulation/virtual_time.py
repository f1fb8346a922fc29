"""
Virtual time: an event loop that never waits.

When nothing is ready to run, time jumps to the next timer, so a day of waiting costs nothing and the order of
events depends on virtual time alone. Work outside the loop (a thread) holds time until it is done.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, TypeVarTuple, Unpack

from ..errors import CoordinatorError

__all__ = ["START", "Stalled", "VirtualClock", "VirtualLoop", "offload", "run"]

# What a virtual clock on the wall shows at time 0: Thursday, 1 January 2026, midnight UTC.
START = 1_767_225_600.0

RESOLUTION = 1e-6

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Stalled(CoordinatorError):
    """Every task of a simulation waits for another, and no timer is left: it would wait for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose :meth:`time` is virtual and starts at 0."""

    def __init__(self) -> None:
        self._now = 0.0
        self._outside = 0
        super().__init__(_Jump(self))
        # Timers fire when they are due within this; after a year, a float of seconds knows no nanoseconds.
        self._clock_resolution = RESOLUTION

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass; only the selector does this, when nothing is ready."""
        self._now += seconds

    @property
    def held(self) -> bool:
        """Whether time stands still until work outside the loop is done."""
        return self._outside > 0

    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As in any loop, but virtual time stands still until the future is done."""
        future = super().run_in_executor(executor, func, *args)
        self._outside += 1
        future.add_done_callback(self._returned)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """As in any loop; its threads are waited for outside."""
        self._outside += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._outside -= 1

    def _returned(self, future: asyncio.Future[Any]) -> None:
        self._outside -= 1


class _Jump(selectors.BaseSelector):
    """A selector that lets virtual time pass where another would wait."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return []  # something is ready
        if self._loop.held:
            return self._real.select(None)  # whoever is outside wakes the loop up
        if timeout is None:
            raise Stalled("the simulation stands still: every device waits, and nothing is due to happen")
        self._loop.advance(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualClock:
    """The :class:`~mobile_sdk.clock.Clock` of a virtual loop; at its time 0 the wall shows ``start``, UTC."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: float = START) -> None:
        self._loop = loop
        self._start = start

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return self._start + self._loop.time()


async def offload(function: Callable[..., Any], *args: Any) -> Any:
    """
    Call ``function(*args)`` at once.

    A thread would cost more than most calls take and let the order of things depend on the machine. Virtual time
    stands still meanwhile in any case.
    """
    return function(*args)


def run(main: Coroutine[Any, Any, T]) -> T:
    """
    Run ``main`` in a loop of its own, as :func:`asyncio.run` does.

    Raises:
        Stalled: if everything waits and nothing is due.

    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
