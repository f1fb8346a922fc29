"""A coordinator with gateways in front of it, in one process: the pipes are real Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from coordinator.conductor.listener import GatewayConnections, listen_for_gateways
from coordinator.gateway.gateway import Gateway
from coordinator.loop.coordinator import Coordinator
from coordinator.net.admission import ConnectionLimits
from mobile_sdk.clock import SystemClock, offload

from ..small_run import SmallRun

__all__ = ["Conducted", "conduct", "make_coordinator"]


def make_coordinator(small: SmallRun) -> Coordinator:
    """The coordinator of a small run, in real time."""
    return Coordinator(small.config, small.store, small.key, small.tiers, None, clock=SystemClock(), offload=offload)


class Conducted:
    """``gateways`` serve connections for ``coordinator``; ``connections`` counts theirs."""

    def __init__(self, coordinator: Coordinator, gateways: list[Gateway], connections: GatewayConnections) -> None:
        self.coordinator = coordinator
        self.gateways = gateways
        self.connections = connections
        self._turns = itertools.cycle(gateways)

    @property
    def next(self) -> Gateway:
        """One gateway after the other."""
        return next(self._turns)


@contextlib.asynccontextmanager
async def conduct(small: SmallRun, gateways: int) -> AsyncIterator[Conducted]:
    """Conduct a small run with so many gateways while the context lasts."""
    coordinator, connections = make_coordinator(small), GatewayConnections()
    section = small.config.server
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "conductor.sock"  # a socket's path is short
        async with listen_for_gateways(socket, lambda: {small.config.run.name: coordinator}, connections):
            made = [Gateway(section, ConnectionLimits(100, 100, 100)) for _ in range(gateways)]
            following = [asyncio.create_task(gateway.follow(socket)) for gateway in made]
            work = asyncio.create_task(coordinator.run())
            try:
                for gateway in made:
                    await gateway.connected.wait()
                yield Conducted(coordinator, made, connections)
            finally:
                for gateway in made:
                    await gateway.close()
                for task in (work, *following):
                    task.cancel()
                await asyncio.gather(work, *following, return_exceptions=True)
                coordinator.close()
