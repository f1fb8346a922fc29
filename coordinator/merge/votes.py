"""
What each device says of a coordinate: one vote each, however many updates it has in the buffer.

A device's vote at a coordinate is the mean of its updates that hold it, with the weights of a merge:
``sum(s a delta) / sum(a)``, s the staleness weight and a the example weight. So a stale update says "move less", as in
every other rule, and a device that sends many updates, or claims many samples, is still one voice.

Everything is computed element by element and in the order of ids, so it does not depend on the order of arrival.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .contribution import Contribution
from .regions import WeightRegion, union

__all__ = ["Vote", "votes"]

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class _Part:
    """Updates of one region: their weighted sum, float64, shape ``(len(region),)``, is computed on demand."""

    region: WeightRegion
    contributions: Sequence[Contribution]
    weights: Sequence[int]
    examples: int

    def sum(self, where: slice) -> Floats:
        total = np.zeros(len(range(*where.indices(len(self.region)))))
        for c, weight in zip(self.contributions, self.weights, strict=True):
            total += c.values(where).astype(np.float64) * weight
        return total


class Vote:
    """
    The vote of one device.

    Args:
        device: its name.
        contributions: its updates, in the order of their ids.
        weights: the staleness weights of these, in multiples of ``1 / resolution``.
        examples: the example weights, as integers.
        resolution: see :mod:`coordinator.merge.rules`.

    """

    def __init__(
        self,
        device: str,
        contributions: Sequence[Contribution],
        weights: Sequence[int],
        examples: Sequence[int],
        resolution: int,
    ) -> None:
        self.device = device
        self._resolution = resolution
        alike: dict[bytes, list[int]] = collections.defaultdict(list)
        for k, c in enumerate(contributions):
            alike[c.region.key].append(k)
        self._parts = [
            _Part(
                contributions[mine[0]].region,
                [contributions[k] for k in mine],
                [weights[k] * examples[k] for k in mine],
                sum(examples[k] for k in mine),
            )
            for _, mine in sorted(alike.items())
            if len(contributions[mine[0]].region)
        ]

    @cached_property
    def _is_simple(self) -> bool:
        """Whether a slice of its coordinates is a slice of its updates."""
        return len(self._parts) == 1 and bool((np.diff(self._parts[0].region.positions) > 0).all())

    @cached_property
    def region(self) -> WeightRegion:
        """The coordinates that it holds, ascending."""
        if self._is_simple:
            return self._parts[0].region
        everything = [np.empty(0, np.int64), *(part.region.positions for part in self._parts)]
        return WeightRegion(union(everything))

    def values(self, where: slice = slice(None)) -> Floats:
        """
        What it says at ``region.positions[where]``, float64, of that length.

        Args:
            where: a slice of the region, without a step.

        """
        if self._is_simple:
            (part,) = self._parts
            return part.sum(where) / (float(part.examples) * self._resolution)
        positions = self.region.positions[where]
        total, held = np.zeros(len(positions)), np.zeros(len(positions))
        for part in self._parts:
            places = np.searchsorted(positions, part.region.positions)
            inside = places < len(positions)
            inside[inside] &= positions[places[inside]] == part.region.positions[inside]
            total[places[inside]] += part.sum(slice(None))[inside]
            held[places[inside]] += part.examples
        values: Floats = total / (held * self._resolution)
        return values


def votes(
    contributions: Sequence[Contribution], weights: Sequence[int], examples: Sequence[int], resolution: int
) -> list[Vote]:
    """The votes of a buffer's devices, in the order of their names."""
    by_device: dict[str, list[int]] = collections.defaultdict(list)
    for k in sorted(range(len(contributions)), key=lambda k: contributions[k].id):
        by_device[contributions[k].device].append(k)
    return [
        Vote(
            device,
            [contributions[k] for k in mine],
            [weights[k] for k in mine],
            [examples[k] for k in mine],
            resolution,
        )
        for device, mine in sorted(by_device.items())
    ]
