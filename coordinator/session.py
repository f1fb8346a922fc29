"""One device, our side: its connection from hello to the end."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable

from mobile_sdk.connection import Connection, ConnectionLost
from mobile_sdk.errors import ProtocolError, Refused
from mobile_sdk.link import Link
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.auth import SECRET_BYTES
from mobile_sdk.protocol.coordinator import CoordinatorSession
from mobile_sdk.protocol.messages import Announce, Decline, Enrol, Finished, Hello, Merged, Offer, Proof, Ready
from mobile_sdk.protocol.session import Event, FetchRequested, PeerError, Received, SendProgress
from mobile_sdk.weights import map_file

from .errors import StoreUnavailable, UpdateRefused
from .run import Run
from .scheduler import next_assignment
from .status import DeviceStatus, Traffic
from .store.base import AssignmentRecord, UpdateRecord
from .tiers import Tier
from .validation import check_offer, parse_update, plain_report

__all__ = ["DeviceSession"]

log = logging.getLogger(__name__)

# A peer that has not proved itself by then is cut off.
HANDSHAKE_SECONDS = 20.0


class DeviceSession:
    """
    Serves one connection.

    Args:
        run: what all sessions share.
        connection: the link to the device.
        traffic: counts its bytes.
        greet: called once the device has proved itself.

    """

    def __init__(
        self, run: Run, connection: Connection, traffic: Traffic, greet: Callable[[DeviceSession], None]
    ) -> None:
        self.device = ""
        self._run = run
        self._traffic = traffic
        self._greet = greet
        self._session = CoordinatorSession(run=run.config.run.name, key=run.key.public, sign=run.key.sign_challenge)
        self._link = Link(connection, self._session, run.clock)
        self._status = DeviceStatus("")
        self._fetchable: set[str] = set()
        self._fetching: set[str] = set()
        self._offer: tuple[Offer, AssignmentRecord, Tier] | None = None
        self._resumed = False
        self._news: Announce | Finished | None = None
        self._pushing = False

    async def serve(self) -> None:
        """Until the device leaves. Whatever goes wrong ends this connection only."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS) as limit:
                async for event in self._link.events():
                    await self._handle(event)
                    await self._link.flush()
                    if self.device:
                        limit.reschedule(None)
        except ConnectionLost as error:
            log.debug("%s left: %s", self.device or "a device", error)
        except ProtocolError as error:
            log.warning("%s broke the protocol: %s", self.device or "a device", error)
        except Refused as error:
            log.warning("%s was refused: %s", self.device or "a device", error)
            await self._fail(error.code, error.args[0])
        except TimeoutError:
            await self._fail("unavailable", f"the handshake took more than {HANDSHAKE_SECONDS:g} s: try again")
        except StoreUnavailable as error:
            # Nothing was acknowledged: the device keeps its update and comes again.
            log.error("%s has to wait: %s", self.device or "a device", error)
            await self._fail("unavailable", "the coordinator cannot write to its disk: try again later")
        except Exception:
            log.exception("serving %s failed", self.device or "a device")
            await self._fail("unavailable", "the coordinator has a problem of its own: try again later")

    async def push(self, message: Announce | Finished) -> None:
        """Tell the device of a new version, or of the end."""
        self._news = message
        if self._pushing:  # a slow link: only the newest is worth sending when it is its turn
            return
        self._pushing = True
        try:
            while self._news is not None:
                news, self._news = self._news, None
                self._session.announce(news)
                await self._link.flush()
        except ConnectionLost:
            log.debug("%s left before it heard of version %d", self.device, message.version)
        finally:
            self._pushing = False

    async def tell(self, message: Merged) -> None:
        """Tell the device what became of its update."""
        self._session.announce(message)
        try:
            await self._link.flush()
        except ConnectionLost:
            log.debug("%s left before it heard of %s", self.device, message.assignment)

    async def replace(self) -> None:
        """The device has a newer connection; this one is of no use any more."""
        await self._fail("replaced", "the device has connected again")

    async def leave(self) -> None:
        """Settle the accounts after the connection has ended."""
        if self.device:
            self._status.earlier.up += self._traffic.up
            self._status.earlier.down += self._traffic.down
            if self._status.current is self._traffic:
                self._status.current = Traffic()
                self._status.state = "offline"
            await self._run.offload(self._run.store.add_traffic, self.device, self._traffic.up, self._traffic.down)

    async def _fail(self, code: str, message: str) -> None:
        try:
            await self._link.fail(code, message)
        except ConnectionLost:
            log.debug("%s left before it heard: %s", self.device or "a device", message)

    async def _handle(self, event: Event) -> None:
        match event:
            case Hello():
                self._session.challenge(await self._run.offload(self._run.store.secret, event.device))
            case Enrol():
                await self._enrol(event)
            case Proof():
                self._prove(event)
                self._greet(self)
            case Ready():
                await self._ready(event)
            case FetchRequested():
                await self._send(event)
            case SendProgress():
                if event.sent == event.size:
                    self._fetching.discard(event.sha256)
                    if not self._fetching:
                        self._status.state = "training"
            case Offer():
                await self._offered(event)
            case Received():
                await self._received(event)
            case Decline():
                log.warning("%s gave %s back: %s", self.device, event.assignment, event.message)
                await self._close_assignment(event.assignment)
            case PeerError():
                log.warning("%s reports: %s [%s]", self.device or "a device", event.message, event.code)
            case _:
                raise ProtocolError(f"{type(event).__name__} is not for a coordinator")

    async def _enrol(self, message: Enrol) -> None:
        wanted = self._run.config.server.token
        if wanted and not hmac.compare_digest(wanted.encode(), message.token.encode()):
            raise Refused("enrolment", "the enrolment token is wrong: ask the operator for the run's token")
        secret = bytes.fromhex(message.secret)
        if len(secret) != SECRET_BYTES:
            raise Refused("enrolment", f"a device's secret has {SECRET_BYTES} bytes, not {len(secret)}")
        device = self._session.device
        if await self._run.offload(self._run.store.enrol, device, secret, self._run.clock.wall()) == "taken":
            raise Refused("enrolment", f"the name {device} is taken by another device: use a new storage folder")
        self._session.enrolled(secret)

    def _prove(self, message: Proof) -> None:
        if not self._session.prove(message, self._run.versions.newest.version):
            raise Refused("auth", f"{self._session.device} could not prove that it is the device that enrolled")
        self.device = self._session.device
        self._status = self._run.device(self.device)
        self._status.current = self._traffic
        self._status.state = "idle"

    async def _ready(self, message: Ready) -> None:
        self._status.samples = message.samples
        self._status.peak_rss_bytes = message.peak_rss_bytes
        self._status.torch_loaded = message.torch_loaded
        if self._run.finished is not None:
            self._session.announce(self._run.finished)
            return
        assign, tier = await next_assignment(self._run, self.device, message)
        self._fetchable = {ref.sha256 for ref in (assign.manifest, assign.program, *assign.weights)}
        self._fetching.clear()
        self._status.tier = tier.name
        self._status.state = "training"
        self._session.assign(assign)

    async def _send(self, event: FetchRequested) -> None:
        if event.sha256 not in self._fetchable:
            raise Refused("unknown-artifact", f"{event.sha256} is not part of this device's assignment")
        self._fetching.add(event.sha256)
        self._status.state = "downloading"
        content = await self._run.offload(map_file, self._run.store.artifact(event.sha256))
        self._session.send_artifact(event.sha256, content, event.offset, self._link.now())

    async def _offered(self, offer: Offer) -> None:
        """Take a new update, acknowledge a known one, or say why not."""
        if self._offer is not None:
            raise ProtocolError("an update was offered while another is on its way")
        run = self._run
        record: AssignmentRecord | None = await run.offload(run.store.assignment, offer.assignment)
        mine = record is not None and record.device == self.device
        staleness = run.versions.staleness(record.version) if record is not None else 0
        if mine and await run.offload(run.store.is_accepted, offer.assignment):
            self._session.accept(offer.assignment, staleness=staleness, duplicate=True)
            return
        tier = run.tier(record.tier) if record is not None else None
        try:
            if run.finished is not None:
                raise UpdateRefused("finished", "the run has ended")
            accepted = check_offer(offer, record, self.device, tier, staleness, run.config.merge.staleness.maximum)
        except UpdateRefused as error:
            await self._reject(offer, error)
            return
        self._offer = (offer, *accepted)
        self._status.state = "uploading"
        size = await run.offload(run.uploads.size, self.device, offer.artifact)
        self._resumed = size > 0
        if size == offer.artifact.size:
            await self._complete()
        else:
            self._session.fetch(offer.artifact, size)

    async def _received(self, event: Received) -> None:
        chunk = event.chunk
        await self._run.offload(self._run.uploads.append, self.device, chunk.sha256, chunk.offset, chunk.data)
        self._session.acknowledge(chunk.sha256, chunk.offset + len(chunk.data))
        if event.last:
            await self._complete()

    async def _complete(self) -> None:
        """All bytes are here: validate, write down, acknowledge."""
        if self._offer is None:
            raise ProtocolError("an upload ended that was not offered")
        offer, assignment, tier = self._offer
        run, sha256 = self._run, offer.artifact.sha256
        content = await run.offload(run.uploads.content, self.device, sha256)
        if self._resumed and (await run.offload(FileEntry.of, content)).sha256 != sha256:
            # The part that was here may have been torn by a crash of ours; the device's copy is whole.
            self._resumed = False
            await run.offload(run.uploads.drop, self.device, sha256)
            self._session.fetch(offer.artifact, 0)
            return
        self._offer = None
        try:
            delta = await run.offload(parse_update, content, sha256, tier)
        except UpdateRefused as error:
            await run.offload(run.uploads.drop, self.device, sha256)
            await self._reject(offer, error)
            return
        record = UpdateRecord(
            assignment=offer.assignment,
            device=self.device,
            version=assignment.version,
            tier=tier.name,
            artifact=FileEntry(sha256, len(content)),
            report=plain_report(offer.report),
            received_at=run.clock.wall(),
        )
        new = await run.intake.accept(record, content, delta)
        await run.offload(run.uploads.drop, self.device, sha256)
        self._status.state = "idle"
        self._session.accept(offer.assignment, staleness=run.versions.staleness(assignment.version), duplicate=not new)

    async def _reject(self, offer: Offer, error: UpdateRefused) -> None:
        log.warning("the update of %s by %s was refused: %s [%s]", offer.assignment, self.device, error, error.code)
        await self._close_assignment(offer.assignment)
        self._session.reject(offer.assignment, error.code, str(error))

    async def _close_assignment(self, assignment: str) -> None:
        """Nothing will come of it; the device's next request gets another."""
        record: AssignmentRecord | None = await self._run.offload(self._run.store.assignment, assignment)
        if record is not None and record.device == self.device:
            await self._run.offload(self._run.store.close_assignment, assignment)
        self._status.state = "idle"
