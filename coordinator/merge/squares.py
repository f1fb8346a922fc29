"""Lengths that are the same on every processor: sums of squares in integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PIECE", "Squares", "norm", "square_sum"]

# Bits of an element. The squares of PIECE of them add up to at most 2**53, up to where float64 holds every integer: so
# BLAS adds them exactly, in whatever order.
BITS = 20
PIECE = 2**13


def square_sum(values: npt.NDArray[Any]) -> float:
    """
    The sum of squares of finite values, to about six digits of each; 0 where there are none.

    Values are rounded to 2**-20 of the power of two above the largest, so the sum is one of integers: neither the order
    of additions nor the width of a processor's registers is in it.

    Args:
        values: float32 or float64, shape ``(n,)``, no NaN or infinity.

    """
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    squares = Squares(largest)
    for start in range(0, len(values), PIECE):
        squares.add(values[start : start + PIECE])
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
            piece: float32 or float64, shape ``(n,)``, n at most ``PIECE``.

        """
        integers = piece.astype(np.float64)  # a copy
        integers *= self._scale
        np.rint(integers, out=integers)
        self._total += int(np.dot(integers, integers))

    def sum(self) -> float:
        """The sum so far."""
        return math.ldexp(float(self._total), 2 * self._exponent)


def norm(values: npt.NDArray[Any]) -> float:
    """
    The Euclidean norm, as exact as :func:`square_sum`.

    Args:
        values: float32 or float64, shape ``(n,)``.

    """
    return math.sqrt(square_sum(values))
