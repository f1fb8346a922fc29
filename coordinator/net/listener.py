"""The coordinator on a real socket: WebSockets with limits, keepalive, TLS and byte counts."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, cast

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from mobile_sdk.net.connection import (
    WEBSOCKET_LIMITS,
    Connection,
    ConnectionLost,
    WebSocketConnection,
    describe,
)

from ..config import ServerSection
from ..errors import ConfigError
from .admission import ConnectionLimits, Rate
from .coalescing import coalesce_writes
from .frames import FrameCutter, whole_frame
from .join_page import answer_page
from .proxies import PassedOn, Proxies
from .tls import server_context
from .traffic import Traffic

__all__ = ["ConnectionHost", "device_address", "listen"]

# A fifth of the interpreter's own: how long a thread may go on while the event loop has something to do.
SWITCH_SECONDS = 0.001

# A peer has so long for TLS, and again for the WebSocket handshake.
OPEN_SECONDS = 10.0


class ConnectionHost(Protocol):
    """Serves connections: a :class:`~coordinator.runs.service.Service`, or one coordinator."""

    async def serve(self, connection: Connection, traffic: Traffic, proven: Callable[[], None]) -> None:
        """
        Serve one connection until it ends.

        Args:
            connection: carries the frames.
            traffic: counts its bytes.
            proven: called when its device has proved who it is.

        """
        ...


# What a peer may send before it has proved who it is: the HTTP request, hello, enrolment with a token, and proof.
UNPROVEN_BYTES = 32_768

# Frames that carry no message: pings, pongs, and pieces of messages, of which our SDK sends a few a minute.
BARE_FRAMES_PER_SECOND = 20.0
_BARE = (Opcode.PING, Opcode.PONG, Opcode.CONT)
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

# So many messages that nobody has asked for, and a connection is not read any more.
MOST_MESSAGES = 16


class _OpenDoor(WebSocketConnection):
    """Makes short frames itself, and takes whole messages: the library takes several times as long."""

    def __init__(self, door: _Door) -> None:
        super().__init__(door)
        self._door = door

    def _put(self, frame: str | bytes) -> None:
        self._door.transport.write(whole_frame(frame))

    async def receive(self) -> str | bytes:
        try:
            return await self._door.next_message()
        except ConnectionClosed as error:
            raise ConnectionLost(describe(error)) from error


class _Door(ServerConnection):
    """
    Has a place at the gate, and counts the bytes of the WebSocket stream, handshake and framing included.

    Messages of one frame, nearly all there are, are unpacked here; every other frame goes to the library whole.
    """

    # Most connections are idle, and a dictionary of all attributes would take 1.6 KB more of each.
    __slots__ = (
        "_address",
        "_bare_frames",
        "_entered",
        "_frames",
        "_gate",
        "_lost",
        "_messages",
        "_proven",
        "_waiting",
        "traffic",
    )

    def __init__(self, *args: Any, gate: ConnectionLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.traffic = Traffic()
        self.address = ""  # of the peer; a load balancer says it of those whose connections it passes on
        self._gate = gate
        self._entered = False
        self._proven = False
        self._bare_frames = Rate(BARE_FRAMES_PER_SECOND)
        self._frames: FrameCutter | None = None  # once the handshake is over
        self._messages: list[
            str | bytes | None
        ] = []  # that nobody has asked for yet; none for one that the library has
        self._waiting: asyncio.Future[None] | None = None  # for the next of them
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's are, and derive from nothing
        self.address = self.address or str((transport.get_extra_info("peername") or ("",))[0])
        self._entered = self._gate.enter(self.address)
        super().connection_made(coalesce_writes(stream, self.traffic))
        if not self._entered:
            stream.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._entered:
            self._gate.leave(self.address, proven=self._proven)
            self._entered = False
        super().connection_lost(exc)
        self._lost = True
        self._wake()

    def data_received(self, data: bytes) -> None:
        self.traffic.up += len(data)
        if not self._proven and self.traffic.up > UNPROVEN_BYTES:
            # Before anything is decoded: whoever has proved nothing gets no more of the processor.
            self._gate.cut += 1
            self.transport.abort()
            return
        if self._frames is not None:
            self._take(self._frames, data)
            return
        # A device waits for the answer to its request; whoever does not is left to the library.
        if self.protocol.state is State.CONNECTING and data.endswith(b"\r\n\r\n"):
            self._frames = FrameCutter(self.protocol.max_message_size)
        super().data_received(data)

    def _take(self, frames: FrameCutter, data: bytes) -> None:
        """Unpack what is a whole message, and hand everything else to the library, frame by frame."""
        for frame in frames.cut(data):
            whole = self.protocol.state is State.OPEN and self.protocol.current_size is None
            message = frame.message() if whole else None
            if message is None:
                super().data_received(bytes(frame.content))
            else:
                self._add(message)

    def _add(self, message: str | bytes | None) -> None:
        self._messages.append(message)
        if len(self._messages) == MOST_MESSAGES and not self.transport.is_closing():
            self.transport.pause_reading()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def next_message(self) -> str | bytes:
        """The next message. Raises :exc:`ConnectionClosed` once there are no more."""
        while not self._messages and not self._lost:
            self._waiting = self.loop.create_future()
            await self._waiting
        if len(self._messages) == MOST_MESSAGES and not self.transport.is_closing():
            self.transport.resume_reading()
        message = self._messages.pop(0) if self._messages else None
        return await self.recv() if message is None else message

    def process_event(self, event: Event) -> None:
        # The library answers pings by itself, and no message comes of them that anybody would count.
        bare = isinstance(event, Frame) and (event.opcode in _BARE or not event.fin)
        if bare and not self._bare_frames.take(self.loop.time()):
            self._gate.cut += 1
            self.transport.abort()
            return
        super().process_event(event)
        if isinstance(event, Frame) and event.fin and event.opcode in _DATA:
            self._add(None)

    def prove(self) -> None:
        """The device has proved who it is."""
        if self._entered and not self._proven:
            self._proven = True
            self._gate.prove(self.address)


@contextlib.asynccontextmanager
async def listen(
    host: ConnectionHost, section: ServerSection, gate: ConnectionLimits | None = None, *, reuse_port: bool = False
) -> AsyncIterator[str]:
    """
    Serve devices for as long as the context lasts; gives the address that they join.

    Args:
        host: serves the connections.
        section: address, certificate, limits.
        gate: counts connections; a new one where :obj:`None`.
        reuse_port: whether other processes may listen on the same port; each connection goes to one of them.

    Raises:
        ConfigError: if the address cannot be listened on, or the certificate cannot be used.

    """
    gate = gate or ConnectionLimits(section.connections, section.handshakes, section.handshakes_per_address)

    async def handle(socket: ServerConnection) -> None:
        if not isinstance(socket, _Door):
            raise TypeError(f"the server made {socket!r}")
        for http in (socket.request, socket.response):
            if http is not None:
                http.headers.clear()  # 3 KB that nobody reads after the handshake
        await host.serve(_OpenDoor(socket), socket.traffic, socket.prove)

    # Merges and writes run in threads and compete for the GIL; a short switch interval keeps the event loop responsive.
    sys.setswitchinterval(SWITCH_SECONDS)
    tls = server_context(section)
    proxies = Proxies(section.proxies)
    limits = WEBSOCKET_LIMITS | ({"reuse_port": True} if reuse_port else {})

    def make_door(*args: Any, **kwargs: Any) -> asyncio.BaseProtocol:
        door = _Door(*args, gate=gate, **kwargs)
        return PassedOn(door, proxies, tls, OPEN_SECONDS) if section.proxies else door

    if tls and not section.proxies:  # the header of a load balancer comes before TLS, which therefore begins later
        limits |= {"ssl": tls, "ssl_handshake_timeout": OPEN_SECONDS}
    try:
        server = await serve(
            handle,
            section.host,
            section.port,
            create_connection=make_door,  # type: ignore[arg-type]
            origins=[None],  # devices send none; a web page that somebody opens here must not join
            open_timeout=OPEN_SECONDS,
            process_request=answer_page if tls else None,
            **limits,
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {section.host}:{section.port}: {error.strerror}; is another coordinator running?"
        ) from error
    async with server:
        with contextlib.closing(proxies):
            yield device_address(section, server.sockets[0].getsockname()[1])


def device_address(section: ServerSection, port: int | None = None) -> str:
    """Where devices connect; on ``port``, if it is another than the section's."""
    host = f"[{section.host}]" if ":" in section.host else section.host
    return f"{'ws' if section.certificate is None else 'wss'}://{host}:{section.port if port is None else port}"
