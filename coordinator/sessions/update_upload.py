"""A device's update on its way in, from the offer to the acknowledgement."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable

from mobile_sdk.errors import ProtocolError, Refused
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.messages import Offer
from mobile_sdk.protocol.session import Received

from ..errors import StoreUnavailable, UpdateRefused
from ..merge.sums import Elements
from ..net.peer_log import PeerLog, shown
from ..programs.tiers import Tier
from ..status import DeviceStatus
from ..store.records import AssignmentRecord, UpdateRecord
from ..updates.partial_uploads import Upload
from ..updates.validation import check_offer, parse_update, plain_report
from .access import RunAccess, WorkAccess

__all__ = ["UpdateUpload"]

# How long an offer may wait for room in the buffer; after that the device keeps its update and comes again.
ROOM_SECONDS = 60.0

# Updates up to this size are hashed and parsed in the event loop: that takes less than the way to a thread and back.
SMALL_BYTES = 65_536  # pragma: no mutate

# An update that comes with another hash than was announced is asked for again, so many times in all.
MOST_FETCHES = 3

log = logging.getLogger(__name__)
peers = PeerLog(log)


@dataclasses.dataclass
class _Incoming:
    """An update on its way, when it was offered (monotonic seconds), and how often it was asked for."""

    offer: Offer
    assignment: AssignmentRecord
    tier: Tier
    upload: Upload
    offered_at: float
    fetched: int = 1


class UpdateUpload:
    """
    Updates of one connection's device, one at a time.

    Args:
        run: what all connections share.
        session: the device's, to answer it.
        dispatcher: knows what the device is working on.
        device: its name, proved.
        status: what is shown of it.
        now: a monotonic time in seconds.
        flush: sends what ``session`` has to say, at once.

    """

    def __init__(
        self,
        run: RunAccess,
        session: CoordinatorSession,
        dispatcher: WorkAccess,
        device: str,
        status: DeviceStatus,
        now: Callable[[], float],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._run = run
        self._session = session
        self._dispatcher = dispatcher
        self._device = device
        self._status = status
        self._now = now
        self._flush = flush
        self._incoming: _Incoming | None = None

    async def leave(self) -> None:
        """The connection is gone: what has come of an update is kept for the next one."""
        if self._incoming is not None:
            upload = self._incoming.upload
            try:
                await self._run.offload(upload.spool, self._now())
            except StoreUnavailable as error:
                log.warning("what has come of an update of %s comes again: %s", self._device, error)
            finally:
                upload.release()

    def forget(self) -> None:
        """Nothing is to be left of what has come."""
        if self._incoming is not None:
            self._incoming.upload.release()
            self._incoming = None

    async def offered(self, offer: Offer) -> None:
        """
        Take a new update, acknowledge a known one, or say why not.

        Raises:
            ProtocolError: if another update of this device is on its way.
            OverQuota: if the device has moved as many bytes as it may.
            Refused: ``unavailable`` if there is no room for too long.

        """
        if self._incoming is not None:
            raise ProtocolError("an update was offered while another is on its way")
        run = self._run
        self._dispatcher.check_quota(self._device)
        record = self._dispatcher.assignment(self._device)
        if record is None or record.id != offer.assignment:
            # Not what it is at work on: handed in before, given back, overdue, or made up.
            record, known = await run.offload(self._look_up, offer.assignment)
            if known:
                await run.offload(run.uploads.accepted, self._device, offer.artifact.sha256)
                staleness = run.versions.staleness(known.version)
                self._session.accept(offer.assignment, staleness=staleness, duplicate=True)
                return
        if not run.buffer.enter(self._device):
            await self._room()
        staleness = run.versions.staleness(record.version) if record is not None else 0
        tier = run.tier(record.tier) if record is not None else None
        try:
            if run.finished is not None:
                raise UpdateRefused("finished", "the run has ended")
            if record is not None and record.device == self._device and not run.versions.is_ancestor(record.version):
                raise UpdateRefused("rolled-back", f"version {record.version} was rolled back: the update is void")
            assignment, tier = check_offer(
                offer, record, self._device, tier, staleness, run.config.merge.staleness.maximum
            )
        except UpdateRefused as error:
            await self._reject(offer, error)
            return
        offered_at = self._now()
        self._status.state = "uploading"
        if not offer.follows:
            await run.fetch_part(self._device, offer.artifact.sha256)
        upload = run.uploads.begin(self._device, offer.artifact, self._now())
        self._incoming = _Incoming(offer, assignment, tier, upload, offered_at)
        if offer.follows:
            await self._drop(upload)  # what was here of it before: it comes whole
        elif upload.size == offer.artifact.size:
            await self._complete(self._incoming)
        else:
            self._session.fetch(offer.artifact, upload.size)

    def _look_up(self, assignment: str) -> tuple[AssignmentRecord | None, AssignmentRecord | None]:
        """An assignment, and once more if it is this device's and its update was accepted. Blocks."""
        store = self._run.store
        record = store.assignments.find(assignment)
        known = record is not None and record.device == self._device and store.updates.is_accepted(assignment)
        return record, record if known else None

    async def received(self, event: Received) -> None:
        if self._incoming is None:
            raise ProtocolError("a chunk came of an upload that was not offered")
        self._dispatcher.check_quota(self._device)
        chunk, upload = event.chunk, self._incoming.upload
        upload.append(chunk.data)
        if upload.should_spool(self._now()):
            await self._run.offload(upload.spool, self._now())
        if event.last:
            await self._complete(self._incoming)  # whose answer acknowledges the last chunk
        else:
            self._session.acknowledge(chunk.sha256, chunk.offset + len(chunk.data))

    async def _room(self, *, reserve: bool = False) -> None:
        """Wait until an update may come into the buffer that is full just now, or send the device away."""
        buffer = self._run.buffer
        if not reserve:
            self._status.state = "waiting"
            if stall := self._run.stall():
                self._session.wait(stall)
                await self._flush()
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await buffer.room(self._device, reserve=reserve)
        except TimeoutError:
            stall = self._run.stall()
            why = f"the next version waits for {stall}" if stall else "more updates wait than are merged just now"
            raise Refused("unavailable", f"{why}: come again later") from None

    async def _drop(self, upload: Upload) -> None:
        """Nothing is to be left of an upload here."""
        if upload.on_disk:
            await self._run.offload(upload.drop)
        else:
            upload.drop()

    async def _complete(self, incoming: _Incoming) -> None:
        """All bytes are here: as soon as there is a place in the buffer, take the update in."""
        buffer = self._run.buffer
        if not buffer.enter(self._device, reserve=True):
            await self._room(reserve=True)
        try:
            await self._take_in(incoming)
        finally:
            buffer.release(self._device)

    async def _take_in(self, incoming: _Incoming) -> None:
        """Validate an update, write it down, acknowledge it."""
        run, offer, assignment = self._run, incoming.offer, incoming.assignment
        tier, upload = incoming.tier, incoming.upload
        try:
            if upload.size <= SMALL_BYTES and not upload.on_disk:
                content, delta = check_upload(run, upload, assignment, tier)  # sooner done than handed to a thread
            else:
                content, delta = await run.offload(check_upload, run, upload, assignment, tier)
        except UpdateRefused as error:
            again = error.code == "corrupted" and incoming.fetched < MOST_FETCHES
            await self._drop(upload)
            if again:
                # A part that was here may have been torn by a crash of ours, or a bit flipped on the way.
                incoming.fetched += 1
                self._session.fetch(offer.artifact, 0)
                return
            self._incoming = None
            await self._reject(offer, error)
            return
        record = UpdateRecord(
            assignment=offer.assignment,
            device=self._device,
            version=assignment.version,
            tier=tier.name,
            artifact=FileEntry(offer.artifact.sha256, len(content)),
            report=plain_report(offer.report)
            | {"trip": self._status.trip.parts(offer.assignment, incoming.offered_at, self._now())},
            received_at=run.clock.wall(),
        )
        try:
            new = await run.intake.accept(record, content, delta)
        except UpdateRefused as error:  # it has become void since it was offered
            await self._drop(upload)
            self._incoming = None
            await self._reject(offer, error)
            return
        await self._drop(upload)
        self._incoming = None
        self._status.state = "idle"
        self._dispatcher.ended(self._device)
        self._session.accept(offer.assignment, staleness=run.versions.staleness(assignment.version), duplicate=not new)

    async def _reject(self, offer: Offer, error: UpdateRefused) -> None:
        if error.code == "finished":  # at the end of every run some are still on their way
            log.debug("the update of %s by %s came after the end", shown(offer.assignment), self._device)
        else:
            peers.warning(
                self._device,
                "the update of %s by %s was refused: %s [%s]",
                *(offer.assignment, self._device, error, error.code),
            )
        await self.failed(offer.assignment)
        self._session.reject(offer.assignment, error.code, str(error))

    async def failed(self, assignment: str) -> None:
        """Nothing will come of it; the device's next request gets another."""
        store = self._run.store

        def write_down() -> None:
            record = store.assignments.find(assignment)
            if record is not None and record.device == self._device:
                store.assignments.close(assignment)
            store.devices.add_failure(self._device)

        await self._run.offload(write_down)
        self._status.failures += 1
        self._status.state = "idle"
        self._dispatcher.ended(self._device, returned=False)


def check_upload(
    run: RunAccess, upload: Upload, assignment: AssignmentRecord, tier: Tier
) -> tuple[bytes | memoryview, Elements]:
    """An upload's bytes and elements. Raises :exc:`UpdateRefused` as :func:`parse_update` does."""
    content = upload.content()
    return content, parse_update(content, upload.ref.sha256, tier, run.ranges(assignment.version))
