"""
The public steps of updates.

An update of integers has a step for every channel, a power of two that the coordinator gives with the work and that is
the same for every device. So integers of different devices can be added up as they are, and the sum is exact. What lies
beyond the largest integer of a channel is cut off there (saturation).

A channel is an output channel (axis 0) of a parameter. Parameters whose channels are small have one step in all, as
vectors have: steps are to be much less than what they are the steps of.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PayloadError
from ..layout import Vector

__all__ = ["BITS", "FINEST", "OPEN", "SteppedVector", "Steps", "largest_integer"]

# Bits of an integer's magnitude, by its dtype on the wire.
BITS = {"int4": 3, "int8": 7, "int16": 15}

# The exponent of a channel that nothing is known of yet: the device takes the smallest step that its update fits.
OPEN = -128

# Exponents of steps. The finest step is what the coordinator's sums are rounded to; the coarsest int16 reaches 2**35.
FINEST, COARSEST = -26, 20

# A step is for at least so many elements.
PER_STEP = 16
# More channels than this have no steps of their own: all steps together travel in one short message.
MOST_STEPS = 16_384

Integers = npt.NDArray[np.int8] | npt.NDArray[np.int16]
Exponents = npt.NDArray[np.int8]


def largest_integer(dtype: str) -> int:
    """The largest magnitude of an integer of this dtype on the wire; the smallest one is its negative."""
    return (1 << BITS[dtype]) - 1


class Steps:
    """
    The steps of an update of some subset.

    Args:
        shapes: compact shapes of the parameters, in the order of the subset.
        exponents: int8, shape ``(channels,)``: of each channel of each parameter in turn, its step is two to that
            power, or :data:`OPEN`.

    Raises:
        PayloadError: if there are not as many exponents as channels, or one is out of range.

    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], exponents: Exponents) -> None:
        self.shapes = tuple(shapes)
        self.exponents = exponents
        self._counts = _channels(self.shapes)
        self._sizes: tuple[tuple[int, int, type[Any]], npt.NDArray[Any]] | None = None
        if exponents.shape != (sum(self._counts),):
            raise PayloadError(f"there are {exponents.size} steps for {sum(self._counts)} channels")
        if not (((exponents >= FINEST) & (exponents <= COARSEST)) | (exponents == OPEN)).all():
            raise PayloadError(f"a step is two to the power of {FINEST} to {COARSEST}, or open")

    @classmethod
    def open(cls, shapes: Sequence[tuple[int, ...]]) -> Steps:
        """No step is given: the device takes its own."""
        return cls(shapes, np.full(sum(_channels(shapes)), OPEN, np.int8))

    @cached_property
    def key(self) -> bytes:
        """The same for equal steps of the same shapes."""
        return repr(self.shapes).encode() + self.exponents.tobytes()

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many elements each channel has: int64, shape ``(channels,)``."""
        sizes = [math.prod(shape) for shape in self.shapes]
        each = [size // count for size, count in zip(sizes, self._counts, strict=True) if count]
        return np.repeat(np.array(each, np.int64), [count for count in self._counts if count])

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """The first element of each channel: int64, shape ``(channels,)``."""
        return self._stops - self.lengths

    @cached_property
    def _stops(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.lengths)

    def sizes(self, where: slice, dtype: type[np.float32 | np.float64] = np.float32) -> npt.NDArray[Any]:
        """
        The steps themselves of some elements in a row, not to be changed.

        Args:
            where: a slice of the elements, without a step.
            dtype: of the result.

        """
        start, stop, _ = where.indices(int(self._stops[-1]) if len(self._stops) else 0)
        # Whoever looks at updates piece by piece asks for each piece once for every update.
        known = self._sizes
        if known is None or known[0] != (start, stop, dtype):
            known = (start, stop, dtype), np.empty(0, dtype)
            if start < stop:
                first, last = np.searchsorted(self._stops, (start, stop - 1), side="right").tolist()
                lengths = self.lengths[first : last + 1].copy()
                lengths[0] -= start - self.starts[first]
                lengths[-1] -= self._stops[last] - stop
                each = np.ldexp(dtype(1.0), self.exponents[first : last + 1].astype(np.int32))
                known = (start, stop, dtype), np.repeat(each, lengths)
            self._sizes = known
        return known[1]

    def parts(self) -> Iterator[Exponents]:
        """The exponents of each parameter: int8, shape ``(its channels,)``."""
        start = 0
        for count in self._counts:
            yield self.exponents[start : start + count]
            start += count

    def answers(self, given: Steps) -> bool:
        """Whether these are the steps that were ``given``, with none open."""
        known = given.exponents != OPEN
        return (
            self.shapes == given.shapes
            and bool((self.exponents != OPEN).all())
            and bool((self.exponents == given.exponents)[known].all())
        )

    def to_text(self) -> str:
        """For a message, or a file's metadata: base64 of the exponents, packed with zlib if that is shorter."""
        content = self.exponents.tobytes()
        packed = zlib.compress(content, 9)
        return base64.b64encode(packed if len(packed) < len(content) else content).decode()

    @classmethod
    def from_text(cls, shapes: Sequence[tuple[int, ...]], text: str) -> Steps:
        """
        Parse what :meth:`to_text` gives.

        Args:
            shapes: compact shapes of the parameters.
            text: comes from a peer.

        Raises:
            PayloadError: if it is anything else.

        """
        count = sum(_channels(shapes))
        try:
            content = base64.b64decode(text, validate=True)
            if len(content) < count:
                unpacker = zlib.decompressobj()
                content = unpacker.decompress(content, count + 1)
        except (binascii.Error, ValueError, zlib.error) as error:
            raise PayloadError(f"not the steps of an update: {error}") from error
        if len(content) != count:
            raise PayloadError(f"there are not {count} steps, one for each channel")
        return cls(shapes, np.frombuffer(content, np.int8))


@dataclasses.dataclass(frozen=True)
class SteppedVector:
    """
    An update's elements as integers, in the order of the subset.

    Args:
        integers: int8 or int16, shape ``(n,)``.
        steps: of them; none is open.
        bits: of their magnitudes: the largest is ``2**bits - 1``.
        whole: whether all elements were sent; if not, those that were left out are 0.

    """

    integers: Integers
    steps: Steps
    bits: int
    whole: bool = True

    def __len__(self) -> int:
        return len(self.integers)

    def values(self, where: slice = slice(None)) -> Vector:
        """
        What they stand for: float32, shape ``(n,)``, exact.

        Args:
            where: a slice of them, without a step.

        """
        values: Vector = self.integers[where].astype(np.float32)
        if where == slice(None):
            values *= np.repeat(np.ldexp(np.float32(1.0), self.steps.exponents.astype(np.int32)), self.steps.lengths)
        else:
            values *= self.steps.sizes(where)
        return values

    @cached_property
    def largest(self) -> npt.NDArray[np.int16]:
        """The largest magnitude of each channel's integers: int16, shape ``(channels,)``."""
        if not len(self.integers):
            return np.zeros(len(self.steps.lengths), np.int16)
        return np.maximum.reduceat(np.abs(self.integers), self.steps.starts).astype(np.int16)

    @cached_property
    def at_the_end(self) -> npt.NDArray[np.int32]:
        """How many of each channel's integers are the largest there is: int32, shape ``(channels,)``."""
        if not len(self.integers):
            return np.zeros(len(self.steps.lengths), np.int32)
        ends = np.abs(self.integers) == (1 << self.bits) - 1
        return np.add.reduceat(ends, self.steps.starts, dtype=np.int32)

    @cached_property
    def nonzero(self) -> npt.NDArray[np.int32]:
        """How many of each channel's integers are not 0: int32, shape ``(channels,)``."""
        if not len(self.integers):
            return np.zeros(len(self.steps.lengths), np.int32)
        return np.add.reduceat(self.integers != 0, self.steps.starts, dtype=np.int32)


def _channels(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """How many steps each parameter has: one per output channel, or one for all; none if it is empty."""
    least = PER_STEP
    while True:
        counts = tuple(_count(shape, least) for shape in shapes)
        if sum(counts) <= MOST_STEPS or all(count <= 1 for count in counts):
            return counts
        least *= 2


def _count(shape: tuple[int, ...], least: int) -> int:
    size = math.prod(shape)
    if size == 0:
        return 0
    return shape[0] if len(shape) > 1 and size >= least * shape[0] else 1
