"""The trainer's end of the line: JSON, a line a message, over a socket file that only this app can open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ..line import SOCKET

__all__ = ["Server"]

log = logging.getLogger(__name__)

# A drawing of thousands of points fits; nothing that is sent is larger.
_LIMIT = 1 << 20
# A screen that does not read is dropped rather than remembered.
_UNREAD = 1 << 20

Message = dict[str, Any]
Answer = Callable[[Message, Callable[[Message], None]], Awaitable[None]]


class Server:
    """
    Serves the screens of one app; there may be none.

    Args:
        folder: where the socket file lies.
        answer: called with each message and a function that answers its sender.
        greet: what to tell a screen that has just connected.

    """

    def __init__(self, folder: Path, answer: Answer, greet: Callable[[], Message]) -> None:
        self._path = folder / SOCKET
        self._answer = answer
        self._greet = greet
        self._writers: set[asyncio.StreamWriter] = set()
        self.alone = asyncio.Event()
        self.alone.set()

    @contextlib.asynccontextmanager
    async def serving(self) -> Any:
        """Listen until left."""
        self._path.unlink(missing_ok=True)  # of a process that was killed; the folder's lock says that it is gone
        mask = os.umask(0o077)
        try:
            server = await asyncio.start_unix_server(self._serve, self._path, limit=_LIMIT)
        finally:
            os.umask(mask)
        try:
            yield
        finally:
            server.close()
            for writer in list(self._writers):
                writer.close()
            self._path.unlink(missing_ok=True)

    def tell(self, message: Message) -> None:
        """Tell every screen."""
        for writer in list(self._writers):
            self._write(writer, message)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.alone.clear()
        self._write(writer, self._greet())
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError(f"a message must be an object, not {type(message).__name__}")
                await self._answer(message, lambda answer: self._write(writer, answer))
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            log.warning("a screen was cut off: %s", error)
        finally:
            self._writers.discard(writer)
            if not self._writers:
                self.alone.set()
            writer.close()

    def _write(self, writer: asyncio.StreamWriter, message: Message) -> None:
        if writer.is_closing() or writer.transport.get_write_buffer_size() > _UNREAD:
            writer.close()
            return
        writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
