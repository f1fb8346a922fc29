"""
A version as what separates it from another one.

A file of weights that lies on a grid (:mod:`~mobile_sdk.payload.grid`) follows from any other file on the same grid and
the integers between them. The result is the very file, byte for byte, so its SHA-256 proves it; nothing needs to be
remembered of a device, and nothing can drift. A difference is a safetensors file of int8, int16 or int32 arrays,
whichever the parameter needs, and travels packed with zlib. Without a base it counts from zero and carries the grid.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .. import safetensors
from ..errors import PayloadError
from .grid import METADATA, Grid

__all__ = ["apply_difference", "make_difference"]

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


def apply_difference(base: bytes | memoryview | None, packed: bytes, limit: int, output: IO[bytes]) -> None:
    """
    Write the file that follows from ``base`` and a packed difference; the caller then checks its hash.

    One parameter at a time is in memory, beside the unpacked difference.

    Args:
        base: the file to start from, or none.
        packed: what :func:`make_difference` gave; it comes from a peer.
        limit: the size of the resulting file; the difference must not unpack to more.
        output: where to write.

    Raises:
        PayloadError: if it is no difference from ``base``.

    """
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, limit + 100_000)
    except zlib.error as error:
        raise PayloadError(f"a difference cannot be unpacked: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise PayloadError(f"a difference does not end within {limit} bytes")
    steps, metadata = safetensors.loads(content)
    old: dict[str, npt.NDArray[Any]] = {}
    if base is not None:
        old, metadata = safetensors.loads(base)
    grid = Grid.in_file(steps, metadata)
    if grid is None or (base is not None and [(n, a.shape) for n, a in old.items()] != list(grid.shapes)):
        raise PayloadError("a difference and the file that it starts from do not go together")

    def weights() -> Iterator[npt.NDArray[Any]]:
        for name, step in steps.items():
            if step.dtype not in _DTYPES:
                raise PayloadError(f"a difference has {name!r} as {step.dtype}")
            total = step.astype(np.int64)
            if base is not None:
                total += grid.integers(name, old[name])
            yield grid.weights(name, total)

    shapes = [(name, np.dtype(np.float32), shape) for name, shape in grid.shapes]
    safetensors.write(output, shapes, weights(), metadata)
