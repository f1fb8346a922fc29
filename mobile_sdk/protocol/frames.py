"""
The binary frames of protocol version 1: chunks of artifacts.

A chunk is one byte of frame kind (1), the artifact's SHA-256 (32 bytes), the offset of the chunk in
the artifact (8 bytes, big-endian), and the chunk itself, 1 byte to 1 MiB.
"""

from __future__ import annotations

import dataclasses
import struct

from ..errors import ProtocolError

__all__ = ["HEADER_BYTES", "MAX_CHUNK_BYTES", "MAX_FRAME_BYTES", "Chunk"]

_HEADER = struct.Struct(">B32sQ")
_KIND = 1

HEADER_BYTES = _HEADER.size
MAX_CHUNK_BYTES = 2**20
MAX_FRAME_BYTES = HEADER_BYTES + MAX_CHUNK_BYTES


@dataclasses.dataclass(frozen=True)
class Chunk:
    """``data`` lies at ``offset`` of the artifact ``sha256`` (hex)."""

    sha256: str
    offset: int
    data: bytes | memoryview

    def to_bytes(self) -> bytes:
        """The binary frame."""
        return b"".join((_HEADER.pack(_KIND, bytes.fromhex(self.sha256), self.offset), self.data))

    @classmethod
    def from_bytes(cls, frame: bytes) -> Chunk:
        """
        Parse a binary frame.

        Raises:
            ProtocolError: if it is not a chunk.

        """
        if not HEADER_BYTES < len(frame) <= MAX_FRAME_BYTES:
            raise ProtocolError(
                f"a binary frame has {len(frame)} bytes; a chunk has {HEADER_BYTES + 1} to {MAX_FRAME_BYTES}"
            )
        kind, digest, offset = _HEADER.unpack_from(frame)
        if kind != _KIND:
            raise ProtocolError(f"a binary frame is of kind {kind}; this protocol knows kind {_KIND}")
        return cls(digest.hex(), offset, memoryview(frame)[HEADER_BYTES:])
