"""Where gateways find their conductor: a Unix socket that its user alone may open, or a port for other machines."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import platform
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from mobile_sdk.system.sockets import LIMIT, Serve, listen_locally

from ..config import split_address
from ..errors import ConfigError
from ..gateway.handshake import PROOF_SECONDS, NotProved, answer_gateway
from ..gateway.messages import GATEWAY
from ..gateway.pipe import Pipe
from ..loop.coordinator import Coordinator
from ..net.admission import ConnectionLimits, GatewayNumbers
from ..net.peer_log import PeerLog
from ..net.tls import temporary_context
from .gateway_link import GatewayLink

__all__ = ["GatewayConnections", "RemoteGateways", "listen_for_gateways"]

log = logging.getLogger(__name__)
peers = PeerLog(log)

# How often gateways are told what has changed of their runs, beside new versions, which they hear of at once.
LOOK_SECONDS = 0.05

# Linux takes no longer path of a Unix socket.
MAX_SOCKET_PATH = 107

# Connections that have not proved that they have the secret; further ones are closed.
MOST_UNPROVEN = 64


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
        self.gateways = [
            GatewayNumbers(link.name, link.connections["open"], link.connections["unproven"], link.cpu_seconds)
            for link in sorted(self.links, key=lambda link: link.name)
            if link.name
        ]
        self.open, self.shed, self.cut = self._sum("open"), self._sum("shed"), self._sum("cut")


@dataclasses.dataclass(frozen=True)
class RemoteGateways:
    """
    How gateways of other machines are let in.

    ``listen`` is ``HOST:PORT``; with port 0, any that is free. Gateways have the same ``secret``. ``address`` is what
    they call; by default the host of ``listen``, or this machine's name where that stands for all its addresses.
    """

    listen: str
    secret: bytes = dataclasses.field(repr=False)
    address: str | None = None

    def reached_at(self, port: int) -> str:
        """What gateways call, where ``port`` is listened on."""
        if self.address is not None:
            return self.address
        host, _ = split_address(self.listen)
        host = platform.node() if host in ("0.0.0.0", "::") else host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.asynccontextmanager
async def listen_for_gateways(
    place: Path | RemoteGateways, runs: Callable[[], Mapping[str, Coordinator]], connections: GatewayConnections
) -> AsyncIterator[str]:
    """
    Serve gateways for as long as the context lasts; gives the address that they call.

    Args:
        place: where to listen. A path is replaced if it is there, of a conductor that was killed.
        runs: gives the runs that are served, by name.
        connections: counts the gateways' connections.

    Raises:
        ConfigError: if that cannot be listened on.

    """
    serving: dict[asyncio.Task[None], None] = {}  # in the order of their start

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = GatewayLink(Pipe(reader, writer, GATEWAY), runs, lambda: connections.links)
        connections.links.add(link)
        try:
            await link.serve()
        finally:
            connections.links.discard(link)

    async def serve_quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving[task] = None
        try:
            with contextlib.suppress(asyncio.CancelledError):  # this conductor ends, and a stream's task must not raise
                await serve(reader, writer)
        finally:
            serving.pop(task, None)

    async def look() -> None:
        said = False
        while True:
            if any(coordinator.state.store.lease.lost for coordinator in runs().values()):
                if not said:
                    log.error("another process leads by now: this one lets its gateways go")
                    said = True
                for task in list(serving):  # they look for the other process, and find it
                    task.cancel()
            else:
                for link in list(connections.links):
                    link.look()
            connections.refresh()
            await asyncio.sleep(LOOK_SECONDS)

    opened = _on_socket(serve_quietly, place) if isinstance(place, Path) else _on_port(serve, serving, place)
    async with opened as address:
        looking = asyncio.create_task(look())
        try:
            yield address
        finally:
            looking.cancel()
            for task in list(serving):
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


@contextlib.asynccontextmanager
async def _on_socket(serve: Serve, socket: Path) -> AsyncIterator[str]:
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"the path {socket} has {len(os.fsencode(socket))} bytes, and a Unix socket's has at most "
            f"{MAX_SOCKET_PATH}: give a shorter one"
        )
    socket.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        server = await listen_locally(serve, socket)
    except OSError as error:
        raise ConfigError(f"cannot listen on {socket}: {error.strerror}") from error
    finally:
        os.umask(mask)
    own = _identity(socket)
    try:
        yield str(socket)
    finally:
        server.close()
        with contextlib.suppress(OSError):
            # A conductor that was stopped for a while has a successor, which listens here by now.
            if _identity(socket) == own:
                socket.unlink()


def _identity(socket: Path) -> tuple[int, int]:
    found = socket.stat()
    return found.st_ino, found.st_ctime_ns  # the number of a file that was removed is soon another's


@contextlib.asynccontextmanager
async def _on_port(serve: Serve, serving: dict[asyncio.Task[None], None], place: RemoteGateways) -> AsyncIterator[str]:
    """Listen by TLS; ``serve`` gets the connections of those who have proved that they have the secret."""
    tls, fingerprint = temporary_context()
    unproven = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal unproven
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        task = asyncio.current_task()
        assert task is not None
        if unproven >= MOST_UNPROVEN:
            writer.transport.abort()
            return
        serving[task] = None
        unproven += 1
        try:
            try:
                await answer_gateway(reader, writer, place.secret, fingerprint)
            finally:
                unproven -= 1
            await serve(reader, writer)
        except (NotProved, TimeoutError) as error:
            peers.warning(peer, "%s is no gateway of this conductor: %s", peer, error or "it took too long")
        except asyncio.CancelledError:
            pass  # this conductor ends, and a stream's task must not raise
        finally:
            serving.pop(task, None)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    host, port = split_address(place.listen)
    try:
        server = await asyncio.start_server(
            answer, host, port, ssl=tls, ssl_handshake_timeout=PROOF_SECONDS, limit=LIMIT
        )
    except OSError as error:
        raise ConfigError(f"gateways.listen: cannot listen on {place.listen}: {error.strerror or error}") from error
    address = place.reached_at(server.sockets[0].getsockname()[1])
    log.info("gateways of other machines find this conductor at %s", address)
    try:
        yield address
    finally:
        server.close()
