"""Which updates are left out of a version because they harm it, and which devices are set aside for a while."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from ..evaluation.metric_watch import MetricWatch
from ..run_state import RunState
from ..scheduling.dispatcher import Dispatcher
from ..store.records import DiscardedUpdate
from ..updates.buffer import BufferedUpdate
from .merging import Merging
from .proposals import Proposal, Proposals

__all__ = ["Screening"]

log = logging.getLogger(__name__)

# A device whose updates would have made a version collapse is set aside if that happens again within so many versions:
# once is no proof, since others' updates had their part in it.
AGAIN = 30


class Screening:
    """
    The answers to devices whose updates harm the model (``merge.defence``).

    Args:
        run: the run; devices are set aside in it.
        merging: remembers what lengths and directions are usual.
        proposals: what merges without one device would give.
        watch: knows when metrics collapse.
        dispatcher: takes back the work of devices that are set aside.

    """

    def __init__(
        self, run: RunState, merging: Merging, proposals: Proposals, watch: MetricWatch, dispatcher: Dispatcher
    ) -> None:
        self._run = run
        self._merging = merging
        self._proposals = proposals
        self._watch = watch
        self._dispatcher = dispatcher
        self._collapsed: dict[str, int] = {}  # device -> the version that its updates would have ruined last

    async def admit(self, updates: Sequence[BufferedUpdate]) -> list[BufferedUpdate]:
        """Those of ``updates`` whose devices are not set aside; the others are discarded."""
        out = [update for update in updates if self._run.aside_seconds(update.record.device) > 0]
        await self.discard(out, "set-aside")
        return [update for update in updates if update not in out]

    async def discard(self, updates: Sequence[BufferedUpdate], reason: str) -> None:
        """Take updates out of the buffer, for a reason that the store keeps."""
        if updates:
            discarded = [DiscardedUpdate(update.record.assignment, reason) for update in updates]
            await self._run.offload(self._run.store.updates.discard, discarded)
            self._run.buffer.remove(list(updates))

    async def learn(self, proposal: Proposal) -> None:
        """The proposal becomes a version: remember what is usual, and set aside who was out of line too often."""
        working = len(self._dispatcher.scheduler.working)
        strange = await self._run.offload(self._merging.learn, proposal.updates, working)
        for device, (reason, why) in strange.items():
            if reason != "direction" or await self._hinders(device, proposal):
                await self.set_aside(device, reason, why)

    async def answer_collapse(
        self, updates: Sequence[BufferedUpdate], collapse: str
    ) -> tuple[Sequence[BufferedUpdate], bool]:
        """
        A version that would ruin the model is not published; what it was made of is examined.

        Args:
            updates: what it was made of.
            collapse: what would become of the metrics.

        Returns:
            The updates to go on with, maybe none; and whether they are to be published whatever they do.

        """
        log.warning("version %d is not published: %s", self._run.versions.newest.version + 1, collapse)
        culprit = await self._examine(updates)
        if culprit is not None:
            await self._accuse(culprit, collapse)
            own = [update for update in updates if update.record.device == culprit]
            await self.discard(own, "outlier")
            return [update for update in updates if update not in own], False
        if self._watch.refuse():
            await self.discard(updates, "outlier")
            return [], False
        # Three times in a row and by no single device: that is how this run learns, and the operator's to judge.
        log.warning("no single device is the reason: the next version is published as it is")
        return updates, True

    async def set_aside(self, device: str, reason: str, why: str) -> None:
        """Merge nothing more of a device for a while; written down, and said in the log and in the audit log."""
        run = self._run
        aside = run.set_aside(device, reason, why)
        self._dispatcher.void([device])
        log.warning("%s is set aside: %s", device, why)
        await run.offload(run.store.devices.set_aside, device, aside, run.clock.wall())

    async def _accuse(self, device: str, collapse: str) -> None:
        newest, last = self._run.versions.newest.version, self._collapsed.get(device)
        self._collapsed[device] = newest
        if last is not None and newest - last <= AGAIN:
            await self.set_aside(device, "collapse", f"its updates ruin the model: {collapse}")
        else:
            log.warning("an update of %s is left out: without it that would not be so", device)

    async def _examine(self, updates: Sequence[BufferedUpdate]) -> str | None:
        """The device without whose updates the metrics do not collapse, best of all; none if there is no such one."""
        devices = sorted({update.record.device for update in updates})
        found: list[tuple[float, str]] = []
        for device in devices if len(devices) > 1 else ():
            proposal = await self._without(device, updates)
            metrics = proposal.metrics
            if proposal.evaluated and self._watch.collapse(metrics, self._run.versions.newest) is None:
                found.append((metrics.get("loss", 0.0) - metrics.get("accuracy", 0.0), device))
        return min(found)[1] if found else None

    async def _hinders(self, device: str, proposal: Proposal) -> bool:
        """
        Whether held-out data bear out that a device whose updates point against all others' hinders the model.

        Without them the version must be better than with them, and better than every version before: where the model
        learns nothing new the updates of a fleet cancel each other out, and a device whose samples are of a kind of
        their own points against the others for good. Without held-out data the direction is all there is to go by; an
        evaluation that has failed bears nothing out.
        """
        alone = all(update.record.device == device for update in proposal.updates)
        if "loss" not in proposal.metrics or alone:
            return alone or self._watch.least_loss == math.inf
        without = (await self._without(device, proposal.updates)).metrics.get("loss", math.inf)
        hinders = without < min(proposal.metrics["loss"], self._watch.least_loss)
        if not hinders:
            log.info("updates of %s point against all others', but the model is no better without them", device)
        return hinders

    async def _without(self, device: str, updates: Sequence[BufferedUpdate]) -> Proposal:
        return await self._proposals.propose([update for update in updates if update.record.device != device])
