"""
Messages between a gateway and its conductor, over a Unix socket or a TLS connection whose ends have proved themselves.

A message is a JSON object and, for an update or a piece of a file, its bytes: two lengths of four bytes each
(big-endian), the JSON, the bytes. :mod:`coordinator.gateway.messages` says what there is, and how long it may be.
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
from .messages import Reader

__all__ = ["IN_FLIGHT_BYTES", "Pipe", "PipeClosed"]

_LENGTHS = struct.Struct(">II")
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=True, default=vars)

# Bytes of updates that one side has sent and that were not answered yet; one larger update may go alone.
IN_FLIGHT_BYTES = 128_000_000

# How much may wait to be written before a sender waits.
WRITE_BYTES = 4_000_000

# Characters of an error's sentence.
LONGEST_WORDS = 1_000

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
        hears: reads what the other side says.

    ``content_bytes`` is the most that may follow a message; whoever knows better makes it smaller.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hears: Reader) -> None:
        self._reader = reader
        self._writer = writer
        self._hears = hears
        self.content_bytes = hears.content_bytes
        self._numbers = itertools.count(1)
        self._questions: dict[int, tuple[str, asyncio.Future[dict[str, Any]]]] = {}
        self._in_flight = 0
        self._room = asyncio.Condition()
        self._waits = 0
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
        Send a question and wait for its answer; bytes that came with it are its ``content``.

        Raises:
            PipeClosed: if the other side is gone before it answers.
            StoreUnavailable: as the other side raised it; so are
            Expelled: and
            StoreError: and
            Refused: and
            UpdateRefused: too.

        """
        size = len(content)
        while size and self._in_flight and self._in_flight + size > IN_FLIGHT_BYTES:
            self._waits += 1
            async with self._room:
                await self._room.wait()
            self._waits -= 1
        self._in_flight += size
        try:
            return await self._ask(message, content)
        finally:
            self._in_flight -= size
            if self._waits:
                async with self._room:
                    self._room.notify_all()

    async def _ask(self, message: Mapping[str, Any], content: bytes | memoryview) -> dict[str, Any]:
        if self.closed:
            raise PipeClosed(f"the {self._hears.who} is away")
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._questions[number] = message["m"], future
        self.send({**message, "id": number}, content)
        try:
            if content:
                await self._writer.drain()
            return await future
        except ConnectionError as error:
            raise PipeClosed(f"the {self._hears.who} is away") from error
        except asyncio.CancelledError:
            self.send({"m": "cancel", "of": number})
            raise
        finally:
            self._questions.pop(number, None)

    def answer(self, question: Mapping[str, Any], values: Mapping[str, Any], content: bytes | memoryview = b"") -> None:
        """Answer a question."""
        self.send({**values, "m": f"re:{question['m']}", "re": question["id"]}, content)

    def answer_error(self, question: Mapping[str, Any], error: Exception) -> None:
        """Answer a question with an error, which is raised there."""
        kind, code, text = "unavailable", "unavailable", str(error)
        if isinstance(error, UpdateRefused):
            kind, code = "update", error.code
        elif isinstance(error, Refused):
            kind, code, text = "refused", error.code, error.message
        else:
            kind = next((name for name, cls in _ERRORS.items() if isinstance(error, cls)), kind)
        self.send({"m": "failed", "re": question["id"], "error": kind, "code": code, "text": text[:LONGEST_WORDS]})

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """
        The next message that is no answer, and its bytes; answers go to who asked.

        Raises:
            PipeClosed: if the other side is gone, or says what is no message.

        """
        while True:
            try:
                text, size = _LENGTHS.unpack(await self._reader.readexactly(_LENGTHS.size))
                if text > self._hears.text_bytes or size > self.content_bytes:
                    raise ValueError(f"a message of {text} bytes, and {size} beside it, is too long")
                message = self._hears.read(await self._reader.readexactly(text), size)
                content = await self._reader.readexactly(size) if size else b""
                if "re" not in message:
                    return message, content
                self._settle(message, content)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.give_up()  # whoever waits for an answer may be what would close this side
                raise PipeClosed(f"the {self._hears.who} is away") from error
            except ValueError as error:
                self.give_up()
                raise PipeClosed(f"what came is no message ({error}): both sides must be of one release") from error

    def _settle(self, message: dict[str, Any], content: bytes) -> None:
        kind, future = self._questions.get(message["re"], ("", None))
        if future is None or future.done():
            return
        if message["m"] not in ("failed", f"re:{kind}"):
            raise ValueError(f"{message['m']} answers {kind}")
        match message.get("error"):
            case None:
                future.set_result({**message, "content": content})
            case "update":
                future.set_exception(UpdateRefused(message["code"], message["text"]))
            case "refused":
                future.set_exception(Refused(message["code"], message["text"]))
            case error:
                future.set_exception(_ERRORS[error](message["text"]))

    async def close(self) -> None:
        """Close the socket; questions without an answer raise :exc:`PipeClosed`."""
        self._flush()
        self.give_up()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def give_up(self) -> None:
        """Nobody answers any more."""
        self.closed = True
        for _, future in self._questions.values():
            if not future.done():
                future.set_exception(PipeClosed(f"the {self._hears.who} is away"))

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._writer.transport.is_closing():
            self._writer.writelines(pieces)
