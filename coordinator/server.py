"""The coordinator on a real socket: WebSockets with limits, keepalive, TLS and byte counts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from mobile_sdk.connection import WEBSOCKET_LIMITS, WebSocketConnection

from .config import ServerSection
from .coordinator import Coordinator
from .errors import ConfigError
from .status import Traffic

__all__ = ["CountingConnection", "listen"]


class CountingConnection(ServerConnection):
    """Counts the bytes of the WebSocket stream, handshake and framing included."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.traffic = Traffic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"a WebSocket needs a stream transport, not {transport!r}")
        super().connection_made(_count_writes(transport, self.traffic))

    def data_received(self, data: bytes) -> None:
        self.traffic.up += len(data)
        super().data_received(data)


def _count_writes(transport: asyncio.Transport, traffic: Traffic) -> asyncio.Transport:
    class Counted:
        def write(self, data: bytes) -> None:
            traffic.down += len(data)
            transport.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

    counted: Any = Counted()
    return counted  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def listen(coordinator: Coordinator, section: ServerSection) -> AsyncIterator[str]:
    """
    Serve devices for as long as the context lasts; gives the address that they join.

    Raises:
        ConfigError: if the address cannot be listened on, or the certificate cannot be used.

    """

    async def handle(socket: ServerConnection) -> None:
        if not isinstance(socket, CountingConnection):
            raise TypeError(f"the server made {socket!r}")
        await coordinator.serve(WebSocketConnection(socket), socket.traffic)

    tls = _tls(section)
    try:
        server = await serve(
            handle,
            section.host,
            section.port,
            ssl=tls,
            create_connection=CountingConnection,
            origins=[None],  # devices send none; a web page that somebody opens here must not join
            **WEBSOCKET_LIMITS,
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {section.host}:{section.port}: {error.strerror}; is another coordinator running?"
        ) from error
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"{'wss' if tls else 'ws'}://{section.host}:{port}"


def _tls(section: ServerSection) -> ssl.SSLContext | None:
    if section.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(section.certificate, section.private_key)
    except OSError as error:
        raise ConfigError(f"cannot use the certificate {section.certificate} with its private key: {error}") from error
    return context
