"""Where a gateway finds its conductor: on a Unix socket of this machine, or by TLS at an address that may change."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from mobile_sdk.system.sockets import LIMIT, connect_locally

from ..config import split_address
from ..errors import StoreUnavailable
from .handshake import NotProved, client_context, greet_conductor
from .messages import CONDUCTOR
from .pipe import Pipe

__all__ = ["Conductors", "LocalConductor", "RemoteConductors"]

# How long a machine may take to answer at all.
CONNECT_SECONDS = 5.0


class Conductors(Protocol):
    """The conductor, and its successors."""

    @property
    def elsewhere(self) -> bool:
        """Whether it may be on another machine, whose files are not here."""
        ...

    async def connect(self) -> Pipe:
        """
        Reach the one that leads now.

        Raises:
            StoreUnavailable: if there is none, with a sentence for operators.

        """
        ...

    async def has_successor(self) -> bool:
        """Whether another leads by now than the one that was reached last."""
        ...


class LocalConductor:
    """
    The :class:`Conductors` of this machine.

    Args:
        socket: the path on which they listen, one after the other.

    """

    elsewhere = False

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._reached: tuple[int, int] | None = None

    def __str__(self) -> str:
        return str(self._socket)

    def _identity(self) -> tuple[int, int]:
        found = self._socket.stat()
        return found.st_ino, found.st_ctime_ns  # the number of a file that was removed is soon another's

    async def connect(self) -> Pipe:
        try:
            self._reached = self._identity()
            return Pipe(*await connect_locally(self._socket), CONDUCTOR)
        except OSError as error:
            raise StoreUnavailable(f"no conductor listens on {self._socket} ({error.strerror})") from error

    async def has_successor(self) -> bool:
        """Of a conductor that is stopped: with the run in a database, its successor listens on the same path."""
        with contextlib.suppress(OSError):
            return self._identity() != self._reached
        return False


class RemoteConductors:
    """
    The :class:`Conductors` of other machines.

    Args:
        find: gives the address, ``HOST:PORT``, of the one that leads, or nothing; or raises :exc:`StoreUnavailable`.
        secret: which they and their gateways have.

    """

    elsewhere = True

    def __init__(self, find: Callable[[], Awaitable[str]], secret: bytes) -> None:
        self._find = find
        self._secret = secret
        self._tls = client_context()
        self._reached = ""

    def __str__(self) -> str:
        return self._reached or "another machine"

    async def connect(self) -> Pipe:
        address = await self._find()
        if not address:
            raise StoreUnavailable("no conductor leads the run")
        host, port = split_address(address)
        writer = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(host, port, ssl=self._tls, limit=LIMIT)
            await greet_conductor(reader, writer, self._secret)
        except (OSError, ssl.SSLError, NotProved) as error:
            if writer is not None:
                writer.close()
            words = "it does not answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", 0) or error
            raise StoreUnavailable(f"the conductor at {address} cannot be reached: {words}") from error
        self._reached = address
        return Pipe(reader, writer, CONDUCTOR)

    async def has_successor(self) -> bool:
        with contextlib.suppress(StoreUnavailable):
            return await self._find() not in ("", self._reached)
        return False
