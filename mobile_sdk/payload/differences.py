"""
A version as what separates it from another one.

A file of weights that lies on a grid (:mod:`~mobile_sdk.payload.grid`) follows from any other file on the same grid and
the integers between them. The result is the very file, byte for byte, so its SHA-256 proves it; nothing needs to be
remembered of a device, and nothing can drift. A difference is a safetensors file of int8, int16 or int32 arrays,
whichever the parameter needs, and travels packed with zlib. Without a base it counts from zero and carries the grid.
"""

from __future__ import annotations

import math
import zlib
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .. import safetensors
from ..errors import PayloadError
from .grid import METADATA, Grid

__all__ = ["apply_difference", "make_difference"]

# What the headers of a difference may add to its arrays, and how long one may be: about 100 bytes a parameter.
_HEADERS = 100_000
_LONGEST_HEADER = 1_000_000
# Elements that are worked on at a time, and packed bytes that are looked at.
_BLOCK = 16_384  # pragma: no mutate
_PIECE = 65_536  # pragma: no mutate

_DTYPES = (np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.int32))


def make_difference(base: bytes | memoryview | None, target: bytes | memoryview) -> bytes | None:
    """
    What to add to the file ``base`` to get the file ``target``, packed; from nothing where there is no base.

    Returns:
        The packed difference; none where the files are not weights on one grid, or too far apart for int32.

    Raises:
        PayloadError: if one of them is no safetensors file.

    """
    arrays, metadata = safetensors.loads(target)
    grid = Grid.in_file(arrays, metadata)
    if grid is None or set(metadata) != {METADATA}:
        return None
    old: dict[str, npt.NDArray[Any]] = {}
    if base is not None:
        old, old_metadata = safetensors.loads(base)
        if old_metadata != metadata or [(n, a.shape) for n, a in old.items()] != list(grid.shapes):
            return None
    steps: dict[str, npt.NDArray[Any]] = {}
    for name, array in arrays.items():
        try:
            difference = grid.integers(name, array)
            if base is not None:
                difference -= grid.integers(name, old[name])
        except PayloadError:
            return None
        size = int(np.abs(difference).max(initial=0))
        fitting = [dtype for dtype in _DTYPES if size <= np.iinfo(dtype).max]
        if not fitting:
            return None
        steps[name] = difference.astype(fitting[0])
    return zlib.compress(safetensors.dumps(steps, metadata if base is None else None), 6)


def apply_difference(
    base: bytes | memoryview | None, packed: bytes | memoryview, limit: int, output: IO[bytes]
) -> None:
    """
    Write the file that follows from ``base`` and a packed difference; the caller then checks its hash.

    Some thousand elements at a time are in memory, whatever the size of the model: a device may have little more.

    Args:
        base: the file to start from, or none.
        packed: what :func:`make_difference` gave; it comes from a peer.
        limit: the size of the resulting file; the difference must not unpack to more.
        output: where to write.

    Raises:
        PayloadError: if it is no difference from ``base``.

    """
    stream = _Unpacking(packed, limit + _HEADERS)
    header = int.from_bytes(stream.take(8), "little")
    longest = max(_HEADERS, min(limit, _LONGEST_HEADER))
    if header > longest:  # before memory is taken for it
        raise PayloadError(f"a difference has a header of {header} bytes; the limit is {longest}")
    steps, metadata = safetensors.parse_header(stream.take(header))
    shapes = [(entry.name, entry.shape) for entry in steps]
    if sum(4 * math.prod(shape) for _, shape in shapes) > limit:
        raise PayloadError("a difference unpacks to more than the file that it gives")
    old: dict[str, npt.NDArray[Any]] = {}
    if base is not None:
        old, metadata = safetensors.loads(base)
    text = metadata.get(METADATA)
    if text is None or (base is not None and [(n, a.shape) for n, a in old.items()] != shapes):
        raise PayloadError("a difference and the file that it starts from do not go together")
    grid = Grid.from_text(shapes, text)
    safetensors.write_header(output, [(name, np.dtype(np.float32), shape) for name, shape in shapes], metadata)
    for entry in steps:
        if entry.dtype not in _DTYPES:
            raise PayloadError(f"a difference has {entry.name!r} as {entry.dtype}")
        count = (entry.stop - entry.start) // entry.dtype.itemsize
        start_of = old[entry.name].reshape(-1) if base is not None else None
        for start in range(0, count, _BLOCK):
            content = stream.take(min(_BLOCK, count - start) * entry.dtype.itemsize)
            total = np.frombuffer(content, entry.dtype).astype(np.int64)
            if start_of is not None:
                total += grid.integers_within(entry.name, start_of[start : start + len(total)], start)
            output.write(grid.weights_within(entry.name, total, start).tobytes())
    stream.end()


class _Unpacking:
    """What was packed with zlib, piece by piece."""

    def __init__(self, packed: bytes | memoryview, limit: int) -> None:
        self._packed = memoryview(packed)
        self._at = 0
        self._left = limit
        self._unpacker = zlib.decompressobj()

    def take(self, count: int) -> bytes:
        """
        The next ``count`` bytes.

        Raises:
            PayloadError: if fewer bytes are left, or more were announced than the file holds.

        """
        if count > self._left:
            raise PayloadError("a difference unpacks to more than the file that it gives")
        self._left -= count
        parts = []
        while count > 0:
            part = self._more(count)
            if not part:
                raise PayloadError("a difference breaks off")
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self) -> None:
        """
        Check that everything was taken.

        Raises:
            PayloadError: if something is left.

        """
        if self._more(1) or not self._unpacker.eof:
            raise PayloadError("a difference does not end where its header says")

    def _more(self, most: int) -> bytes:
        """Some bytes, no more than so many; none at the end."""
        unpacker = self._unpacker
        try:
            while not unpacker.eof:
                piece: bytes | memoryview = unpacker.unconsumed_tail
                if not piece:
                    piece = self._packed[self._at : self._at + _PIECE]
                    self._at += len(piece)
                part = unpacker.decompress(piece, most)
                if part or not piece:
                    return part
        except zlib.error as error:
            raise PayloadError(f"a difference cannot be unpacked: {error}") from error
        return b""
