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
from collections.abc import Callable, Iterator
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
from mobile_sdk.signing import ed25519

from .devices import SimulatedPhone, watch_updates
from .disk import Disk
from .faults import Faults
from .gateways import SimulatedGateway, gateways_in_memory
from .interposer import Interposer, PowerCut
from .invariants import check_erased, check_numbers, check_state
from .ledger import Ledger, Violation
from .liars import Stranger
from .links import Network
from .machines import CampaignLoop, Machine, running
from .model import SUBSETS, manifest_of
from .operators import Operator
from .pipes import LocalSockets
from .plan import HONEST, SCHEDULE_SECONDS, Plan
from .service import Service

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
        self._ledger = Ledger()
        self._interposer = Interposer(self._operation, hole=plan.hole, who=_own_disk)
        self._machines: dict[Disk, Machine] = {}
        self._loop = CampaignLoop()
        self._starts = 0
        self._sockets = LocalSockets(random.Random(f"pipes {plan.seed}"))

    def logged(self, record: logging.LogRecord) -> None:
        """A line of the log stands in the trace."""
        text = record.getMessage().replace(str(self._root), "")
        # Not of its hash: what peers cause is logged less and less, over all federations of a process.
        self._ledger.lines.append(f"{self._loop.time():9.3f}   log: {text[:200]}")

    def _operation(self, disk: Disk, kind: str, path: str) -> None:
        machine, process = self._machines[disk], running()
        if process is None or process is machine:
            machine.before(kind, path)
        else:  # a gateway, on the coordinator's machine
            process.before(kind, path, on=machine)

    def _machine(self, name: str) -> Machine:
        rng = random.Random(self._rng.getrandbits(64))
        note = lambda line: self._ledger.note(self._loop.time(), line)  # noqa: E731
        machine = Machine(name, self._root / name, self._loop, self._interposer, rng, note)
        machine.hasty = self._plan.hasty
        self._machines[machine.disk] = machine
        return machine

    def run(self, log: list[logging.LogRecord]) -> None:
        undo = watch_updates(self._ledger)
        try:
            with (
                self._interposer.active(),
                _repeatable(self._plan.seed),
                gateways_in_memory(self._sockets) if self._plan.gateways else contextlib.nullcontext(),
                self._database(),
            ):
                asyncio.set_event_loop(None)
                try:
                    self._loop.run_until_complete(asyncio.wait_for(self._main(), 10 * PATIENCE_SECONDS))
                except TimeoutError:
                    self._ledger.fail("the run comes to its end", "it does not, though every fault is over")
                except RuntimeError:
                    if not self._loop.stuck:
                        raise
                    self._ledger.fail("the run comes to its end", self._loop.stuck)
                except (StoreError, Violation) as error:
                    self._ledger.fail("the coordinator starts again after any end", str(error))
                finally:
                    self._close_loop()
        finally:
            undo()
        for message in self._loop.unexpected:
            self._ledger.fail("no exception but the documented ones", message)
        self._look_at_log(log)

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
        ledger, root = self._ledger, self._root
        vault = root / "vault"
        vault.mkdir()
        network = Network(random.Random(self._rng.getrandbits(64)))
        service = self._make_services(network)
        ledger.secrets |= {service.config.server.token} - {""}
        self._add_gateways(service, network)
        serving = asyncio.ensure_future(service.live())
        fronts = [asyncio.ensure_future(gateway.live()) for gateway in service.gateways]
        course = asyncio.ensure_future(self._course(service, network, vault))
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
        sections = {"run": {"name": RUN, "task": TASK, "state": "state"}, "budgets": {"small": 1_000, "large": 2_000}}
        config = parse_config({**sections, **self._plan.sections}, machine.disk.root)
        rng = random.Random(self._rng.getrandbits(64))
        return kind(machine, network, config, self._ledger, self._check, rng)

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
                    self._ledger,
                    random.Random(self._rng.getrandbits(64)),
                )
            )

    async def _course(self, service: Service, network: Network, vault: Path) -> None:
        plan, ledger, config = self._plan, self._ledger, service.config
        await service.up.wait()
        ledger.key = service.first_key
        phones, strangers = self._fleet(network, service.first_key, config.server.token)
        lives = [asyncio.ensure_future(phone.live()) for phone in phones]
        lives += [asyncio.ensure_future(stranger.live()) for stranger in strangers]
        least = max(config.merge.min_contributors, 2)
        operator = Operator(service, ledger, vault, sparing=max(len(phones) - least - 1, 0))
        self._service, self._phones = service, phones
        faults = Faults(plan, service, phones, network, operator, ledger)
        await faults.run()
        await asyncio.sleep(max(SCHEDULE_SECONDS - self._loop.time(), 0.0))
        await faults.heal()
        await self._goes_on(service, phones)
        await self._finish(service)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        await self._end(service)

    def _fleet(self, network: Network, key: str, token: str) -> tuple[list[SimulatedPhone], list[Stranger]]:
        phones, strangers = [], []
        program = FileEntry.of(b"program")
        manifests = {name: manifest_of(name, RUN, TASK, {PROGRAM_FILE: program}) for name in SUBSETS}
        for each in self._plan.devices:
            if each.persona == "stranger":
                rng = random.Random(each.seed)
                strangers.append(
                    Stranger(each.name, network, self._ledger, rng, run=RUN, key=key, token=token, manifests=manifests)
                )
            else:
                machine = self._machine(each.name)
                phones.append(SimulatedPhone(each, machine, network, self._ledger, run=RUN, key=key, token=token))
        return phones, strangers

    def _check(self, run: ServedRun) -> None:
        """Every promise, just after a start; nothing of this is simulated."""
        self._starts += 1
        with self._interposer.untouched():
            state = check_state(run, self._ledger, fresh=True)
            check_erased(state, run.config.run.state, self._ledger)
            check_numbers(state, self._ledger)

    async def _goes_on(self, service: Service, phones: list[SimulatedPhone]) -> None:
        """Every device that can go on trains again, within a bound of time."""
        healed, full = self._loop.time(), 0
        while True:
            run = service.run
            idle = run is None or run.coordinator.state.phase != "running" or not run.coordinator.state.buffer.is_full
            full = 0 if idle else full + 1
            if full > MOST_FULL_LOOKS:
                self._ledger.fail("a full buffer is merged at once", f"it is full for {full} looks")
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
                self._ledger.fail("every device that can go on trains again", f"{names} do not; the run is {phase}")
                break
            if run is not None and run.coordinator.state.phase in ("paused", "draining"):
                await self._service_operation(service, "resume")
            await asyncio.sleep(3.0)
        self._refusals(phones)

    def _refusals(self, phones: list[SimulatedPhone]) -> None:
        ledger = self._ledger
        for phone in phones:
            name = phone.plan.name
            if phone.plan.persona == HONEST and phone.out and name not in ledger.maybe_gone and not ledger.restored:
                ledger.fail("no device is turned away for good without a reason", f"{name}: {phone.out}")

    async def _service_operation(self, service: Service, what: str) -> None:
        operator = Operator(service, self._ledger, self._root, sparing=0)
        await operator.act(what, "", self._rng)

    async def _finish(self, service: Service) -> None:
        """The operator ends the run; everybody hears of it."""
        while service.machine.counts:  # an end that is still to come
            await asyncio.sleep(1.0)
        if service.run is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(service.up.wait(), PATIENCE_SECONDS)
        run = service.run
        if run is None:
            self._ledger.fail("the coordinator starts again after any end", "it is down long after the last fault")
            return
        if run.failed:
            self._ledger.fail("the run goes on", run.coordinator.state.stopped or "its task is gone")
        with contextlib.suppress(Exception):
            await run.coordinator.phases.enter("finished", "the schedule is over", by="operator")
        deadline = self._loop.time() + PATIENCE_SECONDS
        aside = set(run.coordinator.state.aside)  # they are away for a day
        while left := [
            phone.plan.name
            for phone in self._phones
            if not (phone.finished or phone.out) and phone.plan.persona == HONEST and phone.plan.name not in aside
        ]:
            if self._loop.time() > deadline:
                self._ledger.fail("everybody hears of the end", ", ".join(left))
                break
            await asyncio.sleep(5.0)

    async def _end(self, service: Service) -> None:
        """Stop in good order, start once more, and check what is there."""
        run = service.run
        if run is not None:
            with self._interposer.untouched():
                state = check_state(run, self._ledger, fresh=False)
                check_numbers(state, self._ledger)
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
        machine, devices = self._service.machine, len(self._plan.devices)
        limit = run.config.merge.most(run.coordinator.state.buffer.capacity)
        for what, count, most in (
            ("tasks", len(machine.tasks), 20 + 10 * devices + 10 * self._plan.gateways),
            ("open files", self._interposer.opened(machine.disk), 25),
            ("buffered updates", len(run.coordinator.state.buffer), 2 * limit + devices),
        ):
            if count > most:
                self._ledger.fail("memory and open files are bounded", f"{count} {what}, more than {most}")

    def _look_at_log(self, log: list[logging.LogRecord]) -> None:
        """No line of the log has a secret, and no error is one that nobody foresaw."""
        for record in log:
            text = record.getMessage()
            for secret in self._ledger.secrets:
                if secret in text:
                    self._ledger.fail("no line of a log has a secret", text[:200])
            if record.exc_info and record.exc_info[1] is not None and not isinstance(record.exc_info[1], PowerCut):
                error = record.exc_info[1]
                self._ledger.fail("no exception but the documented ones", f"{text[:100]}: {error!r}")

    def outcome(self) -> Outcome:
        ledger = self._ledger
        counts = {
            "faults": len(self._plan.faults),
            "ends": sum(machine.cuts for machine in self._machines.values()),
            "operations": sum(machine.operations for machine in self._machines.values()),
            "refused operations": sum(machine.troubled for machine in self._machines.values()),
            "acknowledged updates": len(ledger.acknowledged),
            "versions": len(ledger.published),
            "starts checked": self._starts,
            "iterations": self._loop.iterations,
        }
        ledger.note(self._loop.time(), f"end: {sorted(counts.items())}")
        return Outcome(self._plan, tuple(ledger.lines), ledger.digest, tuple(ledger.problems), counts)


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
