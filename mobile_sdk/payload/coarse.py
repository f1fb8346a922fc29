"""
Floats that are small integers times a power of two, written as such.

Weights that lie on a coarse grid (:mod:`~mobile_sdk.payload.grid`) are inside a program as float32: four bytes, of
which the lower two are zero, and the upper two take zlib about eight bits. As integers they take what they are worth:
with six bits to the largest weight, a quarter less.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from ..errors import PayloadError

__all__ = ["most_bytes", "put_back", "take_out"]

# Numbers of segments and of integers; then first word, length and exponent of every segment; then the integers.
_HEADER = struct.Struct("<II")
_SEGMENT = 9
# A segment costs its entry in the table; shorter ones, or such as are mostly zero, are not worth it.
_SHORTEST = 32
# Integers are int8: the highest bit and the lowest of all numbers of a segment are so close together.
_SPAN = 6

_Words = npt.NDArray[np.uint32]


def most_bytes(words: int) -> int:
    """How many bytes the first part of :func:`take_out` can have for so many words."""
    return _HEADER.size + words // _SHORTEST * _SEGMENT + words


def take_out(words: _Words) -> tuple[bytes, _Words]:
    """
    Take float32 numbers that are int8 times a power of two, many in a row, out of words of a file.

    Args:
        words: uint32, shape (n,).

    Returns:
        A table of what was taken out, and the words with zeros in its place.

    """
    segments = _segments(words)
    starts = np.array([start for start, _, _ in segments], "<u4")
    lengths = np.array([length for _, length, _ in segments], "<u4")
    exponents = np.array([exponent for _, _, exponent in segments], np.int8)
    where = _positions(starts, lengths)
    floats = words[where].view(np.float32)
    integers = np.ldexp(floats.astype(np.float64), -np.repeat(exponents.astype(np.int32), lengths)).astype(np.int8)
    rest = words.copy()
    rest[where] = 0
    table = starts.tobytes() + lengths.tobytes() + exponents.tobytes()
    return _HEADER.pack(len(segments), len(integers)) + table + integers.tobytes(), rest


def put_back(content: bytes, words: int) -> tuple[_Words, bytes]:
    """
    The inverse of :func:`take_out`, where ``content`` begins with its table.

    Returns:
        What to put where zeros are in the other words, shape (words,), and the rest of ``content``.

    Raises:
        PayloadError: if there is no such table.

    """
    if len(content) < _HEADER.size:
        raise PayloadError("it breaks off in the table of its numbers")
    segments, count = _HEADER.unpack_from(content)
    end = _HEADER.size + _SEGMENT * segments
    if end + count > len(content):
        raise PayloadError("it breaks off in the table of its numbers")
    starts = np.frombuffer(content, "<u4", segments, _HEADER.size).astype(np.int64)
    lengths = np.frombuffer(content, "<u4", segments, _HEADER.size + 4 * segments).astype(np.int64)
    exponents = np.frombuffer(content, np.int8, segments, _HEADER.size + 8 * segments)
    ends = starts + lengths
    if lengths.sum() != count or (ends > words).any() or (starts[1:] < ends[:-1]).any():
        raise PayloadError("the table of its numbers is not one of this file")
    integers = np.frombuffer(content, np.int8, count, end)
    exact = np.ldexp(integers.astype(np.float64), np.repeat(exponents.astype(np.int32), lengths))
    if np.abs(exact).max(initial=0.0) > np.finfo(np.float32).max:
        raise PayloadError("its numbers are too large for float32")
    floats = exact.astype(np.float32)
    result = np.zeros(words, np.uint32)
    result[_positions(starts, lengths)] = floats.view(np.uint32)
    return result, content[end + count :]


def _positions(starts: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The places in all segments, in order."""
    lengths = lengths.astype(np.int64)
    before = np.cumsum(lengths) - lengths
    positions: npt.NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(starts.astype(np.int64) - before, lengths)
    return positions


def _segments(words: _Words) -> list[tuple[int, int, int]]:
    """First word, length and exponent of what is worth taking out."""
    mantissa = (words & 0x7FFFFF) | 0x800000
    lowest = np.frexp((mantissa & -mantissa.astype(np.int64)).astype(np.float64))[1] - 1
    highest = ((words >> 23) & 0xFF).astype(np.int64) - 127
    lowest = highest - 23 + lowest
    normal = (highest > -126) & (highest < 127) & (highest - lowest <= _SPAN)
    zero = words == 0
    found = []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], normal | zero, [False]]).astype(np.int8)))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - begin < _SHORTEST or 2 * zero[begin:end].sum() > end - begin:
            continue
        tops, bottoms, zeros = (part[begin:end].tolist() for part in (highest, lowest, zero))
        found += _cut(begin, tops, bottoms, zeros)
    return found


def _cut(begin: int, tops: list[int], bottoms: list[int], zeros: list[bool]) -> list[tuple[int, int, int]]:
    """A stretch of numbers as segments of one exponent each, as long as can be."""
    found = []
    start, top, bottom = 0, -1000, 1000

    def close(end: int) -> None:
        if end - start >= _SHORTEST and top >= bottom >= -120:
            found.append((begin + start, end - start, bottom))

    for at, zero in enumerate(zeros):
        if zero:
            continue
        highest, lowest = max(top, tops[at]), min(bottom, bottoms[at])
        if highest - lowest > _SPAN:
            close(at)
            start, highest, lowest = at, tops[at], bottoms[at]
        top, bottom = highest, lowest
    close(len(zeros))
    return found
