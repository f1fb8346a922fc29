"""
A gateway: devices' connections on one side, the conductor on the other.

It proves, transfers, validates and acknowledges; what is durable and who trains what is the conductor's. A gateway
keeps nothing that the run needs: if it is killed, its devices go on at another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import platform
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from mobile_sdk.clock import Clock, SystemClock, offload
from mobile_sdk.net.connection import Connection
from mobile_sdk.protocol.messages import (
    Assign,
    Evaluate,
    Finished,
    Hex,
    Later,
    MergedMessage,
    Name,
)

from ..background import BackgroundTasks
from ..config import Config, ServerSection
from ..errors import StoreUnavailable
from ..loop.announcements import Announcements
from ..loop.housekeeping import UPLOAD_SECONDS
from ..net.admission import ConnectionLimits
from ..net.traffic import Traffic
from ..sessions.device_connection import DeviceConnection
from ..sessions.first_message import Serve, serve_by_run
from ..store.records import VersionRecord
from .conductors import Conductors
from .copies import Copies
from .messages import RELEASE
from .pipe import Pipe, PipeClosed
from .remote_store import RemoteStore
from .run import GatewayRun, Manifests, artifacts, read_tiers

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

# How long a device waits here for a conductor, before it is sent away: a standby takes over in less, even on a machine
# that has much to do.
HOLD_SECONDS = 10.0

# How long a device stays away that has waited so long: not for long, since it is held again when it comes.
AWAY_SECONDS = 1.0

# How often the conductor is looked for, and how often it is told how many connections there are.
RETRY_SECONDS = 0.05
REPORT_SECONDS = 1.0

# A conductor that does not answer for so long is gone, and its machine as well, or the network in between.
SILENT_SECONDS = 20.0


class _Office:
    """The devices of one run that are connected here."""

    def __init__(self, run: GatewayRun, pipe: Pipe) -> None:
        self.run = run
        self.pipe = pipe
        self.sessions: dict[str, DeviceConnection] = {}
        self.tasks = BackgroundTasks()
        self.announcements = Announcements(self.sessions, lambda: run.versions.newest, lambda: run.present)
        self._numbers = itertools.count(1)
        self._numbered: dict[DeviceConnection, int] = {}

    @property
    def dispatcher(self) -> GatewayRun:
        """Gives out work, at the conductor."""
        return self.run

    async def greet(self, session: DeviceConnection) -> None:
        """The device has proved itself: the conductor is to know, and tells what it is at work on."""
        device = session.device
        secret = await self.run.offload(self.run.store.devices.secret, device)
        older = self.sessions.get(device)
        self.sessions[device] = session
        if older is not None:
            self.tasks.start(older.replace(), f"closing an older connection of {device}")
        number = self._numbered[session] = next(self._numbers)
        question = {"m": "open", "r": self.run.name, "device": device, "n": number, "secret": (secret or b"").hex()}
        self.run.opened(device, await self.pipe.ask(question))

    async def serve(self, connection: Connection, traffic: Traffic, proven: Callable[[], None]) -> None:
        session = DeviceConnection(self.run, connection, traffic, self, proven)
        try:
            await session.serve()
        finally:
            device = session.device
            current = bool(device) and self.sessions.get(device) is session
            if current:
                del self.sessions[device]
            with contextlib.suppress(StoreUnavailable):
                await session.leave()
                if current and device not in self.sessions:
                    await self.run.keep_part(device)
            if (number := self._numbered.pop(session, None)) is not None:
                moved = traffic.up, traffic.down
                self.pipe.send({"m": "left", "r": self.run.name, "device": device, "n": number, "moved": moved})
            if current and device not in self.sessions:
                self.run.gone(device)

    # What the conductor has for a device.

    async def assign(self, session: DeviceConnection, said: Mapping[str, Any]) -> None:
        run, device = self.run, session.device
        tier, weights = run.assigned(device, said)
        record = run.assignment(device)
        if record is None:
            return
        message = Assign(
            assignment=Name(record.id),
            version=said["version"],
            manifest=tier.record.manifest,
            signature=Hex(tier.record.signature),
            program=tier.program,
            weights=weights,
            settings=run.settings_for(device),
            seed=record.number,
            payload=said["payload"],
        )
        await session.assign(message, tier)

    async def evaluate(self, session: DeviceConnection, said: Mapping[str, Any]) -> None:
        tier, weights = self.run.assigned(session.device, said)
        message = Evaluate(
            evaluation=Name(said["evaluation"]),
            version=said["version"],
            manifest=tier.record.manifest,
            signature=Hex(tier.record.signature),
            program=tier.program,
            weights=weights,
        )
        await session.evaluate(message, tier)

    def tell_device(self, kind: str, said: Mapping[str, Any]) -> None:
        """Pass on what the conductor says to one device."""
        session = self.sessions.get(said["device"])
        if session is None or self._numbered.get(session) != said["n"]:
            return  # it has just left, or come anew, and the conductor will hear so
        match kind:
            case "assign":
                work = self.assign(session, said)
            case "evaluate":
                work = self.evaluate(session, said)
            case "later":
                work = session.postpone(said["seconds"], said["reason"])
            case "wait":
                work = session.wait(said["reason"])
            case "merged":
                merged = MergedMessage(Name(said["assignment"]), said["version"], said["staleness"], said["weight"])
                session.tell(merged)
                return
            case "fail":
                work = session.fail(said["code"], said["text"])
            case _:
                raise ValueError(f"a conductor of another release says {kind!r}: stop it, and start all of one release")
        self.tasks.start(work, f"{kind} of {session.device}")

    async def dismiss(self, code: str, words: str) -> None:
        await asyncio.gather(*(session.fail(code, words) for session in list(self.sessions.values())))

    def close(self) -> None:
        """Stop what would go on by itself."""
        self.announcements.close()
        self.tasks.close()

    @property
    def uploading(self) -> bool:
        return any(self.run.device(device).state == "uploading" for device in self.sessions)


class Gateway:
    """
    Serves connections for as long as :meth:`follow` has a conductor; without one, devices are told to come again.

    Args:
        section: how devices connect.
        limits: counts the connections.
        folder: for copies of files and what has come of uploads, where the conductor's files are not on this machine.
        clock: where the time comes from.

    """

    def __init__(
        self, section: ServerSection, limits: ConnectionLimits, folder: Path | None = None, clock: Clock | None = None
    ) -> None:
        self._section = section
        self._folder = folder
        self._copies: dict[str, Copies] = {}
        self._manifests: Manifests = {}  # the next conductor has the same
        self._limits = limits
        self._clock = clock or SystemClock()
        self._offices: dict[str, _Office] = {}
        self._closing = False
        self._tasks = BackgroundTasks()
        self.connected = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether devices that come now get work."""
        return self.connected.is_set() and not self._closing

    async def serve(self, connection: Connection, traffic: Traffic, proven: Callable[[], None] = lambda: None) -> None:
        """
        Serve one connection until it ends.

        Args:
            connection: a device, or somebody else.
            traffic: counts its bytes.
            proven: called once the device has proved who it is.

        """
        if not self.connected.is_set() and not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD_SECONDS):
                    await self.connected.wait()

        def find(run: str) -> Serve | Later | None:
            if self._closing or not self.connected.is_set():
                return Later(AWAY_SECONDS, "the coordinator restarts")
            office = self._offices.get(run)
            return None if office is None else lambda replayed: office.serve(replayed, traffic, proven)

        await serve_by_run(connection, self._section.handshake_seconds, find)

    async def follow(self, conductors: Conductors) -> None:
        """Work for the conductor that leads, and for its successors; until cancelled."""
        said = ""
        while True:
            try:
                pipe = await conductors.connect()
            except StoreUnavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("%s: looking for one", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                await self._work(pipe, conductors)
            except StoreUnavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("%s: devices are sent away until there is another", error)
            except Exception:
                log.exception("this gateway begins anew")
            await asyncio.sleep(RETRY_SECONDS)

    async def close(self) -> None:
        """Let uploads arrive that are on their way, and send the devices to other gateways."""
        self._closing = True
        offices = list(self._offices.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._section.drain_seconds):
                while any(office.uploading for office in offices):
                    await asyncio.sleep(0.05)
        await asyncio.gather(*(office.dismiss("unavailable", "the gateway restarts: try again") for office in offices))

    async def _work(self, pipe: Pipe, conductors: Conductors) -> None:
        said: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue()
        ended = False
        pipe.send({"m": "hello", "release": RELEASE, "process": os.getpid(), "machine": platform.node()})
        # Answers are read meanwhile: beginning a run asks for files.
        tasks = [
            asyncio.create_task(_pass_on(_read(pipe, said), said)),
            asyncio.create_task(_pass_on(self._report(pipe), said)),
            asyncio.create_task(_pass_on(_look_for_successor(conductors, pipe), said)),
        ]
        try:
            while True:
                message = await said.get()
                if isinstance(message, Exception):
                    raise message
                if message["m"] == "run":
                    await self._begin(pipe, message, conductors)
                elif message["m"] == "ready":
                    self.connected.set()
                    log.info("this gateway works for the conductor on %s", conductors)
                elif message["m"] == "other_release":
                    other = message["release"]
                    raise PipeClosed(
                        f"the conductor's messages are of release {other}, those of this gateway of {RELEASE}: "
                        "start all of one release"
                    )
                else:
                    self._hear(message)
        except asyncio.CancelledError:
            ended = True
            raise
        finally:
            for task in tasks:
                task.cancel()
            self.connected.clear()
            offices, self._offices = list(self._offices.values()), {}
            if ended:
                await _leave(pipe, offices)
            else:  # another conductor is looked for meanwhile: a device that is slow to hear of it holds up no others
                self._tasks.start(_leave(pipe, offices), "sending devices away")

    async def _begin(self, pipe: Pipe, said: dict[str, Any], conductors: Conductors) -> None:
        name = said["r"]
        config = Config.model_validate(said["config"])
        artifacts: Path | Copies = Path(said["artifacts"])
        folder = config.run.state
        if conductors.elsewhere:
            if self._folder is None:
                raise StoreUnavailable("a gateway of another machine than its conductor's needs a folder")
            folder = self._folder / name
            artifacts = self._copies.setdefault(name, Copies(folder / "artifacts"))
        store = RemoteStore.of(pipe, name, artifacts)
        read = functools.partial(read_tiers, said, store, config.training.settings.state_copies, self._manifests)
        tiers = await offload(read)
        if (office := self._offices.get(name)) is not None:
            office.run.renew(said, tiers)  # it has a new key, and all that it signs
            return
        run = GatewayRun(
            pipe, said, tiers, store, folder, shared=not conductors.elsewhere, clock=self._clock, offload=offload
        )
        self._offices[name] = _Office(run, pipe)
        if conductors.elsewhere:  # the conductor looks after its own folder
            await offload(run.uploads.expire, self._clock.wall() - UPLOAD_SECONDS)
        self._hear({"m": "version", "r": name, "placed": True, **said["newest"]})
        if said["finished"] is not None:
            run.finished = Finished(**said["finished"])

    def _hear(self, said: dict[str, Any]) -> None:
        kind, office = said["m"], self._offices[said["r"]]
        match kind:
            case "version":
                record = VersionRecord(
                    said["version"], said["parent"], (), said["metrics"], said["at"], kind=said["kind"]
                )
                office.run.versions.publish(record, artifacts(said["sent"]), placed=said.get("placed", False))
                office.run.present = said["present"]
                office.announcements.announce()
            case "room":
                office.run.buffer.open = said["open"]
            case "finished":
                office.run.finished = Finished(said["version"], said["reason"], said["metrics"])
                office.announcements.finish(office.run.finished)
            case "resumed":
                office.run.finished = None
            case _:
                office.tell_device(kind, said)

    async def _report(self, pipe: Pipe) -> None:
        limits = self._limits
        while True:
            counts = {"open": limits.open, "unproven": limits.unproven, "shed": limits.shed, "cut": limits.cut}
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    await pipe.ask({"m": "connections", "cpu_seconds": time.process_time(), **counts})
            except TimeoutError:
                raise PipeClosed(f"the conductor has not answered for {SILENT_SECONDS:g} s") from None
            await asyncio.sleep(REPORT_SECONDS)


async def _leave(pipe: Pipe, offices: list[_Office]) -> None:
    """A conductor is gone, and what devices were connected to of its runs."""
    try:
        await pipe.close()
        await asyncio.gather(
            *(office.dismiss("unavailable", "the coordinator restarts: try again later") for office in offices)
        )
    finally:
        for office in offices:
            office.close()


async def _read(pipe: Pipe, into: asyncio.Queue[dict[str, Any] | Exception]) -> None:
    while True:
        into.put_nowait((await pipe.receive())[0])


async def _look_for_successor(conductors: Conductors, pipe: Pipe) -> None:
    """End with an error when another conductor leads than the one that this gateway works for."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        if await conductors.has_successor():
            pipe.give_up()  # one that is stopped answers nobody
            raise PipeClosed("another conductor leads by now")


async def _pass_on(work: Coroutine[Any, Any, None], errors: asyncio.Queue[dict[str, Any] | Exception]) -> None:
    """What ends ``work`` is heard where messages are."""
    try:
        await work
    except Exception as error:
        errors.put_nowait(error)
