"""
The buffered asynchronous loop.

Devices come and go, each served by its own session; whenever the buffer is full, its updates are
merged into the next version, which is evaluated, written down, and announced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np

from mobile_sdk.clock import Clock, Offload, SystemClock, offload
from mobile_sdk.connection import Connection
from mobile_sdk.evaluation import finite
from mobile_sdk.layout import Vector
from mobile_sdk.protocol.messages import Announce, Finished, Merged, Name

from .buffer import BufferedUpdate
from .config import Config, StalenessSection
from .errors import StoreUnavailable
from .keys import RunKey
from .merge.rules import Contribution, merge
from .merge.staleness import Constant, Exponential, Hinge, Polynomial, StalenessPolicy
from .run import Run
from .session import DeviceSession
from .status import RunStatus, Traffic
from .store.base import MergedUpdate, Store
from .tiers import Tier

__all__ = ["Coordinator"]

log = logging.getLogger(__name__)

# How long to wait before a merge that could not be written is tried again.
RETRY_SECONDS = 5.0

Evaluate = Callable[[Vector], Mapping[str, float]]


class Coordinator:
    """
    One run: serves devices and merges their updates.

    Args:
        config: the run file.
        store: the run's durable state, begun.
        key: the run's key.
        tiers: the run's programs.
        evaluate: central evaluation of a weight vector; none: versions have no metrics.
        clock: where the time comes from.
        offload: runs what must not block the event loop.

    ``state`` is the run in memory.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        key: RunKey,
        tiers: Sequence[Tier],
        evaluate: Evaluate | None,
        *,
        clock: Clock | None = None,
        offload: Offload = offload,
    ) -> None:
        clock = clock or SystemClock()
        self.state = Run(config, store, key, tiers, clock=clock, offload=offload)
        self._config = config
        self._evaluate = evaluate
        self._policy = staleness_policy(config.merge.staleness)
        self._sessions: dict[str, DeviceSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()

    def status(self) -> RunStatus:
        """One look at the run."""
        return self.state.status()

    async def serve(self, connection: Connection, traffic: Traffic | None = None) -> None:
        """Serve one device until it leaves."""
        session = DeviceSession(self.state, connection, traffic or Traffic(), self._greet)
        try:
            await session.serve()
        finally:
            if self._sessions.get(session.device) is session:
                del self._sessions[session.device]
            try:
                await session.leave()
            except StoreUnavailable as error:
                log.error("the traffic of %s is not counted: %s", session.device, error)
            finally:
                self._left.set()

    def _greet(self, session: DeviceSession) -> None:
        """A device proved itself; an older connection of the same device is closed."""
        older = self._sessions.get(session.device)
        self._sessions[session.device] = session
        if older is not None:
            # In the background: the old link may be stuck.
            self._background(older.replace())

    async def run(self) -> Finished:
        """
        Merge until the run has ended; devices are told of each version and of the end.

        Returns:
            The end as it was announced.

        """
        limit = self._config.stop.seconds
        try:
            # Between merges only: a merge that has begun is always finished and announced.
            async with asyncio.timeout(limit) as timeout:
                ends = timeout.when()
                while (reason := self._reached()) is None:
                    if ends is not None and asyncio.get_running_loop().time() >= ends:
                        raise TimeoutError  # a buffer that is always full never waits
                    updates = await self.state.buffer.full()
                    timeout.reschedule(None)
                    await self._merge_or_wait(updates)
                    timeout.reschedule(ends)
        except TimeoutError:
            reason = f"{limit:g} s are over"
        finished = self.state.finish(reason, self.state.versions.newest.metrics)
        self._push(finished)
        return finished

    async def drained(self) -> None:
        """Wait until every device has left; they do when they hear that the run has ended."""
        while self._sessions:
            self._left.clear()
            await self._left.wait()

    async def _merge_or_wait(self, updates: list[BufferedUpdate]) -> None:
        """Merge; where the state directory cannot be written, say so and leave the buffer as it is."""
        try:
            await self._merge(updates)
        except StoreUnavailable as error:
            log.error("version %d waits: %s", self.state.versions.newest.version + 1, error)
            await asyncio.sleep(RETRY_SECONDS)

    def _reached(self) -> str | None:
        """Why the run has ended, if it has."""
        stop, newest = self._config.stop, self.state.versions.newest
        accuracy = newest.metrics.get("accuracy", 0.0)
        if stop.accuracy is not None and accuracy >= stop.accuracy:
            return f"the accuracy {accuracy:.4f} has reached {stop.accuracy:g}"
        if stop.versions is not None and newest.version >= stop.versions:
            return f"version {newest.version} has reached the limit of {stop.versions}"
        return None

    async def _merge(self, updates: list[BufferedUpdate]) -> None:
        run = self.state
        staleness = [run.versions.staleness(update.record.version) for update in updates]
        weights = self._policy.weights(staleness)
        vector = await run.offload(self._merged, updates, weights)
        metrics = {} if self._evaluate is None else finite(await run.offload(self._evaluate, vector))
        merged = [
            MergedUpdate(update.record.assignment, tau, float(weight))
            for update, tau, weight in zip(updates, staleness, weights, strict=True)
        ]
        record = await run.offload(run.versions.commit, vector, metrics, merged, run.clock.wall())
        run.buffer.remove(updates)
        run.merged(record, merged)
        log.info("version %d: %s", record.version, ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
        for update, fate in zip(updates, merged, strict=True):
            session = self._sessions.get(update.record.device)
            if session is not None:
                told = Merged(Name(fate.assignment), record.version, fate.staleness, fate.weight)
                self._background(session.tell(told))
        self._push(Announce(record.version, metrics))

    def _merged(self, updates: list[BufferedUpdate], weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Vector:
        section = self._config.merge
        contributions = [
            Contribution(
                id=update.record.assignment,
                positions=self.state.tier(update.record.tier).positions,
                delta=update.delta,
                examples=float(update.record.report["samples"]),
                staleness_weight=float(weight),
            )
            for update, weight in zip(updates, weights, strict=True)
        ]
        return merge(
            self.state.versions.vector,
            contributions,
            rule=section.rule,
            min_holders=section.min_holders,
            learning_rate=section.learning_rate,
        )

    def _push(self, message: Announce | Finished) -> None:
        """Tell every device, without waiting for any."""
        for session in self._sessions.values():
            self._background(session.push(message))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def staleness_policy(section: StalenessSection) -> StalenessPolicy:
    """The policy that a run file names."""
    match section.policy:
        case "constant":
            return Constant()
        case "polynomial":
            return Polynomial(section.exponent)
        case "hinge":
            return Hinge(section.slope, section.threshold)
        case "exponential":
            return Exponential(section.rate)
