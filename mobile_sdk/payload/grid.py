"""
The grid that published versions lie on.

Every output channel has a step, a power of two fixed for the life of a run, and a published weight is a whole
multiple of it. Float32 holds such multiples exactly, so versions differ by exact integers: differences add up without
drift, in any order, on every machine.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PayloadError
from ..layout import Arrays, Vector

__all__ = ["DEFAULT_BITS", "METADATA", "Grid"]

# Steps to the largest weight of a channel at the start, as a power of two.
DEFAULT_BITS = 12

# Where a file of weights says its grid.
METADATA = "grid"

# A channel that starts as zeros, such as a bias, is taken to grow about this large.
_ZERO_EXPONENT = -3

_Shapes = Sequence[tuple[str, tuple[int, ...]]]


class Grid:
    """
    The steps of some parameters.

    Args:
        shapes: their names and shapes, in the order of the file.
        exponents: int8: of each channel of each parameter in turn; its step is two to that power.

    Raises:
        PayloadError: if there are not as many exponents as channels.

    """

    def __init__(self, shapes: _Shapes, exponents: npt.NDArray[np.int8]) -> None:
        self.shapes = tuple(shapes)
        self._shapes = dict(self.shapes)
        self.exponents = exponents
        channels = [_channels(shape) for _, shape in self.shapes]
        if exponents.shape != (sum(channels),):
            raise PayloadError(f"the grid has {exponents.size} steps for {sum(channels)} channels")
        ends = np.cumsum(channels, dtype=np.int64)
        self._parts = {
            name: exponents[end - count : end] for (name, _), end, count in zip(shapes, ends, channels, strict=True)
        }

    @classmethod
    def of(cls, arrays: Arrays, bits: int = DEFAULT_BITS) -> Grid:
        """
        The grid for weights that start as ``arrays``.

        A channel's step is about its largest magnitude divided by ``2**bits``.

        Args:
            arrays: name -> float32 array; axis 0 counts output channels, a vector is one channel.
            bits: steps to the largest weight of a channel, as a power of two.

        """
        exponents = []
        for array in arrays.values():
            whole = np.abs(array).max(initial=0.0)
            largest = np.abs(array.reshape(_channels(array.shape), -1)).max(axis=1, initial=0.0)
            powers = np.frexp(np.where(largest > 0, largest, whole))[1]
            powers[(largest == 0) & (whole == 0)] = _ZERO_EXPONENT
            exponents.append(np.clip(powers - bits, -120, 100).astype(np.int8))
        joined = np.concatenate([np.empty(0, np.int8), *exponents])
        return cls([(name, array.shape) for name, array in arrays.items()], joined)

    def snap(self, name: str, array: Vector) -> Vector:
        """The nearest weights on the grid: float32, the same shape."""
        exponents = self._spread(name)
        steps = np.rint(np.ldexp(array.astype(np.float64), -exponents))
        # Adding zero makes -0.0 the 0.0 that an integer comes back as.
        return (np.ldexp(steps, exponents) + 0.0).astype(np.float32)

    def integers(self, name: str, array: Vector) -> npt.NDArray[np.int64]:
        """
        Weights on the grid as multiples of their steps.

        Args:
            name: of a parameter of the grid.
            array: float32, of its shape.

        Returns:
            int64, of the same shape.

        Raises:
            PayloadError: if they do not lie on it.

        """
        return self._integers(name, array, self._spread(name))

    def integers_within(self, name: str, flat: Vector, start: int) -> npt.NDArray[np.int64]:
        """
        The same for some elements in a row, of which the first is element ``start`` of the parameter.

        Args:
            name: the parameter.
            flat: float32, shape ``(n,)``: elements of the flattened parameter.
            start: the place of the first of them.

        Returns:
            int64, shape ``(n,)``.

        Raises:
            PayloadError: if they do not lie on the grid.

        """
        return self._integers(name, flat, self._within(name, start, len(flat)))

    def _integers(self, name: str, array: Vector, exponents: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        if not np.isfinite(array).all():
            raise PayloadError(f"{name!r} holds values that are infinite or not a number")
        exact = np.ldexp(array.astype(np.float64), -exponents)
        if np.abs(exact).max(initial=0.0) >= 2.0**62 or (exact != np.rint(exact)).any():
            raise PayloadError(f"{name!r} does not lie on the grid")
        return exact.astype(np.int64)

    def weights(self, name: str, integers: npt.NDArray[np.int64]) -> Vector:
        """
        The inverse of :meth:`integers`: float32.

        Raises:
            PayloadError: if a weight is too large for float32.

        """
        return _float32(name, np.ldexp(integers.astype(np.float64), self._spread(name)))

    def weights_within(self, name: str, integers: npt.NDArray[np.int64], start: int) -> Vector:
        """
        The inverse of :meth:`integers_within`: float32.

        Args:
            name: the parameter.
            integers: int64, shape ``(n,)``: multiples of the steps.
            start: the place of the first in the flattened parameter.

        Returns:
            float32, shape ``(n,)``.

        Raises:
            PayloadError: if a weight is too large for float32.

        """
        exponents = self._within(name, start, len(integers))
        return _float32(name, np.ldexp(integers.astype(np.float64), exponents))

    def to_text(self) -> str:
        """For a file's metadata."""
        return base64.b64encode(self.exponents.tobytes()).decode()

    @classmethod
    def from_text(cls, shapes: _Shapes, text: str) -> Grid:
        """
        Parse what :meth:`to_text` gives.

        Raises:
            PayloadError: if it is anything else.

        """
        try:
            exponents = np.frombuffer(base64.b64decode(text, validate=True), np.int8)
        except (binascii.Error, ValueError) as error:
            raise PayloadError(f"not a grid: {error}") from error
        return cls(shapes, exponents)

    @classmethod
    def in_file(cls, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> Grid | None:
        """
        The grid that a file of weights says it lies on, if it does.

        Args:
            arrays: name -> full float32 array, in the order of the file.
            metadata: of the file.

        Raises:
            PayloadError: if what the file says is no grid for these shapes.

        """
        text = metadata.get(METADATA)
        return None if text is None else cls.from_text([(n, a.shape) for n, a in arrays.items()], text)

    def _spread(self, name: str) -> npt.NDArray[np.int32]:
        """The exponents of a parameter, so shaped that they apply to its channels."""
        shape = self._shapes[name]
        exponents = self._parts[name].astype(np.int32)
        return exponents.reshape(-1, *(1 for _ in shape[1:])) if len(shape) > 1 else exponents[0]

    def _within(self, name: str, start: int, count: int) -> npt.NDArray[np.int32]:
        """The exponents of so many elements in a row, from element ``start`` on."""
        exponents = self._parts[name].astype(np.int32)
        channel = max(math.prod(self._shapes[name]) // max(len(exponents), 1), 1)
        result: npt.NDArray[np.int32] = exponents[np.arange(start, start + count) // channel]
        return result


def _float32(name: str, exact: npt.NDArray[np.float64]) -> Vector:
    if np.abs(exact).max(initial=0.0) > np.finfo(np.float32).max:
        raise PayloadError(f"{name!r} has weights that are too large for float32")
    return exact.astype(np.float32)


def _channels(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) > 1 else 1
