"""What one bad update can do to a merge: bounded by clipping its norm, or nothing, by leaving it out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .contribution import Contribution
from .squares import square_sum

__all__ = ["clip_norms", "outliers"]

# With fewer updates there is no majority to be far from.
MIN_BUFFER = 4


def clip_norms(contributions: Sequence[Contribution], norm: float) -> list[Contribution]:
    """Scale every update whose Euclidean norm exceeds ``norm`` down to it; the others stay as they are."""
    clipped = []
    for c in contributions:
        length = c.norm()
        clipped.append(c if length <= norm else c.times(np.float32(norm / length)))
    return clipped


def outliers(contributions: Sequence[Contribution], factor: float) -> set[str]:
    """
    Updates that lie far from the rest.

    An update's distance is the median, over the others, of the root mean square of its difference to them, over the
    coordinates that both hold. It is an outlier if that is more than ``factor`` times the median distance, so at
    least half of the buffer always stays; in the spirit of Krum (Blanchard et al. 2017), with a threshold instead of
    a count.

    Args:
        contributions: the buffer; fewer than 4 have no outliers.
        factor: at least 1.

    Returns:
        Their ids.

    """
    if len(contributions) < MIN_BUFFER:
        return set()
    ordered = sorted(contributions, key=lambda c: c.id)
    distances = np.full((len(ordered), len(ordered)), np.nan)
    for i, first in enumerate(ordered):
        for j in range(i):
            distances[i, j] = distances[j, i] = _distance(first, ordered[j])
    known = [row[~np.isnan(row)] for row in distances]
    # One that shares no coordinate with any other cannot be judged.
    scores = np.array([np.median(row) if len(row) else 0.0 for row in known])
    limit = factor * np.median(scores)
    return {c.id for c, score in zip(ordered, scores, strict=True) if score > limit}


def _distance(a: Contribution, b: Contribution) -> float:
    """Root mean square of the difference over shared coordinates; not a number if there are none."""
    if a.region.key == b.region.key:
        x, y = a.values(), b.values()
    else:
        _, mine, theirs = np.intersect1d(
            a.region.positions, b.region.positions, assume_unique=True, return_indices=True
        )
        x, y = a.values()[mine], b.values()[theirs]
    if not len(x):
        return float("nan")
    off: npt.NDArray[np.float32] = x - y
    return math.sqrt(square_sum(off) / len(off))
