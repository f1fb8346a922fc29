"""Which elements of a vector an update holds."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Piece", "WeightRegion", "union"]

Positions = npt.NDArray[np.int64]

# A run of neighbours shorter than this is gathered by its indices: the overhead of a slice is not worth it.
MIN_RUN = 2048  # pragma: no mutate


@dataclasses.dataclass(frozen=True)
class Piece:
    """Elements ``start`` to ``stop`` of the compact array lie at ``where`` in the vector: a slice, or indices."""

    start: int
    stop: int
    where: slice | Positions


class WeightRegion:
    """
    Positions in a vector, and how to reach them fast.

    Args:
        positions: int64, shape ``(n,)``, distinct; in the order of the compact array.

    """

    def __init__(self, positions: Positions) -> None:
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def key(self) -> bytes:
        """The same for regions of the same positions."""
        return hashlib.sha256(np.ascontiguousarray(self.positions).tobytes()).digest()

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """Long runs of neighbours as slices, what lies between as indices."""
        if not len(self):
            return ()
        starts = np.flatnonzero(np.diff(self.positions, prepend=self.positions[0] - 2) != 1)
        stops = np.append(starts[1:], len(self))
        long = stops - starts >= MIN_RUN
        pieces = []
        at = 0
        for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True):
            if at < start:
                pieces.append(Piece(at, start, self.positions[at:start]))
            first = int(self.positions[start])
            pieces.append(Piece(start, stop, slice(first, first + stop - start)))
            at = stop
        if at < len(self):
            pieces.append(Piece(at, len(self), self.positions[at:]))
        return tuple(pieces)

    def gather(self, vector: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """
        The elements of ``vector`` in the order of the compact array; a copy.

        Args:
            vector: shape ``(size,)``, any dtype.

        Returns:
            Shape ``(len(self),)``, the same dtype.

        """
        compact = np.empty(len(self), vector.dtype)
        for piece in self.pieces:
            compact[piece.start : piece.stop] = vector[piece.where]
        return compact

    def scatter(self, compact: npt.NDArray[Any], vector: npt.NDArray[Any]) -> None:
        """
        Write ``compact`` into ``vector``.

        Args:
            compact: shape ``(len(self),)``.
            vector: shape ``(size,)``; changed in place at the region's positions.

        """
        for piece in self.pieces:
            vector[piece.where] = compact[piece.start : piece.stop]

    def add(self, compact: npt.NDArray[Any] | float, vector: npt.NDArray[Any]) -> None:
        """
        Add ``compact``, or one number everywhere, to ``vector``.

        Args:
            compact: shape ``(len(self),)``, or a number.
            vector: shape ``(size,)``; changed in place at the region's positions.

        """
        for piece in self.pieces:
            part = compact[piece.start : piece.stop] if isinstance(compact, np.ndarray) else compact
            vector[piece.where] += part  # positions are distinct, so nothing is added once instead of twice

    def within(self, outer: WeightRegion) -> WeightRegion:
        """The same region in the compact coordinates of ``outer``, whose positions are sorted and include these."""
        return WeightRegion(np.searchsorted(outer.positions, self.positions))


def union(parts: Sequence[Positions]) -> Positions:
    """
    The positions that are in any of ``parts``, sorted and once each.

    Args:
        parts: int64, of any shape ``(n,)``; not negative.

    Returns:
        int64, shape ``(positions,)``.

    """
    held = np.zeros(max((int(part.max()) + 1 for part in parts if len(part)), default=0), np.bool_)
    for part in parts:
        held[part] = True
    return np.flatnonzero(held)  # sorting, as numpy.unique does, takes a hundred times as long
