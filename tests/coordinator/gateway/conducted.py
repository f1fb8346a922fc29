"""A coordinator with gateways in front of it, in one process: the pipes are real Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from coordinator.conductor.listener import GatewayConnections, RemoteGateways, listen_for_gateways
from coordinator.gateway.conductors import Conductors, LocalConductor, RemoteConductors
from coordinator.gateway.gateway import Gateway
from coordinator.loop.coordinator import Coordinator
from coordinator.net.admission import ConnectionLimits
from mobile_sdk.clock import SystemClock, offload

from ..small_run import SmallRun

__all__ = ["SECRET", "Conducted", "conduct", "make_coordinator"]


def make_coordinator(small: SmallRun) -> Coordinator:
    """The coordinator of a small run, in real time."""
    return Coordinator(small.config, small.store, small.key, small.tiers, None, clock=SystemClock(), offload=offload)


class Conducted:
    """
    ``gateways`` serve connections for ``coordinator``; ``connections`` counts theirs; ``start`` gives one more.

    ``folder`` holds what gateways keep that are elsewhere; by ``conductors`` they find their conductor.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        gateways: list[Gateway],
        connections: GatewayConnections,
        start: Callable[[], Gateway],
        folder: str,
        conductors: Conductors,
    ) -> None:
        self.conductors = conductors
        self.start = start
        self.folder = folder
        self.coordinator = coordinator
        self.gateways = gateways
        self.connections = connections
        self._turns = itertools.cycle(gateways)

    @property
    def next(self) -> Gateway:
        """One gateway after the other."""
        return next(self._turns)


SECRET = b"0123456789abcdef0123456789abcdef"


@contextlib.asynccontextmanager
async def conduct(small: SmallRun, gateways: int, *, elsewhere: bool = False) -> AsyncIterator[Conducted]:
    """
    Conduct a small run while the context lasts.

    Args:
        small: the run.
        gateways: how many.
        elsewhere: each gateway has a folder of its own, and is connected by TLS, as on a machine of its own.

    """
    coordinator, connections = make_coordinator(small), GatewayConnections()
    section = small.config.server
    with tempfile.TemporaryDirectory() as folder:
        place: Path | RemoteGateways = Path(folder) / "conductor.sock"  # a socket's path is short
        place = RemoteGateways("127.0.0.1:0", SECRET) if elsewhere else place
        async with listen_for_gateways(place, lambda: {small.config.run.name: coordinator}, connections) as address:

            async def find() -> str:
                return address

            conductors: Conductors = RemoteConductors(find, SECRET) if elsewhere else LocalConductor(Path(address))
            following: list[asyncio.Task[None]] = []

            def start() -> Gateway:
                own = Path(folder) / str(len(following))
                gateway = Gateway(section, ConnectionLimits(100, 100, 100), own)
                following.append(asyncio.create_task(gateway.follow(conductors)))
                return gateway

            made = [start() for _ in range(gateways)]
            work = asyncio.create_task(coordinator.run())
            try:
                for gateway in made:
                    await gateway.connected.wait()
                yield Conducted(coordinator, made, connections, start, folder, conductors)
            finally:
                for gateway in made:
                    await gateway.close()
                for task in (work, *following):
                    task.cancel()
                await asyncio.gather(work, *following, return_exceptions=True)
                coordinator.close()
