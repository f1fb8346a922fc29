"""Carries out a plan's faults, and heals everything at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from .devices import SimulatedPhone
from .ledger import Trace
from .links import Network
from .machines import Machine
from .operators import Operator
from .plan import OPERATIONS, Fault, Plan
from .service import Service

__all__ = ["Faults"]


class Faults:
    """
    The schedule of one federation.

    Args:
        plan: what is to happen.
        service: the coordinator.
        phones: the devices that have machines.
        network: between them.
        operators: act on the coordinator, each on a run.
        trace: is told what happens.

    """

    def __init__(
        self,
        plan: Plan,
        service: Service,
        phones: list[SimulatedPhone],
        network: Network,
        operators: Sequence[Operator],
        trace: Trace,
    ) -> None:
        self._plan = plan
        self._service = service
        self._phones = {phone.plan.place: phone for phone in phones}
        self._network = network
        self._operators = operators
        self._trace = trace
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Let everything happen at its time."""
        loop = asyncio.get_running_loop()
        for fault in self._plan.faults:
            await asyncio.sleep(max(fault.at - loop.time(), 0.0))
            self._trace.note(loop.time(), f"fault: {fault.kind} {fault.whom} {fault.amount:g}")
            task = asyncio.ensure_future(self._happen(fault))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def heal(self) -> None:
        """Everything works again: disks, links, clocks."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))
        machines = [*self._service.machines, *(phone.machine for phone in self._phones.values())]
        for machine in machines:
            machine.trouble("")
            machine.slow = 0.0
            machine.clock.shift = 0.0
        self._network.delay.clear()
        self._network.unreachable.clear()
        self._trace.note(asyncio.get_running_loop().time(), "every fault is over")

    async def _happen(self, fault: Fault) -> None:
        rng = random.Random(fault.seed)
        kind, phone = fault.kind, self._phones.get(fault.whom)
        machine = self._service.machine if not fault.whom else phone.machine if phone is not None else None
        if kind.startswith("gateway"):
            await self._gateway(kind.removeprefix("gateway "), fault)
        elif kind.startswith("database"):
            self._service.database_fault(kind.removeprefix("database "), int(fault.amount))
        elif kind in OPERATIONS:
            run, name = (phone.plan.run, phone.plan.name) if phone is not None else (0, fault.whom)
            await self._operators[run].act(kind, name, rng)
        elif kind.startswith("link"):
            await self._link(kind.removeprefix("link "), fault, rng)
        elif machine is None:
            return  # a stranger has no machine of its own
        elif kind.startswith("disk"):
            await self._disk(machine, kind.removeprefix("disk "), fault.amount)
        elif kind == "rot":
            self._rot(rng)
        elif kind == "clock":
            machine.clock.shift += fault.amount
        elif kind.endswith(("cut", "kill")):
            machine.cut_after(int(fault.amount), whole=kind.endswith("kill"))
        elif phone is not None:
            await self._person(kind, phone, fault.amount)

    async def _disk(self, machine: Machine, kind: str, seconds: float) -> None:
        if kind == "slow":
            machine.slow = 0.2 + seconds / 10
            await asyncio.sleep(seconds)
            machine.slow = 0.0
        else:
            machine.trouble(kind)
            await asyncio.sleep(seconds)
            machine.trouble("")

    async def _gateway(self, kind: str, fault: Fault) -> None:
        (gateway,) = [each for each in self._service.gateways if each.machine.name == fault.whom]
        match kind:
            case "kill":
                gateway.machine.cut_after(int(fault.amount), whole=True)
            case "cut":
                for line in gateway.sockets.of(gateway.machine):
                    line.cut()
            case "uneven":
                for line in gateway.sockets.of(gateway.machine):
                    line.cut_unevenly()
            case "slow":
                gateway.sockets.delay = 2.0
                await asyncio.sleep(fault.amount / 8)
                gateway.sockets.delay = 0.0

    async def _link(self, kind: str, fault: Fault, rng: random.Random) -> None:
        device = fault.whom
        for cable in self._network.of(device):
            match kind:
                case "cut":
                    cable.cut()
                case "silent":
                    cable.fall_silent()
                case "flip":
                    cable.flips = rng.randint(1, 3)
        if kind in ("cut", "silent"):
            self._network.unreachable.add(device)
            await asyncio.sleep(fault.amount / 4)
            self._network.unreachable.discard(device)
        elif kind == "slow":
            self._network.delay[device] = rng.choice((0.5, 3.0))
            await asyncio.sleep(fault.amount)
            self._network.delay.pop(device, None)

    async def _person(self, kind: str, phone: SimulatedPhone, seconds: float) -> None:
        match kind:
            case "away":
                phone.away_until = asyncio.get_running_loop().time() + seconds
                phone.machine.cut_after(1, whole=True)
            case "reinstall":
                await phone.reinstall(seconds)
            case "twin":
                await phone.twin(seconds)
            case "gone" if self._operators[phone.plan.run].spares():
                phone.out = "it never comes back"
                phone.ledger.maybe_gone.add(phone.plan.name)
                phone.machine.cut_after(1, whole=True)

    def _rot(self, rng: random.Random) -> None:
        """A byte of an update that waits changes on the disk, while the coordinator is down."""

        def rot(root: object) -> None:
            folder = self._service.config.run.state / "updates"
            files = [path for path in sorted(folder.glob("*.updates")) if path.stat().st_size]
            if files:
                path = rng.choice(files)
                content = bytearray(path.read_bytes())
                content[rng.randrange(len(content))] ^= 0x10
                path.write_bytes(bytes(content))
                self._service.hosted[0].ledger.rotten = True

        if self._service.between is None:
            self._service.between = rot
            self._service.machine.cut_after(1, whole=True)
