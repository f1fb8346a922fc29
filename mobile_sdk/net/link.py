"""A session on a connection: the only place where frames meet I/O, on both sides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Generic, TypeVar

from ..clock import Clock
from ..errors import ProtocolError
from ..protocol.session import Event, Session
from .connection import Connection, Prompt

__all__ = ["Link"]


# How long a peer has to take our last words.
FAREWELL_SECONDS = 5.0

S = TypeVar("S", bound=Session)


class Link(Generic[S]):
    """
    Feeds what comes from ``connection`` to ``session``, and sends what it wants sent.

    ``sent`` and ``received`` count the bytes of frames, without what the transport adds.

    Args:
        connection: carries the frames.
        session: the protocol's state machine of this side.
        clock: gives monotonic seconds.

    """

    def __init__(self, connection: Connection, session: S, clock: Clock) -> None:
        self.session = session
        self._connection = connection
        self._prompt = connection if isinstance(connection, Prompt) else None
        self._sending = asyncio.Lock()
        self.now = clock.monotonic  # what the session measures transfers with
        self.sent = 0
        self.received = 0

    def send_at_once(self) -> bool:
        """Send all that the session wants sent, if the link takes it at once; else :meth:`flush` is to be awaited."""
        frames = self.session.waiting_frames
        if not frames:
            return True
        if self._prompt is None or self._sending.locked() or not self._prompt.send_at_once(frames):
            return False
        self.sent += sum(map(len, self.session.frames_to_send()))
        return True

    async def flush(self) -> None:
        """
        Send all that the session wants sent.

        Raises:
            ConnectionLost: if the link is gone.

        """
        if self.send_at_once():
            return
        async with self._sending:  # frames leave in the order the session made them
            for frame in self.session.frames_to_send():
                await self._connection.send(frame)
                self.sent += len(frame)

    async def receive(self) -> Sequence[Event]:
        """
        What the peer's next frame comes to: maybe nothing.

        Raises:
            ConnectionLost: when the link is gone.
            ProtocolError: when the peer broke the protocol; it has been told, and the link is closed.

        """
        frame = await self._connection.receive()
        self.received += len(frame)
        try:
            events = self.session.receive(frame, self.now())
        except ProtocolError as error:
            await self.fail(error.code, str(error))
            raise
        if self.session.waiting_frames and not self.send_at_once():
            await self.flush()
        return events

    async def events(self) -> AsyncIterator[Event]:
        """
        What the peer does, until the link breaks.

        Raises:
            ConnectionLost: when the link is gone.
            ProtocolError: when the peer broke the protocol; it has been told, and the link is closed.

        """
        await self.flush()
        while True:
            for event in await self.receive():
                yield event

    async def close(self, reason: str) -> None:
        """Close the connection; the peer has been told why."""
        await self._connection.close(reason)

    async def fail(self, code: str, message: str) -> None:
        """Tell the peer what is wrong and close."""
        self.session.fail(code, message)
        with contextlib.suppress(TimeoutError):  # a link that is stuck can only be closed
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.flush()
        await self._connection.close(f"{code}: {message}")
