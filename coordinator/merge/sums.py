"""
Weighted sums of float32 arrays, the same bit for bit whenever the arrays come in the same order.

Adding arrays is bound by memory, so the sum runs over blocks that stay in the cache: each array is read once. A few
at a time are added in float32 by BLAS (``saxpy``), their sums in float64: the error stays near that of storing the
result as float32, and the whole takes not much longer than numpy needs to add the arrays in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import saxpy

from mobile_sdk.layout import Vector

__all__ = ["BLOCK", "weighted_sum"]

# Elements of a block; beyond 10,000 OpenBLAS would start threads, which costs more than the addition.
BLOCK = 8192
GROUP = 16


def weighted_sum(arrays: Sequence[Vector], weights: Sequence[float]) -> npt.NDArray[np.float64]:
    """
    The sum of ``weights[k] * arrays[k]``.

    Args:
        arrays: float32, all of one length n, at least one.
        weights: as many numbers.

    Returns:
        float64, shape ``(n,)``.

    """
    total = np.empty(len(arrays[0]), np.float64)
    partial = np.empty(min(BLOCK, len(total)), np.float32)
    for start in range(0, len(total), BLOCK):
        block = total[start : start + BLOCK]
        group = partial[: len(block)]
        for first in range(0, len(arrays), GROUP):
            np.multiply(arrays[first][start : start + BLOCK], np.float32(weights[first]), out=group)
            for k in range(first + 1, min(first + GROUP, len(arrays))):
                saxpy(arrays[k][start : start + BLOCK], group, len(group), weights[k])
            if first == 0:
                block[...] = group
            else:
                block += group
    return total
