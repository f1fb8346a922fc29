"""
Rules that bear hostile devices: each device has one vote per coordinate (:mod:`coordinator.merge.votes`).

    trimmed-mean       per coordinate, the ``hostile`` highest and lowest votes are left out (Yin et al. 2018)
    median             per coordinate, the middle vote, or the mean of the two middle ones
    multi-krum         the mean of the votes without devices whose votes lie farthest from their neighbours' (Blanchard
                       et al. 2017)
    centred-clipping   from the median on, a few steps by the votes' mean, each vote at most as far from where the step
                       starts as the median one (Karimireddy et al. 2021)

Only devices that hold a coordinate vote on it. The sums are of integers, the rest is computed element by element in the
order of names, so all of it is the same in every order of arrival.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from .regions import WeightRegion
from .rules import Direction
from .squares import norm, square_sum
from .sums import STEP
from .votes import Vote

__all__ = ["ROBUST_RULES", "RobustRule", "centred_clipping", "far_devices", "trimmed_mean"]

RobustRule = Literal["trimmed-mean", "median", "multi-krum", "centred-clipping"]
ROBUST_RULES: tuple[RobustRule, ...] = ("trimmed-mean", "median", "multi-krum", "centred-clipping")

# Elements of all votes together that are sorted at a time.
BLOCK = 2**21  # pragma: no mutate

# Above every vote: a device that does not hold the coordinate.
ABSENT = np.iinfo(np.int64).max

# Steps of centred clipping.
STEPS = 3

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def trimmed_mean(size: int, ballot: Sequence[Vote], hostile: int | None, min_contributors: int = 1) -> Direction:
    """
    Per coordinate, the mean of the votes without the highest and lowest ones.

    Args:
        size: length of the vector that regions refer to.
        ballot: at least one vote.
        hostile: how many are left out at each end, as far as at least one stays; none: as many as there can be, which
            leaves the median.
        min_contributors: coordinates with fewer votes are left out.

    """
    touched = np.zeros(size, np.bool_)
    for vote in ballot:
        touched[vote.region.positions] = True
    region = WeightRegion(np.flatnonzero(touched))
    values = np.empty(len(region))
    counts = np.empty(len(region), np.int64)
    width = max(BLOCK // max(len(ballot), 1), 1)
    for start in range(0, len(region), width):
        block = slice(start, start + width)
        votes = _gather(ballot, region.positions[block])
        counts[block] = (votes != ABSENT).sum(axis=0)
        values[block] = _trim(votes, counts[block], hostile)
    kept = counts >= min_contributors
    if kept.all():
        return Direction(region, values)
    return Direction(WeightRegion(region.positions[kept]), values[kept])


def _gather(ballot: Sequence[Vote], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The votes at ascending ``positions`` in steps, shape ``(len(ballot), len(positions))``."""
    found = np.full((len(ballot), len(positions)), ABSENT, np.int64)
    if not len(positions):
        return found
    for row, vote in zip(found, ballot, strict=True):
        own = vote.region.positions
        where = slice(*np.searchsorted(own, [positions[0], positions[-1] + 1]).tolist())
        row[np.searchsorted(positions, own[where])] = np.rint(vote.values(where) / STEP).astype(np.int64)
    return found


def _trim(votes: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], hostile: int | None) -> Floats:
    """The mean of each column without its highest and lowest ``hostile`` votes; ``counts`` are those that there are."""
    votes.sort(axis=0)
    cut = (counts - 1) // 2 if hostile is None else np.minimum(hostile, (counts - 1) // 2)
    rank = np.arange(len(votes))[:, np.newaxis]
    inside = (rank >= cut) & (rank < counts - cut)
    sums = np.where(inside, votes, 0).sum(axis=0)
    values: Floats = sums.astype(np.float64) / (counts - 2 * cut) * STEP
    return values


def far_devices(ballot: Sequence[Vote], hostile: int) -> set[str]:
    """
    The ``hostile`` devices whose votes lie farthest from those around them (Multi-Krum).

    A device's score is the mean of the squared distances to its ``n - hostile - 2`` nearest others. A distance is the
    mean square of the difference over the coordinates that both hold. A device that shares none with anybody cannot be
    judged, and stays.

    Args:
        ballot: votes; of fewer than ``2 * hostile + 3`` none is left out.
        hostile: how many are left out.

    """
    if len(ballot) < 2 * hostile + 3:
        return set()
    distances: dict[str, list[float]] = {vote.device: [] for vote in ballot}
    shared: dict[tuple[bytes, bytes], tuple[Places, Places]] = {}
    for i, first in enumerate(ballot):
        mine = first.values()
        for second in ballot[:i]:
            distance = _distance(first, mine, second, shared)
            if distance is not None:
                distances[first.device].append(distance)
                distances[second.device].append(distance)
    nearest = len(ballot) - hostile - 2
    scores = {
        device: math.fsum(sorted(known)[:nearest]) / min(len(known), nearest) if known else 0.0
        for device, known in distances.items()
    }
    return set(sorted(scores, key=lambda device: (-scores[device], device))[:hostile])


def _distance(
    first: Vote, mine: Floats, second: Vote, shared: dict[tuple[bytes, bytes], tuple[Places, Places]]
) -> float | None:
    """The mean square of the difference where both vote; none if they share nothing. ``shared`` is a cache."""
    theirs = second.values()
    keys = first.region.key, second.region.key
    if keys[0] != keys[1]:
        if keys not in shared:
            _, *places = np.intersect1d(
                first.region.positions, second.region.positions, assume_unique=True, return_indices=True
            )
            shared[keys] = places[0], places[1]
        here, there = shared[keys]
        mine, theirs = mine[here], theirs[there]
    return square_sum(mine - theirs) / len(mine) if len(mine) else None


def centred_clipping(size: int, ballot: Sequence[Vote], min_contributors: int = 1) -> Direction:
    """
    From the coordinate-wise median on, steps by the mean of the clipped differences to it.

    A vote's distance is the root mean square of its differences over the coordinates that it holds; it is scaled down
    to the median distance where that is smaller.

    Args:
        size: length of the vector that regions refer to.
        ballot: at least one vote.
        min_contributors: coordinates with fewer votes are left out.

    """
    start = trimmed_mean(size, ballot, None, min_contributors)
    centre, held = np.zeros(size), np.zeros(size)
    start.region.scatter(start.values, centre)
    for vote in ballot:
        vote.region.add(1.0, held)
    for _ in range(STEPS):
        distances = []
        for vote in ballot:
            off = vote.values() - vote.region.gather(centre)
            distances.append(norm(off) / math.sqrt(len(off)) if len(off) else 0.0)
        limit = statistics.median(distances)
        moved = np.zeros(size)
        for vote, distance in zip(ballot, distances, strict=True):
            off = vote.values() - vote.region.gather(centre)
            vote.region.add(off * (limit / distance) if distance > limit else off, moved)
        np.divide(moved, held, out=moved, where=held > 0)
        centre += moved
    return Direction(start.region, start.region.gather(centre))
