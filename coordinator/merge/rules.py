"""
How the updates of a buffer become one direction.

Per coordinate c, with staleness weights s, example weights a and the set H of updates that hold c:

    holders   d = sum_H(s a delta) / max(sum_H(a), min_holders * mean(a))
    fixed-K   d = sum_H(s a delta) / (K * mean(a))

Both divide by example weights, never by staleness weights: with a single holder those would cancel,
and a stale update would count in full. Updates of equal subsets are summed in the order of their ids, the sums of
different subsets in the order of the subsets' hashes, so the result does not depend on the order of arrival, bit for
bit. Coordinates that nobody holds are not part of the direction.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from .contribution import Contribution
from .regions import WeightRegion
from .sums import weighted_sum

__all__ = ["Direction", "Rule", "combine"]

Rule = Literal["holders", "fixed-K"]


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

    """
    pairs = sorted(zip(contributions, weights, strict=True), key=lambda pair: pair[0].id)
    mean = sum(c.examples for c, _ in pairs) / len(pairs)
    by_region: dict[bytes, list[tuple[Contribution, float]]] = collections.defaultdict(list)
    for pair in pairs:
        if len(pair[0].region):
            by_region[pair[0].region.key].append(pair)
    groups = [by_region[key] for key in sorted(by_region)]
    if not groups:
        return Direction(WeightRegion(np.empty(0, np.int64)), np.empty(0))
    fixed = len(pairs) * mean
    if len(groups) == 1 and len({c.device for c, _ in groups[0]}) >= min_contributors:
        # All hold the same: nothing to scatter, and one divisor, by which the few weights are divided.
        held = sum(c.examples for c, _ in groups[0])
        divisor = fixed if rule == "fixed-K" else max(held, min_holders * mean)
        return Direction(groups[0][0][0].region, _sum(groups[0], divisor))
    total = np.zeros(size)
    examples = np.zeros(size)
    for group in groups:
        group[0][0].region.add(_sum(group, 1.0), total)
        group[0][0].region.add(sum(c.examples for c, _ in group), examples)
    touched = examples > 0
    if min_contributors > 1:
        touched &= _contributors(size, [c for c, _ in pairs]) >= min_contributors
    region = WeightRegion(np.flatnonzero(touched))
    values = total[touched]
    values /= fixed if rule == "fixed-K" else np.maximum(examples[touched], min_holders * mean)
    return Direction(region, values)


def _sum(group: Sequence[tuple[Contribution, float]], divisor: float) -> npt.NDArray[np.float64]:
    return weighted_sum([c.delta for c, _ in group], [s * c.examples / divisor for c, s in group])


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
