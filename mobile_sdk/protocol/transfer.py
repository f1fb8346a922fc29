"""
One artifact on its way, without I/O.

The sender keeps several chunks in flight and lets their size follow the speed at which they are
acknowledged, so that a slow link is never blocked for long by one frame (its keepalive would time
out) and a fast one is not slowed by many small ones. Either side can stop at any byte and go on later.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator

from ..errors import ProtocolError
from .frames import MAX_CHUNK_BYTES, Chunk

__all__ = ["MIN_CHUNK_BYTES", "Incoming", "Outgoing"]

MIN_CHUNK_BYTES = 16 * 1024

# What a receiver takes at the least: every chunk costs it a write, however small.
LEAST_CHUNK_BYTES = 1024

# A chunk should take about this long on the link: short against the keepalive, long against a round trip.
CHUNK_SECONDS = 0.25
CHUNKS_IN_FLIGHT = 4


class Outgoing:
    """
    The sending half.

    Args:
        sha256: the artifact's hash, hex.
        content: its bytes (``bytes``, ``memoryview`` or a mapped file).
        offset: where the receiver wants it from.
        chunk_bytes: what suited the link before, if anything is known of it.

    Raises:
        ProtocolError: if ``offset`` lies beyond the end.

    """

    def __init__(
        self,
        sha256: str,
        content: memoryview,
        offset: int,
        chunk_bytes: int = MIN_CHUNK_BYTES,
        most: int = MAX_CHUNK_BYTES,
    ) -> None:
        if offset > len(content):
            raise ProtocolError(f"offset {offset} of an artifact of {len(content)} bytes was asked for")
        self.sha256 = sha256
        self.chunk_bytes = chunk_bytes
        self._most = most
        self._content = content
        self._sent = offset
        self._acknowledged = offset
        self._in_flight: collections.deque[tuple[int, float]] = collections.deque()  # (end of chunk, when sent)
        self._last_ack: float | None = None

    @property
    def acknowledged(self) -> int:
        """Bytes that the receiver holds."""
        return self._acknowledged

    @property
    def size(self) -> int:
        """Bytes of the whole artifact."""
        return len(self._content)

    @property
    def done(self) -> bool:
        """Whether the receiver holds all of it."""
        return self._acknowledged == len(self._content)

    def chunks(self, now: float) -> Iterator[Chunk]:
        """The chunks that may be sent now."""
        while self._sent < len(self._content) and len(self._in_flight) < CHUNKS_IN_FLIGHT:
            start, self._sent = self._sent, min(self._sent + self.chunk_bytes, len(self._content))
            self._in_flight.append((self._sent, now))
            yield Chunk(self.sha256, start, self._content[start : self._sent])

    def acknowledge(self, offset: int, now: float) -> None:
        """
        The receiver holds the first ``offset`` bytes.

        Raises:
            ProtocolError: if it cannot, because they were not sent or were acknowledged before.

        """
        if not self._acknowledged <= offset <= self._sent:
            raise ProtocolError(
                f"offset {offset} was acknowledged; {self._sent} bytes were sent, {self._acknowledged} acknowledged"
            )
        began = self._last_ack
        while self._in_flight and self._in_flight[0][0] <= offset:
            began = max(began or 0.0, self._in_flight.popleft()[1])
        if began is not None and offset > self._acknowledged:
            self._follow((offset - self._acknowledged) / max(now - began, 1e-6))
        self._acknowledged, self._last_ack = offset, now

    def _follow(self, bytes_per_second: float) -> None:
        """Double or halve the chunk towards the link's speed: one odd measurement must not swing it far."""
        wanted = bytes_per_second * CHUNK_SECONDS
        if wanted >= 2 * self.chunk_bytes:
            self.chunk_bytes = min(2 * self.chunk_bytes, self._most)
        elif wanted < self.chunk_bytes:
            self.chunk_bytes = max(self.chunk_bytes // 2, MIN_CHUNK_BYTES)


class Incoming:
    """
    The receiving half: checks that chunks come in order and do not exceed the announced size.

    Args:
        sha256: the artifact's hash, hex.
        size: in bytes.
        offset: the first byte that is still to come.

    """

    def __init__(self, sha256: str, size: int, offset: int) -> None:
        self.sha256 = sha256
        self.size = size
        self.received = offset

    @property
    def done(self) -> bool:
        """Whether every byte has come."""
        return self.received == self.size

    def receive(self, chunk: Chunk) -> None:
        """
        Take the next chunk.

        Raises:
            ProtocolError: if it is not the next one or goes beyond the end.

        """
        if chunk.offset != self.received:
            raise ProtocolError(f"a chunk at offset {chunk.offset} came where {self.received} was due")
        if chunk.offset + len(chunk.data) > self.size:
            raise ProtocolError(f"a chunk ends at {chunk.offset + len(chunk.data)}; the artifact has {self.size} bytes")
        if len(chunk.data) < LEAST_CHUNK_BYTES and chunk.offset + len(chunk.data) < self.size:
            raise ProtocolError(
                f"a chunk has {len(chunk.data)} bytes; all but an artifact's last have at least {LEAST_CHUNK_BYTES}"
            )
        self.received += len(chunk.data)
