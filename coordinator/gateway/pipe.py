"""
Messages between a gateway and its conductor, over a Unix socket.

A message is a JSON object and, for an update, its bytes: two lengths of four bytes each (big-endian), the JSON, the
bytes. A question has an ``id``; its answer has it as ``re``. Both processes are of one user and one release: whoever
can open the socket is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import struct
from collections.abc import Mapping
from typing import Any

from mobile_sdk.errors import Refused

from ..errors import Expelled, StoreError, StoreUnavailable, UpdateRefused

__all__ = ["LARGEST_BYTES", "Pipe", "PipeClosed"]

_LENGTHS = struct.Struct(">II")
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=True, default=vars)

# More than any update or run has; a length beyond it is no message of ours.
LARGEST_BYTES = 2**31

# How much may wait to be written before a sender waits.
WRITE_BYTES = 4_000_000

# Errors that mean the same on both sides.
_ERRORS = {"expelled": Expelled, "unavailable": StoreUnavailable, "store": StoreError}


class PipeClosed(StoreUnavailable):
    """The process on the other side is gone: nothing was acknowledged on its strength."""


class Pipe:
    """
    One side of the connection between a gateway and its conductor.

    Args:
        reader: of the socket.
        writer: of the socket.

    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pieces: list[bytes | memoryview] = []
        self._loop = asyncio.get_running_loop()
        self.closed = False
        writer.transport.set_write_buffer_limits(WRITE_BYTES)

    def send(self, message: Mapping[str, Any], content: bytes | memoryview = b"") -> None:
        """Send a message without waiting; what is sent in one event-loop iteration leaves in one system call."""
        if self.closed:
            return
        text = _ENCODER.encode(message).encode()
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(_LENGTHS.pack(len(text), len(content)))
        self._pieces.append(text)
        if content:
            self._pieces.append(content)

    async def ask(self, message: Mapping[str, Any], content: bytes | memoryview = b"") -> dict[str, Any]:
        """
        Send a question and wait for its answer.

        Raises:
            PipeClosed: if the other side is gone before it answers.
            StoreUnavailable: as the other side raised it; so are
            Expelled: and
            StoreError: and
            Refused: and
            UpdateRefused: too.

        """
        if self.closed:
            raise PipeClosed("the conductor is away")
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._questions[number] = future
        self.send({**message, "id": number}, content)
        try:
            if content:
                await self._writer.drain()  # many large updates at once are not to wait in memory twice
            return await future
        except ConnectionError as error:
            raise PipeClosed("the conductor is away") from error
        except asyncio.CancelledError:
            self.send({"m": "cancel", "of": number})
            raise
        finally:
            self._questions.pop(number, None)

    def answer(self, number: int, **values: Any) -> None:
        """Answer the question ``number``."""
        self.send({"re": number, **values})

    def answer_error(self, number: int, error: Exception) -> None:
        """Answer the question ``number`` with an error, which is raised there."""
        if isinstance(error, UpdateRefused):
            self.answer(number, error="update", code=error.code, text=str(error))
        elif isinstance(error, Refused):
            self.answer(number, error="refused", code=error.code, text=error.message)
        else:
            kind = next((name for name, cls in _ERRORS.items() if isinstance(error, cls)), "unavailable")
            self.answer(number, error=kind, text=str(error))

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """
        The next message that is no answer, and its bytes; answers go to who asked.

        Raises:
            PipeClosed: if the other side is gone.

        """
        while True:
            try:
                text, size = _LENGTHS.unpack(await self._reader.readexactly(_LENGTHS.size))
                if max(text, size) > LARGEST_BYTES:
                    raise PipeClosed(f"a message of {max(text, size)} bytes is none of a gateway's or conductor's")
                message: dict[str, Any] = json.loads(await self._reader.readexactly(text))
                content = await self._reader.readexactly(size) if size else b""
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                raise PipeClosed("the conductor is away") from error
            if "re" not in message:
                return message, content
            future = self._questions.get(message["re"])
            if future is not None and not future.done():
                _settle(future, message)

    async def close(self) -> None:
        """Close the socket; questions without an answer raise :exc:`PipeClosed`."""
        self._flush()
        self.closed = True
        for future in self._questions.values():
            if not future.done():
                future.set_exception(PipeClosed("the conductor is away"))
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._writer.transport.is_closing():
            self._writer.writelines(pieces)


def _settle(future: asyncio.Future[dict[str, Any]], message: dict[str, Any]) -> None:
    match message.get("error"):
        case None:
            future.set_result(message)
        case "update":
            future.set_exception(UpdateRefused(message["code"], message["text"]))
        case "refused":
            future.set_exception(Refused(message["code"], message["text"]))
        case kind:
            future.set_exception(_ERRORS[kind](message["text"]))
