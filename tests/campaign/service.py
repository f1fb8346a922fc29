"""The coordinator on a machine that fails: begun, served, ended anywhere, started again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from coordinator.conductor.listener import GatewayConnections, listen_for_gateways
from coordinator.config import Config
from coordinator.errors import StoreError
from coordinator.loop.coordinator import Coordinator
from coordinator.programs.run_key import RunKey
from coordinator.programs.signing import sign_tiers
from coordinator.programs.tiers import load_tiers
from coordinator.runs.served_run import ServedRun
from coordinator.runs.service import Service as RunsOfProcess
from coordinator.simulation.virtual_time import START
from coordinator.store.interface import Store
from coordinator.store.records import RunRecord, TierRecord, VersionRecord
from coordinator.store.sqlite import SqliteStore
from coordinator.tracking.files import FileTracker
from coordinator.tracking.tracker import TrackedPhase, TrackedUpdate, TrackedVersion
from coordinator.tracking.trackers import Trackers
from coordinator.versions.files import put_weights
from mobile_sdk.manifest import PROGRAM_FILE
from mobile_sdk.payload import Grid
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from .gateways import SimulatedGateway
from .interposer import PowerCut
from .ledger import Ledger
from .links import Network, Serve
from .machines import Machine
from .model import BUDGETS, LAYOUT, START_WEIGHTS, SUBSETS, evaluate, manifest_of

__all__ = ["HostedRun", "Service"]

# Whoever keeps the service running starts it again after so long.
RESTART_SECONDS = 3.0
# A start that fails so often will not succeed.
MOST_FAILURES = 5


class HostedRun:
    """
    One of the runs that a coordinator serves, over all its starts.

    Args:
        config: of the run, with its state on the coordinator's machine.
        ledger: is told what was published.

    ``served`` is the run while it is served, ``first_key`` the public key that it began with.
    """

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self.config = config
        self.ledger = ledger
        self.served: ServedRun | None = None
        self.first_key = ""


class _Told(Trackers):
    """Writes down, for later comparison, what was said to have been published; and the run's history, at once."""

    def __init__(self, config: Config, ledger: Ledger, versions: Callable[[int], VersionRecord]) -> None:
        super().__init__(config.run.name, {})
        self._files = FileTracker(config.run.state / "history", ("loss", "accuracy"))
        self._ledger = ledger
        self._versions = versions

    @property
    def followed(self) -> bool:
        return True

    def tell(self, event: TrackedVersion | TrackedUpdate | TrackedPhase) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(event, TrackedVersion):
            record = self._versions(event.version)
            if event.version <= self._ledger.highest:
                self._ledger.fail("no number is used twice", f"there is another version {event.version}")
            self._ledger.highest = event.version
            hashes = tuple(ref.sha256 for ref in (*record.weights, *record.private.values()))
            self._ledger.published[event.version] = event.parent, event.kind, hashes
            what = "" if event.kind == "merge" else f" ({event.kind} to {event.parent})"
            self._ledger.note(now, f"version {event.version}{what} of {event.updates} updates")
        try:
            if isinstance(event, TrackedVersion):
                self._files.on_version(event)
            elif isinstance(event, TrackedUpdate):
                self._files.on_update(event)
            else:
                self._ledger.note(now, f"the run is {event.phase}")
                self._files.on_phase(event)
        except OSError:
            pass  # a tracker that fails stops no run

    def close(self) -> None:
        self._files.close()


class Service:
    """
    The coordinator's process and whoever starts it again.

    Args:
        machine: what it runs on.
        network: is told who serves.
        hosted: the runs that it serves.
        check: called with the runs just after every start, when all are served and have done nothing.
        rng: draws how the peers hear of an end.

    ``run`` is the first run while it is served. ``gateways`` are on the same machine, and find it at ``socket``;
    without any, devices come to the coordinator itself.
    """

    def __init__(
        self,
        machine: Machine,
        network: Network,
        hosted: Sequence[HostedRun],
        check: Callable[[Sequence[HostedRun]], None],
        rng: random.Random,
    ) -> None:
        self.machine = machine
        self.hosted = hosted
        self.stopping = False
        self.starts = 0
        self.served_at = -1.0
        self.failures = 0
        self._network = network
        self._ledger = hosted[0].ledger
        self._check = check
        self._rng = rng
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.between: Callable[[Path], None] | None = None
        self.gateways: list[SimulatedGateway] = []
        self.socket = Path()

    @property
    def config(self) -> Config:
        """Of the first run."""
        return self.hosted[0].config

    @property
    def run(self) -> ServedRun | None:
        """The first run, while it is served."""
        return self.hosted[0].served

    def coordinators(self) -> dict[str, Coordinator]:
        """Of the runs that are served, by name."""
        return {each.served.name: each.served.coordinator for each in self.hosted if each.served is not None}

    async def live(self) -> None:
        """Serve, and start again whenever the process has ended, until ``stopping``."""
        while not self.stopping:
            serving = self.machine.start(self._serve())
            cut = asyncio.ensure_future(self.machine.ended.wait())
            await asyncio.wait({serving, cut}, return_when=asyncio.FIRST_COMPLETED)
            cut.cancel()
            for hosted in self.hosted:
                hosted.served = None
            self.up.clear()
            if serving.done() and not serving.cancelled() and not isinstance(serving.exception(), PowerCut | None):
                self._ledger.fail("the coordinator starts again after any end", repr(serving.exception()))
                self.failures += 1
                if self.failures > MOST_FAILURES:
                    raise serving.exception() or AssertionError
            self._network.host_gone(self.machine.name, silently=self._rng.random() < 0.4)
            if self.machine.loses or self.between is not None:  # all of the machine ends
                await asyncio.gather(*(gateway.stop() for gateway in self.gateways))
            for gateway in self.gateways[:1]:
                gateway.sockets.process_gone(self.machine)
            await self.machine.stopped()
            self.ended()
            if self.between is not None:
                with self.machine.powered() as root:
                    self.between(root)
                self.machine.disk.take_as_synced()
                self.between = None
            if not self.stopping:
                await asyncio.sleep(self._rng.uniform(0.5, RESTART_SECONDS))
        self.down.set()

    @property
    def machines(self) -> list[Machine]:
        """On which the run may be served."""
        return [self.machine]

    def stop(self) -> None:
        """End it for good, at once."""
        self.stopping = True
        self.machine.cut_after(1, whole=True)

    def database_fault(self, kind: str, statements: int) -> None:
        """Something happens on the way to a database; there is none."""

    def ended(self) -> None:
        """The process is gone."""

    def expected(self, error: Exception) -> bool:
        """Whether an error may keep it from starting though its disk works."""
        return False

    async def _serve(self) -> None:
        self.starts += 1
        troubled = self.machine.troubled
        opened: list[ServedRun] = []
        try:
            for hosted in self.hosted:
                opened.append(self._open(hosted))
        except (StoreError, OSError) as error:
            for run in opened:
                run.store.close()
                cast(_Told, run._trackers).close()
            self._note(f"does not start: {type(error).__name__}")
            if self.machine.troubled == troubled and not self.expected(error):
                raise
            return
        for hosted, run in zip(self.hosted, opened, strict=True):
            hosted.served = run
            hosted.first_key = hosted.first_key or run.coordinator.state.key.public
        self._check(self.hosted)
        for run in opened:
            run.start()
        self.served_at = asyncio.get_running_loop().time()
        if self.gateways:
            async with listen_for_gateways(self.socket, self.coordinators, GatewayConnections()):
                await self._goes_on()
        self._network.hosts[self.machine.name] = self.machine, self._front(opened)
        await self._goes_on()

    def _front(self, opened: list[ServedRun]) -> Serve:
        """Who takes devices' connections: the run, or what stands before several."""
        if len(opened) == 1:
            return opened[0].coordinator.serve
        front = RunsOfProcess(self.config.server)
        front._runs.update({run.name: run for run in opened})
        return front.serve

    async def _goes_on(self) -> None:
        self._note("serves")
        self.up.set()
        await asyncio.Event().wait()

    def _note(self, words: str) -> None:
        self._ledger.note(asyncio.get_running_loop().time(), f"coordinator {words}")

    def _open_store(self, config: Config) -> Store:
        return SqliteStore(config.run.state)

    def _open(self, hosted: HostedRun) -> ServedRun:
        config, clock = hosted.config, self.machine.clock
        store = self._open_store(config)
        try:
            key = RunKey.load_or_create(config.run.state / "run.key")
            if store.run() is None:
                _begin(config, store, key)
            sign_tiers(store, key)
            told = _Told(config, hosted.ledger, store.versions.get)
            coordinator = Coordinator(
                config,
                store,
                key,
                load_tiers(store),
                evaluate,
                clock=clock,
                offload=self.machine.offload,
                trackers=told,
            )
        except BaseException:
            store.close()
            raise
        return ServedRun(config, store, coordinator, None, told)


def _begin(config: Config, store: Store, key: RunKey) -> None:
    (program,) = store.artifacts.put(b"program")
    records = []
    for name in SUBSETS:
        manifest = manifest_of(name, config.run.name, config.run.task, {PROGRAM_FILE: program}).to_bytes()
        (entry,) = store.artifacts.put(manifest)
        refs = [ArtifactRef(Sha256(file.sha256), file.size) for file in (entry, program)]
        records.append(TierRecord(name, 1, BUDGETS[name], refs[0], key.sign(manifest), refs[1], None))
    views = LAYOUT.views(START_WEIGHTS)
    grid = Grid.of({name: views[name] for name in ("body", "head")}) if config.payload.differences else None
    put = put_weights(store.artifacts, LAYOUT, list(SUBSETS.values()), START_WEIGHTS, grid)
    metrics = evaluate(START_WEIGHTS)
    first = VersionRecord(0, -1, put.weights, metrics, START, kind="initial", private=put.private)
    store.create(RunRecord(config.run.name, {}, "", START), records, first)
