"""
The buffered asynchronous loop.

Each device is served by a :class:`~coordinator.sessions.device_connection.DeviceConnection` of its own. Whenever the
buffer is full, its updates are merged into the next version, which is evaluated, written down, and announced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from mobile_sdk.clock import Clock, Offload, SystemClock, offload
from mobile_sdk.net.connection import Connection
from mobile_sdk.protocol.messages import Finished, MergedMessage, Name

from ..background import BackgroundTasks
from ..config import Config
from ..errors import StoreUnavailable, Superseded
from ..evaluation.metric_watch import MetricWatch
from ..net.traffic import Traffic
from ..programs.run_key import RunKey
from ..programs.tiers import Tier
from ..run_state import RunState
from ..scheduling.dispatcher import Dispatcher
from ..sessions.access import ConnectedDevice
from ..sessions.device_connection import DeviceConnection
from ..status import RunStatus
from ..store.interface import Store
from ..store.records import MergedUpdate, VersionRecord
from ..tracking.trackers import Trackers
from ..updates.buffer import BufferedUpdate
from .announcements import Announcements
from .history import History
from .learning_notice import LearningNotice
from .phases import Phases
from .proposals import EvaluateWeights
from .version_maker import VersionMaker

__all__ = ["Coordinator"]

log = logging.getLogger(__name__)

# How long to wait before a merge that could not be written is tried again.
RETRY_SECONDS = 5.0


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
        trackers: are told of versions, merged updates and phases; closed by whoever opened them.

    ``state`` is the run in memory, ``dispatcher`` gives out its work, ``watch`` follows its metrics, ``phases`` is its
    life from created to finished, ``announcements`` tells its devices of new versions,
    ``version_maker`` merges and rolls back.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        key: RunKey,
        tiers: Sequence[Tier],
        evaluate: EvaluateWeights | None,
        *,
        clock: Clock | None = None,
        offload: Offload = offload,
        trackers: Trackers | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.state = RunState(config, store, key, tiers, clock=clock, offload=offload)
        self.dispatcher = Dispatcher(self.state, self._woken)
        self.watch = MetricWatch(config.evaluation, store.versions.outlines())
        self.version_maker = VersionMaker(self.state, config, self.dispatcher, self.watch, evaluate, self._published)
        self._config = config
        self._changed = asyncio.Event()
        self._sessions: dict[str, ConnectedDevice] = {}
        self._tasks = BackgroundTasks()
        self._left = asyncio.Event()
        self._leaving = 0  # connections that have ended, whose accounts are being settled
        self._history = History(self.state, trackers or Trackers(config.run.name, {}))
        self._learning = LearningNotice(self.state, config, store.versions.get(0))
        self.phases = Phases(self.state, config.stop, self.dispatcher, self.watch, self._phase_changed)
        self.announcements = Announcements(self._sessions, lambda: self.state.versions.newest)

    @property
    def connected(self) -> Collection[str]:
        """Devices that are connected, here or at a gateway."""
        return self._sessions.keys()

    def status(self) -> RunStatus:
        """One look at the run."""
        return self.state.status()

    async def serve(
        self, connection: Connection, traffic: Traffic | None = None, proven: Callable[[], None] = lambda: None
    ) -> None:
        """
        Serve one device until it leaves.

        Args:
            connection: carries the frames.
            traffic: counts the connection's bytes; nobody does where :obj:`None`.
            proven: called when the device has proved who it is.

        """
        session = DeviceConnection(self.state, connection, traffic or Traffic(), self, proven)
        try:
            await session.serve()
        finally:
            await self.depart(session)

    async def depart(self, session: ConnectedDevice) -> None:
        """A connection has ended, whether or not its device had proved itself."""
        if self._sessions.get(session.device) is session:
            del self._sessions[session.device]
            self.dispatcher.left(session.device)
            self.state.federated.lost(session.device)
        self._leaving += 1
        try:
            await session.leave()
        except StoreUnavailable as error:
            log.error("the traffic of %s is not counted: %s", session.device, error)
        finally:
            self._leaving -= 1
            self._left.set()

    async def greet(self, session: ConnectedDevice) -> None:
        """A device proved itself; an older connection of the same device is closed."""
        older = self._sessions.get(session.device)
        self._sessions[session.device] = session
        self.dispatcher.came(session.device)
        if older is not None:
            # In the background: the old link may be stuck.
            self._tasks.start(older.replace(), f"closing an older connection of {session.device}")

    async def run(self) -> Finished:
        """
        Merge until the run has ended; devices are told of each version and of the end.

        Returns:
            The end as it was announced.

        """
        state = self.state
        if state.phase == "created" and not self._config.run.hold:
            await self.phases.enter("running", "started", by="coordinator")
        while (reason := await self.phases.ended()) is None:
            self._changed.clear()
            drained = state.phase == "draining" and not self.dispatcher.scheduler.working
            updates = self._rest() if drained else await self._gather()
            if updates:
                await self._merge_or_wait(updates)
            elif drained:
                await self.phases.enter("paused", "drained", by="coordinator")
        await self.version_maker.finish()
        if state.phase != "finished":
            await self.phases.enter("finished", reason, by="coordinator")
        finished = state.finish(reason, state.versions.newest.metrics)
        self.announcements.finish(finished)
        return finished

    def _rest(self) -> list[BufferedUpdate]:
        """What a drained run can merge still."""
        buffer = self.state.buffer
        return buffer.oldest() if buffer.is_full else buffer.remainder()

    async def _gather(self) -> list[BufferedUpdate]:
        """
        Wait for updates to merge; none if something else has to be looked at first.

        That is a full buffer. When the devices that there are cannot fill it, what has come is merged
        after a while.
        """
        state, buffer = self.state, self.state.buffer
        idle = state.phase in ("created", "paused")
        arrivals, flush, remaining = buffer.arrivals, self._config.merge.flush_seconds, await self.phases.remaining()
        limits = [seconds for seconds in (None if idle or flush == 0 else flush, remaining) if seconds is not None]
        waits: set[asyncio.Task[Any]] = {asyncio.create_task(self._changed.wait())}
        if not idle:
            waits.add(asyncio.create_task(buffer.filled()))
        try:
            done, _ = await asyncio.wait(
                waits, timeout=max(min(limits), 0.0) if limits else None, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
        if idle or self._changed.is_set():
            return []
        if buffer.is_full:
            return buffer.oldest()
        flushed = not done and flush > 0 and buffer.arrivals == arrivals and (remaining is None or remaining > flush)
        rest = buffer.remainder() if flushed else []
        if rest:
            log.info("merging %d of %d updates: no other came for %g s", len(rest), buffer.capacity, flush)
        return rest

    def _phase_changed(self) -> None:
        self._history.tell_phase()
        self._changed.set()

    def _woken(self) -> None:
        """A device is done with its work: what a draining run waits for."""
        self._left.set()
        if self.state.phase == "draining":
            self._changed.set()

    async def expel(self, device: str) -> None:
        """A device was revoked or withdrawn: its connection ends, and its place is free."""
        self.dispatcher.void([device])
        self.state.federated.lost(device)
        session = self._sessions.get(device)
        if session is not None:
            await session.fail("revoked", "the operator has revoked this device")
        await self.state.offload(self.state.uploads.forget, device)

    async def settled(self) -> None:
        """Wait until no update is on its way."""
        while any(device.state == "uploading" for device in self.state.status().devices):
            self._left.clear()
            await self._left.wait()

    async def dismiss(self, code: str, message: str) -> None:
        """End every connection; what is on its way up or down goes on when the devices come back."""
        await asyncio.gather(*(session.fail(code, message) for session in list(self._sessions.values())))

    def close(self) -> None:
        """Stop what would go on by itself."""
        self.announcements.close()
        self.dispatcher.close()

    async def drained(self) -> None:
        """Wait until every device has left, and what it moved is written down; they leave when the run has ended."""
        while self._sessions or self._leaving:
            self._left.clear()
            await self._left.wait()

    async def _merge_or_wait(self, updates: list[BufferedUpdate]) -> None:
        """Merge; where the state directory cannot be written, say so and leave the buffer as it is."""
        try:
            hopeless = await self.version_maker.merge(updates)
        except Superseded:
            raise  # there is nothing to wait for
        except StoreUnavailable as error:
            log.error("version %d waits: %s", self.state.versions.newest.version + 1, error)
            await asyncio.sleep(RETRY_SECONDS)
            return
        if hopeless is not None:
            await self.phases.enter("paused", hopeless, by="coordinator")

    def _published(
        self, record: VersionRecord, updates: Sequence[BufferedUpdate], merged: Sequence[MergedUpdate]
    ) -> None:
        """There is a new version: everybody hears of it, and who has waited for it gets it."""
        self._tell_fates(record, updates, merged)
        self.state.published(record)
        self._history.tell_version(record, updates, merged)
        self.watch.see(record)
        self._learning.look()
        self.state.federated.begin(record, list(self._sessions))
        self.announcements.announce()
        self.dispatcher.dispatch()

    def _tell_fates(
        self, record: VersionRecord, updates: Sequence[BufferedUpdate], merged: Sequence[MergedUpdate]
    ) -> None:
        fates = {fate.assignment: fate for fate in merged}
        for update in updates:
            session = self._sessions.get(update.record.device)
            fate = fates.get(update.record.assignment)
            if session is not None and fate is not None:
                session.tell(MergedMessage(Name(fate.assignment), record.version, fate.staleness, fate.weight))
