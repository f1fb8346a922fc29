"""
What one device can do to a version, bounded by what the fleet's own updates measure.

Nothing here is a constant of the task: limits are multiples of medians over *devices*, one vote each, so that a device
that sends more updates than others has no more say in what is usual. With fewer than ``MIN_DEVICES`` devices there is
no majority to measure by, and nothing is bounded.

    length     an update longer than CLIP times the median length of its tier is scaled down to that
    examples   a device's word; an update counts for at most CAP times the median device's examples
    pull       length times examples, all updates of a device together: at most PULL times the median device's
    share      all updates of a device in one merge count for at most SHARE times the median device's, and over a window
               of versions for a bounded part of them (:mod:`coordinator.merge.shares`)
    direction  the cosine between a device's updates and the sum of all others' is watched
    nothing    so is whether its updates change anything at all

A device that is out of line again and again is set aside: its updates are left out of merges until its time is over.
Limits are computed exactly and in the order of names, so they are the same on every processor and in every order of
arrival.
In the spirit of centred clipping (Karimireddy et al. 2021) and of norm bounding (Sun et al. 2019).
"""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from .contribution import Contribution
from .directions import device_directions
from .shares import Shares
from .sums import SumOnTheWay

__all__ = ["REASONS", "Defence", "Judgement", "Reason", "Strike", "Weigh"]

MIN_DEVICES = 3

CLIP = 3.0
CAP = 3.0
PULL = 2.0
SHARE = 3.0

# An update this many times as long as the median one is no accident of a device's data.
ABSURD = 10.0

# An update this many times as short as the median one changes nothing, whatever samples it claims.
NOTHING = 1e6

# Below this cosine to all others together, a device pulls against the fleet, if the fleet itself agrees. Near an
# optimum the updates of a fleet add up to nothing, so each points against all others, however honest. ``AGREED`` is the
# least length of the mean of the others' directions; it is also ``CHANCE`` times that of random ones, 1 / sqrt(n).
AGAINST = -0.5
AGREED = 0.5
CHANCE = 1.3

# Of a device's last merges, so many strikes set it aside; an absurd length counts twice.
MEMORY = 10
MOST_STRIKES = 5

# Devices whose usual length and examples are remembered, of each tier.
MOST_DEVICES = 1_000

# Why a device is set aside; "collapse" is what held-out metrics say.
Reason = Literal["length", "direction", "nothing", "collapse"]
REASONS: tuple[Reason, ...] = ("length", "direction", "nothing", "collapse")


# The integers that a merge of these updates multiplies each with; none if that is not known beforehand.
Weigh = Callable[[Sequence[Contribution]], Sequence[int] | None]


@dataclasses.dataclass(frozen=True)
class Strike:
    """A device was out of line in one merge: how much that counts, what it was, and a sentence."""

    count: int
    reason: Reason
    why: str


@dataclasses.dataclass(frozen=True)
class Judgement:
    """
    A buffer as it is to be merged.

    ``contributions`` are bounded, in the order of their ids; ``lengths`` are those of the updates as they came, by id;
    ``shares`` are what each device has of the version; ``strikes`` says, by device, how it was out of line. ``sums``
    are those of the updates of a region, by its key, which a merge then need not take itself.
    """

    contributions: Sequence[Contribution]
    lengths: Mapping[str, float]
    shares: Mapping[str, float]
    strikes: Mapping[str, Strike]
    sums: Mapping[bytes, SumOnTheWay] = dataclasses.field(default_factory=dict, compare=False)


class Defence:
    """The measures of one run; kept in memory, and measured again after a restart."""

    def __init__(self) -> None:
        # By tier: a device's last length. And a device's last number of examples.
        self._lengths: dict[bytes, collections.OrderedDict[str, float]] = collections.defaultdict(
            collections.OrderedDict
        )
        self._examples: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._strikes: dict[str, collections.deque[int]] = {}
        self._shares = Shares()

    def judge(self, contributions: Sequence[Contribution], working: int = 0, weigh: Weigh | None = None) -> Judgement:
        """
        Bound the updates of a buffer; changes nothing here.

        Args:
            contributions: at least one.
            working: devices at work, whose updates are still to come.
            weigh: what a merge will multiply bounded updates with, if that is known: then their sums are taken while
                their directions are looked at, which costs less than reading them again.

        """
        contributions = [c.measured() for c in sorted(contributions, key=lambda c: c.id)]
        lengths = {c.id: c.norm() for c in contributions}
        limits = self._limits(contributions, lengths)
        strikes: dict[str, Strike] = {}
        bounded = []
        for c in contributions:
            limit, length = limits.get(c.region.key), lengths[c.id]
            if limit is not None and length * NOTHING < limit / CLIP:
                strikes.setdefault(c.device, Strike(1, "nothing", "its updates change nothing"))
            if limit is not None and length > limit > 0:
                if length > limit / CLIP * ABSURD:
                    times = length / (limit / CLIP)
                    often = f"{times:,.0f}" if times >= 100 else f"{times:.3g}"
                    why = f"an update is {often} times as long as the median device's"
                    strikes[c.device] = Strike(2, "length", why)
                scale = np.float32(limit / length)
                c = dataclasses.replace(c.times(scale), scale=float(scale))
            bounded.append(c.measured())
        examples = self._bound_examples(bounded)
        # As it will be if no device points against the others, which is the rule.
        judged, shares = self._bound_shares(_bound_pulls(examples, ()), working)
        weights = None if weigh is None else weigh(judged)
        cosines, sums = _cosines(
            bounded, {} if weights is None else {c.id: weight for c, weight in zip(judged, weights, strict=True)}
        )
        against = {device: found for device, found in cosines.items() if found.cosine < AGAINST}
        for device, found in against.items():
            if found.agreed and device not in strikes:
                why = f"its updates point against all others' (cosine {found.cosine:.2f})"
                strikes[device] = Strike(1, "direction", why)
        if against:
            judged, shares = self._bound_shares(_bound_pulls(examples, against), working)
        return Judgement(judged, lengths, shares, strikes, sums)

    def learn(self, contributions: Sequence[Contribution], judgement: Judgement) -> dict[str, tuple[Reason, str]]:
        """
        A buffer was merged: remember what is usual, and who was out of line.

        Returns:
            Devices that are to be set aside, and why: a word and a sentence.

        """
        self._shares.add(judgement.shares)
        for c in contributions:
            _remember(self._lengths[c.region.key], c.device, judgement.lengths[c.id])
            _remember(self._examples, c.device, c.examples)
        aside: dict[str, tuple[Reason, str]] = {}
        for device in sorted({c.device for c in contributions}):
            strike = judgement.strikes.get(device)
            if strike is None and device not in self._strikes:
                continue
            history = self._strikes.setdefault(device, collections.deque(maxlen=MEMORY))
            history.append(0 if strike is None else strike.count)
            if strike is not None and sum(history) >= MOST_STRIKES:
                aside[device] = strike.reason, strike.why
            if device in aside or not any(history):
                del self._strikes[device]
        return aside

    def _bound_shares(
        self, contributions: Sequence[Contribution], working: int
    ) -> tuple[list[Contribution], dict[str, float]]:
        """Each device's share of the version as it is allowed to be, and what it is."""
        totals: dict[str, float] = collections.defaultdict(float)
        for c in contributions:
            totals[c.device] += c.examples
        everything = sum(totals[device] for device in sorted(totals))
        wanted = {device: total / everything for device, total in totals.items()}
        shares = self._shares.bound(wanted, working, MIN_DEVICES)
        if shares == wanted:
            return list(contributions), shares
        # The divisor is the sum of the examples, so a shorter step is said by the factor.
        step = sum(shares[device] for device in sorted(shares))
        return [
            dataclasses.replace(
                c,
                examples=c.examples * shares[c.device] / wanted[c.device] / step if step else c.examples,
                factor=step if shares[c.device] > 0 else 0.0,
            )
            for c in contributions
        ], shares

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
        bounded = []
        for c in contributions:
            examples = float(min(c.examples, most) * min(1.0, share / totals[c.device]))
            bounded.append(c if examples == c.examples else dataclasses.replace(c, examples=examples))
        return bounded


def _bound_pulls(contributions: Sequence[Contribution], against: Collection[str]) -> list[Contribution]:
    """
    A device that is long and claims many samples counts for no more than one that does one of both.

    And one that points against all others for no more than the median; near an optimum honest devices do so as well.
    """
    pulls: dict[str, float] = collections.defaultdict(float)
    for c in contributions:
        # Of the root mean square: tiers of other sizes are held against each other.
        pulls[c.device] += c.examples * c.norm() / math.sqrt(max(len(c.region), 1))
    most = PULL * statistics.median(pulls.values()) if len(pulls) >= MIN_DEVICES else 0.0
    if most == 0:
        return list(contributions)
    bounded = []
    for c in contributions:
        limit = most / PULL if c.device in against else most
        pull = pulls[c.device]
        bounded.append(dataclasses.replace(c, examples=c.examples * limit / pull) if pull > limit else c)
    return bounded


def _remember(values: collections.OrderedDict[str, float], device: str, value: float) -> None:
    values[device] = value
    values.move_to_end(device)
    if len(values) > MOST_DEVICES:
        values.popitem(last=False)


@dataclasses.dataclass(frozen=True)
class _Direction:
    """The cosine between the sum of a device's updates and that of all others, and whether these agree."""

    cosine: float
    agreed: bool


def _cosines(
    contributions: Sequence[Contribution], weights: Mapping[str, int]
) -> tuple[dict[str, _Direction], dict[bytes, SumOnTheWay]]:
    """
    For each device, how its updates lie to those of all others that hold the same.

    Where it sent several kinds, the worst is told. Every device's sum is taken at length 1: else one long update would
    be the direction of "all others".

    Args:
        contributions: of the buffer.
        weights: by id, what each is expected to be multiplied with; or empty.

    Returns:
        By device; and by region, the sums with these weights, of all updates that have a bound.

    """
    groups: dict[bytes, dict[str, list[Contribution]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for c in contributions:
        groups[c.region.key][c.device].append(c)
    cosines: dict[str, _Direction] = {}
    sums: dict[bytes, SumOnTheWay] = {}
    for key, devices in groups.items():
        if len(devices) <= MIN_DEVICES:
            continue
        # What has no bound is still to be made multiples of a step.
        bounded = [c for mine in devices.values() for c in mine if c.largest is not None and c.id in weights]
        if bounded:
            sums[key] = SumOnTheWay([c.delta for c in bounded], [weights[c.id] for c in bounded])
        agreed = max(AGREED, CHANCE / math.sqrt(len(devices) - 1)) * (len(devices) - 1)
        for direction in device_directions(devices, sums.get(key)):
            name, found = direction.device, _Direction(direction.cosine, direction.length >= agreed)
            if name not in cosines or found.cosine < cosines[name].cosine:
                cosines[name] = found
    return cosines, sums
