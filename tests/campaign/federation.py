"""One federation from its plan to its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coordinator.config import parse_config
from coordinator.errors import StoreError
from coordinator.programs import run_key
from coordinator.runs.served_run import ServedRun
from coordinator.store import segments
from mobile_sdk.manifest import PROGRAM_FILE, FileEntry
from mobile_sdk.protocol import coordinator_session, session, transfer
from mobile_sdk.signing import ed25519

from .devices import SimulatedPhone, watch_updates
from .disk import Disk
from .faults import Faults
from .gateways import SimulatedGateway, gateways_in_memory
from .interposer import Interposer, PowerCut
from .invariants import check_erased, check_numbers, check_state, scrape
from .ledger import Ledger, Trace, Violation
from .liars import Stranger
from .links import Network
from .machines import CampaignLoop, Machine, running
from .model import BUDGETS, SUBSETS, manifest_of
from .operators import Operator
from .pipes import LocalSockets
from .plan import HONEST, SCHEDULE_SECONDS, Plan
from .service import HostedRun, Service

__all__ = ["Outcome", "run"]

# After the last fault, every device that can go on is to have trained again within so much time.
PATIENCE_SECONDS = 7_200.0

# Looks, some seconds apart, at which a buffer may be full although no disk has trouble: merges follow each other.
MOST_FULL_LOOKS = 5

AnyService = TypeVar("AnyService", bound=Service)

RUN = "campaign"
TASK = "a.b:c"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """
    How a federation went.

    ``problems`` are the promises that were broken. ``counts`` has what was done: faults, ends of processes, operations
    on disks, updates, versions.
    """

    plan: Plan
    trace: tuple[str, ...]
    digest: str
    problems: tuple[Violation, ...]
    counts: dict[str, int]


def run(plan: Plan, address: str = "") -> Outcome:
    """
    Run a federation; the same plan gives the same outcome, whatever else the machine does.

    Args:
        plan: what is run.
        address: of the PostgreSQL server, for a plan with a database; its time is real, and so the outcome may differ.

    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="ftte-campaign-", dir=memory))
    collects = gc.isenabled()
    gc.disable()  # a federation is short, and its garbage little
    try:
        federation = _Federation(plan, root, address)
        with _captured_log(federation.logged) as log:
            federation.run(log)
            return federation.outcome()
    finally:
        shutil.rmtree(root, ignore_errors=True)
        if collects:
            gc.enable()


def _own_disk() -> Disk | None:
    process = running()
    return process.disk if process is not None else None


class _Federation:
    def __init__(self, plan: Plan, root: Path, address: str) -> None:
        self._plan = plan
        self._address = address
        self._root = root
        self._rng = random.Random(f"course {plan.seed}")
        self._trace = Trace()
        self._ledgers = [
            Ledger(self._trace, f"run {index}: " if index else "") for index in range(1 + len(plan.others))
        ]
        self._interposer = Interposer(self._operation, hole=plan.hole, who=_own_disk)
        self._machines: dict[Disk, Machine] = {}
        self._loop = CampaignLoop()
        self._starts = 0
        self._sockets = LocalSockets(random.Random(f"pipes {plan.seed}"))

    def logged(self, record: logging.LogRecord) -> None:
        """A line of the log stands in the trace."""
        text = record.getMessage().replace(str(self._root), "")
        # Not of its hash: what peers cause is logged less and less, over all federations of a process.
        self._trace.lines.append(f"{self._loop.time():9.3f}   log: {text[:200]}")

    def _operation(self, disk: Disk, kind: str, path: str) -> None:
        machine, process = self._machines[disk], running()
        if process is None or process is machine:
            machine.before(kind, path)
        else:  # a gateway, on the coordinator's machine
            process.before(kind, path, on=machine)

    def _machine(self, name: str) -> Machine:
        rng = random.Random(self._rng.getrandbits(64))
        note = lambda line: self._trace.note(self._loop.time(), line)  # noqa: E731
        machine = Machine(name, self._root / name, self._loop, self._interposer, rng, note)
        machine.hasty = self._plan.hasty
        self._machines[machine.disk] = machine
        return machine

    def run(self, log: list[logging.LogRecord]) -> None:
        undo = watch_updates(self._ledger_of)
        try:
            with (
                self._interposer.active(),
                _repeatable(self._plan.seed),
                _in_pieces(self._plan.piece_bytes),
                gateways_in_memory(self._sockets) if self._plan.gateways else contextlib.nullcontext(),
                self._database(),
            ):
                asyncio.set_event_loop(None)
                try:
                    self._loop.run_until_complete(asyncio.wait_for(self._main(), 10 * PATIENCE_SECONDS))
                except TimeoutError:
                    self._trace.fail("the run comes to its end", "it does not, though every fault is over")
                except RuntimeError:
                    if not self._loop.stuck:
                        raise
                    self._trace.fail("the run comes to its end", self._loop.stuck)
                except (StoreError, Violation) as error:
                    self._trace.fail("the coordinator starts again after any end", str(error))
                finally:
                    self._close_loop()
        finally:
            undo()
        for message in self._loop.unexpected:
            self._trace.fail("no exception but the documented ones", message)
        self._look_at_log(log)

    def _ledger_of(self, folder: Path) -> Ledger:
        """The ledger of the run of the device, or of its twin, whose folder this is."""
        place = folder.relative_to(self._root).parts[0].removeprefix("twin-")
        return next(self._ledgers[device.run] for device in self._plan.devices if device.place == place)

    @contextlib.contextmanager
    def _database(self) -> Iterator[None]:
        if not self._plan.database:
            yield
            return
        from .database import DatabaseSite, statements_that_fail  # it needs a driver, and a server

        self._site = DatabaseSite(self._address, RUN, self._root / "objects")
        try:
            with statements_that_fail(self._site):
                yield
        finally:
            self._site.close()

    def _close_loop(self) -> None:
        for machine in self._machines.values():
            machine.switch_off()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=100.0))
        for machine in self._machines.values():
            self._interposer.end_process(machine.disk)
        self._loop.close()

    async def _main(self) -> None:
        (self._root / "vault").mkdir()
        network = Network(random.Random(self._rng.getrandbits(64)))
        service = self._make_services(network)
        self._ledgers[0].secrets |= {service.config.server.token} - {""}
        self._add_gateways(service, network)
        serving = asyncio.ensure_future(service.live())
        fronts = [asyncio.ensure_future(gateway.live()) for gateway in service.gateways]
        course = asyncio.ensure_future(self._course(service, network))
        await asyncio.wait({serving, course}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            course.cancel()
            serving.result()
            raise Violation("the coordinator starts again after any end", "nobody serves any more")
        course.result()
        await serving
        await asyncio.gather(*fronts)

    def _make_services(self, network: Network) -> Service:
        if not self._plan.database:
            return self._make(Service, "coordinator", network)
        from .database import DatabaseService, Pair

        both = [self._make(DatabaseService, name, network) for name in ("coordinator", "standby")]
        for each in both:
            each.site = self._site
        pair: Any = Pair(*both)
        service: Service = pair
        return service

    def _make(self, kind: type[AnyService], name: str, network: Network) -> AnyService:
        machine = self._machine(name)
        hosted = []
        for ledger, sections, number in zip(
            self._ledgers, (self._plan.sections, *self._plan.others), ("", "-1"), strict=False
        ):
            run = {"run": {"name": RUN + number, "task": TASK, "state": "state" + number}, "budgets": BUDGETS}
            hosted.append(HostedRun(parse_config({**run, **sections}, machine.disk.root), ledger))
        rng = random.Random(self._rng.getrandbits(64))
        return kind(machine, network, hosted, self._check, rng)

    def _add_gateways(self, service: Service, network: Network) -> None:
        service.socket = self._root / "conductor.sock"
        for index in range(self._plan.gateways):
            machine = self._machine(f"gateway-{index}")
            service.gateways.append(
                SimulatedGateway(
                    machine,
                    network,
                    self._sockets,
                    service.socket,
                    service.config,
                    service.machine.clock,
                    self._trace,
                    random.Random(self._rng.getrandbits(64)),
                )
            )

    async def _course(self, service: Service, network: Network) -> None:
        await service.up.wait()
        for hosted in service.hosted:
            hosted.ledger.key = hosted.first_key
        phones, strangers = self._fleet(service, network)
        lives = [asyncio.ensure_future(phone.live()) for phone in phones]
        lives += [asyncio.ensure_future(stranger.live()) for stranger in strangers]
        self._service, self._phones = service, phones
        operators = [self._operator(hosted, of) for hosted, of in zip(service.hosted, self._by_run(), strict=True)]
        faults = Faults(self._plan, service, phones, network, operators, self._trace)
        await faults.run()
        await asyncio.sleep(max(SCHEDULE_SECONDS - self._loop.time(), 0.0))
        await faults.heal()
        first, *others = zip(service.hosted, self._by_run(), strict=True)
        ends = [asyncio.ensure_future(self._come_to_an_end(*each)) for each in others]
        await self._come_to_an_end(*first)
        for end in ends:
            await end
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        await self._end(service)

    def _fleet(self, service: Service, network: Network) -> tuple[list[SimulatedPhone], list[Stranger]]:
        phones, strangers = [], []
        program = FileEntry.of(b"program")
        for each in self._plan.devices:
            hosted = service.hosted[each.run]
            name, ledger = hosted.config.run.name, hosted.ledger
            access = {"run": name, "key": hosted.first_key, "token": hosted.config.server.token}
            if each.persona == "stranger":
                manifests = {tier: manifest_of(tier, name, TASK, {PROGRAM_FILE: program}) for tier in SUBSETS}
                rng = random.Random(each.seed)
                strangers.append(Stranger(each.name, network, ledger, rng, manifests=manifests, **access))
            else:
                phones.append(SimulatedPhone(each, self._machine(each.place), network, ledger, **access))
        return phones, strangers

    def _by_run(self) -> list[list[SimulatedPhone]]:
        """The devices of each run that have machines."""
        return [[phone for phone in self._phones if phone.plan.run == run] for run in range(len(self._ledgers))]

    def _operator(self, hosted: HostedRun, phones: list[SimulatedPhone]) -> Operator:
        least = max(hosted.config.merge.min_contributors, 2)
        return Operator(self._service, hosted, self._root / "vault", sparing=max(len(phones) - least - 1, 0))

    def _check(self, hosted: Sequence[HostedRun]) -> None:
        """Every promise, just after a start; nothing of this is simulated."""
        self._starts += 1
        with self._interposer.untouched():
            numbers = scrape([each.served for each in hosted if each.served is not None])
            for each in hosted:
                assert each.served is not None
                state = check_state(each.served, each.ledger, fresh=True)
                check_erased(state, each.config.run.state, each.ledger)
                check_numbers(state, numbers[each.served.name], each.ledger)

    async def _come_to_an_end(self, hosted: HostedRun, phones: list[SimulatedPhone]) -> None:
        """A run goes on when every fault is over, and ends when each of its devices has."""
        await self._goes_on(hosted, phones)
        await self._finish(hosted, phones)

    async def _goes_on(self, hosted: HostedRun, phones: list[SimulatedPhone]) -> None:
        """Every device of a run that can go on trains again, within a bound of time."""
        ledger, healed, full = hosted.ledger, self._loop.time(), 0
        while True:
            run = hosted.served
            idle = run is None or run.coordinator.state.phase != "running" or not run.coordinator.state.buffer.is_full
            full = 0 if idle else full + 1
            if full > MOST_FULL_LOOKS:
                ledger.fail("a full buffer is merged at once", f"it is full for {full} looks")
                break
            waiting = [
                phone
                for phone in phones
                if phone.plan.persona == HONEST
                and not phone.out
                and phone.acknowledged_at < healed
                and not (run is not None and run.coordinator.state.aside_seconds(phone.plan.name) > 0)
            ]
            if not waiting or (run is not None and run.coordinator.state.phase == "finished"):
                break
            if self._loop.time() > healed + PATIENCE_SECONDS:
                if run is not None and run.coordinator.state.stall():
                    break  # too few devices are left for what the run file asks of a merge, and the run says so
                names = ", ".join(phone.plan.name for phone in waiting)
                phase = "down" if run is None else run.coordinator.status().phase
                ledger.fail("every device that can go on trains again", f"{names} do not; the run is {phase}")
                break
            if run is not None and run.coordinator.state.phase in ("paused", "draining"):
                await self._operator(hosted, []).act("resume", "", self._rng)
            await asyncio.sleep(3.0)
        self._refusals(phones)

    def _refusals(self, phones: list[SimulatedPhone]) -> None:
        for phone in phones:
            name, ledger = phone.plan.name, phone.ledger
            if phone.plan.persona == HONEST and phone.out and name not in ledger.maybe_gone and not ledger.restored:
                ledger.fail("no device is turned away for good without a reason", f"{name}: {phone.out}")

    async def _finish(self, hosted: HostedRun, phones: list[SimulatedPhone]) -> None:
        """The operator ends the run; everybody hears of it."""
        service, ledger = self._service, hosted.ledger
        while service.machine.counts:  # an end that is still to come
            await asyncio.sleep(1.0)
        if hosted.served is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(service.up.wait(), PATIENCE_SECONDS)
        run = hosted.served
        if run is None:
            ledger.fail("the coordinator starts again after any end", "it is down long after the last fault")
            return
        if run.failed:
            ledger.fail("the run goes on", run.coordinator.state.stopped or "its task is gone")
        with contextlib.suppress(Exception):
            await run.coordinator.phases.enter("finished", "the schedule is over", by=ledger.operator)
        deadline = self._loop.time() + PATIENCE_SECONDS
        aside = set(run.coordinator.state.aside)  # they are away for a day
        while left := [
            phone.plan.name
            for phone in phones
            if not (phone.finished or phone.out) and phone.plan.persona == HONEST and phone.plan.name not in aside
        ]:
            if self._loop.time() > deadline:
                ledger.fail("everybody hears of the end", ", ".join(left))
                break
            await asyncio.sleep(5.0)

    async def _end(self, service: Service) -> None:
        """Stop in good order, start once more, and check what is there."""
        served = [(each.served, each.ledger) for each in service.hosted if each.served is not None]
        with self._interposer.untouched():
            numbers = scrape([run for run, _ in served])
            for run, ledger in served:
                state = check_state(run, ledger, fresh=False)
                check_numbers(state, numbers[run.name], ledger)
        for run, _ in served:
            self._bounded(run)
        starts = service.starts
        service.machine.cut_after(1, whole=True)
        while service.starts == starts or not service.up.is_set():
            await asyncio.sleep(1.0)
            if self._loop.time() > 20 * PATIENCE_SECONDS:
                break
        for gateway in service.gateways:
            gateway.stopping = True
            gateway.machine.cut_after(1, whole=True)
        service.stop()

    def _bounded(self, run: ServedRun) -> None:
        """However long it went on, a process holds no more than its devices account for."""
        machine, devices, runs = self._service.machine, len(self._plan.devices), len(self._ledgers)
        limit = run.config.merge.most(run.coordinator.state.buffer.capacity)
        for what, count, most in (
            ("tasks", len(machine.tasks), 20 * runs + 10 * devices + 10 * self._plan.gateways),
            ("open files", self._interposer.opened(machine.disk), 25 * runs),
            ("buffered updates", len(run.coordinator.state.buffer), 2 * limit + devices),
        ):
            if count > most:
                self._trace.fail("memory and open files are bounded", f"{count} {what}, more than {most}")

    def _look_at_log(self, log: list[logging.LogRecord]) -> None:
        """No line of the log has a secret, and no error is one that nobody foresaw."""
        secrets = set().union(*(ledger.secrets for ledger in self._ledgers))
        for record in log:
            text = record.getMessage()
            for secret in secrets:
                if secret in text:
                    self._trace.fail("no line of a log has a secret", text[:200])
            if record.exc_info and record.exc_info[1] is not None and not isinstance(record.exc_info[1], PowerCut):
                error = record.exc_info[1]
                self._trace.fail("no exception but the documented ones", f"{text[:100]}: {error!r}")

    def outcome(self) -> Outcome:
        trace = self._trace
        counts = {
            "faults": len(self._plan.faults),
            "ends": sum(machine.cuts for machine in self._machines.values()),
            "operations": sum(machine.operations for machine in self._machines.values()),
            "refused operations": sum(machine.troubled for machine in self._machines.values()),
            "acknowledged updates": sum(len(ledger.acknowledged) for ledger in self._ledgers),
            "versions": sum(len(ledger.published) for ledger in self._ledgers),
            "starts checked": self._starts,
            "iterations": self._loop.iterations,
        }
        trace.note(self._loop.time(), f"end: {sorted(counts.items())}")
        return Outcome(self._plan, tuple(trace.lines), trace.digest, tuple(trace.problems), counts)


@contextlib.contextmanager
def _captured_log(logged: Callable[[logging.LogRecord], None]) -> Iterator[list[logging.LogRecord]]:
    """Everything that is logged meanwhile, and nothing of it shown; ``logged`` is called with each record."""
    records: list[logging.LogRecord] = []

    class _Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            logged(record)

    handler, loggers = _Keep(), [logging.getLogger(name) for name in ("coordinator", "mobile_sdk", "asyncio")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield records
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


@contextlib.contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Chance from the seed where the product asks the system for it; and a verification that costs less time."""
    rng = random.Random(f"chance {seed}")

    class _Key(Ed25519PrivateKey):
        @classmethod
        def generate(cls) -> Ed25519PrivateKey:
            return Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))

    @functools.cache
    def verify(key: bytes, message: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    with (
        mock.patch("random._urandom", rng.randbytes),
        mock.patch.object(run_key, "Ed25519PrivateKey", _Key),
        mock.patch.object(ed25519, "verify", verify),
        mock.patch.object(segments, "SEGMENT_BYTES", rng.choice((600, 4_000, 16_000_000))),
    ):
        yield


@contextlib.contextmanager
def _in_pieces(size: int) -> Iterator[None]:
    """Files travel in pieces of ``size`` bytes, as larger ones do; as ever, if it is 0."""
    if not size:
        yield
        return
    with (
        mock.patch.object(session, "MIN_CHUNK_BYTES", size),
        mock.patch.object(transfer, "MIN_CHUNK_BYTES", size),
        mock.patch.object(transfer, "LEAST_CHUNK_BYTES", size),
        mock.patch.object(session.Session, "largest_chunk", size),
        mock.patch.object(coordinator_session.CoordinatorSession, "largest_chunk", size),
    ):
        yield
