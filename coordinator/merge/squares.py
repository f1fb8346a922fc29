"""Lengths that are the same on every processor: sums of squares in integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["norm", "square_sum"]

# Bits of an element: the squares of 2**22 (four million) of them add up to less than 2**62.
BITS = 20
PIECE = 2**22


def square_sum(values: npt.NDArray[Any]) -> float:
    """
    The sum of squares of finite values, to about six digits of each; 0 where there are none.

    Values are rounded to 2**-20 of the power of two above the largest, so the sum is one of integers: neither the order
    of additions nor the width of a processor's registers is in it.
    """
    exact = values.astype(np.float64, copy=False)
    largest = max(float(exact.max(initial=0.0)), -float(exact.min(initial=0.0)))
    if largest == 0.0:
        return 0.0
    exponent = math.frexp(largest)[1] - BITS
    integers = np.rint(np.ldexp(exact, -exponent)).astype(np.int64)
    pieces = (integers[start : start + PIECE] for start in range(0, len(integers), PIECE))
    return math.ldexp(float(sum(int(np.dot(piece, piece)) for piece in pieces)), 2 * exponent)


def norm(values: npt.NDArray[Any]) -> float:
    """The Euclidean norm, as exact as :func:`square_sum`."""
    return math.sqrt(square_sum(values))
