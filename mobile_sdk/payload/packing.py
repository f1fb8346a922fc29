"""
Programs and their manifests, packed for their way.

A program is a FlatBuffer: words of four bytes, most of them small numbers and offsets that resemble their neighbours'.
With all first bytes of its words together, then all second ones and so on, zlib needs about 30 % less than for the
bytes as they stand. Weights inside that lie on a coarse grid are taken out first, and written as integers.
"""

from __future__ import annotations

import zlib

import numpy as np

from ..errors import PayloadError
from ..protocol.messages import ENCODINGS
from .coarse import most_bytes, put_back, take_out

__all__ = ["pack", "pack_text", "unpack", "unpack_text"]

_WORD = 4
# A text may unpack to no more.
_LONGEST_TEXT = 16 << 20


def pack(content: bytes) -> tuple[bytes, str]:
    """Pack ``content`` in the shortest encoding. Return (bytes, that encoding's name in ``messages.ENCODINGS``)."""
    count = len(content) // _WORD
    table, rest = take_out(np.frombuffer(content, "<u4", count))
    ways = {
        "identity": content,
        "zlib": zlib.compress(content, 9),
        "zlib-words": zlib.compress(_turned(content, count, _WORD), 9),
        "zlib-integers": zlib.compress(table + _turned(rest.tobytes() + content[count * _WORD :], count, _WORD), 9),
    }
    encoding = min(ways, key=lambda name: len(ways[name]))
    return ways[encoding], encoding


def unpack(packed: bytes, encoding: str, size: int) -> bytes:
    """
    The content that was packed.

    Args:
        packed: the bytes as sent.
        encoding: how they were packed.
        size: of the content, in bytes. Never is more unpacked than that, whatever ``packed`` would give.

    Raises:
        PayloadError: if they are not of this encoding, or of another size.

    """
    if encoding not in ENCODINGS:
        raise PayloadError(f"there is no encoding {encoding!r}; use one of {', '.join(ENCODINGS)}")
    content, more = packed, b""
    count = size // _WORD
    integers = encoding == "zlib-integers"
    limit = size + most_bytes(count) if integers else size
    if encoding != "identity":
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(packed, max(limit, 1))
            more = unpacker.decompress(unpacker.unconsumed_tail, 1)  # also reads zlib's own end, with its checksum
        except zlib.error as error:
            raise PayloadError(f"it cannot be unpacked: {error}") from error
        if not (more or unpacker.eof):
            raise PayloadError("it breaks off")
    taken, content = put_back(content, count) if integers else (None, content)
    if more or len(content) != size:
        raise PayloadError(f"it unpacks to another size than the {size} bytes that were promised")
    if encoding in ("identity", "zlib"):
        return content
    content = _turned(content, _WORD, count)
    if taken is None:
        return content
    taken |= np.frombuffer(content, "<u4", count)
    return taken.tobytes() + content[count * _WORD :]


def pack_text(content: bytes) -> tuple[bytes, str]:
    """Compress text with zlib if that makes it smaller. Return (bytes, encoding); neither needs a separate length."""
    packed = zlib.compress(content, 9)
    return (packed, "zlib") if len(packed) < len(content) else (content, "identity")


def unpack_text(packed: bytes, encoding: str) -> bytes:
    """
    The text that :func:`pack_text` packed.

    Raises:
        PayloadError: if it is not of this encoding, or longer than 16 MiB.

    """
    if encoding == "identity":
        return packed
    if encoding != "zlib":
        raise PayloadError(f"a text is not packed as {encoding!r}: use zlib or identity")
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, _LONGEST_TEXT)
    except zlib.error as error:
        raise PayloadError(f"it cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise PayloadError(f"it breaks off, or is longer than {_LONGEST_TEXT} bytes")
    return content


def _turned(content: bytes, rows: int, columns: int) -> bytes:
    """The first ``rows * columns`` bytes as a matrix, transposed; what is left over stays at the end."""
    matrix = np.frombuffer(content, np.uint8, rows * columns).reshape(rows, columns)
    return matrix.T.tobytes() + content[rows * columns :]
