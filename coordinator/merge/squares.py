"""Lengths that are the same on every processor: sums of squares in integers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk.payload import SteppedVector

__all__ = ["PIECE", "Squares", "norm", "square_sum"]

# Bits of an element. The squares of PIECE of them add up to at most 2**53, up to where float64 holds every integer: so
# BLAS adds them exactly, in whatever order.
BITS = 20
PIECE = 2**13
# From here on a power of two may be more than float32 holds.
LARGE = 2.0**120
# Elements that are looked at together: 512 KB as float64.
SIDE_BY_SIDE = 2**16  # pragma: no mutate


def square_sum(values: npt.NDArray[Any], largest: float | None = None) -> float:
    """
    The sum of squares of finite values, to about six digits of each; 0 where there are none.

    Values are rounded to 2**-20 of the power of two above the largest, so the sum is one of integers: neither the order
    of additions nor the width of a processor's registers is in it.

    Args:
        values: float32 or float64, shape ``(n,)``, no NaN or infinity.
        largest: the largest magnitude of them, where it is known.

    """
    if largest is None:
        largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    squares = Squares(largest)
    for start in range(0, len(values), SIDE_BY_SIDE):
        squares.add(values[start : start + SIDE_BY_SIDE])
    return squares.sum()


class Squares:
    """
    The sum of squares of values that come in pieces, the same as of the whole.

    Args:
        largest: the largest magnitude of all of them.

    """

    def __init__(self, largest: float) -> None:
        self._exponent = max(math.frexp(largest)[1] - BITS, -1000)  # a step that float64 can divide by
        self._scale = math.ldexp(1.0, -self._exponent)
        self._total = 0

    def add(self, piece: npt.NDArray[Any]) -> None:
        """
        Add values.

        Args:
            piece: float32 or float64, shape ``(n,)``.

        """
        # Powers of two change no digit, of float32 either, which takes half the time, as long as it holds the power.
        scale = piece.dtype.type(self._scale) if self._scale < LARGE else np.float64(self._scale)
        scaled = piece * scale
        integers = np.rint(scaled, out=scaled).astype(np.float64, copy=False)
        for start in range(0, len(integers), PIECE):
            part = integers[start : start + PIECE]
            self._total += int(np.dot(part, part))

    def sum(self) -> float:
        """The sum so far."""
        return math.ldexp(float(self._total), 2 * self._exponent)


def norm(values: npt.NDArray[Any] | SteppedVector, largest: float | None = None) -> float:
    """
    The Euclidean norm, as exact as :func:`square_sum`.

    Args:
        values: float32 or float64, shape ``(n,)``; or integers on steps, of which no floats are made.
        largest: the largest magnitude of them, where it is known.

    """
    return math.sqrt(_stepped_square_sum(values) if isinstance(values, SteppedVector) else square_sum(values, largest))


def _stepped_square_sum(vector: SteppedVector) -> float:
    """As ``square_sum(vector.values())``, bit for bit."""
    steps = vector.steps.exponents.astype(np.int64)
    largest = float(np.ldexp(vector.largest.astype(np.float64), steps).max(initial=0.0))
    exponent = math.frexp(largest)[1] - BITS
    # What an integer of each channel is on the common grid: so many powers of two, or a part of one.
    powers = steps - exponent
    fine = bool((powers < 0).any())
    squares = np.zeros(len(steps))
    total = 0
    for where, channels in _rectangles(vector.steps.lengths):
        rows = vector.integers[where].reshape(channels.stop - channels.start, -1)
        for first in range(0, rows.shape[1], PIECE):
            piece = rows[:, first : first + PIECE].astype(np.float64)  # a copy
            if fine:
                piece *= np.ldexp(1.0, np.minimum(powers[channels], 0))[:, None]
                np.rint(piece, out=piece)
            np.einsum("ij,ij->i", piece, piece, out=squares[channels])
            if rows.shape[1] > PIECE:
                total += _whole(squares[channels], powers[channels])
                squares[channels] = 0.0
    return math.ldexp(float(total + _whole(squares, powers)), 2 * exponent)


def _whole(squares: npt.NDArray[np.float64], powers: npt.NDArray[np.int64]) -> int:
    """Sums of squares of at most PIECE elements each, on grids of their own, together on the common one."""
    each = np.ldexp(squares, 2 * np.maximum(powers, 0)).astype(np.int64)  # at most 2**53
    return (int((each >> 32).sum()) << 32) + int((each & 0xFFFFFFFF).sum())


def _rectangles(lengths: npt.NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Channels of one length side by side, up to so many elements or one channel: which elements, which channels."""
    start = 0
    for first, stop in itertools.pairwise([0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]):
        length = int(lengths[first]) if first < stop else 0
        most = max(SIDE_BY_SIDE // max(length, 1), 1)
        for channel in range(first, stop, most):
            channels = slice(channel, min(channel + most, stop))
            where = slice(start, start + length * (channels.stop - channels.start))
            yield where, channels
            start = where.stop
