"""
How the updates of a buffer become one direction.

Per coordinate c, with staleness weights s, example weights a and the set H of updates that hold c:

    holders   d = sum_H(s a delta) / max(sum_H(a), min_holders * mean(a))
    fixed-K   d = sum_H(s a delta) / (K * mean(a))

Both divide by example weights, never by staleness weights: with a single holder those would cancel,
and a stale update would count in full. Coordinates that nobody holds are not part of the direction.

All of it is integers up to the one division: example weights are (at most ``MAX_EXAMPLES``), staleness weights are
rounded to multiples of ``1 / RESOLUTION``, and sums are exact (:mod:`coordinator.merge.sums`). So the direction does
not depend on the order of arrival, on the processor, or on how the buffer was split into partial sums.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from .contribution import Contribution
from .regions import WeightRegion
from .sums import Elements, PartialSum, SumOnTheWay, exact_sum, exact_values, stays_small

__all__ = ["MAX_EXAMPLES", "RESOLUTION", "Direction", "Rule", "combine", "fixed_examples", "fixed_weight"]

Rule = Literal["holders", "fixed-K"]

# Staleness weights are multiples of one over this, and at most so large.
RESOLUTION = 1024
MAX_STALENESS_WEIGHT = 16

# A device counts at most so many samples. With the two above, a weight is at most 2**30.
MAX_EXAMPLES = 65_536


@dataclasses.dataclass(frozen=True)
class Direction:
    """Where a merge moves the weights: ``values``, float64, shape ``(len(region),)``, at the coordinates ``region``."""

    region: WeightRegion
    values: npt.NDArray[np.float64]


def combine(
    size: int,
    contributions: Sequence[Contribution],
    weights: Sequence[float],
    *,
    rule: Rule = "holders",
    min_holders: float = 0.0,
    min_contributors: int = 1,
    sums: Mapping[bytes, SumOnTheWay] = MappingProxyType({}),
) -> Direction:
    """
    The direction of a buffer.

    Args:
        size: length of the vector that regions refer to.
        contributions: at least one.
        weights: the staleness weight of each.
        rule: how sums are normalised.
        min_holders: for ``holders``: coordinates with fewer (average) holders than this are damped; 0 damps none.
        min_contributors: coordinates with updates of fewer distinct devices than this are left out.
        sums: by a region's key, a sum of its updates that was taken before, with the weights that were expected.

    """
    parts: dict[bytes, _Group] = {}
    for c, weight in zip(contributions, weights, strict=True):
        parts.setdefault(c.region.key, _Group(c.region)).add(c, fixed_weight(weight))
    groups = [group for group in parts.values() if len(group.region)]
    examples = [fixed_examples(c.examples) for c in contributions]
    all_examples, mean = sum(examples), sum(examples) / len(examples)
    if not groups:
        return Direction(WeightRegion(np.empty(0, np.int64)), np.empty(0))
    if len(groups) == 1 and len({c.device for c in groups[0].contributions}) >= min_contributors:
        # All hold the same: nothing to scatter, and one divisor.
        divisor = float(all_examples) if rule == "fixed-K" else max(float(groups[0].examples), min_holders * mean)
        values = groups[0].values(sums)
        values /= divisor * RESOLUTION
        return Direction(groups[0].region, values)
    held = np.zeros(size, np.int64)
    for group in groups:
        group.region.add(group.examples, held)
    touched = held > 0
    if min_contributors > 1:
        touched &= _contributors(size, contributions) >= min_contributors
    region = WeightRegion(np.flatnonzero(touched))
    values = _add_groups(size, groups, sums)[touched]
    divisors = float(all_examples) if rule == "fixed-K" else np.maximum(held[touched], min_holders * mean)
    return Direction(region, values / (divisors * RESOLUTION))


def _add_groups(size: int, groups: Sequence[_Group], sums: Mapping[bytes, SumOnTheWay]) -> npt.NDArray[np.float64]:
    """The sum of groups whose regions differ: float64, shape ``(size,)``; 0 where there is none."""
    if stays_small([w for group in groups for w in group.weights], [m for group in groups for m in group.largest]):
        total = np.zeros(size)
        for group in groups:
            group.region.add(group.values(sums), total)
        return total
    high, low = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for group in groups:
        part = group.sum()
        group.region.add(part.high, high)
        group.region.add(part.low, low)
    return PartialSum.of(high, low, 0).values()


def fixed_weight(weight: float) -> int:
    """A staleness weight in multiples of ``1 / RESOLUTION``: the nearest one, and 0 for 0 only."""
    return min(max(round(weight * RESOLUTION), 1), MAX_STALENESS_WEIGHT * RESOLUTION) if weight > 0 else 0


def fixed_examples(examples: float) -> int:
    """An example weight as an integer: 1 to ``MAX_EXAMPLES``."""
    return min(max(round(examples), 1), MAX_EXAMPLES)


class _Group:
    """The updates of one region."""

    def __init__(self, region: WeightRegion) -> None:
        self.region = region
        self.contributions: list[Contribution] = []
        self.weights: list[int] = []
        self.largest: list[float] = []
        self.examples = 0

    def add(self, contribution: Contribution, weight: int) -> None:
        examples = fixed_examples(contribution.examples)
        exact = contribution.exact()
        self.contributions.append(exact)
        self.largest.append(exact.largest or 0.0)
        self.weights.append(weight * examples)
        self.examples += examples

    def sum(self) -> PartialSum:
        """Of delta times staleness weight (in multiples of ``1 / RESOLUTION``) times example weight."""
        return exact_sum(self._elements(), self.weights, self.largest)

    def values(self, sums: Mapping[bytes, SumOnTheWay]) -> npt.NDArray[np.float64]:
        """The sum as float64, which was perhaps taken before."""
        taken = sums.get(self.region.key)
        values = None if taken is None else taken.values(self._elements(), self.weights, self.largest)
        return values if values is not None else exact_values(self._elements(), self.weights, self.largest)

    def _elements(self) -> list[Elements]:
        return [c.delta for c in self.contributions]


def _contributors(size: int, contributions: Sequence[Contribution]) -> npt.NDArray[np.int32]:
    """How many distinct devices hold each coordinate."""
    regions: Mapping[str, dict[bytes, WeightRegion]] = collections.defaultdict(dict)
    for c in contributions:
        regions[c.device][c.region.key] = c.region
    counts = np.zeros(size, np.int32)
    alike = collections.Counter(tuple(sorted(own)) for own in regions.values())
    by_key = {key: region for own in regions.values() for key, region in own.items()}
    for keys, devices in alike.items():
        if len(keys) == 1:
            by_key[keys[0]].add(devices, counts)
        else:
            # It sent updates of several subsets: still one device where they overlap.
            mine = np.zeros(size, np.bool_)
            for key in keys:
                mine[by_key[key].positions] = True
            counts[mine] += devices
    return counts
