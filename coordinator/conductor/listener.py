"""Where gateways find their conductor: a Unix socket that its user alone may open."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from mobile_sdk.system.sockets import listen_locally

from ..errors import ConfigError
from ..gateway.pipe import Pipe
from ..loop.coordinator import Coordinator
from ..net.admission import ConnectionLimits
from .gateway_link import GatewayLink

__all__ = ["GatewayConnections", "listen_for_gateways"]

# How often gateways are told what has changed of their runs, beside new versions, which they hear of at once.
LOOK_SECONDS = 0.05

# Linux takes no longer path of a Unix socket.
MAX_SOCKET_PATH = 107


class GatewayConnections(ConnectionLimits):
    """The connections of all gateways together, as they said last; what is shed is theirs to decide."""

    def __init__(self) -> None:
        self.links: set[GatewayLink] = set()
        super().__init__(0, 0, 0)

    def _sum(self, name: str) -> int:
        return sum(link.connections[name] for link in self.links)

    @property
    def unproven(self) -> int:
        """Open connections whose peer has not proved who it is."""
        return self._sum("unproven")

    def refresh(self) -> None:
        """Take over what the gateways said last."""
        self.gateways = len(self.links)
        self.open, self.shed, self.cut = self._sum("open"), self._sum("shed"), self._sum("cut")


@contextlib.asynccontextmanager
async def listen_for_gateways(
    socket: Path, runs: Callable[[], Mapping[str, Coordinator]], connections: GatewayConnections
) -> AsyncIterator[None]:
    """
    Serve gateways for as long as the context lasts.

    Args:
        socket: the path to listen on; replaced if it is there, of a conductor that was killed.
        runs: gives the runs that are served, by name.
        connections: counts the gateways' connections.

    Raises:
        ConfigError: if the path cannot be listened on.

    """
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"the path {socket} has {len(os.fsencode(socket))} bytes, and a Unix socket's has at most "
            f"{MAX_SOCKET_PATH}: give a shorter one"
        )
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = GatewayLink(Pipe(reader, writer), runs)
        connections.links.add(link)
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # this conductor ends, and a stream's task must not raise
                await link.serve()
        finally:
            connections.links.discard(link)
            serving.discard(task)

    async def look() -> None:
        while True:
            for link in list(connections.links):
                link.look()
            connections.refresh()
            await asyncio.sleep(LOOK_SECONDS)

    socket.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        server = await listen_locally(serve, socket)
    except OSError as error:
        raise ConfigError(f"cannot listen on {socket}: {error.strerror}") from error
    finally:
        os.umask(mask)
    own = socket.stat().st_ino
    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        with contextlib.suppress(OSError):
            # A conductor that was stopped for a while has a successor, which listens here by now.
            if socket.stat().st_ino == own:
                socket.unlink()
