"""
Integers for floats, without bias.

A value x becomes q = floor(x / s + u) with u uniform in [0, 1), so that E[s q] = x (stochastic rounding, as in QSGD:
Alistarh et al. 2017, https://arxiv.org/abs/1610.02132). The step s of a channel is a power of two that all devices
share (:mod:`~mobile_sdk.payload.steps`), and q is cut off at -L and L; for earlier coordinators it is a scale
s = max |x| / L of the update itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PayloadError
from ..layout import Vector
from .steps import COARSEST, FINEST, Exponents, Integers

__all__ = [
    "LEVELS",
    "dequantise",
    "own_exponents",
    "pack_nibbles",
    "quantise",
    "round_to_steps",
    "scales",
    "unpack_nibbles",
]

LEVELS = {"int8": 127, "int4": 7}

# Below this a channel's scale would lose digits; such a channel is sent as zeros.
_TINY = float(np.finfo(np.float32).tiny)


def own_exponents(values: Vector, channels: npt.NDArray[np.intp], count: int, largest: int) -> Exponents:
    """
    For each channel the smallest step that leaves none of its values beyond the largest integer.

    Args:
        values: float32, shape ``(n,)``.
        channels: which channel each value belongs to, shape ``(n,)``.
        count: number of channels.
        largest: the largest integer L.

    Returns:
        int8, shape ``(count,)``: the step is two to that power.

    """
    most = np.zeros(count)
    np.maximum.at(most, channels, np.abs(values))
    fraction, exponents = np.frexp(most / largest)
    exponents -= fraction == 0.5  # a power of two itself
    exponents[most == 0] = FINEST
    return np.clip(exponents, FINEST, COARSEST).astype(np.int8)


def round_to_steps(
    values: Vector, exponents: Exponents, largest: int, rng: np.random.Generator
) -> tuple[Integers, int]:
    """
    Round at random to multiples of steps.

    Args:
        values: float32, shape ``(n,)``.
        exponents: int8, shape ``(n,)``: each value's step is two to that power.
        largest: the largest integer L; what lies beyond it is cut off.
        rng: draws whether to round up; the expectation of a result times its step is the value, if that is not cut off.

    Returns:
        int8, or int16 if L is above 127: shape ``(n,)``, within -L ... L. And how many values were cut off.

    """
    dtype = np.int8 if largest < 128 else np.int16
    # Next to the integers of int16 a float32 has too few bits left for what is drawn.
    ratio = np.ldexp(values.astype(np.float32 if dtype is np.int8 else np.float64), -exponents.astype(np.int32))
    saturated = int(np.count_nonzero(np.abs(ratio) > largest))
    ratio += rng.random(len(values), np.float32)
    return np.clip(np.floor(ratio), -largest, largest).astype(dtype), saturated


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
    with np.errstate(over="ignore"):  # of a scale that a peer made up: what is infinite then is refused as such
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
