"""
Where the updates of each device point, beside those of all others, the same on every processor.

Every device's sum is taken at length 1, ``u``; ``T`` is the sum of these. The cosine between a device and all others is
that of ``u`` and ``T - u``, and follows from the products ``<x, T>`` of its updates x alone: ``|T|^2`` is the sum of
``<u, T>`` over all devices.

Updates are looked at once, block by block: their integers are added up to ``T`` there with integer weights, and then
multiplied with a ``T`` that is rounded to so many bits that no sum of products exceeds ``2**53``. So BLAS computes
integers that float64 holds, in whatever order, and an update of integers needs no floats of its own. Another sum of the
same updates is taken along where somebody wants one (:class:`~coordinator.merge.sums.SumOnTheWay`). The weights,
``1 / length``, keep at least 20 bits: updates whose lengths differ by more than that allows are added in groups of
their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk.payload import SteppedVector, Steps

from .contribution import Contribution
from .squares import PIECE, Squares
from .sums import BLOCK_OF_ALL, STEP, SumOnTheWay, largest_magnitude, read_rows

__all__ = ["FAINT", "DeviceDirection", "device_directions"]

Floats = npt.NDArray[np.float64]

# Below this length the sum of the others is what roundings left of directions that cancel out: it points nowhere.
FAINT = 0.01

# Float64 holds every integer up to two to this power.
EXACT_BITS = 53
# Elements of an update that are looked at at a time, at most.
BLOCK_BITS = 14
# Updates of floats are looked at as integers of so many bits, of the power of two above their largest element.
FLOAT_BITS = 22
# Weights within a group differ by so many powers of two at most: the smallest of 64 updates of floats keeps 20 bits.
SPREAD_BITS = 4


@dataclasses.dataclass(frozen=True)
class DeviceDirection:
    """
    How a device's updates lie to those of all others.

    Args:
        device: its name.
        cosine: between the sum of its updates and that of all others'.
        length: of the sum of all others' directions, each of length 1.

    """

    device: str
    cosine: float
    length: float


def device_directions(
    devices: Mapping[str, Sequence[Contribution]], taken: SumOnTheWay | None = None
) -> list[DeviceDirection]:
    """
    The directions of devices whose updates hold the same parameters, by name; without those that move nothing.

    Args:
        devices: their updates, which are all of one region.
        taken: a sum to which updates are added while they are looked at; none is looked at of a device whose updates
            come to nothing.

    """
    names = sorted(devices)
    weights: list[tuple[Contribution, float]] = []
    owners: list[str] = []
    for name in names:
        mine = devices[name]
        length = mine[0].norm() if len(mine) == 1 else _length_of_sum(mine)
        if length > 0:
            weights += [(c, 1.0 / length) for c in mine]
            owners += [name] * len(mine)
    along: dict[str, float] = dict.fromkeys(owners, 0.0)  # <u, T>
    for owner, product in zip(owners, _products(weights, taken), strict=True):
        along[owner] += product
    square = sum(along.values())  # |T|^2
    found = []
    for name, product in along.items():
        others = math.sqrt(max(square - 2 * product + 1.0, 0.0))
        if others > FAINT:
            found.append(DeviceDirection(name, (product - 1.0) / others, others))
    return found


def _products(weighted: Sequence[tuple[Contribution, float]], taken: SumOnTheWay | None) -> list[float]:
    """The products ``<w x, T>`` of every update x and its weight w, T being the sum of all ``w x``."""
    if not weighted:
        return []
    size = len(weighted[0][0].region)
    groups = _groups(weighted, taken)
    block = max(min(2**BLOCK_BITS, BLOCK_OF_ALL // len(weighted)), 256)
    room = np.empty(len(weighted) * min(block, size))
    totals = np.empty((2, min(block, size)))
    for start in range(0, size, block):
        where = slice(start, min(start + block, size))
        total, part = totals[:, : where.stop - start]
        first = 0
        for group in groups:
            group.add(where, room[first:], part if first else total)
            if first:
                total += part
            first += len(group) * len(total)
        for group in groups:
            np.copyto(part, total)
            group.multiply(part)
    products = [0.0] * len(weighted)
    for group in groups:
        for index, product in zip(group.indices, group.products(), strict=True):
            products[index] = product
    return products


class _Group:
    """
    Updates that are added up together: integers on the same steps, or floats.

    Args:
        bits: of the integers' magnitudes.
        steps: of updates of integers.
        taken: a sum that is taken on the way.

    """

    def __init__(self, bits: int, steps: Steps | None, taken: SumOnTheWay | None) -> None:
        self.indices: list[int] = []
        self._bits = bits
        self._steps = steps
        self._taken = taken
        self._updates: list[Contribution] = []
        self._vectors: list[npt.NDArray[Any]] = []  # integers, or floats
        self._scales: list[float] = []  # what makes integers of an update's elements, a power of two
        self._weights: list[float] = []  # of these integers, on their steps

    def __len__(self) -> int:
        return len(self.indices)

    def append(self, index: int, update: Contribution, scale: float, weight: float) -> None:
        self.indices.append(index)
        self._updates.append(update)
        self._vectors.append(update.delta.integers if isinstance(update.delta, SteppedVector) else update.delta)
        self._scales.append(scale)
        self._weights.append(weight)

    def prepare(self) -> None:
        """All are here: make integers of their weights."""
        room = EXACT_BITS - 1 - self._bits - (len(self) - 1).bit_length()
        exponent = math.frexp(max(self._weights))[1] - room
        integers = np.rint(np.array(self._weights) * math.ldexp(1.0, -exponent))
        self._row = integers * math.ldexp(1.0, exponent)
        self._products = np.zeros(len(self))
        # Multiples of STEP need no rounding if a step of theirs is one of the integers at least.
        coarse = [self._steps is None and (c.largest is None or scale * STEP < 1) for c, scale in self._each()]
        self._coarse = [k for k, rounded in enumerate(coarse) if rounded]
        # Those stay as they are, which powers of two in their weights make up for: it is the same sum of integers.
        self._factors = np.where(coarse, 1.0, self._scales)
        self._weights_of_rows = self._row * self._factors
        self._wanted = np.zeros(0) if self._taken is None else self._taken.row([c.delta for c in self._updates])

    def _each(self) -> Iterator[tuple[Contribution, float]]:
        return zip(self._updates, self._scales, strict=True)

    def add(self, where: slice, room: Floats, part: Floats) -> None:
        """
        Compute what these updates are of ``T`` there.

        Args:
            where: a slice of the region.
            room: float64, of at least as many elements as all of them have there; kept for :meth:`multiply`.
            part: float64, shape ``(n,)``: the result.

        """
        self._rows = rows = read_rows(self._vectors, where, room)
        self._sizes = None if self._steps is None else self._steps.sizes(where, np.float64)
        if self._taken is not None:
            self._taken.add(where, self._on_steps(np.matmul(self._wanted, rows, out=part)))
        for k in self._coarse:
            rows[k] *= self._scales[k]
            np.rint(rows[k], out=rows[k])
        self._on_steps(np.matmul(self._weights_of_rows, rows, out=part))

    def _on_steps(self, values: Floats) -> Floats:
        if self._sizes is not None:
            values *= self._sizes
        return values

    def multiply(self, total: Floats) -> None:
        """
        Add products with ``T`` where these updates were added last.

        Args:
            total: ``T``: float64, shape ``(n,)``; is changed.

        """
        factor = self._on_steps(total)
        largest = largest_magnitude(factor)
        if largest == 0:
            return
        exponent = math.frexp(largest)[1] - (EXACT_BITS - BLOCK_BITS - self._bits)
        factor *= math.ldexp(1.0, -exponent)
        np.rint(factor, out=factor)
        self._products += (self._rows @ factor) * math.ldexp(1.0, exponent)

    def products(self) -> list[float]:
        """The products with ``T``, in the order of ``indices``."""
        products: list[float] = (self._products * self._weights_of_rows).tolist()
        return products


def _groups(weighted: Sequence[tuple[Contribution, float]], taken: SumOnTheWay | None) -> list[_Group]:
    groups: dict[tuple[int, bytes, int], _Group] = {}
    steps: Steps | None
    for index, (c, weight) in enumerate(weighted):
        if isinstance(c.delta, SteppedVector):
            bits, steps, scale = c.delta.bits, c.delta.steps, 1.0
        else:
            bits, steps = FLOAT_BITS, None
            largest = largest_magnitude(c.delta) if c.largest is None else c.largest
            scale = math.ldexp(1.0, FLOAT_BITS - math.frexp(largest)[1])
        weight /= scale  # of an integer
        key = bits, b"" if steps is None else steps.key, math.frexp(weight)[1] // SPREAD_BITS
        groups.setdefault(key, _Group(bits, steps, taken)).append(index, c, scale, weight)
    for group in groups.values():
        group.prepare()
    return list(groups.values())


def _length_of_sum(contributions: Sequence[Contribution]) -> float:
    """The length of the sum of a device's updates."""
    size = len(contributions[0].region)
    total = 0.0
    for where in _pieces(size):
        row = np.zeros(where.stop - where.start)
        for c in contributions:
            row += c.values(where)
        squares = Squares(largest_magnitude(row))
        squares.add(row)
        total += squares.sum()
    return math.sqrt(total)


def _pieces(size: int) -> Iterator[slice]:
    return (slice(start, min(start + PIECE, size)) for start in range(0, size, PIECE))
