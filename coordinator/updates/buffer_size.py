"""
How many updates a merge should take, and how many devices should work, as a run's own staleness says.

With C devices at work, an update is C / K merges old on average when a buffer of K merges it, whatever the devices'
speeds (Little's law). Many small merges learn most from as many updates, and few devices at a time make the freshest;
but more devices are faster. Where devices are alike, all updates are C / K merges old, and merges soon
oscillate; where they differ, the ages do, and much larger C / K are stable (:mod:`coordinator.merge.stability`). So:

- the *size* is the smallest, from ``least`` on, that is stable given the ages of the updates merged lately;
- the *concurrency* is the largest at which merges of ``least`` are, given how those ages are distributed.

Ages are kept in updates, not in merges. How many were accepted between an update's start and its arrival does not
depend on the buffer, and in proportion to their mean not on the concurrency either. So values that were never tried
can be judged, too, and neither chases its own effect.

While the concurrency changes, ages change with it; taken together, equal devices would look as if they differed, and
the concurrency would swing between its limits. So each age is seen in proportion to the mean of those around it, and
the concurrency is at most GROWTH times that mean, which by Little's law is how many are at work.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..merge.stability import MAX_AGE, critical_gain

__all__ = ["LOOKED_BACK_ON", "AdaptiveSize"]

Floats = npt.NDArray[np.float64]

# Merged updates that are looked back on.
WINDOW = 256
# Sizes are looked for after as many updates at the least; that takes some milliseconds.
EVERY = 32
# Newest updates whose staleness matters: those that were looked at last, and those since.
LOOKED_BACK_ON = WINDOW + EVERY
# Sizes that are tried lie so far apart.
STEP = 1.05
# How many times larger than what the server's learning rate needs the critical gain is to be: below twice, what a merge
# overshoots still comes back, damped; devices that overshoot themselves (momentum) need the rest.
MARGIN = 1.25
# Between so many times ``least`` devices work at once; the run begins with FIRST times.
FEWEST, FIRST, MOST = 1, 2, 10
# How many updates around an age its mean is of, and how many times as many devices may work as do.
AROUND, GROWTH = 64, 2


@dataclasses.dataclass(frozen=True)
class _Found:
    size: int
    margin: float | None
    concurrency: int


class AdaptiveSize:
    """
    The size of a buffer and the concurrency, from the ages of merged updates.

    Both are functions of the merges so far alone, so a run that is taken up again goes on with the same ones.

    Args:
        weights: staleness weights by age in merges: int64, shape ``(ages,)`` -> float64 of that shape.
        gain: what the critical gain is to exceed: the server's learning rate; 0 where no age does harm.
        least: the smallest size; smaller ones average too few devices.
    """

    def __init__(self, weights: Callable[[npt.NDArray[np.int64]], Floats], gain: float, least: int) -> None:
        self._weights = weights(np.arange(MAX_AGE + 1))
        self._gain = gain
        self._least = least
        self._ages: collections.deque[float] = collections.deque(maxlen=WINDOW)  # in updates
        self._stalenesses: collections.deque[int] = collections.deque(maxlen=WINDOW)
        self._sizes: collections.deque[int] = collections.deque(maxlen=WINDOW)  # of merges, the newest last
        self._new = 0
        self._looked_at: Floats | None = None  # ages at the last look; None: nothing to look at yet
        self._found: _Found | None = None

    @property
    def size(self) -> int:
        """How many updates the next merge should take."""
        return self._look().size

    @property
    def margin(self) -> float | None:
        """The critical gain at that size over ``gain``; none before there is a history."""
        return self._look().margin

    @property
    def concurrency(self) -> int:
        """How many devices should work at once."""
        return self._look().concurrency

    @property
    def mean_staleness(self) -> float | None:
        """Of the updates merged lately, in merges; none before the first."""
        return sum(self._stalenesses) / len(self._stalenesses) if self._stalenesses else None

    def merged(self, stalenesses: Sequence[int]) -> None:
        """
        There was a merge.

        Args:
            stalenesses: of the updates in it, in the order in which they came.

        """
        self._merged(len(stalenesses), stalenesses)

    def take_up(self, sizes: Sequence[int], newest: Sequence[int]) -> None:
        """
        There were these merges, and none before: as after :meth:`merged` of each.

        Args:
            sizes: how many updates were in each, oldest first.
            newest: stalenesses of at least the last LOOKED_BACK_ON updates, or of all where there are fewer.

        """
        first, left = len(sizes), len(newest)
        while left > 0 and first > 0:
            first -= 1
            left -= sizes[first]
        for size in sizes[:first]:  # of these no age is looked at any more
            self._new = 0 if self._new + size >= EVERY else self._new + size
        self._sizes.extend(sizes[:first])
        for size in sizes[first:]:
            known = size + min(left, 0)  # of the first of them, the oldest updates may not be known
            self._merged(size, newest[:known])
            newest, left = newest[known:], 0

    def _merged(self, size: int, stalenesses: Sequence[int]) -> None:
        """There was a merge of ``size`` updates; the stalenesses of the last of them are known."""
        # Updates in the last n merges, as far back as these began: a run that is taken up again has many merges.
        last = itertools.islice(reversed(self._sizes), max(stalenesses, default=0))
        before = [0, *itertools.accumulate(last)]
        for place, tau in enumerate(stalenesses, size - len(stalenesses)):
            known = before[min(tau, len(before) - 1)]
            # Its device began somewhere in the filling of a buffer; on average half of it had come.
            self._ages.append(max(0.0, known + place - size / 2))
        self._stalenesses.extend(stalenesses)
        self._sizes.append(size)
        self._new += size
        if self._new >= EVERY:
            self._new = 0
            self._looked_at = np.array(self._ages)
            self._found = None  # found when somebody asks: a run that is taken up again has many merges to take in

    def _look(self) -> _Found:
        if self._found is None:
            ages = self._looked_at
            first = _Found(self._least, None, FIRST * self._least)
            self._found = first if ages is None else self._find(ages)
        return self._found

    def _find(self, ages: Floats) -> _Found:
        wanted = MARGIN * self._gain
        means = _means_around(ages)
        shape = ages / np.maximum(means, 1.0)
        working = max(float(means[-1]), 1.0)
        now = shape * working
        sizes = _grid(self._least, int(now.max()) + 1)  # at the last, every update is fresh
        size = sizes[
            min(bisect.bisect_left(sizes, True, key=lambda k: self._critical(now, k) >= wanted), len(sizes) - 1)
        ]
        limits = _grid(FEWEST * self._least, MOST * self._least)
        stable = bisect.bisect_left(limits, True, key=lambda c: self._critical(shape * c, self._least) < wanted)
        concurrency = min(limits[max(0, stable - 1)], max(int(working * GROWTH), FEWEST * self._least))
        return _Found(size, self._critical(now, size) / self._gain if self._gain else None, concurrency)

    def _critical(self, ages: Floats, size: int) -> float:
        """The critical gain of merges of ``size`` updates of such ages (in updates)."""
        merges = np.minimum(ages / size, MAX_AGE - 1)
        whole = merges.astype(np.int64)
        part = merges - whole
        count = int(whole.max()) + 2
        shares = np.bincount(whole, 1.0 - part, count) + np.bincount(whole + 1, part, count)
        return critical_gain(shares * self._weights[:count] / len(ages))


def _means_around(ages: Floats) -> Floats:
    """The mean of the AROUND ages around each, of fewer at the ends; float64, shape ``(len(ages),)``."""
    sums = np.concatenate([[0.0], np.cumsum(ages)])
    at = np.arange(len(ages))
    first, last = np.maximum(at - AROUND // 2, 0), np.minimum(at + AROUND // 2, len(ages))
    means: Floats = (sums[last] - sums[first]) / (last - first)
    return means


def _grid(first: int, last: int) -> list[int]:
    """Whole numbers from ``first`` to ``last``, at most a factor STEP apart where there are as many."""
    values = [first]
    while values[-1] < last:
        values.append(min(max(values[-1] + 1, int(values[-1] * STEP)), last))
    return values
