"""
The buffered asynchronous loop.

Each device is served by a :class:`~coordinator.sessions.device_connection.DeviceConnection` of its own. Whenever the
buffer is full, its updates are merged into the next version, which is evaluated, written down, and announced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from mobile_sdk.clock import Clock, Offload, SystemClock, offload
from mobile_sdk.layout import Vector
from mobile_sdk.metrics import format_metrics
from mobile_sdk.net.connection import Connection
from mobile_sdk.protocol.messages import Finished, MergedMessage, Name
from mobile_sdk.training.evaluation import finite

from ..background import BackgroundTasks
from ..config import Config
from ..errors import ConflictError, StoreUnavailable
from ..evaluation.metric_watch import MetricWatch
from ..merge.merger import MergeResult
from ..net.traffic import Traffic
from ..programs.run_key import RunKey
from ..programs.tiers import Tier
from ..reports.learning import PAGE, does_not_learn, likely_causes
from ..run_state import RunState
from ..scheduling.dispatcher import Dispatcher
from ..sessions.device_connection import DeviceConnection
from ..status import RunStatus
from ..store.interface import Store
from ..store.records import DiscardedUpdate, MergedUpdate, VersionRecord
from ..tracking.trackers import Trackers
from ..updates.buffer import BufferedUpdate
from ..versions.retention import prune
from .announcements import Announcements
from .history import History
from .kept_merges import KeptMerges
from .merging import Merging
from .phases import Phases

__all__ = ["Coordinator"]

log = logging.getLogger(__name__)

# How long to wait before a merge that could not be written is tried again.
RETRY_SECONDS = 5.0

# A device whose updates would have made a version collapse is set aside if that happens again within so many versions:
# once is no proof, since others' updates had their part in it.
AGAIN = 30

# Old versions are looked for so often at the most.
PRUNE_SECONDS = 1.0

# Part of an update whose device has not come back for so long is removed; that is looked for so often at the most.
UPLOAD_SECONDS = 86_400.0
EXPIRE_SECONDS = 600.0

# Assignments that came to nothing are remembered for so long, so that a late device hears what became of its own.
ASSIGNMENT_SECONDS = 86_400.0

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
        trackers: are told of versions, merged updates and phases; closed by whoever opened them.

    ``state`` is the run in memory, ``dispatcher`` gives out its work, ``watch`` follows its metrics, ``phases`` is its
    life from created to finished, ``announcements`` tells its devices of new versions.
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
        trackers: Trackers | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.state = RunState(config, store, key, tiers, clock=clock, offload=offload)
        self.dispatcher = Dispatcher(self.state, self._woken)
        self.watch = MetricWatch(config.evaluation, store.versions.all())
        self._config = config
        self._evaluate = evaluate
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()  # one version at a time, whether it is a merge or a rollback
        self._first = store.versions.get(0)
        merges = [record.version for record in store.versions.all() if record.kind == "merge"]
        KeptMerges(config.run.state).forget_all_but(merges)
        self._collapsed: dict[str, int] = {}  # device -> the version that its updates would have ruined last
        self._merging = Merging(config.merge, tiers, self.state.versions)
        self._sessions: dict[str, DeviceConnection] = {}
        self._tasks = BackgroundTasks()
        self._left = asyncio.Event()
        self._leaving = 0  # connections that have ended, whose accounts are being settled
        self._history = History(self.state, trackers or Trackers(config.run.name, {}))
        self.phases = Phases(self.state, config.stop, self.dispatcher, self.watch, self._phase_changed)
        self.announcements = Announcements(self._sessions, lambda: self.state.versions.newest)
        self._pruned_at = -math.inf
        self._expired_at = -math.inf

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

    def greet(self, session: DeviceConnection) -> None:
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
        try:
            async with self._writing:
                await self._prune(now=True)
            await state.offload(state.uploads.expire, math.inf)
        except (OSError, StoreUnavailable) as error:
            log.error("old versions and unfinished uploads keep their files for now: %s", error)
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

    # What an operator decides.

    async def roll_back(self, to: int, why: str, *, by: str) -> VersionRecord:
        """
        Go on from an older version: a new one repeats it, and what was based on versions in between is void.

        Args:
            to: the version to repeat.
            why: for the audit log.
            by: who asked for it.

        Raises:
            ConflictError: if ``to`` is no ancestor of the newest version.
            StoreError: if its weights were pruned.

        """
        async with self._writing:
            return await self._roll_back(to, why, by=by)

    async def _roll_back(self, to: int, why: str, *, by: str) -> VersionRecord:
        run = self.state
        newest = run.versions.newest.version
        if not run.versions.is_ancestor(to) or to == newest:
            raise ConflictError(f"version {to} is no ancestor of version {newest}: see `ftte versions`")
        void = [u for u in run.buffer.all() if not run.versions.is_ancestor(u.record.version, of=to)]
        lost = [a for a in self.dispatcher.open if not run.versions.is_ancestor(a.version, of=to)]
        record: VersionRecord = await run.offload(
            lambda: run.versions.roll_back(
                to,
                [DiscardedUpdate(update.record.assignment, "rolled-back") for update in void],
                [assignment.id for assignment in lost],
                run.clock.wall(),
                by=by,
                why=why,
            )
        )
        run.buffer.remove(void)
        log.warning("rolled back to version %d, which is version %d now: %s", to, record.version, why)
        self._published(record)
        self.dispatcher.void([assignment.device for assignment in lost])
        return record

    async def recover(self) -> None:
        """
        After an unexpected error: go on from what the store says, whatever memory says.

        Raises:
            StoreError: if the store cannot be read either.

        """
        run = self.state
        async with self._writing:
            before, known = run.buffer.all(), run.versions.newest.version
            waiting = await run.offload(run.waiting_updates)
            await run.offload(run.versions.reload)
            found = {update.record.assignment for update in waiting}
            run.buffer.remove([update for update in before if update.record.assignment not in found])
            for update in waiting:
                if not run.buffer.holds([update]):
                    run.buffer.add(update)
            for record in await run.offload(run.store.versions.all):
                if record.version > known:
                    self._published(record)
            run.stopped = ""

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

    @contextlib.asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        """While the context lasts no version is made; one that has begun is finished first."""
        async with self._writing:
            yield

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
            await self._merge(updates)
        except StoreUnavailable as error:
            log.error("version %d waits: %s", self.state.versions.newest.version + 1, error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _merge(self, updates: list[BufferedUpdate]) -> None:
        async with self._writing:
            # Time went on while this waited for its turn: an operator may have rolled back, withdrawn or discarded.
            if not self.state.buffer.holds(updates):
                return
            void = self._merging.void(updates)
            if void:
                discarded = [DiscardedUpdate(update.record.assignment, reason) for update, reason in void]
                await self.state.offload(self.state.store.updates.discard, discarded)
                self.state.buffer.remove([update for update, _ in void])
                return
            record = await self._merge_next(updates)
            if record is None:
                return
            harm = self.watch.harm(record)
            if harm is not None:
                await self._roll_back(record.parent, harm, by="coordinator")
            await self._prune()
        if harm is not None and self.watch.hopeless:
            self.watch.give_up()
            await self.phases.enter("paused", f"rolling back did not help: {harm}", by="coordinator")

    async def _prune(self, *, now: bool = False) -> None:
        """Remove what is too old; not at every version, where they follow each other fast."""
        run = self.state
        if not now and run.clock.monotonic() < self._pruned_at + PRUNE_SECONDS:
            return
        self._pruned_at = run.clock.monotonic()
        first = self._config.merge.keep_updates
        pruned = await run.offload(
            lambda: prune(run.store, self._config.retention, self.watch.best, run.clock.wall(), first=first)
        )
        if pruned:
            run.versions.forget(pruned)
            log.info("the weights of %d older versions are removed", len(pruned))
        if now or run.clock.monotonic() >= self._expired_at + EXPIRE_SECONDS:
            self._expired_at = run.clock.monotonic()
            await run.offload(run.uploads.expire, run.clock.wall() - UPLOAD_SECONDS)
            await run.offload(run.store.assignments.prune, run.clock.wall() - ASSIGNMENT_SECONDS)

    async def _try(self, updates: Sequence[BufferedUpdate]) -> tuple[MergeResult, Vector, Mapping[str, float]]:
        """What a merge of these updates would give: its result, the weights, and their held-out metrics."""
        run = self.state
        result = await run.offload(self._merging.merge, updates, len(self.dispatcher.scheduler.working))
        vector = run.versions.with_trained(result.weights)
        metrics = {} if self._evaluate is None else finite(await run.offload(self._evaluate, vector))
        return result, vector, metrics

    async def _examine(self, updates: Sequence[BufferedUpdate]) -> str | None:
        """
        A merge of these updates would make the held-out metrics collapse: find the device that does it.

        Returns:
            The device without which they do not, best of all; none if there is no such device.

        """
        devices = sorted({update.record.device for update in updates})
        found: list[tuple[float, str]] = []
        for device in devices if len(devices) > 1 else ():
            _, _, metrics = await self._try([update for update in updates if update.record.device != device])
            if self.watch.collapse(metrics, self.state.versions.newest) is None:
                found.append((metrics.get("loss", 0.0) - metrics.get("accuracy", 0.0), device))
        return min(found)[1] if found else None

    async def _helps(self, device: str, updates: Sequence[BufferedUpdate], metrics: Mapping[str, float]) -> bool:
        """
        Whether held-out data say that a device whose updates point against all others' makes the version better.

        Its samples may be of a kind that nobody else has. Without held-out data nothing says so.
        """
        others = [update for update in updates if update.record.device != device]
        if "loss" not in metrics or not others:
            return False
        _, _, without = await self._try(others)
        helps = without.get("loss", math.inf) > metrics["loss"]
        if helps:
            log.info("updates of %s point against all others', but make the version better", device)
        return helps

    async def _set_aside(self, device: str, reason: str, why: str) -> None:
        """Merge nothing more of a device for a while; written down, and said in the log and in the audit log."""
        run = self.state
        aside = run.set_aside(device, reason, why)
        self.dispatcher.void([device])
        log.warning("%s is set aside: %s", device, why)
        await run.offload(run.store.devices.set_aside, device, aside, run.clock.wall())

    async def _defend(self, updates: list[BufferedUpdate]) -> list[BufferedUpdate]:
        """Those of ``updates`` whose devices are not set aside; the others are discarded."""
        out = [update for update in updates if self.state.aside_seconds(update.record.device) > 0]
        await self._discard(out, "set-aside")
        return [update for update in updates if update not in out]

    async def _discard(self, updates: Sequence[BufferedUpdate], reason: str) -> None:
        if updates:
            discarded = [DiscardedUpdate(update.record.assignment, reason) for update in updates]
            await self.state.offload(self.state.store.updates.discard, discarded)
            self.state.buffer.remove(list(updates))

    async def _merge_next(self, updates: list[BufferedUpdate]) -> VersionRecord | None:
        """The next version; none if there is nothing left to merge that would not do harm."""
        run = self.state
        defended = self._config.merge.defence
        if defended:
            updates = await self._defend(updates)
            if not updates:
                return None
        result, vector, metrics = await self._try(updates)
        collapse = self.watch.collapse(metrics, run.versions.newest) if defended else None
        if collapse is not None:
            return await self._answer_collapse(updates, collapse)
        if defended:
            working = len(self.dispatcher.scheduler.working)
            for device, (reason, why) in (await run.offload(self._merging.learn, updates, working)).items():
                if reason != "direction" or not await self._helps(device, updates, metrics):
                    await self._set_aside(device, reason, why)
        return await self._publish(updates, result, vector, metrics)

    async def _publish(
        self, updates: list[BufferedUpdate], result: MergeResult, vector: Vector, metrics: Mapping[str, float]
    ) -> VersionRecord:
        run = self.state
        merged = [
            MergedUpdate(update.record.assignment, tau, result.counted[update.record.assignment])
            for update in updates
            if update.record.assignment not in result.outliers
            for tau in (run.versions.staleness(update.record.version),)
        ]
        if self._config.merge.keep_updates:
            await run.offload(self._keep, updates, result)
        discarded = [DiscardedUpdate(assignment, "outlier") for assignment in sorted(result.outliers)]
        record: VersionRecord = await run.offload(
            run.versions.commit, vector, result.state, metrics, merged, discarded, run.clock.wall()
        )
        run.buffer.remove(updates)
        run.merged(merged)
        log.info("version %d: %s", record.version, format_metrics(metrics))
        fates = {fate.assignment: fate for fate in merged}
        for update in updates:
            session = self._sessions.get(update.record.device)
            fate = fates.get(update.record.assignment)
            if session is not None and fate is not None:
                told = MergedMessage(Name(fate.assignment), record.version, fate.staleness, fate.weight)
                self._tasks.start(session.tell(told), f"telling {session.device} of its update")
        self._published(record, updates, merged)
        return record

    def _keep(self, updates: Sequence[BufferedUpdate], result: MergeResult) -> None:
        store = self.state.store
        contents = [(update.record, store.updates.content(update.record.assignment)) for update in updates]
        number = store.versions.next_number()
        KeptMerges(self._config.run.state).keep(number, self._config.merge, contents, result.contributions)

    async def _answer_collapse(self, updates: list[BufferedUpdate], collapse: str) -> VersionRecord | None:
        """A version that would ruin the model is not published; what it was made of is examined, and left out."""
        log.warning("version %d is not published: %s", self.state.versions.newest.version + 1, collapse)
        culprit = await self._examine(updates)
        if culprit is not None:
            newest = self.state.versions.newest.version
            last = self._collapsed.get(culprit)
            self._collapsed[culprit] = newest
            if last is not None and newest - last <= AGAIN:
                await self._set_aside(culprit, "collapse", f"its updates ruin the model: {collapse}")
            else:
                log.warning("an update of %s is left out: without it that would not be so", culprit)
            own = [update for update in updates if update.record.device == culprit]
            await self._discard(own, "outlier")
            rest = [update for update in updates if update not in own]
            return await self._merge_next(rest) if rest else None
        if self.watch.refuse():
            await self._discard(updates, "outlier")
            return None
        # Three times in a row and by no single device: that is how this run learns, and the operator's to judge.
        log.warning("no single device is the reason: the next version is published as it is")
        return await self._publish(updates, *await self._try(updates))

    def _published(
        self, record: VersionRecord, updates: Sequence[BufferedUpdate] = (), merged: Sequence[MergedUpdate] = ()
    ) -> None:
        """There is a new version: everybody hears of it, and who has waited for it gets it."""
        self.state.published(record)
        self._history.tell_version(record, updates, merged)
        self.watch.see(record)
        self._look_at_learning()
        self.state.federated.begin(record, list(self._sessions))
        self.announcements.announce()
        self.dispatcher.dispatch()

    def _look_at_learning(self) -> None:
        """Say so, once, where versions are no better than the first; and again when they are."""
        run = self.state
        notice = does_not_learn(run.history, self._first, self._config)
        if notice:
            causes = likely_causes(self._config, run.tiers, run.mean_staleness)
            notice = f"{notice}. Likely: {'; '.join(causes)}. See {PAGE}"
            if not run.notice:
                log.warning("%s", notice)
                self._tasks.start(
                    self._write_down("does-not-learn", notice), "writing down that the run does not learn"
                )
        elif run.notice:
            log.info("the run learns: versions are better than version 0 again")
        run.notice = notice

    async def _write_down(self, action: str, why: str) -> None:
        run = self.state
        await run.offload(run.store.audit.write, run.clock.wall(), "coordinator", action, "run", {"why": why})
