"""A connection's first message: it names the run that the device wants."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from mobile_sdk.errors import ProtocolError
from mobile_sdk.net.connection import Connection, ConnectionLost, Prompt
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.encoding import encode
from mobile_sdk.protocol.messages import Error, Hello, Later, Message, Name
from mobile_sdk.protocol.texts import printable

from ..net.peer_log import PeerLog

__all__ = ["Serve", "serve_by_run"]

log = logging.getLogger(__name__)
peers = PeerLog(log)

Serve = Callable[[Connection], Awaitable[None]]


async def serve_by_run(connection: Connection, seconds: float, find: Callable[[str], Serve | Later | None]) -> None:
    """
    Serve one connection until it ends.

    Args:
        connection: a device, or somebody else.
        seconds: how long the first message may take.
        find: gives who serves the connections of a run, what to say instead, or none for a run that is not here.

    """
    with contextlib.suppress(ConnectionLost):
        try:
            async with asyncio.timeout(seconds):
                first = await connection.receive()
        except TimeoutError:
            await _refuse(connection, "unavailable", "nothing was said for too long: try again")
            return
        try:
            message = decode(first) if isinstance(first, str) else None
        except ProtocolError as error:
            await _refuse(connection, error.code, str(error))
            return
        if not isinstance(message, Hello):
            await _refuse(connection, "protocol", "the first message must be hello")
            return
        found = find(message.run)
        if found is None:
            await _refuse(connection, "unknown-run", f"there is no run {message.run!r} here: check name and address")
        elif isinstance(found, Later):
            await _say(connection, found)
        else:
            await found(_Replayed(connection, first))


class _Replayed:
    """A connection whose first frame was read already."""

    def __init__(self, connection: Connection, first: str | bytes) -> None:
        self._connection = connection
        self._prompt = connection if isinstance(connection, Prompt) else None
        self._first: str | bytes | None = first

    def send_at_once(self, frames: Sequence[str | bytes]) -> bool:
        return self._prompt is not None and self._prompt.send_at_once(frames)

    async def send(self, frame: str | bytes) -> None:
        await self._connection.send(frame)

    async def receive(self) -> str | bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._connection.receive()

    async def close(self, reason: str = "") -> None:
        await self._connection.close(reason)


async def _say(connection: Connection, message: Message) -> None:
    await connection.send(encode(message))
    await connection.close()


async def _refuse(connection: Connection, code: str, words: str) -> None:
    peers.warning("a stranger", "a connection was refused: %s", words)
    await _say(connection, Error(Name(code), printable(words)))
