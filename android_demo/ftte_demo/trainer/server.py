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

    A screen looks from its connection on, until it says ``{"do": "look", "on": false}`` (the app is put aside) or is
    gone. Exactly one of the events ``seen`` and ``unseen`` is set.

    Args:
        folder: where the socket file lies.
        answer: called with each other message and a function that answers its sender.
        greet: what to tell a screen that begins to look.

    """

    def __init__(self, folder: Path, answer: Answer, greet: Callable[[], Message]) -> None:
        self._path = folder / SOCKET
        self._answer = answer
        self._greet = greet
        self._looking: dict[asyncio.StreamWriter, bool] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self.seen = asyncio.Event()
        self.unseen = asyncio.Event()
        self.unseen.set()

    @contextlib.asynccontextmanager
    async def serving(self) -> Any:
        """Listen until left."""
        self._path.unlink(missing_ok=True)  # of a process that was killed; the folder's lock says that it is gone
        mask = os.umask(0o077)
        try:
            server = await asyncio.start_unix_server(self._accept, self._path, limit=_LIMIT)
        finally:
            os.umask(mask)
        try:
            yield
        finally:
            server.close()
            for writer in list(self._looking):
                writer.close()
            # Their readers end by that; ended from outside, asyncio would log each as an error.
            await asyncio.gather(*self._serving, return_exceptions=True)
            self._path.unlink(missing_ok=True)

    def tell(self, message: Message) -> None:
        """Tell every screen that looks."""
        for writer, looking in list(self._looking.items()):
            if looking:
                self._write(writer, message)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._look(writer, True)
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError(f"a message must be an object, not {type(message).__name__}")
                if message.get("do") == "look":
                    self._look(writer, bool(message.get("on", True)))
                else:
                    await self._answer(message, lambda answer: self._write(writer, answer))
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            log.warning("a screen was cut off: %s", error)
        except Exception:
            log.exception("a screen was cut off")
        finally:
            del self._looking[writer]
            self._count()
            writer.close()

    def _look(self, writer: asyncio.StreamWriter, on: bool) -> None:
        if on and not self._looking.get(writer, False):
            self._write(writer, self._greet())
        self._looking[writer] = on
        self._count()

    def _count(self) -> None:
        now, before = (self.seen, self.unseen) if any(self._looking.values()) else (self.unseen, self.seen)
        now.set()
        before.clear()

    def _write(self, writer: asyncio.StreamWriter, message: Message) -> None:
        if writer.is_closing() or writer.transport.get_write_buffer_size() > _UNREAD:
            writer.close()
            return
        writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
