"""
A run without a socket and without torch: nine parameters, two tiers, a store on the disk, links in memory.

Everything under test is real; the links are queues, and time is virtual (:mod:`coordinator.simulation.virtual_time`):
a test in which everybody waits for each other fails at once with ``Stalled``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from coordinator.config import Config, parse_config
from coordinator.loop.coordinator import Coordinator
from coordinator.loop.proposals import EvaluateWeights
from coordinator.net.traffic import Traffic
from coordinator.programs.run_key import RunKey
from coordinator.programs.tiers import Tier, load_tiers
from coordinator.run_state import RunState
from coordinator.simulation.virtual_time import START, VirtualClock, offload
from coordinator.store.interface import Store
from coordinator.store.open import open_store
from coordinator.store.records import (
    AssignmentRecord,
    AssignmentRequest,
    RunRecord,
    TierRecord,
    UpdateRecord,
    VersionRecord,
)
from coordinator.tracking.trackers import Trackers
from coordinator.updates.buffer import BufferedUpdate
from coordinator.versions.files import put_weights
from mobile_sdk import safetensors
from mobile_sdk.clock import Offload
from mobile_sdk.layout import Layout, Parameter, Subset, Vector
from mobile_sdk.manifest import EXECUTORCH_VERSION, PROGRAM_FILE, FileEntry, InputContract, Manifest, Memory
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.net.link import Link
from mobile_sdk.payload import Grid, UpdateFormat, encode_update
from mobile_sdk.protocol.device_session import DeviceSession
from mobile_sdk.protocol.messages import Accepted, ArtifactRef, Assign, Name, Ready, Rejected, Sha256, Welcome
from mobile_sdk.protocol.session import Event, FetchRequested, PeerError, Received

__all__ = [
    "LAYOUT",
    "OPENED",
    "SUBSETS",
    "Device",
    "SmallRun",
    "Wire",
    "accept_update",
    "added",
    "give_work",
    "make_run",
    "open_work",
    "pair",
    "update_bytes",
]

LAYOUT = Layout([Parameter("frozen", (3,)), Parameter("body", (4,)), Parameter("head", (2,))])
SUBSETS = {"small": Subset(LAYOUT, {"head": None}), "large": Subset(LAYOUT, {"body": None, "head": None})}
NEEDS = {"small": 1_000, "large": 2_000}
START_WEIGHTS = np.arange(LAYOUT.size, dtype=np.float32)

E = TypeVar("E")

# Stores of runs that tests began: closed when a test ends, whether it closed them or not.
OPENED: list[Store] = []


@dataclasses.dataclass
class SmallRun:
    """What a coordinator is made of."""

    config: Config
    store: Store
    key: RunKey
    tiers: list[Tier]

    def state(self, offload: Offload = offload) -> RunState:
        """The run in memory; a virtual loop is running."""
        clock = VirtualClock(asyncio.get_running_loop())
        return RunState(self.config, self.store, self.key, self.tiers, clock=clock, offload=offload)

    def coordinator(
        self, evaluate: EvaluateWeights | None = None, offload: Offload = offload, trackers: Trackers | None = None
    ) -> Coordinator:
        """The coordinator; a virtual loop is running."""
        clock = VirtualClock(asyncio.get_running_loop())
        return Coordinator(
            self.config, self.store, self.key, self.tiers, evaluate, clock=clock, offload=offload, trackers=trackers
        )


def make_run(folder: Path, **sections: Mapping[str, Any]) -> SmallRun:
    """
    Begin a run in ``folder``, or open the one that is there.

    Args:
        folder: its state directory is ``state`` in it.
        sections: of the run file, beside ``[run]`` and ``[budgets]``.

    """
    run = {"name": "small", "task": "a.b:c", "state": "state"}
    config = parse_config({"run": run, "budgets": dict(NEEDS), **sections}, folder)
    store = open_store(config)
    OPENED.append(store)
    key = RunKey.load_or_create(config.run.state / "run.key")
    if store.run() is None:
        _begin(config, store, key)
    return SmallRun(config, store, key, load_tiers(store))


def _begin(config: Config, store: Store, key: RunKey) -> None:
    (program,) = store.artifacts.put(b"program")
    records = []
    for name, subset in SUBSETS.items():
        manifest = Manifest(
            run=config.run.name,
            serial=1,
            tier=name,
            task=config.run.task,
            files={PROGRAM_FILE: program},
            methods={},
            layout=LAYOUT,
            subset=subset,
            contract=InputContract((1,), "float32", (), "int64"),
            metrics=("accuracy",),
            micro_batch=1,
            memory=Memory(NEEDS[name], 0, NEEDS[name]),
        ).to_bytes()
        (entry,) = store.artifacts.put(manifest)
        refs = [ArtifactRef(Sha256(file.sha256), file.size) for file in (entry, program)]
        records.append(TierRecord(name, 1, NEEDS[name], refs[0], key.sign(manifest), refs[1], None))
    views = LAYOUT.views(START_WEIGHTS)
    grid = Grid.of({name: views[name] for name in ("body", "head")}) if config.payload.differences else None
    put = put_weights(store.artifacts, LAYOUT, list(SUBSETS.values()), START_WEIGHTS, grid)
    first = VersionRecord(0, -1, put.weights, {}, START, kind="initial", private=put.private)
    plans = {
        "task": config.run.task,
        "budgets": dict(config.budgets),
        "planning": config.planning.model_dump(mode="json"),
    }
    store.create(RunRecord(config.run.name, plans, "", START), records, first)


def update_bytes(tier: str, value: float = 1.0) -> bytes:
    """An update that adds ``value`` to every parameter of the tier."""
    subset = SUBSETS[tier]
    arrays = {name: np.full(subset.shape(name), value, np.float32) for name in subset}
    return safetensors.dumps(*encode_update(arrays, UpdateFormat(), 0))


def give_work(store: Store, device: str, tier: str = "small", *, version: int = 0, at: float = 0.0) -> AssignmentRecord:
    """An assignment for a device that has enrolled."""
    (record,) = store.assignments.assign([AssignmentRequest(device, version, tier, at)])
    return record


def open_work(store: Store, device: str) -> AssignmentRecord | None:
    """What a device is working on, by the store."""
    return next((record for record in store.assignments.open() if record.device == device), None)


def accept_update(run: RunState, device: str, *, tier: str = "small", value: float = 1.0) -> BufferedUpdate:
    """Enrol a device where it is new, assign the newest version to it, and write its update into store and buffer."""
    run.store.devices.enrol(device, b"s" * 32, run.clock.wall())
    assignment = give_work(run.store, device, tier, version=run.versions.newest.version, at=run.clock.wall())
    content = update_bytes(tier, value)
    report = {"version": assignment.version, "samples": 10}
    entry = FileEntry.of(content)
    record = UpdateRecord(assignment.id, device, assignment.version, tier, entry, report, run.clock.wall())
    run.store.updates.accept([(record, content)])
    update = BufferedUpdate(record, np.full(len(SUBSETS[tier].positions()), value, np.float32))
    run.buffer.add(update)
    return update


class Wire:
    """One end of a link in memory; ``sent`` keeps the frames that this end has sent."""

    def __init__(self) -> None:
        self.peer: Wire = self
        self.sent: list[str | bytes] = []
        self.closed = ""
        self._inbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()

    async def send(self, frame: str | bytes) -> None:
        if self.closed:
            raise ConnectionLost(self.closed)
        self.sent.append(frame)
        self.peer._inbox.put_nowait(frame)

    async def receive(self) -> str | bytes:
        frame = None if self.closed and self._inbox.empty() else await self._inbox.get()
        if frame is None:
            raise ConnectionLost(self.closed or "the connection broke")
        return frame

    async def close(self, reason: str = "") -> None:
        for end in (self, self.peer):
            if not end.closed:
                end.closed = reason or "closed"
                end._inbox.put_nowait(None)


def pair() -> tuple[Wire, Wire]:
    """Two ends of one link."""
    here, there = Wire(), Wire()
    here.peer, there.peer = there, here
    return here, there


class Device:
    """
    A device that speaks the protocol itself, one step at a time.

    Args:
        run: what it joins; only name and public key are looked at.
        name: the device's name.
        secret: what it enrols with.
        token: and with that.
        enrolled: it was let in before, and does not enrol again.

    """

    def __init__(
        self,
        run: SmallRun,
        name: str = "phone-1",
        *,
        secret: bytes = b"s" * 32,
        token: str = "",
        enrolled: bool = False,
    ) -> None:
        self.name = name
        self.wire, self.server = pair()
        self.session = DeviceSession(
            run=run.config.run.name, device=name, secret=secret, token=token, key=run.key.public, enrolled=enrolled
        )
        self.events: list[Event] = []
        self._link = Link(self.wire, self.session, VirtualClock(asyncio.get_running_loop()))
        self._stream = self._link.events()
        self._serving: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def connected(
        self, serve: Callable[[Wire, Traffic, Callable[[], None]], Any], traffic: Traffic | None = None
    ) -> AsyncIterator[Device]:
        """Be served by ``serve`` while the context lasts; it has ended when the context is left."""
        self._serving = asyncio.create_task(serve(self.server, traffic or Traffic(), lambda: None))
        try:
            yield self
        finally:
            await self.wire.close("the device left")
            await self._serving

    async def served(self) -> None:
        """Wait until the coordinator has done with the connection."""
        if self._serving is not None:
            await asyncio.shield(self._serving)

    async def flush(self) -> None:
        """Send what the session wants sent."""
        await self._link.flush()

    async def expect(self, kind: type[E]) -> E:
        """
        The next message of this kind; others before it are kept in ``events``.

        Raises:
            ConnectionLost: if the coordinator closes the connection before.
            AssertionError: if it says that something is wrong.

        """
        async for event in self._stream:
            self.events.append(event)
            assert not isinstance(event, PeerError), f"{event.code}: {event.message}"
            if isinstance(event, kind):
                return event
        raise AssertionError("the stream of events ended")

    async def join(self) -> Welcome:
        """Enrol if need be, and be welcomed."""
        return await self.expect(Welcome)

    async def ask(self, budget: int = 0, **fields: Any) -> None:
        """Ask for work."""
        facts: dict[str, Any] = {"samples": 10, "serial": 0, "peak_rss_bytes": 1, "torch_loaded": False}
        self.session.ready(Ready(budget, engine=Name("native"), executorch=EXECUTORCH_VERSION, **(facts | fields)))
        await self.flush()

    async def work(self, budget: int = 0) -> Assign:
        """Ask for work and wait for it."""
        await self.ask(budget)
        return await self.expect(Assign)

    async def download(self, ref: ArtifactRef, offset: int = 0) -> bytes:
        """Fetch a file, from ``offset`` on."""
        self.session.fetch(ref, offset)
        await self.flush()
        content = b""
        last = False
        while not last:
            event = await self.expect(Received)
            content += bytes(event.chunk.data)
            last = event.last
            self.session.acknowledge(ref.sha256, offset + len(content))
            await self.flush()
        return content

    async def offer(self, assign: Assign, content: bytes, **report: Any) -> None:
        """Offer an update, without sending it."""
        ref = ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))
        self.session.offer(assign.assignment, ref, {"version": assign.version, "samples": 10} | report)
        await self.flush()

    async def upload(self, assign: Assign, content: bytes, **report: Any) -> Accepted | Rejected:
        """Offer an update, send it if it is asked for, and wait for the answer."""
        await self.offer(assign, content, **report)
        while True:
            event: Any = await self.expect(object)
            if isinstance(event, FetchRequested):
                now = asyncio.get_running_loop().time()
                self.session.send_artifact(event.sha256, memoryview(content), event.offset, now)
                await self.flush()
            elif isinstance(event, Accepted | Rejected):
                return event

    @property
    def heard(self) -> list[dict[str, Any]]:
        """Every control message that the coordinator has sent, as JSON."""
        return [json.loads(frame) for frame in self.server.sent if isinstance(frame, str)]


def added(vector: Vector) -> Vector:
    """What was added to the first weights."""
    return vector - START_WEIGHTS
