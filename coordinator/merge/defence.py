"""
What one device can do to a version, bounded by what the fleet's own updates measure.

Nothing here is a constant of the task: limits are multiples of medians over *devices*, one vote each, so that a device
that sends more updates than others has no more say in what is usual. With fewer than ``MIN_DEVICES`` devices there is
no majority to measure by, and nothing is bounded.

    length     an update longer than CLIP times the median length of its tier is scaled down to that
    examples   a device's word; an update counts for at most CAP times the median device's examples
    share      all updates of a device in one merge count for at most SHARE times the median device's
    direction  the cosine between a device's updates and the sum of all others' is watched

A device that is out of line again and again is set aside: its updates are left out of merges until its time is over.
In the spirit of centred clipping (Karimireddy et al. 2021) and of norm bounding (Sun et al. 2019).
"""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .contribution import Contribution
from .squares import norm

__all__ = ["Defence", "Judgement"]

MIN_DEVICES = 3

CLIP = 4.0
CAP = 3.0
SHARE = 3.0

# An update this many times as long as the median one is no accident of a device's data.
ABSURD = 10.0

# Below this cosine to all others together, a device pulls against the fleet. Devices whose samples are of other classes
# than the others' stay above it: tests measure that.
AGAINST = -0.5

# Of a device's last merges, so many strikes set it aside; an absurd length counts twice.
MEMORY = 10
MOST_STRIKES = 5

# Devices whose usual length and examples are remembered, of each tier.
MOST_DEVICES = 1_000

Values = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """
    A buffer as it is to be merged.

    ``contributions`` are bounded; ``lengths`` are those of the updates as they came, by id; ``strikes`` says, by
    device, how many it gets and why.
    """

    contributions: Sequence[Contribution]
    lengths: Mapping[str, float]
    strikes: Mapping[str, tuple[int, str]]


class Defence:
    """The measures of one run; kept in memory, and measured again after a restart."""

    def __init__(self) -> None:
        # By tier: a device's last length. And a device's last number of examples.
        self._lengths: dict[bytes, collections.OrderedDict[str, float]] = collections.defaultdict(
            collections.OrderedDict
        )
        self._examples: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._strikes: dict[str, collections.deque[int]] = {}

    def judge(self, contributions: Sequence[Contribution]) -> Judgement:
        """
        Bound the updates of a buffer; changes nothing here.

        Args:
            contributions: at least one.

        """
        lengths = {c.id: norm(c.delta) for c in contributions}
        limits = self._limits(contributions, lengths)
        strikes: dict[str, tuple[int, str]] = {}
        bounded = []
        for c in contributions:
            limit = limits.get(c.region.key)
            if limit is not None and lengths[c.id] > limit > 0:
                if lengths[c.id] > limit / CLIP * ABSURD:
                    times = lengths[c.id] / (limit / CLIP)
                    strikes[c.device] = (2, f"an update is {times:.3g} times as long as the median device's")
                c = dataclasses.replace(c, delta=c.delta * np.float32(limit / lengths[c.id]), largest=None)
            bounded.append(c)
        bounded = self._bound_examples(bounded)
        for device, cosine in _cosines(bounded).items():
            if cosine < AGAINST and device not in strikes:
                strikes[device] = (1, f"its updates point against all others' (cosine {cosine:.2f})")
        return Judgement(bounded, lengths, strikes)

    def learn(self, contributions: Sequence[Contribution], judgement: Judgement) -> dict[str, str]:
        """
        A buffer was merged: remember what is usual, and who was out of line.

        Returns:
            Devices that are to be set aside, and why.

        """
        for c in contributions:
            _remember(self._lengths[c.region.key], c.device, judgement.lengths[c.id])
            _remember(self._examples, c.device, c.examples)
        aside = {}
        for device in {c.device for c in contributions}:
            count, why = judgement.strikes.get(device, (0, ""))
            if not count and device not in self._strikes:
                continue
            history = self._strikes.setdefault(device, collections.deque(maxlen=MEMORY))
            history.append(count)
            if count and sum(history) >= MOST_STRIKES:
                aside[device] = why
            if aside.get(device) or not any(history):
                del self._strikes[device]
        return aside

    def _limits(self, contributions: Sequence[Contribution], lengths: Mapping[str, float]) -> dict[bytes, float]:
        """How long an update of each tier may be, where enough devices have shown what is usual."""
        own: dict[bytes, dict[str, list[float]]] = collections.defaultdict(lambda: collections.defaultdict(list))
        for c in contributions:
            own[c.region.key][c.device].append(lengths[c.id])
        limits = {}
        for key, devices in own.items():
            votes = {**self._lengths.get(key, {}), **{name: statistics.median(each) for name, each in devices.items()}}
            if len(votes) >= MIN_DEVICES:
                limits[key] = CLIP * statistics.median(votes.values())
        return limits

    def _bound_examples(self, contributions: Sequence[Contribution]) -> list[Contribution]:
        by_device: dict[str, list[float]] = collections.defaultdict(list)
        for c in contributions:
            by_device[c.device].append(c.examples)
        votes = {**self._examples, **{name: statistics.median(each) for name, each in by_device.items()}}
        if len(votes) < MIN_DEVICES:
            return list(contributions)
        most = CAP * statistics.median(votes.values())
        totals = {name: sum(min(each, most) for each in given) for name, given in by_device.items()}
        share = SHARE * statistics.median(totals.values()) if len(totals) >= MIN_DEVICES else np.inf
        return [
            dataclasses.replace(c, examples=float(min(c.examples, most) * min(1.0, share / totals[c.device])))
            for c in contributions
        ]


def _remember(values: collections.OrderedDict[str, float], device: str, value: float) -> None:
    values[device] = value
    values.move_to_end(device)
    if len(values) > MOST_DEVICES:
        values.popitem(last=False)


def _cosines(contributions: Sequence[Contribution]) -> dict[str, float]:
    """
    For each device, the cosine between the sum of its updates and that of all others that hold the same.

    Every device's sum is taken at length 1: else one long update would be the direction of "all others".
    """
    groups: dict[bytes, dict[str, list[Contribution]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for c in contributions:
        groups[c.region.key][c.device].append(c)
    cosines: dict[str, float] = {}
    for devices in groups.values():
        if len(devices) <= MIN_DEVICES:
            continue
        sums = {name: _direction(mine) for name, mine in devices.items()}
        total: Values = np.sum(list(sums.values()), axis=0)
        for name, own in sums.items():
            others = total - own
            scale = float(np.linalg.norm(own)) * float(np.linalg.norm(others))
            if scale > 0:
                cosines[name] = min(float(np.dot(own, others)) / scale, cosines.get(name, 1.0))
    return cosines


def _direction(contributions: Sequence[Contribution]) -> Values:
    total: Values = np.zeros(len(contributions[0].delta), np.float32)
    for c in contributions:
        total += c.delta
    length = np.linalg.norm(total)
    return total / length if length > 0 else total
