"""One gateway, as the conductor sees it: its questions are answered, and what happens in its runs is told to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mobile_sdk.errors import FtteError, Refused
from mobile_sdk.manifest import FileEntry
from mobile_sdk.metrics import format_metrics
from mobile_sdk.protocol.messages import ArtifactRef, Finished, Name, Ready, Sha256
from mobile_sdk.protocol.trust import is_challenge

from ..background import BackgroundTasks
from ..errors import StoreError, StoreUnavailable, UpdateRefused
from ..gateway.messages import PIECE_BYTES, RELEASE
from ..gateway.pipe import IN_FLIGHT_BYTES, Pipe, PipeClosed
from ..loop.coordinator import Coordinator
from ..net.peer_log import shown
from ..programs.tiers import Tier
from ..scheduling.quota import OverQuota
from ..store.artifacts import disk_available
from ..store.records import AssignmentRecord, DeviceRecord, UpdateRecord, VersionRecord
from ..updates.validation import most_bytes, parse_elements
from .session import RemoteDevice

__all__ = ["GatewayLink"]

log = logging.getLogger(__name__)

# How long an update may wait for a place in the buffer; after that its device keeps it and comes again.
ROOM_SECONDS = 60.0

# A gateway that says nothing for so many looks, which are 20 seconds, is gone with its machine or its network. (Looks
# are counted, not seconds: a conductor that was stopped for a while has missed nothing when it wakes.)
SILENT_LOOKS = 400

# How long a device's upload waits for the gateway that had the device before, to hand over what it has of it.
HAND_OVER_SECONDS = 2.0

# Questions of one gateway that wait for their answers; it has no more devices than that.
MOST_QUESTIONS = 200_000

# Updates up to this size are parsed in the event loop: that takes less than the way to a thread and back.
SMALL_BYTES = 65_536


class _Run:
    """One run at one gateway."""

    def __init__(self, coordinator: Coordinator, pipe: Pipe) -> None:
        self.coordinator = coordinator
        self.state = coordinator.state
        self.name = self.state.config.run.name
        self.devices: dict[str, RemoteDevice] = {}
        # By the devices that have enrolled: the membership when they were looked up, and what was found.
        self.looked_up: dict[str, tuple[int, bytes | None, DeviceRecord | None]] = {}
        self._pipe = pipe
        self._room = True
        self._tiers: list[Tier] = []
        self._finished: Finished | None = None
        self.known_since = self.state.versions.newest.version
        self.introduce()
        self.state.followers.append(self._follow)

    def close(self) -> None:
        self.state.followers.remove(self._follow)

    def introduce(self) -> None:
        """Tell the gateway of the run."""
        state = self.state
        self._tiers, self._finished = state.tiers, state.finished
        newest = state.versions.newest
        self._pipe.send(
            {
                "m": "run",
                "r": self.name,
                "config": state.config.model_dump(mode="json"),
                "key": {
                    "public": state.key.public,
                    "succession": [dataclasses.asdict(step) for step in state.key.succession],
                },
                "artifacts": str(state.store.artifacts.path(newest.weights[-1].sha256).parent.absolute()),
                "tiers": [dataclasses.asdict(tier.record) for tier in state.tiers],
                "versions": state.versions.placed(),
                "newest": self._told(newest),
                "finished": None if state.finished is None else vars(state.finished),
            }
        )

    async def look_up(self, device: str) -> tuple[bytes | None, DeviceRecord | None]:
        """
        A device's secret and its record, as of now: with no operation on devices since they were read.

        Gateways ask several times while a device proves itself, and after a takeover all devices do so at once.
        """
        state, devices = self.state, self.state.store.devices

        def read() -> tuple[bytes | None, DeviceRecord | None]:
            return devices.secret(device), devices.find(device)

        while (known := self.looked_up.get(device)) is None or known[0] != state.membership:
            seen = state.membership
            secret, record = await state.offload(read)
            if record is None and seen == state.membership:
                return secret, None  # whoever comes with any name is not remembered
            self.looked_up[device] = seen, secret, record
        return known[1:]

    @property
    def content_bytes(self) -> int:
        """The largest update that the run takes."""
        return max(map(most_bytes, self._tiers))

    def _follow(self, record: VersionRecord) -> None:
        self._pipe.send({"m": "version", "r": self.name, **self._told(record)})

    def _told(self, record: VersionRecord) -> dict[str, Any]:
        return {
            "version": record.version,
            "parent": record.parent,
            "kind": record.kind,
            "metrics": record.metrics,
            "at": record.created_at,
            "sent": self.state.versions.sent(record),
            "present": len(self.coordinator.connected),
        }

    def finish(self, message: Finished) -> None:
        """Tell the gateway of the end of the run, once."""
        if self._finished is None:
            self._finished = message
            self._pipe.send({"m": "finished", "r": self.name, **vars(message)})

    def look(self) -> None:
        """Tell the gateway what has changed of the run."""
        state = self.state
        if state.tiers is not self._tiers:  # its key was rotated
            self.introduce()
        if (room := state.buffer.is_open) != self._room:
            self._room = room
            self._pipe.send({"m": "room", "r": self.name, "open": room})
        if self._finished is not None and state.finished is None:
            self._finished = None
            self._pipe.send({"m": "resumed", "r": self.name})


class GatewayLink:
    """
    The conductor's side of one pipe.

    Args:
        pipe: to the gateway.
        runs: gives the runs that are served, by name.
        others: gives all gateways, this one among them.

    ``connections`` is what the gateway said last of its connections, ``cpu_seconds`` what of its processor time, and
    ``name`` tells it from others: its machine and process.
    """

    def __init__(
        self, pipe: Pipe, runs: Callable[[], Mapping[str, Coordinator]], others: Callable[[], Iterable[GatewayLink]]
    ) -> None:
        self._others = others
        self.name = ""
        self.connections = {"open": 0, "unproven": 0, "shed": 0, "cut": 0}
        self.cpu_seconds = 0.0
        self._pipe = pipe
        self._all = runs
        self._runs: dict[str, _Run] = {}
        self._tasks = BackgroundTasks()
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._in_flight = 0
        self._silent = 0
        pipe.content_bytes = 0

    async def serve(self) -> None:
        """Answer until the gateway is gone; its devices' places are free then."""
        try:
            self._greet((await self._pipe.receive())[0])
            self.look()
            self._pipe.send({"m": "ready"})
            while True:
                message, content = await self._pipe.receive()
                self._hear(message, content)
        except PipeClosed as error:
            log.info("%s has left: %s", self.name or "who said no name", error)
        finally:
            await self._pipe.close()
            for task in self._asked.values():
                task.cancel()
            for run in self._runs.values():
                run.close()
                for device in list(run.devices.values()):
                    await self._depart(run, device)

    def look(self) -> None:
        """Tell the gateway what has changed; to be called now and then."""
        self._silent += 1
        if self._silent == SILENT_LOOKS:
            log.warning("a gateway says nothing any more: its connection is closed")
            self._tasks.start(self._pipe.close(), "closing the connection of a gateway")
        if not self.name:
            return
        for name, coordinator in self._all().items():
            known = self._runs.get(name)
            if known is None or known.coordinator is not coordinator:
                self._runs[name] = _Run(coordinator, self._pipe)
                self._pipe.content_bytes = max(self._pipe.content_bytes, self._runs[name].content_bytes)
        for run in self._runs.values():
            run.look()

    def _greet(self, message: dict[str, Any]) -> None:
        """The first thing that a gateway says is which release it is of, and who."""
        if message["m"] != "hello" or message["release"] != RELEASE:
            self._pipe.send({"m": "other_release", "release": RELEASE})
            raise PipeClosed(f"its messages are of release {message.get('release')}, those of this one {RELEASE}")
        self._silent = 0
        self.name = f"{shown(message['machine'])}/{message['process']}"
        log.info("a gateway has come: process %d on %s", message["process"], shown(message["machine"]))

    def _hear(self, message: dict[str, Any], content: bytes) -> None:
        """
        Do what a message asks for.

        Raises:
            PipeClosed: if it asks for too much, or speaks of what it does not know.

        """
        kind = message["m"]
        self._silent = 0
        if kind == "connections":
            self.connections = {name: message[name] for name in self.connections}
            self.cpu_seconds = message["cpu_seconds"]
            self._pipe.answer(message, {})
            return
        if kind == "cancel":
            if (task := self._asked.get(message["of"])) is not None:
                task.cancel()
            return
        run = self._runs.get(message["r"])
        if run is None:
            raise PipeClosed(f"it speaks of a run {message['r']} that it was not told of")
        if "id" in message:
            self._in_flight += len(content)
            if len(self._asked) >= MOST_QUESTIONS or self._in_flight > 2 * IN_FLIGHT_BYTES + self._pipe.content_bytes:
                raise PipeClosed("it asks for more at once than gateways do")
            self._asked[message["id"]] = asyncio.create_task(self._answer(run, message, content))
            return
        if "device" in message and message["device"] not in run.devices:
            return  # its connection has ended, or it has come to another gateway meanwhile
        match kind:
            case "ask":
                self._tasks.start(self._ask(run, message), f"finding work for {message['device']}")
            case "ended":
                run.coordinator.dispatcher.ended(message["device"], returned=False)
                run.state.device(message["device"]).failures += 1
            case "left":
                device = run.devices[message["device"]]
                if device.number == message["n"]:
                    device.move(*message["moved"])
                    self._tasks.start(self._depart(run, device), f"settling the accounts of {device.device}")
            case "evaluated":
                self._evaluated(run, message)
            case "evaluation_lost":
                run.state.federated.lost(message["device"])
            case "self_check_failure":
                run.state.count_self_check_failure()

    async def _answer(self, run: _Run, question: dict[str, Any], content: bytes) -> None:
        try:
            if question["m"] == "piece":
                self._pipe.answer(question, *await run.state.offload(_piece, run, question))
            elif question["m"] == "part":
                self._pipe.answer(question, *await self._part(run, question))
            else:
                self._pipe.answer(question, await self._question(run, question, content))
        except FtteError as error:
            self._pipe.answer_error(question, error)
        except Exception as error:
            log.exception("a gateway's question could not be answered")
            self._pipe.answer_error(question, error)
        finally:
            self._in_flight -= len(content)
            del self._asked[question["id"]]

    async def _question(self, run: _Run, said: dict[str, Any], content: bytes) -> dict[str, Any]:
        state, store = run.state, run.state.store
        match said["m"]:
            case "accept":
                return await self._accept(run, said, content)
            case "open":
                return await self._open(run, said)
            case "room":
                await state.buffer.room(said["device"])
                return {}
            case "secret":
                secret, _ = await run.look_up(said["device"])
                return {"secret": None if secret is None else secret.hex()}
            case "device":
                _, record = await run.look_up(said["device"])
                return {"device": None if record is None else {"id": record.id, "revoked_at": record.revoked_at}}
            case "enrol":
                secret = bytes.fromhex(said["secret"])
                answer = await state.offload(
                    lambda: store.devices.enrol(said["device"], secret, state.clock.wall(), token=said["token"])
                )
                run.looked_up.pop(said["device"], None)
                if answer == "enrolled":
                    state.withdrawn.discard(said["device"])
                return {"enrolment": answer}
            case "add_failure":
                await state.offload(store.devices.add_failure, said["device"])
                return {}
            case "assignment":
                found = await state.offload(store.assignments.find, said["assignment"])
                return {"record": None if found is None else vars(found)}
            case "close_assignment":
                await state.offload(store.assignments.close, said["assignment"])
                return {}
            case "version_record":
                version = await state.offload(store.versions.get, said["version"])
                return {"parent": version.parent, "at": version.created_at, "pruned": version.pruned}
            case "is_accepted":
                return {"accepted": await state.offload(store.updates.is_accepted, said["assignment"])}
            case "artifact":
                find = store.artifacts.verified if said["verify"] else store.artifacts.path
                return {"path": str((await state.offload(find, said["sha256"])).absolute())}
            case "keep_part":
                await self._keep_part(run, said, content)
                return {}
            case "sign":
                key, challenge = state.key, bytes.fromhex(said["challenge"])
                if not is_challenge(run.name, challenge):
                    raise StoreError("the run's key signs challenges alone for a gateway")
                return {"key": key.public, "signature": await key.sign_challenge(challenge)}
        raise AssertionError(f"nothing answers {said['m']}")

    async def _open(self, run: _Run, said: dict[str, Any]) -> dict[str, Any]:
        """A device has proved to its gateway who it is, with ``secret``."""
        device, state = said["device"], run.state
        secret, record = await run.look_up(device)
        if secret is None or record is None or not hmac.compare_digest(secret.hex(), said["secret"]):
            raise Refused("auth", f"{device} could not prove that it is the device that enrolled: it may enrol again")
        if record.revoked_at is not None:
            raise Refused("revoked", "the operator has revoked this device")
        run.looked_up.pop(device, None)
        # Nothing is awaited from here on: an operation on the device that comes later finds its connection.
        number, known_since = said["n"], run.known_since
        older = run.devices.get(device)
        remote = RemoteDevice(device, state, self._pipe, number=number, known_since=known_since, finish=run.finish)
        run.devices[device] = remote
        if older is not None:
            older.gone = True  # the gateway has closed it by itself
            self._tasks.start(older.leave(), f"settling the accounts of {device}")
        await run.coordinator.greet(remote)
        earlier = state.device(device).earlier
        open_record = run.coordinator.dispatcher.assignment(device)
        return {
            "earlier": (earlier.up, earlier.down),
            "assignment": None if open_record is None else vars(open_record),
        }

    async def _depart(self, run: _Run, device: RemoteDevice) -> None:
        device.gone = True
        if run.devices.get(device.device) is device:
            del run.devices[device.device]
        await run.coordinator.depart(device)

    async def _ask(self, run: _Run, said: dict[str, Any]) -> None:
        device = run.devices.get(said["device"])
        if device is None:
            return
        device.move(*said["moved"])
        values = said["ready"]
        ready = Ready(**{**values, "engine": Name(values["engine"]), "holds": tuple(values["holds"])})
        device.ready(ready)
        if run.state.finished is not None:
            run.finish(run.state.finished)
            return
        try:
            await run.coordinator.dispatcher.ask(device, ready)
        except Refused as error:
            await device.fail(error.code, error.message)
        except OverQuota as over:
            await device.postpone(over.seconds, over.words)

    async def _keep_part(self, run: _Run, said: dict[str, Any], content: bytes) -> None:
        """A gateway has no connection to a device any more, and this of its upload."""
        device, state = said["device"], run.state
        if run.coordinator.dispatcher.assignment(device) is None or len(content) > said["size"]:
            return  # it is withdrawn, say: nothing of it is to be left
        now = asyncio.get_running_loop().time()
        upload = state.uploads.begin(device, ArtifactRef(Sha256(said["sha256"]), said["size"]), now)
        if upload.size < len(content):
            await state.offload(upload.drop)
            upload.append(content)
            await state.offload(upload.spool, now)

    async def _part(self, run: _Run, said: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What has come of an upload at other gateways; the last one may not have noticed that its device has left."""
        device, name = said["device"], run.name
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_SECONDS):
                while any(link is not self and link.has(name, device) for link in self._others()):
                    await asyncio.sleep(0.02)
        uploads = run.state.uploads
        size, content = await run.state.offload(uploads.part, device, said["sha256"], said["offset"], PIECE_BYTES)
        return {"size": size}, content

    def has(self, run: str, device: str) -> bool:
        """Whether a device is connected here, as far as the gateway has said."""
        return run in self._runs and device in self._runs[run].devices

    async def _accept(self, run: _Run, said: dict[str, Any], content: bytes) -> dict[str, Any]:
        """Write an update down that a gateway has validated; it is acknowledged with the answer."""
        state, dispatcher, offer = run.state, run.coordinator.dispatcher, said["record"]
        name, assignment = offer["device"], offer["assignment"]
        if (device := run.devices.get(name)) is None:
            raise StoreUnavailable(f"{name} is not connected to the gateway that has its update")
        device.move(*said["moved"])
        given = dispatcher.assignment(name)
        if given is None or given.id != assignment:
            # Overdue, handed in before, or void: it is looked up who has it.
            given, accepted = await state.offload(_look_up, run, name, assignment)
            if accepted:
                return {"new": False}
            if given is None or given.device != name or not given.open:
                raise UpdateRefused("unknown-assignment", f"{assignment} was given back or replaced")
        record = UpdateRecord(
            assignment=assignment,
            device=name,
            version=given.version,
            tier=given.tier,
            artifact=FileEntry(offer["sha256"], len(content)),
            report=offer["report"],
            received_at=state.clock.wall(),
        )
        if state.finished is not None:
            raise UpdateRefused("finished", "the run has ended")
        tier = state.tier(record.tier)
        if len(content) <= SMALL_BYTES:
            delta = parse_elements(content, tier, state.ranges(record.version))
        else:
            delta = await state.offload(lambda: parse_elements(content, tier, state.ranges(record.version)))
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await state.buffer.room(record.device, reserve=True)
        except TimeoutError:
            raise Refused("unavailable", "more updates wait than are merged just now: come again later") from None
        try:
            if not state.versions.is_ancestor(record.version):
                raise UpdateRefused("rolled-back", f"version {record.version} was rolled back: the update is void")
            new = await state.intake.accept(record, content, delta)
        finally:
            state.buffer.release(record.device)
        if state.uploads.knows(name, offer["sha256"]):
            await state.offload(state.uploads.accepted, name, offer["sha256"])
        state.device(record.device).state = "idle"
        dispatcher.ended(record.device)
        run.look()
        return {"new": new}

    def _evaluated(self, run: _Run, said: dict[str, Any]) -> None:
        device, status = said["device"], run.state.device(said["device"])
        status.state = "idle"
        try:
            result = run.state.federated.answer(
                device, said["evaluation"], said["tier"], said["samples"], said["metrics"]
            )
        except Refused as error:
            if (remote := run.devices.get(device)) is not None:
                self._tasks.start(remote.fail(error.code, error.message), f"refusing the evaluation of {device}")
            return
        if result is not None:
            log.info(
                "version %d on %d devices' own samples: %s",
                *(result.version, result.devices, format_metrics(result.metrics)),
            )


def _look_up(run: _Run, device: str, assignment: str) -> tuple[AssignmentRecord | None, bool]:
    """An assignment, and whether it is the device's and its update is written down already. Blocks."""
    store = run.state.store
    found = store.assignments.find(assignment)
    mine = found is not None and found.device == device
    return found, mine and store.updates.is_accepted(assignment)


def _piece(run: _Run, said: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A part of a file, and how long the file is. Blocks."""
    with disk_available(), run.state.store.artifacts.path(said["sha256"]).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(min(said["offset"], size))
        return {"size": size}, file.read(PIECE_BYTES)
