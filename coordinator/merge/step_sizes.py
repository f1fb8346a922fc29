"""
How large the steps of updates should be, as those that were merged say.

A channel's **range** is the power of two below which its elements are expected; the step of a dtype with b bits is the
range over ``2**b``, so ranges outlive a change of the dtype. They follow the updates: each device has one vote per
channel, the least range that its last update fits, and three of four devices decide. A range grows as soon as more
than a quarter of the devices need a larger one, among them those whose elements were cut off, and shrinks where nine of
ten would do with less. So one hostile device makes nobody's steps coarse.

They are looked at after merges 1, 2, 4, 8 and 16, and every 16 from then on: steps that change seldom let the updates
of a buffer be added as they are, and cost few bytes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mobile_sdk.payload import SteppedVector, Steps
from mobile_sdk.payload.steps import BITS, COARSEST, FINEST, OPEN

__all__ = ["Ranges", "StepSizes", "is_due", "steps_of_ranges", "wanted_ranges"]

# Exponents of ranges, int8, shape ``(channels,)``; OPEN where nothing is known.
Ranges = npt.NDArray[np.int8]

# The vote of a channel whose elements are all 0; OPEN is one of which nothing was sent.
ZERO = -127

# Votes that are remembered, one for each device.
WINDOW = 64
# Ranges grow at this quantile of the votes, and shrink at that one.
GROW, SHRINK = 0.75, 0.9
# Merges between two looks.
EVERY = 16
# So many bits are room for updates larger than usual; the three of int4 are worth more as precision.
HEADROOM = {"int8": 1, "int16": 2}
# A channel of which a larger part than this was cut off needs a larger range.
SATURATED = 1 / 64
# And one of which more than half was cut off one that is larger by so many powers of two.
FAR = 2


def is_due(merge: int) -> bool:
    """Whether ranges are looked at after this merge, counted from 1."""
    return merge % EVERY == 0 or (merge < EVERY and merge & (merge - 1) == 0)


def wanted_ranges(vector: SteppedVector) -> Ranges:
    """
    The least range that fits each channel of an update; ZERO where it is all zeros, OPEN where nothing was sent.

    Args:
        vector: the update.

    """
    exponents = vector.steps.exponents.astype(np.int32)
    wanted = exponents + np.frexp(vector.largest.astype(np.float64))[1]
    # Those that were cut off lie somewhere beyond; if most are, far beyond.
    sent = vector.steps.lengths if vector.whole else vector.nonzero
    few = np.maximum(SATURATED * sent, 1 if vector.whole else 0)
    wanted += vector.at_the_end > few
    wanted += np.where(2 * vector.at_the_end > sent, FAR, 0) if vector.whole else 0
    wanted = np.clip(wanted, FINEST, COARSEST + BITS["int16"])
    return np.where(vector.largest == 0, ZERO if vector.whole else OPEN, wanted).astype(np.int8)


def steps_of_ranges(shapes: Sequence[tuple[int, ...]], ranges: Ranges, dtype: str) -> Steps:
    """
    The steps of updates of a dtype; equal ones are one object.

    Args:
        shapes: compact shapes of the parameters.
        ranges: of their channels.
        dtype: of the integers.

    """
    return _steps(tuple(shapes), ranges.tobytes(), dtype)


@functools.lru_cache(maxsize=256)
def _steps(shapes: tuple[tuple[int, ...], ...], ranges: bytes, dtype: str) -> Steps:
    exponents = np.frombuffer(ranges, np.int8).astype(np.int32)
    steps = np.clip(exponents + HEADROOM.get(dtype, 0) - BITS[dtype], FINEST, COARSEST)
    return Steps(shapes, np.where(exponents == OPEN, OPEN, steps).astype(np.int8))


@dataclasses.dataclass(frozen=True)
class Vote:
    """What an update of a tier, by a device, wants."""

    tier: str
    device: str
    ranges: Ranges


class StepSizes:
    """The votes of one run; kept in memory, and gathered again after a restart."""

    def __init__(self) -> None:
        self._votes: dict[str, collections.OrderedDict[str, Ranges]] = collections.defaultdict(collections.OrderedDict)

    def merged(self, votes: Iterable[Vote]) -> None:
        """These became part of a version."""
        for vote in votes:
            own = self._votes[vote.tier]
            own[vote.device] = vote.ranges
            own.move_to_end(vote.device)
            while len(own) > WINDOW:
                own.popitem(last=False)

    def next(self, ranges: Mapping[str, Ranges]) -> dict[str, Ranges]:
        """
        The ranges to go on with, by tier.

        Args:
            ranges: those of now.

        """
        following = dict(ranges)
        for tier, votes in self._votes.items():
            ballot = np.sort(np.stack(list(votes.values())), axis=0)
            now = ranges.get(tier, np.full(ballot.shape[1], OPEN, np.int8))
            grow, shrink = _quantile(ballot, GROW), _quantile(ballot, SHRINK)
            moved = np.where(now == OPEN, grow, np.maximum(np.minimum(now, shrink), grow))
            # Where all rounded to nothing but zeros, nobody knows how small they are: the steps may be too coarse.
            zeros = (ballot[-1] == ZERO) & (now > FINEST)
            following[tier] = np.where(grow > ZERO, moved, now - zeros).astype(np.int8)
        return following


def _quantile(ballot: npt.NDArray[np.int8], share: float) -> npt.NDArray[np.int8]:
    """
    Of each channel the least vote that so large a share of the votes do not exceed, of those that name a range.

    Args:
        ballot: int8, shape ``(votes, channels)``, sorted; OPEN and ZERO come first.
        share: above 0, at most 1.

    """
    named = np.count_nonzero(ballot > ZERO, axis=0)
    place = len(ballot) - named + np.maximum(np.ceil(share * named).astype(np.int64), 1) - 1
    found: npt.NDArray[np.int8] = np.take_along_axis(ballot, np.minimum(place, len(ballot) - 1)[None], axis=0)[0]
    return found
