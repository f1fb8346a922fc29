"""WebSocket frames (RFC 6455, section 5.2): as a server sends them, and as it cuts them out of what comes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled part for this machine
    from websockets.utils import apply_mask

__all__ = ["FrameCutter", "ReceivedFrame", "whole_frame"]

_TEXT, _BINARY = 0x81, 0x82  # with the bit that says that nothing follows
_MASKED, _SIZE = 0x80, 0x7F


def whole_frame(message: str | bytes) -> bytes:
    """A text frame, or a binary one: whole, unmasked, without extensions."""
    first, data = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
    size = len(data)
    if size < 126:
        return struct.pack("!BB", first, size) + data
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data


class ReceivedFrame(NamedTuple):
    """The bytes of a frame, from which its payload begins at ``start``; 0 where it is not known to be a whole one."""

    content: memoryview
    start: int

    def message(self) -> str | bytes | None:
        """The message that this frame is; none if it is part of one, a control frame or out of order."""
        content, start = self
        if not start or content[0] not in (_TEXT, _BINARY):
            return None
        payload = apply_mask(content[start:], bytes(content[start - 4 : start]))
        if content[0] == _BINARY:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return None


class FrameCutter:
    """
    Cuts a client's stream into frames.

    What cannot be a frame of a client, or is too long, is given as it comes from there on, for somebody to refuse.

    Args:
        most: bytes of a payload; none for any number.

    """

    __slots__ = ("_broken", "_most", "_needed", "_rest")

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._rest: bytearray | None = None
        self._needed = 0  # bytes until there is something to look at
        self._broken = False

    def cut(self, data: bytes) -> Iterator[ReceivedFrame]:
        """The frames that end in ``data``, which is what comes next."""
        content = memoryview(data)
        if self._rest is not None:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            content, self._rest = memoryview(self._rest), None
        at, end = 0, len(content)
        while at < end:
            stop, start = self._look(content, at)
            if stop > end:
                self._rest, self._needed = bytearray(content[at:]), stop - at
                return
            if start == 0:
                stop = end
            yield ReceivedFrame(content[at:stop], start)
            at = stop

    def _look(self, content: memoryview, at: int) -> tuple[int, int]:
        """Where a frame ends, at least; and where its payload begins, from its beginning on; 0 where it is none."""
        known = len(content) - at
        if self._broken:
            return len(content), 0
        if known < 2:
            return at + 2, 0
        size, start = content[at + 1] & _SIZE, 6
        if size >= 126:
            bytes_of_size = 2 if size == 126 else 8
            start += bytes_of_size
            if known < start:
                return at + start, 0
            size = int.from_bytes(content[at + 2 : at + 2 + bytes_of_size], "big")
        if not content[at + 1] & _MASKED or (self._most is not None and size > self._most):
            self._broken = True
            return len(content), 0
        return at + start + size, start
