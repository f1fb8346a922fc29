"""A policy at work on a device: looks, counts the day's bytes, waits, and stops what may not go on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from ..clock import Clock, Offload
from ..conditions import Provider
from ..events import Paused
from ..storage.device_storage import DeviceStorage
from ..system.locks import hold_lock
from .rules import Policy, usual_lock

__all__ = ["LOOK_AGAIN_SECONDS", "Guard", "Stopped"]

# How often it is looked whether the device may train, before and while it does.
LOOK_AGAIN_SECONDS = 30.0

# How often a device whose turn it is not looks whether the other has done.
TURN_SECONDS = 5.0

T = TypeVar("T")


class Counted(Protocol):
    """A link that counts its bytes."""

    sent: int
    received: int


class Stopped(Exception):
    """The policy does not allow to go on."""


class Guard:
    """
    Keeps one client to its policy; without one, everything is allowed.

    Args:
        policy: what must hold.
        conditions: tells the state of the device.
        storage: remembers the bytes of the day.
        clock: where the time comes from.
        offload: runs what may block.

    """

    def __init__(
        self, policy: Policy | None, conditions: Provider | None, storage: DeviceStorage, clock: Clock, offload: Offload
    ) -> None:
        self._policy = policy
        self._conditions = conditions
        self._storage = storage
        self._clock = clock
        self._offload = offload
        self._link: Counted | None = None
        self._counted = 0

    @property
    def patience_seconds(self) -> float | None:
        """How long to wait for work before leaving; none: for as long as it takes."""
        return None if self._policy is None else self._policy.patience_seconds

    @property
    def away_seconds(self) -> float:
        """How long to stay away then."""
        return Policy.away_seconds if self._policy is None else self._policy.away_seconds

    async def allowed(self, tell: Callable[[Paused], None]) -> bool:
        """Whether the device may train now; if not, the reason is told."""
        reason = await self._offload(self._obstacle)
        if reason is not None:
            tell(Paused(reason, LOOK_AGAIN_SECONDS))
        return reason is None

    async def wait(self, tell: Callable[[Paused], None]) -> None:
        """Return when the device may train."""
        told = ""
        while (reason := await self._offload(self._obstacle)) is not None:
            if reason != told:
                tell(Paused(reason, LOOK_AGAIN_SECONDS))
                told = reason
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def watch(self, work: Awaitable[T]) -> T:
        """
        Do ``work`` for as long as the policy allows.

        Raises:
            Stopped: if it does not any more; the work has been cancelled.

        """
        if self._policy is None:
            return await work
        task = asyncio.ensure_future(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=LOOK_AGAIN_SECONDS)
                if done:
                    return task.result()
                if (reason := await self._offload(self._obstacle)) is not None:
                    raise Stopped(reason)
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    @contextlib.asynccontextmanager
    async def turn(self, tell: Callable[[Paused], None]) -> AsyncIterator[None]:
        """Train one at a time: wait until no other process of this device does."""
        if self._policy is None or not self._policy.one_at_a_time:
            yield
            return
        path = Path(self._policy.lock) if self._policy.lock is not None else usual_lock()
        while True:
            with hold_lock(path) as free:
                if free:
                    yield
                    return
            tell(Paused("another training is under way on this device", TURN_SECONDS))
            await asyncio.sleep(TURN_SECONDS)

    def link_opened(self, link: Counted) -> None:
        """Count the bytes of a new link from now on."""
        self._link = link
        self._counted = 0

    def count(self) -> int:
        """The bytes of the day, those of the last link included; written down."""
        moved = self._link.sent + self._link.received if self._link is not None else 0
        day = time.strftime("%Y-%m-%d", time.localtime(self._clock.wall()))
        today = self._storage.count_bytes(day, moved - self._counted)
        self._counted = moved
        return today

    def _obstacle(self) -> str | None:
        """Blocks."""
        if self._policy is None or self._conditions is None:
            return None
        today = self.count() if self._policy.bytes_per_day is not None else 0
        return self._policy.obstacle(self._conditions(), self._clock.wall(), today)
