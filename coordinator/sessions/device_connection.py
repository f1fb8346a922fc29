"""One device's connection from hello to the end: the message loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mobile_sdk.errors import ProtocolError, Refused
from mobile_sdk.metrics import format_metrics
from mobile_sdk.net.connection import Connection, ConnectionLost
from mobile_sdk.net.link import Link
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.messages import (
    Announce,
    ArtifactRef,
    Assign,
    Decline,
    Difference,
    Enrol,
    Evaluate,
    Evaluated,
    Finished,
    Hello,
    MergedMessage,
    Offer,
    Proof,
    Ready,
    with_differences,
)
from mobile_sdk.protocol.session import Event, FetchRequested, PeerError, Received, SendProgress

from ..background import BackgroundTasks
from ..errors import Expelled, StoreUnavailable
from ..net.admission import Rate
from ..net.peer_log import PeerLog
from ..net.traffic import Traffic
from ..programs.tiers import Tier
from ..scheduling.quota import OverQuota
from ..status import DeviceStatus
from .access import RunAccess, WorkAccess
from .downloads import Downloads
from .enrolment import Enrolment
from .profile import note_ready
from .update_upload import UpdateUpload

__all__ = ["DeviceConnection", "Host"]

# How long news that no device waits for, of versions and of its update, may wait for another message to go with.
NEWS_SECONDS = 0.25

log = logging.getLogger(__name__)
peers = PeerLog(log)


class Host(Protocol):
    """What a connection needs of the coordinator that it belongs to."""

    @property
    def dispatcher(self) -> WorkAccess:
        """Gives out the run's work."""
        ...

    async def greet(self, session: DeviceConnection) -> None:
        """The device of this connection has proved who it is."""
        ...


class DeviceConnection:
    """
    Serves one connection.

    Frames become events in :class:`~mobile_sdk.protocol.coordinator_session.CoordinatorSession`; each event goes to the
    part that it concerns: :class:`Enrolment`, :class:`Downloads`, :class:`UpdateUpload`, or the dispatcher.

    Args:
        run: what all connections share.
        connection: the link to the device.
        traffic: counts its bytes.
        host: the coordinator.
        proven: called once the device has proved who it is.

    ``device`` is the device's name; empty until it has proved who it is.
    """

    def __init__(
        self, run: RunAccess, connection: Connection, traffic: Traffic, host: Host, proven: Callable[[], None]
    ) -> None:
        self.device = ""
        self._run = run
        self._traffic = traffic
        self._host = host
        self._proven = proven
        self._session = CoordinatorSession(
            run=run.config.run.name,
            key=run.key.public,
            succession=run.key.succession,
        )
        self._link = Link(connection, self._session, run.clock)
        self._status = DeviceStatus("")
        self._enrolment = Enrolment(run, self._session, run.key)
        self._downloads: Downloads | None = None  # as the upload, once the device is known
        self._upload: UpdateUpload | None = None
        self._dismissed = False
        self._profile: dict[str, object] | None = None
        self._rate = Rate(run.config.limits.messages_per_second)
        self._tasks = BackgroundTasks()
        self._news: Announce | Finished | None = None
        self._pushing = False
        self._late: asyncio.TimerHandle | None = None  # when news is sent at the latest

    async def serve(self) -> None:
        """Serve the device until it leaves. Whatever goes wrong ends this connection only."""
        await self._guarded(self._serve())

    async def _serve(self) -> None:
        async with asyncio.timeout(self._run.config.server.handshake_seconds) as limit:
            await self._act_on_frames(until=lambda: bool(self.device))
            limit.reschedule(None)
        await self._act_on_frames(until=lambda: False)

    async def _act_on_frames(self, until: Callable[[], bool]) -> None:
        """Act on one frame of the device after the other."""
        link = self._link
        while not until():
            for event in await link.receive():
                if not self._rate.take(link.now()):
                    rate = self._run.config.limits.messages_per_second
                    raise Refused("rate", f"the device sends more than {rate:g} messages per second: update the SDK")
                await self._handle(event)
                if not link.send_at_once():
                    await link.flush()

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Do something for the device; what goes wrong is told to it and ends its connection."""
        try:
            await work
        except ConnectionLost as error:
            log.debug("%s left: %s", self.device or "a device", error)
        except ProtocolError as error:
            if not self._dismissed:  # else it had not heard that it is over
                self._warn("%s broke the protocol: %s", error)
                await self.fail(error.code, str(error))
        except OverQuota as over:
            await self._send_away(over)
        except Refused as error:
            self._warn("%s was refused: %s", error)
            await self.fail(error.code, error.message)
        except TimeoutError:
            seconds = self._run.config.server.handshake_seconds
            await self.fail("unavailable", f"the handshake took more than {seconds:g} s: try again")
        except Expelled as error:
            log.warning("%s is not served any more: %s", self.device, error)
            await self.fail("revoked", "the operator has revoked this device")
        except StoreUnavailable as error:
            # Nothing was acknowledged: the device keeps its update and comes again.
            log.error("%s has to wait: %s", self.device or "a device", error)
            await self.fail("unavailable", "the coordinator cannot write to its disk: try again later")
        except Exception:
            log.exception("serving %s failed", self.device or "a device")
            await self.fail("unavailable", "the coordinator has a problem of its own: try again later")

    # What the dispatcher has for the device.

    async def assign(self, message: Assign, tier: Tier) -> None:
        """Give the device work."""
        self._assign(message, tier, await self._downloads_of_device().allow(message))
        await self._link.flush()

    def assign_at_once(self, message: Assign, tier: Tier) -> bool:
        """Give the device work, if nothing has to be waited for; else nothing happens, and the answer is false."""
        ways = self._downloads_of_device().allow_at_once(message)
        if ways is None:
            return False
        self._assign(message, tier, ways)
        if not self._link.send_at_once():
            self._tasks.start(self._link.flush(), f"giving work to {self.device}")
        return True

    def _assign(self, message: Assign, tier: Tier, ways: tuple[Difference, ...]) -> None:
        self._status.trip.assign(message.assignment, self._link.now())
        self._session.assign(with_differences(message, ways))
        self._status.tier, self._status.state = tier.name, "training"

    def expect(self, weights: Sequence[ArtifactRef]) -> None:
        """The device is about to get work on these files."""
        self._downloads_of_device().expect(weights)

    async def evaluate(self, message: Evaluate, tier: Tier) -> None:
        """Ask the device for metrics on its own samples."""
        ways = await self._downloads_of_device().allow(message)
        self._session.evaluate(with_differences(message, ways))
        self._status.tier, self._status.state = tier.name, "evaluating"
        await self._link.flush()

    async def postpone(self, seconds: float, reason: str) -> None:
        """Send the device away for a while."""
        self._status.state = "idle"
        self._session.later(seconds, reason)
        await self._link.flush()

    async def wait(self, reason: str) -> None:
        """Tell the device what its work waits for."""
        self._session.wait(reason)
        await self._link.flush()

    def _downloads_of_device(self) -> Downloads:
        if self._downloads is None:
            raise ProtocolError("the device is not known yet")
        return self._downloads

    def push(self, message: Announce | Finished) -> None:
        """Tell the device of a new version, soon, or of the end, at once; does not wait until the link takes it."""
        if self._pushing:  # a slow link: only the newest is worth sending when it is its turn
            self._news = message
            return
        self._session.announce(message)
        if isinstance(message, Finished):
            self._send_news()
        else:
            self._send_soon()

    async def _push_on(self) -> None:
        try:
            await self._link.flush()
            while self._news is not None:
                news, self._news = self._news, None
                self._session.announce(news)
                await self._link.flush()
        finally:
            self._pushing = False

    def tell(self, message: MergedMessage) -> None:
        """Tell the device what became of its update, soon; does not wait until the link takes it."""
        self._session.announce(message)
        self._send_soon()

    def _send_soon(self) -> None:
        """News goes with what is sent next, if that is soon: each system call costs."""
        if self._late is None:
            self._late = asyncio.get_running_loop().call_later(NEWS_SECONDS, self._send_news)

    def _send_news(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if not self._link.send_at_once():
            self._pushing = True
            self._tasks.start(self._push_on(), f"telling {self.device} the news")

    async def replace(self) -> None:
        """The device has a newer connection; this one is of no use any more."""
        await self.fail("replaced", "the device has connected again")

    async def leave(self) -> None:
        """Settle the accounts after the connection has ended."""
        if self._late is not None:
            self._late.cancel()
        if self.device:
            self._status.earlier.up += self._traffic.up
            self._status.earlier.down += self._traffic.down
            if self._status.current is self._traffic:
                self._status.current = Traffic()
                self._status.state = "offline"
            store = self._run.store
            if self._upload is not None:
                await self._upload.leave()
            await self._run.offload(store.devices.add_traffic, self.device, self._traffic.up, self._traffic.down)
            await self._run.offload(store.devices.seen, self.device, self._run.clock.wall(), self._profile)

    async def fail(self, code: str, message: str) -> None:
        """Tell the device what is wrong, and close."""
        self._dismissed = True
        if code == "revoked" and self._upload is not None:
            self._upload.forget()
        try:
            await self._link.fail(code, message)
        except ConnectionLost:
            log.debug("%s left before it heard: %s", self.device or "a device", message)

    async def _send_away(self, over: OverQuota) -> None:
        """Tell the device when to come back, and close: what it goes on to send would cost bytes again."""
        try:
            await self.postpone(over.seconds, over.words)
        except ConnectionLost as error:
            log.debug("%s left before it heard: %s", self.device, error)
        await self._link.close(over.words)

    def _warn(self, kind: str, *words: object) -> None:
        peers.warning(self.device, kind, self.device or "a device", *words)

    async def _handle(self, event: Event) -> None:
        match event:  # the most frequent ones first
            case Received() if self._upload is not None:
                await self._upload.received(event)
            case Offer() if self._upload is not None:
                await self._upload.offered(event)
            case Ready():
                await self._ready(event)
            case SendProgress() if self._downloads is not None:
                self._downloads.progressed(event)
            case FetchRequested() if self._downloads is not None:
                await self._downloads.send(event)
            case Hello():
                await self._enrolment.greeted(event)
            case Enrol():
                self._enrolment.enrol(event)
            case Proof():
                await self._open(await self._enrolment.prove(event))
            case Decline():
                self._warn("%s gave %s back: %s", event.assignment, event.message)
                if event.code != "evaluation":
                    self._status.gave_back = event.message
                if event.code == "self-check":
                    self._distrust(event.message)
                if event.code in ("evaluation", "self-check"):
                    self._run.federated.lost(self.device)
                if event.code != "evaluation" and self._upload is not None:
                    await self._upload.failed(event.assignment)
            case Evaluated():
                self._evaluated(event)
            case PeerError():
                self._warn("%s reports: %s [%s]", event.message, event.code)
            case _:
                raise ProtocolError(f"{type(event).__name__} is not for a coordinator")

    async def _open(self, device: str) -> None:
        """The device has proved that it is ``device``."""
        run, session, now = self._run, self._session, self._link.now
        self.device = device
        self._status = run.device(device)
        self._status.current = self._traffic
        self._status.state = "idle"
        self._downloads = Downloads(run, session, self._status, now, self._host.dispatcher.check_quota)
        self._upload = UpdateUpload(run, session, self._host.dispatcher, device, self._status, now, self._link.flush)
        self._proven()
        await self._host.greet(self)  # in the coordinator's process nothing is awaited

    async def _ready(self, message: Ready) -> None:
        self._profile = note_ready(self._status, message)
        if self._downloads is not None:
            self._downloads.holds = message.holds
        if self._run.finished is not None:
            self._session.announce(self._run.finished)
            return
        self._status.state = "waiting"
        self._status.trip.ask(self._link.now())
        await self._host.dispatcher.ask(self, message)

    def _distrust(self, why: str) -> None:
        """The device's runtime fails a program's self-check: operators are to know which devices these are."""
        self._status.self_check = why
        if self._profile is not None:
            self._profile["self_check"] = why
        self._run.count_self_check_failure()

    def _evaluated(self, message: Evaluated) -> None:
        self._status.state = "idle"
        result = self._run.federated.answer(
            self.device, message.evaluation, self._status.tier, message.samples, message.metrics
        )
        if result is not None:
            numbers = format_metrics(result.metrics)
            log.info("version %d on %d devices' own samples: %s", result.version, result.devices, numbers)
