"""
Merge the updates of a buffer into a weight vector.

Per coordinate c, with staleness weights s, example weights a and the set H of updates that hold c:

    holders   w += eta * sum_H(s a delta) / max(sum_H(a), min_holders * mean(a))
    fixed-K   w += eta * sum_H(s a delta) / (K * mean(a))

Both divide by example weights, never by staleness weights: with a single holder those would cancel,
and a stale update would count in full. Sums run in float64 in the order of update ids, so the
result does not depend on the order of arrival, bit for bit. Coordinates that nobody holds keep
their value, bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from mobile_sdk.layout import Vector

__all__ = ["Contribution", "Rule", "merge"]

Rule = Literal["holders", "fixed-K"]


@dataclasses.dataclass(frozen=True)
class Contribution:
    """
    One update, ready to be merged.

    Args:
        id: the update's id; fixes the order of summation.
        positions: int64, shape ``(n,)``: where in the weight vector its elements belong; distinct.
        delta: float32, shape ``(n,)``: new minus old weights there.
        examples: the example weight a, such as the number of samples; above 0.
        staleness_weight: s.

    """

    id: str
    positions: npt.NDArray[np.int64]
    delta: Vector
    examples: float
    staleness_weight: float


def merge(
    weights: Vector,
    contributions: Sequence[Contribution],
    *,
    rule: Rule = "holders",
    min_holders: float = 0.0,
    learning_rate: float = 1.0,
) -> Vector:
    """
    The weights after merging.

    Args:
        weights: float32, shape ``(size,)``; not changed.
        contributions: at least one.
        rule: how sums are normalised.
        min_holders: for ``holders``: coordinates with fewer (average) holders than this are damped; 0 damps none.
        learning_rate: eta.

    Returns:
        A new float32 vector.

    """
    ordered = sorted(contributions, key=lambda contribution: contribution.id)
    mean = sum(c.examples for c in ordered) / len(ordered)
    total = np.zeros(weights.shape, np.float64)
    held = np.zeros(weights.shape, np.float64)
    for c in ordered:
        total[c.positions] += c.staleness_weight * c.examples * c.delta.astype(np.float64)
        held[c.positions] += c.examples
    touched = np.flatnonzero(held)
    divisor = len(ordered) * mean if rule == "fixed-K" else np.maximum(held[touched], min_holders * mean)
    merged = weights.copy()
    step = learning_rate * total[touched] / divisor
    merged[touched] = (weights[touched].astype(np.float64) + step).astype(np.float32)
    return merged
