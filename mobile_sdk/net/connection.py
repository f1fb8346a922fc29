"""The link to the coordinator: a small interface, and its WebSocket form."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from socket import gaierror
from typing import Any, Protocol, runtime_checkable
from urllib.parse import SplitResult, urlsplit

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection as ConnectionBase
from websockets.asyncio.connection import broadcast
from websockets.protocol import State

from ..errors import FtteError
from ..protocol.frames import MAX_FRAME_BYTES
from .loopback import is_loopback
from .proxy import check_proxy, environment_proxy, shown_proxy

__all__ = ["Connect", "Connection", "ConnectionLost", "Prompt", "Transport", "WEBSOCKET_LIMITS", "websocket"]

# Deflate costs ten times the throughput and our payloads are dense already; pings find dead links.
WEBSOCKET_LIMITS: dict[str, Any] = {
    "compression": None,
    "max_size": MAX_FRAME_BYTES,
    "max_queue": 16,
    "ping_interval": 20,
    "ping_timeout": 20,
    "close_timeout": 5,
}


# A frame that is not taken within this time means that the peer is frozen.
SEND_SECONDS = 60.0
CLOSE_SECONDS = 10.0
# What a transport with nothing to send takes at once: half of what makes it ask for a pause.
SHORT_FRAME = 16_384


class ConnectionLost(FtteError):
    """The link broke or could not be made; trying again later may help."""


class Connection(Protocol):
    """An ordered, reliable link that carries text and binary frames."""

    async def send(self, frame: str | bytes) -> None:
        """Send one frame; waits while the link is congested. Raises :exc:`ConnectionLost`."""
        ...

    async def receive(self) -> str | bytes:
        """The next frame. Raises :exc:`ConnectionLost`."""
        ...

    async def close(self, reason: str = "") -> None:
        """Close the link; does nothing if it is closed."""
        ...


@runtime_checkable
class Prompt(Protocol):
    """A connection that can say whether frames would have to wait."""

    def send_at_once(self, frames: Sequence[str | bytes]) -> bool:
        """Send short frames if the link takes them at once; else nothing is sent, and the answer is false."""
        ...


# Opens a connection for as long as the context lasts.
Connect = Callable[[], AbstractAsyncContextManager[Connection]]


class WebSocketConnection:
    """A WebSocket of the ``websockets`` library, with its errors as ours."""

    def __init__(self, socket: ConnectionBase) -> None:
        self._socket = socket

    def send_at_once(self, frames: Sequence[str | bytes]) -> bool:
        socket = self._socket
        if (
            sum(map(len, frames)) > SHORT_FRAME
            or socket.protocol.state is not State.OPEN
            or socket.transport.get_write_buffer_size() > 0
        ):
            return False
        for frame in frames:
            self._put(frame)  # nothing to wait for: neither timers nor flow control
        return True

    def _put(self, frame: str | bytes) -> None:
        """Write a frame to a link that is open and congested by nothing."""
        broadcast((self._socket,), frame)

    async def send(self, frame: str | bytes) -> None:
        try:
            if not self.send_at_once((frame,)):
                async with asyncio.timeout(SEND_SECONDS):
                    await self._socket.send(frame)
        except TimeoutError as error:
            # Pings queue behind a send that is stuck, so only this notices a peer that has stopped reading.
            self._socket.transport.abort()
            raise ConnectionLost(f"the peer took nothing for {SEND_SECONDS:g} s") from error
        except websockets.ConnectionClosed as error:
            raise ConnectionLost(describe(error)) from error

    async def receive(self) -> str | bytes:
        try:
            frame: str | bytes = await self._socket.recv()
        except websockets.ConnectionClosed as error:
            raise ConnectionLost(describe(error)) from error
        return frame

    async def close(self, reason: str = "") -> None:
        # RFC 6455 allows 123 bytes of reason.
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close(reason=reason.encode(errors="replace")[:120].decode(errors="ignore"))
        except TimeoutError:
            self._socket.transport.abort()


def describe(error: websockets.ConnectionClosed) -> str:
    """A connection's end in one line, preferring the peer's own words."""
    close = error.rcvd or error.sent
    if close is None:
        return "the connection broke"
    return f"the connection was closed: {close.reason or close.code}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transport:
    """
    How a coordinator is reached, and which certificate of its is trusted.

    Args:
        insecure: allow ``ws://`` to another machine, where anyone on the way can read and alter it.
        certificates: PEM file of the authorities to trust instead of the system's. Where OpenSSL finds none of the
            system's, as on Android, those of ``certifi`` are trusted.
        certificate: SHA-256 (hex) of the one certificate to trust instead of any authority's word; as in an invite.
        proxy: HTTP proxy to go through with CONNECT, ``http://[user:password@]host:port``; ``""`` for none. By
            default that of the environment (``https_proxy``, ``no_proxy``), except to this machine.

    """

    insecure: bool = False
    certificates: Path | None = None
    certificate: str = ""
    proxy: str | None = None


def websocket(url: str, transport: Transport | None = None) -> Connect:
    """
    How to open a connection to a coordinator.

    Args:
        url: ``wss://host:port``, or ``ws://`` to this machine.
        transport: what else is needed to reach it.

    Raises:
        ValueError: if ``url`` is none of these, the proxy is no address of one, or there are no authorities to trust.

    """
    transport = transport or Transport()
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or not _has_port(parts):
        raise ValueError(f"{url!r} is not the address of a coordinator, such as wss://example.org:8765")
    if parts.scheme == "ws" and not transport.insecure and not is_loopback(parts.hostname):
        raise ValueError(
            f"{url} would send everything in the clear: use wss://, or allow it with Transport(insecure=True)"
        )
    context = None
    if parts.scheme == "wss" and transport.certificate:
        context = ssl.create_default_context()
        # The very certificate is compared instead, in _check_certificate.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif parts.scheme == "wss":
        context = ssl.create_default_context(
            cafile=str(transport.certificates) if transport.certificates else _authorities()
        )
    if transport.proxy:
        check_proxy(transport.proxy)

    @contextlib.asynccontextmanager
    async def open_socket() -> AsyncIterator[Connection]:
        through, problem = (transport.proxy or None, "")
        if transport.proxy is None:
            through, problem = environment_proxy(url)
        by = f" through the proxy {shown_proxy(through)}" if through else ""
        if problem:
            raise ConnectionLost(f"cannot reach {url}{by}: {problem}")
        try:
            socket = await _Straight(
                url,
                ssl=context,
                open_timeout=20,
                proxy=through,
                create_connection=_comparing(transport.certificate) if transport.certificate else ClientConnection,
                **WEBSOCKET_LIMITS,
            )
        except (OSError, TimeoutError, EOFError, ValueError, ImportError, websockets.WebSocketException) as error:
            raise ConnectionLost(f"cannot reach {url}{by}: {_explain(error, through)}") from error
        connection = WebSocketConnection(socket)
        try:
            yield connection
        finally:
            await connection.close()

    return open_socket


class _Straight(connect):
    """
    Follows no redirect, since no coordinator sends any.

    What was decided about the address of the coordinator (that it is this machine, whose certificate is trusted) would
    not hold for another one.
    """

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _comparing(wanted: str) -> type[ClientConnection]:
    """Connections that compare the server's certificate before they send anything, the request included."""

    class Comparing(ClientConnection):
        async def handshake(self, *args: Any, **options: Any) -> None:
            _check_certificate(self, wanted)
            await super().handshake(*args, **options)

    return Comparing


def _authorities() -> str | None:
    """
    A PEM file of authorities; none where OpenSSL finds the system's own.

    python-for-android's OpenSSL looks in folders of the machine that built it, and Android keeps its authorities in
    another form: without this no authority would be trusted, and no server.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir())):
        return None
    if ssl.create_default_context().cert_store_stats()["x509_ca"]:  # of a store that is no folder: Windows
        return None
    try:
        import certifi
    except ImportError:
        raise ValueError(
            "this system has no certificate authorities that OpenSSL can read: install certifi (on Android, add it to "
            "the app's requirements), or name a PEM file: Transport(certificates=...)"
        ) from None
    return str(certifi.where())


def _explain(error: BaseException, proxy: str | None) -> str:
    """Why there is no connection, and what may help."""
    if isinstance(error, ImportError):
        return "SOCKS proxies need the package python-socks: pip install python-socks, or name an HTTP proxy"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}): join with the link of `ftte invite`, which "
            "names the certificate, or give its PEM file with --certificates (certificates= in an app)"
        )
    reset = isinstance(error, ConnectionResetError) and not proxy
    if (isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error)) or reset:
        return "what listens there does not speak the protocol of the address, TLS for wss://: check address and port"
    if isinstance(error, websockets.InvalidMessage) and not proxy:
        return f"what listens there does not answer as a WebSocket ({error}): if it uses TLS, write wss://"
    if isinstance(error, gaierror):
        return f"its name is not known here ({error.strerror}): check the address, and that there is a network"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there: the coordinator does not run, or has another address"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)  # asyncio's own words begin with the number
    return str(error) or type(error).__name__


def _check_certificate(socket: ConnectionBase, wanted: str) -> None:
    """Before anything of ours is said: whoever is on the way has another certificate."""
    tls = socket.transport.get_extra_info("ssl_object")
    shown = None if tls is None else tls.getpeercert(binary_form=True)
    found = "" if shown is None else hashlib.sha256(shown).hexdigest()
    if found != wanted:
        raise ConnectionLost(
            f"the server shows the certificate {found or '(none)'}, not {wanted} of the invite: "
            "another network may help; if the operator has a new certificate, ask for a new link"
        )


def _has_port(parts: SplitResult) -> bool:
    """Whether the port is one, or left out; a full stop behind it, for instance, was copied from a sentence."""
    try:
        return parts.port != 0
    except ValueError:
        return False
