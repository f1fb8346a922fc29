"""
Integers for floats, without bias.

A channel of values x with scale s = max |x| / L becomes q = floor(x / s + u) with u uniform in [0, 1), so that q lies
in -L ... L and E[s q] = x (stochastic rounding, as in QSGD: Alistarh et al. 2017, https://arxiv.org/abs/1610.02132).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PayloadError
from ..layout import Vector

__all__ = ["LEVELS", "dequantise", "pack_nibbles", "quantise", "scales", "unpack_nibbles"]

LEVELS = {"int8": 127, "int4": 7}

# Below this a channel's scale would lose digits; such a channel is sent as zeros.
_TINY = float(np.finfo(np.float32).tiny)


def scales(values: Vector, channels: npt.NDArray[np.intp], count: int, levels: int) -> Vector:
    """
    A scale per channel.

    Args:
        values: float32, shape ``(n,)``.
        channels: which channel each value belongs to, shape ``(n,)``.
        count: number of channels.
        levels: L.

    Returns:
        float32, shape ``(count,)``; 0 where a channel is all zeros.

    """
    largest = np.zeros(count, np.float32)
    np.maximum.at(largest, channels, np.abs(values))
    result = (largest / np.float32(levels)).astype(np.float32)
    result[result < _TINY] = 0.0
    return result


def quantise(values: Vector, scale: Vector, levels: int, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """
    Round at random to multiples of ``scale`` (one per value, or 0).

    Args:
        values: float32, shape ``(n,)``.
        scale: float32, shape ``(n,)``: the step of each value's channel, or 0.
        levels: the largest magnitude of a result.
        rng: draws whether to round up; the expectation of a result times ``scale`` is the value.

    Returns:
        int8, shape ``(n,)``, within -levels ... levels.

    """
    ratio = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
    ratio += rng.random(len(values), np.float32)
    return np.clip(np.floor(ratio), -levels, levels).astype(np.int8)


def dequantise(integers: npt.NDArray[np.int8], scale: Vector) -> Vector:
    """What :func:`quantise` stands for: float32, shape ``(n,)``."""
    return integers.astype(np.float32) * scale


def pack_nibbles(integers: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """
    Two values of -8 ... 7 to a byte, the first in the low half.

    Args:
        integers: int8, shape ``(n,)``.

    Returns:
        uint8, shape ``((n + 1) // 2,)``.

    """
    even = np.zeros(len(integers) + len(integers) % 2, np.uint8)
    even[: len(integers)] = integers.view(np.uint8) & 0x0F
    return np.bitwise_or(even[::2], np.left_shift(even[1::2], 4, dtype=np.uint8), dtype=np.uint8)


def unpack_nibbles(packed: npt.NDArray[Any], count: int) -> npt.NDArray[np.int8]:
    """
    The inverse of :func:`pack_nibbles`.

    Args:
        packed: uint8, shape ``((count + 1) // 2,)``.
        count: number of values.

    Returns:
        int8, shape ``(count,)``.

    Raises:
        PayloadError: if ``packed`` does not hold ``count`` values.

    """
    if packed.dtype != np.uint8 or packed.shape != ((count + 1) // 2,):
        raise PayloadError(f"{count} values of 4 bits came as {packed.dtype} of shape {packed.shape}")
    pairs = np.empty(2 * len(packed), np.uint8)
    pairs[::2], pairs[1::2] = packed & 0x0F, packed >> 4
    return ((pairs ^ 8).astype(np.int8) - 8)[:count]
