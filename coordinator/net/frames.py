"""WebSocket frames as a server sends them (RFC 6455, section 5.2): whole, unmasked, without extensions."""

from __future__ import annotations

import struct

__all__ = ["whole_frame"]

_TEXT, _BINARY = 0x81, 0x82  # with the bit that says that nothing follows


def whole_frame(message: str | bytes) -> bytes:
    """A text frame, or a binary one."""
    first, data = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
    size = len(data)
    if size < 126:
        return struct.pack("!BB", first, size) + data
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data
