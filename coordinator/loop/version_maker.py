"""Making versions, one at a time: by merging, and by going back to an older one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from mobile_sdk.metrics import format_metrics

from ..config import Config
from ..errors import ConflictError
from ..evaluation.metric_watch import MetricWatch
from ..merge.merger import MergeResult
from ..run_state import RunState
from ..scheduling.dispatcher import Dispatcher
from ..store.records import DiscardedUpdate, MergedUpdate, VersionRecord
from ..updates.buffer import BufferedUpdate
from .housekeeping import Housekeeping
from .kept_merges import KeptMerges
from .merging import Merging
from .proposals import EvaluateWeights, Proposal, Proposals
from .screening import Screening

__all__ = ["Published", "VersionMaker"]

log = logging.getLogger(__name__)

# Called with each new version, the updates it was made of, and what became of those that were merged.
Published = Callable[[VersionRecord, Sequence[BufferedUpdate], Sequence[MergedUpdate]], None]


class VersionMaker:
    """
    Writes the versions of one run down.

    Args:
        run: the run.
        config: the run file.
        dispatcher: takes back work that a rollback voids.
        watch: follows the metrics.
        evaluate: central evaluation of a weight vector; none: versions have no metrics.
        published: called when a version is durable.

    """

    def __init__(
        self,
        run: RunState,
        config: Config,
        dispatcher: Dispatcher,
        watch: MetricWatch,
        evaluate: EvaluateWeights | None,
        published: Published,
    ) -> None:
        self._run = run
        self._config = config
        self._dispatcher = dispatcher
        self._watch = watch
        self._published = published
        self._writing = asyncio.Lock()  # one version at a time, whether it is a merge or a rollback
        self._merging = Merging(config.merge, run.tiers, run.versions)
        self._proposals = Proposals(run, self._merging, dispatcher, evaluate)
        self.screening = Screening(run, self._merging, self._proposals, watch, dispatcher)
        self._housekeeping = Housekeeping(run, config, watch)
        KeptMerges(config.run.state).forget_all_but(run.versions.merged())

    @contextlib.asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        """While the context lasts no version is made; one that has begun is finished first."""
        async with self._writing:
            yield

    async def merge(self, updates: Sequence[BufferedUpdate]) -> str | None:
        """
        Merge ``updates`` into the next version, without those that cannot be merged any more.

        Returns:
            Why the run should rest: versions get worse, and rolling back has not helped; none otherwise.

        Raises:
            StoreUnavailable: if it cannot be written down just now; the buffer is as it was.

        """
        async with self._writing:
            # Time went on while this waited for its turn: an operator may have rolled back, withdrawn or discarded.
            if not self._run.buffer.holds(updates):
                return None
            void = self._merging.void(updates)
            if void:
                discarded = [DiscardedUpdate(update.record.assignment, reason) for update, reason in void]
                await self._run.offload(self._run.store.updates.discard, discarded)
                self._run.buffer.remove([update for update, _ in void])
                return None
            record = await self._next(updates)
            if record is None:
                return None
            harm = self._watch.harm(record)
            if harm is not None:
                await self._roll_back(record.parent, harm, by="coordinator")
            await self._housekeeping.tidy()
        if harm is None or not self._watch.hopeless:
            return None
        self._watch.give_up()
        return f"rolling back did not help: {harm}"

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

    async def recover(self) -> None:
        """
        After an unexpected error: go on from what the store says, whatever memory says.

        Raises:
            StoreError: if the store cannot be read either.

        """
        run = self._run
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
                    self._published(record, (), ())
            run.stopped = ""

    async def finish(self) -> None:
        """The run has ended: what is not needed any more goes."""
        async with self._writing:
            await self._housekeeping.finish()

    async def _next(self, updates: Sequence[BufferedUpdate]) -> VersionRecord | None:
        """The next version; none if there is nothing left to merge that would not do harm."""
        screened = self._config.merge.defence
        while updates:
            if screened:
                updates = await self.screening.admit(updates)
                if not updates:
                    break
            proposal = await self._proposals.propose(updates)
            judged = screened and proposal.evaluated
            collapse = self._watch.collapse(proposal.metrics, self._run.versions.newest) if judged else None
            if collapse is None:
                if screened:
                    await self.screening.learn(proposal)
                return await self._publish(proposal)
            updates, as_it_is = await self.screening.answer_collapse(updates, collapse)
            screened = not as_it_is
        return None

    async def _publish(self, proposal: Proposal) -> VersionRecord:
        run, updates, result = self._run, proposal.updates, proposal.result
        merged = [
            MergedUpdate(update.record.assignment, tau, result.counted[update.record.assignment])
            for update in updates
            if update.record.assignment not in result.outliers
            for tau in (run.versions.staleness(update.record.version),)
        ]
        if self._config.merge.keep_updates:
            await run.offload(self._keep, updates, result)
        discarded = [DiscardedUpdate(assignment, "outlier") for assignment in sorted(result.outliers)]
        counted = [update for update in updates if update.record.assignment not in result.outliers]
        ranges = await run.offload(self._merging.ranges, counted)
        record: VersionRecord = await run.offload(
            run.versions.commit,
            proposal.vector,
            result.state,
            proposal.metrics,
            merged,
            discarded,
            run.clock.wall(),
            ranges,
        )
        run.buffer.remove(list(updates))
        run.merged(merged)
        log.info("version %d: %s", record.version, format_metrics(proposal.metrics))
        self._published(record, updates, merged)
        return record

    def _keep(self, updates: Sequence[BufferedUpdate], result: MergeResult) -> None:
        store = self._run.store
        contents = [(update.record, store.updates.content(update.record.assignment)) for update in updates]
        number = store.versions.next_number()
        KeptMerges(self._config.run.state).keep(number, self._config.merge, contents, result.contributions)

    async def _roll_back(self, to: int, why: str, *, by: str) -> VersionRecord:
        run = self._run
        newest = run.versions.newest.version
        if not run.versions.is_ancestor(to) or to == newest:
            raise ConflictError(f"version {to} is no ancestor of version {newest}: see `ftte versions`")
        void = [u for u in run.buffer.all() if not run.versions.is_ancestor(u.record.version, of=to)]
        lost = [a for a in self._dispatcher.open if not run.versions.is_ancestor(a.version, of=to)]
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
        self._published(record, (), ())
        self._dispatcher.void([assignment.device for assignment in lost])
        return record
