"""Gateways on the coordinator's machine: processes of their own, which are killed, and whose pipes break."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from coordinator.conductor import listener
from coordinator.config import Config
from coordinator.gateway import conductors, gateway, remote_store
from coordinator.gateway.conductors import LocalConductor
from coordinator.gateway.gateway import Gateway
from coordinator.net.admission import ConnectionLimits
from coordinator.versions import differences
from mobile_sdk.clock import Clock

from .interposer import PowerCut
from .ledger import Trace
from .links import Network
from .machines import Machine, running
from .pipes import LocalSockets
from .threads import LockInTurn, ask, in_thread

__all__ = ["SimulatedGateway", "gateways_in_memory"]

# Whoever keeps the gateways running starts one again after so long.
RESTART_SECONDS = 2.0


class SimulatedGateway:
    """
    A gateway's process and whoever starts it again.

    Args:
        machine: its process; its own disk holds nothing, it works on the coordinator's.
        network: is told that devices can come here.
        sockets: lead to the conductor.
        socket: the conductor's.
        config: of the run.
        clock: of the machine.
        trace: is told what should not happen.
        rng: draws how devices hear of an end.

    """

    def __init__(
        self,
        machine: Machine,
        network: Network,
        sockets: LocalSockets,
        socket: Path,
        config: Config,
        clock: Clock,
        trace: Trace,
        rng: random.Random,
    ) -> None:
        self.machine = machine
        self.stopping = False
        self.sockets = sockets
        self._network = network
        self._socket = socket
        self._section = config.server
        self._clock = clock
        self._trace = trace
        self._rng = rng
        self._stopped = asyncio.Lock()

    async def live(self) -> None:
        """Serve, and start again whenever the process has ended, until ``stopping``."""
        while not self.stopping:
            async with self._stopped:
                process = self.machine.start(self._serve())
            cut = asyncio.ensure_future(self.machine.ended.wait())
            await asyncio.wait({process, cut}, return_when=asyncio.FIRST_COMPLETED)
            cut.cancel()
            if process.done() and not process.cancelled() and not isinstance(process.exception(), PowerCut | None):
                error = process.exception()
                self._trace.fail("no exception but the documented ones", f"{self.machine.name}: {error!r}")
            await self.stop()
            if not self.stopping:
                await asyncio.sleep(self._rng.uniform(0.2, RESTART_SECONDS))

    async def stop(self) -> None:
        """End the process, wherever it is."""
        async with self._stopped:
            self._network.host_gone(self.machine.name, silently=self._rng.random() < 0.3)
            self.sockets.process_gone(self.machine)
            await self.machine.stopped()

    async def _serve(self) -> None:
        serving = Gateway(self._section, ConnectionLimits(100, 100, 100), clock=self._clock)
        following = asyncio.ensure_future(serving.follow(LocalConductor(self._socket)))
        self._network.hosts[self.machine.name] = self.machine, serving.serve
        await following


async def _offload(function: Any, *args: Any) -> Any:
    """In a thread of the gateway that runs."""
    machine = running()
    assert machine is not None
    if not machine.hasty:
        await asyncio.sleep(0)
    if machine.disk.dead:
        raise PowerCut
    return await in_thread(function, *args)


@contextlib.contextmanager
def gateways_in_memory(sockets: LocalSockets) -> Iterator[None]:
    """Gateways and conductors find each other in memory, and their threads take turns."""

    def asks(self: Any, kind: str, **values: Any) -> Any:
        return ask(self._pipe.ask({"m": kind, "r": self._run, **values}))

    with (
        mock.patch.object(conductors, "connect_locally", sockets.connect),
        mock.patch.object(gateway, "offload", _offload),
        mock.patch.object(gateway, "REPORT_SECONDS", 30.0),
        mock.patch.object(gateway, "RETRY_SECONDS", 0.5),
        mock.patch.object(differences, "threading", SimpleNamespace(Lock=LockInTurn)),
        mock.patch.object(listener, "listen_locally", sockets.listen),
        mock.patch.object(listener, "LOOK_SECONDS", 0.5),
        mock.patch.object(remote_store._Questions, "ask", asks),
    ):
        yield
