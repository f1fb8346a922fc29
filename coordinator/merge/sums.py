"""
Weighted sums of updates that are exact: the same, bit for bit, on every processor, in any order and any split.

An element enters as an integer number of steps of ``STEP`` (``2**-26``, about 1.5e-8), the nearest; a weight is an
integer. A sum of integers does not depend on who adds what first, so buffers can be added up in parts, by anybody, and
the parts be written down (:class:`PartialSum`). What float32 holds above 0.25 are such multiples already.

The additions are done by BLAS on float64, which is exact as long as no sum can exceed ``2**53`` steps: every
intermediate result is an integer that float64 holds, whatever the order and whether multiplications are fused. Updates
are taken as many at a time as that allows, and one that is too large by itself is added in integers.

What costs is reading the updates and making float64 of them. So a block of many updates is read at once, and added up
as one product of a row of weights with it while the processor's caches hold it. Updates of integers
(:class:`~mobile_sdk.payload.SteppedVector`) are added as the integers that they are: those with the same steps share
one product, which is exact by itself, and one multiplication by their steps at the end. Whoever looks at all updates
before their weights are certain can take the sum on the way (:class:`SumOnTheWay`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk.layout import Vector
from mobile_sdk.payload import SteppedVector, Steps
from mobile_sdk.payload.steps import FINEST

__all__ = [
    "BLOCK",
    "BLOCK_OF_ALL",
    "MAX_WEIGHT",
    "STEP",
    "Elements",
    "PartialSum",
    "SumOnTheWay",
    "exact_sum",
    "exact_values",
    "largest_magnitude",
    "read_rows",
    "stays_small",
    "to_steps",
]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# The elements of an update: float32, or integers on steps.
Elements = Vector | SteppedVector

# The finest step of an update of integers: so they are multiples of this one, too.
STEP = 2.0**FINEST

# An integer in two parts: ``high * 2**32 + low``, with ``low`` in 0 ... 2**32 - 1.
LOW_BITS = 32
LOW_MASK = 2**LOW_BITS - 1

# The largest weight of one update; two parts of any finite update that passes validation can hold a million such.
MAX_WEIGHT = 2**30

# Elements of a block; beyond 10,000 OpenBLAS would start threads, which costs more than the addition.
BLOCK = 8192  # pragma: no mutate
EXACT = 2**53

# Elements of all vectors that are added at a time: 4 MB as float64.
BLOCK_OF_ALL = 2**19  # pragma: no mutate
# So many vectors are added at a time; of 15 bits and with the largest weights they stay below EXACT steps of theirs.
MOST_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class PartialSum:
    """
    What some of a buffer's updates come to: values that can be added, in any order, to those of others.

    Args:
        high: int64, shape ``(n,)``, and
        low: int64, shape ``(n,)``, 0 to ``2**32 - 1``: the sum is ``high * 2**32 + low`` steps.
        weight: the sum of the weights.

    Two partial sums of the same updates are equal in every bit, however they came about.
    """

    high: Integers
    low: Integers
    weight: int

    @classmethod
    def of(cls, high: Integers, low: Integers, weight: int) -> PartialSum:
        """
        A sum whose low parts may have grown beyond their bits, by at most ``2**30`` additions.

        Args:
            high: int64, shape ``(n,)``.
            low: int64, shape ``(n,)``.
            weight: the sum of the updates' weights.

        """
        return cls(*_carried(high, low), weight)

    @classmethod
    def nothing(cls, size: int) -> PartialSum:
        """The sum of no updates."""
        return cls(np.zeros(size, np.int64), np.zeros(size, np.int64), 0)

    def __add__(self, other: PartialSum) -> PartialSum:
        return PartialSum(*_carried(self.high + other.high, self.low + other.low), self.weight + other.weight)

    def times(self, factor: int) -> PartialSum:
        """
        The same updates with weights ``factor`` times as large; 0 to ``2**30``.

        Raises:
            ValueError: if ``factor`` is out of range.

        """
        if not 0 <= factor <= MAX_WEIGHT:
            raise ValueError(f"a partial sum times {factor}: the factor must be 0 to {MAX_WEIGHT}")
        return PartialSum(*_carried(self.high * factor, self.low * factor), self.weight * factor)

    def values(self) -> npt.NDArray[np.float64]:
        """The sum as float64, shape ``(n,)``: two roundings at the most, the same everywhere."""
        values = self.high.astype(np.float64)
        values *= 2.0**LOW_BITS * STEP
        low = self.low.astype(np.float64)
        low *= STEP
        values += low
        return values

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """
        To be written down, as a safetensors file for instance.

        Returns:
            ``high`` and ``low``, int64 of shape ``(n,)``, and ``weight``, int64 of shape ``(1,)``.

        """
        return {"high": self.high, "low": self.low, "weight": np.array([self.weight], np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> PartialSum:
        """
        What :meth:`to_arrays` gave.

        Args:
            arrays: name -> array.

        Raises:
            ValueError: if it is no partial sum.

        """
        try:
            high, low, weight = (arrays[name] for name in ("high", "low", "weight"))
        except KeyError as error:
            raise ValueError(f"a partial sum needs the array {error.args[0]!r}") from None
        if {high.dtype, low.dtype, weight.dtype} != {np.dtype(np.int64)} or high.shape != low.shape or high.ndim != 1:
            raise ValueError(f"a partial sum has int64 vectors of one length, not {high.shape} and {low.shape}")
        if weight.shape != (1,) or weight[0] < 0 or (low < 0).any() or (low > LOW_MASK).any():
            raise ValueError("a partial sum has a weight of at least 0 and low parts of 32 bits")
        return cls(high, low, int(weight[0]))


def to_steps(values: Vector) -> Vector:
    """The nearest multiples of ``STEP``: float32 of the same shape, which holds them exactly."""
    scale = np.float32(1 / STEP)
    steps: Vector = np.rint(values * scale)
    steps /= scale  # exact both times: a power of two
    return steps


def largest_magnitude(values: npt.NDArray[Any] | SteppedVector) -> float:
    """
    The largest magnitude of any element; 0 where there are none.

    Args:
        values: any float dtype, any shape; or integers on steps.

    """
    if isinstance(values, SteppedVector):
        return float(np.ldexp(values.largest.astype(np.float64), values.steps.exponents).max(initial=0.0))
    if not values.size:
        return 0.0
    flat = values.reshape(-1)  # the methods `max` and `min` take longer than the numbers of a small update
    return max(float(np.maximum.reduce(flat)), -float(np.minimum.reduce(flat)), 0.0)


def exact_sum(arrays: Sequence[Elements], weights: Sequence[int], largest: Sequence[float]) -> PartialSum:
    """
    The sum of ``weights[k] * arrays[k]``.

    Args:
        arrays: float32, multiples of ``STEP``, or integers on steps; all of one length n, at least one.
        weights: as many integers, 0 to ``MAX_WEIGHT``.
        largest: an upper bound of the magnitudes in each array.

    """
    if stays_small(weights, largest):
        return _parts(exact_values(arrays, weights, largest) / STEP, sum(weights))
    floats = [k for k, array in enumerate(arrays) if not isinstance(array, SteppedVector)]
    chunks, single = _chunks(floats, weights, largest)
    sums = [_parts(_vector(arrays[k]).astype(np.float64) / STEP, 1).times(weights[k]) for k in single]
    for chunk in chunks:
        total = np.zeros(len(arrays[0]))
        _add_floats(arrays, weights, chunk, total)
        sums.append(_parts(total / STEP, sum(weights[k] for k in chunk)))
    for steps, vectors, own in _alike(arrays, weights):
        total = np.zeros(len(arrays[0]))
        _add(vectors, own, steps, total)
        sums.append(_parts(total / STEP, sum(own)))
    return functools.reduce(PartialSum.__add__, sums)


def exact_values(
    arrays: Sequence[Elements], weights: Sequence[int], largest: Sequence[float]
) -> npt.NDArray[np.float64]:
    """
    As ``exact_sum(...).values()``, bit for bit, and faster where the sum stays below ``2**53`` steps.

    Args:
        arrays: float32, multiples of ``STEP``, or integers on steps; all of one length n.
        weights: integers of at least 0.
        largest: an upper bound of the magnitudes in each array.

    Returns:
        float64, shape ``(n,)``.

    """
    if not stays_small(weights, largest):
        return exact_sum(arrays, weights, largest).values()
    total = np.zeros(len(arrays[0]))
    _add_all(arrays, weights, total)
    return total


class SumOnTheWay:
    """
    The sum of ``weights[k] * arrays[k]``, taken by somebody who looks at the arrays anyway, block by block.

    The weights are those that are expected. :meth:`values` corrects the sum for those that came out otherwise, and for
    arrays that nobody looked at.

    Args:
        arrays: float32, multiples of ``STEP``, or integers on steps; all of one length n, at least one.
        weights: as many integers, 0 to ``MAX_WEIGHT``.

    """

    def __init__(self, arrays: Sequence[Elements], weights: Sequence[int]) -> None:
        self._arrays = arrays  # kept, so that no other array gets the id of one of them
        self._expected = {id(array): weight for array, weight in zip(arrays, weights, strict=True)}
        if len(self._expected) < len(arrays):
            self._expected = {}  # one array has two weights
        self._added: dict[int, int] = {}
        self._total: Floats | None = np.zeros(len(arrays[0]))

    def row(self, arrays: Sequence[Elements]) -> Floats:
        """
        The weights of arrays that are about to be added everywhere.

        Args:
            arrays: which of them; one that was not expected has the weight 0.

        Returns:
            float64, shape ``(len(arrays),)``.

        """
        self._added |= {id(array): self._expected[id(array)] for array in arrays if id(array) in self._expected}
        return np.array([self._expected.get(id(array), 0) for array in arrays], np.float64)

    def add(self, where: slice, part: Floats) -> None:
        """
        Add what some of the arrays come to there.

        Args:
            where: a slice of the elements, without a step.
            part: float64, shape ``(n,)``.

        """
        if self._total is not None:
            self._total[where] += part

    def values(self, arrays: Sequence[Elements], weights: Sequence[int], largest: Sequence[float]) -> Floats | None:
        """
        As :func:`exact_values`, bit for bit; once.

        Args:
            arrays: float32, multiples of ``STEP``, or integers on steps; all of one length n.
            weights: integers of at least 0.
            largest: an upper bound of the magnitudes in each array.

        Returns:
            None if the sum is to be taken anew: too much of this one is another.

        """
        total, self._total = self._total, None
        expected = [self._added.get(id(array), 0) for array in arrays]
        other = [k for k, weight in enumerate(weights) if weight != expected[k]]
        if total is None or not self._added.keys() <= {id(array) for array in arrays} or len(other) * 4 > len(arrays):
            return None
        if not stays_small([*weights, *expected], [*largest, *largest]):
            return None  # a sum on the way from one to the other could be too large
        if other:
            _add_all([arrays[k] for k in other], [weights[k] - expected[k] for k in other], total)
        return total


def stays_small(weights: Sequence[int], largest: Sequence[float]) -> bool:
    """
    Whether the sum stays below ``2**53`` steps, so that float64 holds it and every part of it.

    Args:
        weights: integers of at least 0.
        largest: an upper bound of the magnitudes in each array.

    """
    return sum(_most(weight, bound) for weight, bound in zip(weights, largest, strict=True)) < EXACT


def _most(weight: int, bound: float) -> int:
    return weight * (int(bound / STEP) + 1)


def _chunks(
    which: Sequence[int], weights: Sequence[int], largest: Sequence[float]
) -> tuple[list[list[int]], list[int]]:
    """Which arrays of ``which`` are added together in float64, and which are too large even alone."""
    chunks: list[list[int]] = []
    single = []
    room = 0
    for k in which:
        most = _most(weights[k], largest[k])
        if most >= EXACT:
            single.append(k)
            continue
        if not chunks or most >= room:
            chunks.append([])
            room = EXACT
        chunks[-1].append(k)
        room -= most
    return chunks, single


def _vector(array: Elements) -> Vector:
    return array.values() if isinstance(array, SteppedVector) else array


def _add_floats(arrays: Sequence[Elements], weights: Sequence[int], which: Sequence[int], total: Floats) -> None:
    """Add those of the arrays, which are floats, or are made floats."""
    for start in range(0, len(which), MOST_TOGETHER):
        chosen = which[start : start + MOST_TOGETHER]
        _add([_vector(arrays[k]) for k in chosen], [weights[k] for k in chosen], None, total)


def _add_all(arrays: Sequence[Elements], weights: Sequence[int], total: Floats) -> None:
    """Add arrays whose sum stays below ``2**53`` steps."""
    _add_floats(arrays, weights, [k for k, array in enumerate(arrays) if not isinstance(array, SteppedVector)], total)
    for steps, vectors, own in _alike(arrays, weights):
        _add(vectors, own, steps, total)


def _alike(
    arrays: Sequence[Elements], weights: Sequence[int]
) -> Iterator[tuple[Steps, list[npt.NDArray[Any]], list[int]]]:
    """Integers on the same steps, of not too many updates, with their weights."""
    groups: dict[tuple[int, bytes], tuple[Steps, list[npt.NDArray[Any]], list[int]]] = {}
    for array, weight in zip(arrays, weights, strict=True):
        if isinstance(array, SteppedVector):
            _, vectors, own = groups.setdefault((array.bits, array.steps.key), (array.steps, [], []))
            vectors.append(array.integers)
            own.append(weight)
    for steps, vectors, own in groups.values():
        for start in range(0, len(vectors), MOST_TOGETHER):
            yield steps, vectors[start : start + MOST_TOGETHER], own[start : start + MOST_TOGETHER]


def _add(vectors: Sequence[npt.NDArray[Any]], weights: Sequence[int], steps: Steps | None, total: Floats) -> None:
    """Add floats, or integers on the same steps, to ``total``, exactly where both are below ``2**53`` finest steps."""
    row = np.array(weights, np.float64)
    block = BLOCK_OF_ALL // len(vectors)
    room = np.empty(len(vectors) * min(block, len(total)))
    for start in range(0, len(total), block):
        where = slice(start, min(start + block, len(total)))
        exact = row @ read_rows(vectors, where, room)
        if steps is not None:
            exact *= steps.sizes(where)
        total[where] += exact


def read_rows(vectors: Sequence[npt.NDArray[Any]], where: slice, room: Floats) -> Floats:
    """
    The same elements of several vectors, as they are.

    Args:
        vectors: float32 or integers, shape ``(size,)``, all of one dtype; at least one.
        where: a slice of them, without a step.
        room: float64, of at least as many elements; holds what is returned.

    Returns:
        float64, shape ``(len(vectors), n)``.

    """
    rows = room[: len(vectors) * (where.stop - where.start)]
    np.concatenate([vector[where] for vector in vectors], out=rows)  # faster than a call for each of them
    return rows.reshape(len(vectors), -1)


def _parts(steps: npt.NDArray[np.float64], weight: int) -> PartialSum:
    """Integers that float64 holds, below ``2**93``, as a sum of updates of this weight."""
    high = np.floor(steps * 2.0**-LOW_BITS)
    return PartialSum(high.astype(np.int64), (steps - high * 2.0**LOW_BITS).astype(np.int64), weight)


def _carried(high: Integers, low: Integers) -> tuple[Integers, Integers]:
    """The same number with ``low`` within its bits."""
    return high + (low >> LOW_BITS), low & LOW_MASK
