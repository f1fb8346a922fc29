"""
Who trains next, and who waits: the decisions, without I/O.

Fast devices ask for work often, slow ones rarely. To give both a share, the queue is ordered by (1) devices that train
weights which fewer than ``coverage`` running tasks train, (2) fewest contributions, (3) longest wait. A task runs until
its update is uploaded, it is given back, it is overdue, or its device has been offline for too long; its place then
goes to another device. A late update is accepted if it is not too stale.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from ..config import SchedulingSection
from ..programs.tiers import Tier

__all__ = ["Postpone", "Scheduler", "OpenTask", "Wait"]

# Nobody is sent away for longer: the fleet may have shrunk meanwhile.
LONGEST_RETRY_SECONDS = 3_600.0

# A device whose task does not come back waits for its next chance, for no longer than this.
LONGEST_PENALTY_SECONDS = 86_400.0

# After the first loss a device waits for ``PENALTY`` times as long as it had held its place, after each further one in
# a row ``GROWTH`` times longer. What it hands in, however late, wipes its losses out.
PENALTY = 4.0
GROWTH = 16.0

# A device that has never handed anything in keeps its place for so many times as long as a task usually takes, once so
# many tasks have shown how long that is. What it hands in later is taken all the same.
PATIENCE = 20.0
KNOWN_AFTER = 10

# A task that takes so many times as long as tasks usually do is a straggler's. It goes on, but nobody waits for it:
# under an adaptive limit its place is another's.
SLOW = 4.0

# How much a task's duration counts in the running mean of durations.
MEMORY = 0.1


@dataclasses.dataclass(frozen=True)
class OpenTask:
    """
    A device at work. Times are monotonic.

    ``slow_at`` is when it is taken for a straggler's; ``gone_at`` says since when its device is not connected.
    """

    device: str
    tier: str
    version: int
    since: float
    deadline: float
    slow_at: float
    gone_at: float | None = None


@dataclasses.dataclass(frozen=True)
class Wait:
    """A device that waits, connected, for its turn."""

    device: str
    tier: str
    since: float


@dataclasses.dataclass
class Record:
    """
    How a device has dealt with what it was given.

    ``returned``: whether it has handed any in; ``lost`` counts those since the last one that it did not. It gets
    nothing before ``until``, a monotonic time.
    """

    returned: bool = False
    lost: int = 0
    until: float = 0.0


@dataclasses.dataclass(frozen=True)
class Postpone:
    """A device is sent away for so many seconds."""

    seconds: float
    reason: str


class Scheduler:
    """
    Places at work and the waiting room.

    Args:
        section: the operator's limits.
        tiers: the run's programs.
        buffered: how many updates of each tier wait to be merged.
        contribution: how much a device has contributed so far.

    """

    def __init__(
        self,
        section: SchedulingSection,
        tiers: Sequence[Tier],
        *,
        buffered: Callable[[], Mapping[str, int]] = dict,
        contribution: Callable[[str], float] = lambda device: 0.0,
    ) -> None:
        self._section = section
        self._ranges = ranges(tiers)
        self._buffered = buffered
        self._contribution = contribution
        self._working: dict[str, OpenTask] = {}
        self._tiers: collections.Counter[str] = collections.Counter()  # of those at work
        self._waiting: dict[str, Wait] = {}
        # The waiting room by tier, whoever has contributed least first; with entries of some who wait no more.
        self._queues: dict[str, list[tuple[float, float, int, Wait]]] = collections.defaultdict(list)
        self._asked = itertools.count()
        self._trained: dict[str, int] = {}
        self._cohort: tuple[int | None, set[str]] = None, set()  # a version, and who has trained it or is at it
        self._seconds = section.retry_seconds
        self._gone = 0  # of those at work, who are not connected
        self._slow: set[str] = set()  # of those at work, stragglers, connected or not
        self.concurrency = 0 if section.concurrency == "auto" else section.concurrency
        self._ended = 0
        self._records: dict[str, Record] = collections.defaultdict(Record)
        self.overdue = 0

    @property
    def working(self) -> Mapping[str, OpenTask]:
        """Tasks at work, by device."""
        return self._working

    @property
    def waiting(self) -> Mapping[str, Wait]:
        """Devices that wait connected."""
        return self._waiting

    @property
    def training(self) -> int:
        """How many devices are at work and connected. Tasks of the others may still go on, or never come back."""
        return len(self._working) - self._gone

    @property
    def present(self) -> int:
        """How many devices are at work and connected, or wait."""
        return self.training + len(self._waiting)

    def ask(self, device: str, tier: str, now: float) -> Postpone | None:
        """
        A device wants work: it waits for :meth:`choose` to pick it, or is sent away.

        Args:
            device: its name.
            tier: whose program it would train.
            now: monotonic seconds.

        Returns:
            When to come back, if the waiting room is full or the device's last tasks did not come back; else none.

        """
        record = self._records[device]
        if now < record.until and device not in self._working:
            reason = f"the last {record.lost} tasks of this device did not come back"
            return Postpone(max(record.until - now, self._section.retry_seconds), reason)
        crowded = device not in self._working and len(self._waiting) >= self._section.waiting and self._full()
        if crowded and self._missing(tier) == 0:
            return Postpone(self.retry_seconds(), "there are more devices than work just now")
        wait = Wait(device, tier, now)
        self._waiting[device] = wait
        heapq.heappush(self._queues[tier], (self._contribution(device), now, next(self._asked), wait))
        return None

    def choose(self, version: int) -> str | None:
        """The next device to get work of ``version``, if there is a place for one; it does not wait any more."""
        waiting = self._waiting
        if not waiting:
            return None
        # With thousands who wait, or who are at work, only those are looked at who may be next.
        of, cohort = self._cohort
        known: tuple[Collection[str], ...] = (self._working, cohort) if of == version else (self._working,)
        if len(waiting) < sum(map(len, known)):
            back = [device for device in waiting if any(device in those for those in known)]
        else:
            back = [*waiting.keys() & set().union(*known)]
        able = [waiting[device] for device in back if self._may(device, version)]
        if not self._full() and not (of == version and 0 < self._section.cohort <= len(cohort)):
            firsts = [self._first(queue, version) for queue in self._queues.values()]
            able += [wait for wait in firsts if wait is not None]
        if not able:
            return None
        best = able[0]
        if len(able) > 1:
            missing = {tier: self._missing(tier) for tier in {wait.tier for wait in able}}
            best = min(able, key=lambda wait: (-missing[wait.tier], self._contribution(wait.device), wait.since))
        del waiting[best.device]
        return best.device

    def _first(self, queue: list[tuple[float, float, int, Wait]], version: int) -> Wait | None:
        """The first in a queue who may train ``version``."""
        aside = []
        first = None
        while queue and first is None:
            wait = queue[0][3]
            if self._waiting.get(wait.device) is not wait:
                heapq.heappop(queue)
            elif self._may(wait.device, version):
                first = wait
            else:
                aside.append(heapq.heappop(queue))
        for entry in aside:
            heapq.heappush(queue, entry)
        return first

    def begin(self, device: str, tier: str, version: int, now: float) -> OpenTask:
        """
        A device got work.

        Args:
            device: its name.
            tier: whose program it trains.
            version: that it starts from.
            now: monotonic seconds.

        Returns:
            Its task.

        """
        self._trained[device] = version
        if self._cohort[0] != version:
            self._cohort = version, set()
        self._cohort[1].add(device)
        self._remove(device)
        slow_at = now + max(SLOW * self._seconds, self._section.retry_seconds)
        task = OpenTask(device, tier, version, now, now + self._patience(device), slow_at)
        self._working[device] = task
        self._tiers[tier] += 1
        return task

    def end(self, device: str, now: float, *, returned: bool = True) -> None:
        """
        Its task is handed in, or given back or refused (``returned`` is false): the place is free.

        Args:
            device: its name.
            now: monotonic seconds.
            returned: whether an update was handed in.

        """
        task = self._remove(device)
        if task is not None and returned:
            self._ended += 1
            self._seconds += MEMORY * (now - task.since - self._seconds)
        if returned:
            record = self._records[device]
            record.returned, record.lost, record.until = True, 0, 0.0
        elif task is not None:
            self._lose(task, now, answered=True)

    def cancel(self, device: str) -> None:
        """The device was given nothing after all."""
        self._remove(device)

    def lost(self, device: str) -> int:
        """How many tasks in a row a device has not handed in."""
        return self._records[device].lost if device in self._records else 0

    def _lose(self, task: OpenTask, now: float, *, answered: bool = False) -> None:
        """
        Whoever takes and does not return gets less and less: each time it waits longer for its next chance.

        A device that ``answered``, with an update that was refused or by giving the task back, has one free: it is
        there, and the next one may be good.
        """
        record = self._records[task.device]
        record.lost += 1
        if answered and record.lost == 1:
            return
        held = now - task.since
        record.until = now + min(held * PENALTY * GROWTH ** min(record.lost - 1, 8), LONGEST_PENALTY_SECONDS)

    def _patience(self, device: str) -> float:
        """How long a device keeps its place: less than the deadline, if it has never handed anything in."""
        deadline = self._section.deadline_seconds
        if self._records[device].returned or self._ended < KNOWN_AFTER:
            return deadline
        return min(deadline, max(PATIENCE * self._seconds, self._section.retry_seconds))

    def forget(self, device: str) -> None:
        """The device will not come back, or what it has trained is void: it has no place and may train anything."""
        self._waiting.pop(device, None)
        self._remove(device)
        self._trained.pop(device, None)
        self._cohort[1].discard(device)

    def left(self, device: str, now: float) -> None:
        """The device's connection is gone; its task may go on."""
        self._waiting.pop(device, None)
        self._change(device, gone_at=now)

    def came(self, device: str) -> None:
        """The device is connected."""
        self._change(device, gone_at=None)

    def expire(self, now: float) -> list[OpenTask]:
        """Tasks that are over: their places are given to others, as are those of stragglers, whose tasks go on."""
        self._slow |= {task.device for task in self._working.values() if task.slow_at <= now}
        late = [task for task in self._working.values() if self._ends(task) <= now]
        for task in late:
            self._remove(task.device)
            self._lose(task, now)
            self._cohort[1].discard(task.device)
        self.overdue += len(late)
        return late

    def next_expiry(self) -> float | None:
        """When :meth:`expire` will have something to do."""
        slow = (task.slow_at for task in self._working.values() if self._adaptive and task.device not in self._slow)
        return min((*map(self._ends, self._working.values()), *slow), default=None)

    def first_look(self, task: OpenTask) -> float:
        """When :meth:`expire` has to look at a task that has just begun, at the earliest."""
        return min(task.slow_at, task.deadline) if self._adaptive else task.deadline

    def disperse(self) -> list[str]:
        """Empty the waiting room; who was in it."""
        devices = list(self._waiting)
        self._waiting.clear()
        return devices

    def retry_seconds(self) -> float:
        """When it is worth coming back: about the time until those who wait have had their turn."""
        places = max(self.concurrency, 1)
        estimate = self._seconds * (len(self._waiting) + 1) / places
        return min(max(estimate, self._section.retry_seconds), LONGEST_RETRY_SECONDS)

    def _remove(self, device: str) -> OpenTask | None:
        task = self._working.pop(device, None)
        if task is not None:
            self._tiers[task.tier] -= 1
            self._gone -= task.gone_at is not None
            self._slow.discard(device)
        return task

    @property
    def _adaptive(self) -> bool:
        return self._section.concurrency == "auto"

    def _full(self) -> bool:
        if not self._adaptive:
            return 0 < self.concurrency <= len(self._working)
        # The limit follows from updates that came: stragglers and devices that are away, perhaps for ever, make few.
        slow = sum(self._working[device].gone_at is None for device in self._slow)
        return 0 < self.concurrency <= len(self._working) - self._gone - slow

    def _may(self, device: str, version: int) -> bool:
        if device in self._working:
            return True  # it comes back with its work undone, and keeps its place
        if not self._section.repeat and self._trained.get(device) == version:
            return False
        return not self._full() and not self._complete(device, version)

    def _complete(self, device: str, version: int) -> bool:
        """Whether as many others as may have trained the version or are at it."""
        of, cohort = self._cohort
        return of == version and device not in cohort and 0 < self._section.cohort <= len(cohort)

    def _missing(self, tier: str) -> int:
        """How many ranges of the weights that ``tier`` trains too few tasks train."""
        buffered = self._buffered()
        return sum(
            tier in holders
            and sum(self._tiers[name] + buffered.get(name, 0) for name in holders) < self._section.coverage
            for holders in self._ranges
        )

    def _change(self, device: str, gone_at: float | None) -> None:
        task = self._working.get(device)
        if task is not None:
            self._working[device] = dataclasses.replace(task, gone_at=gone_at)
            self._gone += (gone_at is not None) - (task.gone_at is not None)

    def _ends(self, task: OpenTask) -> float:
        if task.gone_at is None:
            return task.deadline
        return min(task.deadline, task.gone_at + self._section.liveness_seconds)


def ranges(tiers: Sequence[Tier]) -> list[frozenset[str]]:
    """For each range of the weights that the same tiers train: those tiers."""
    holders: list[tuple[str, ...]] = [()]
    held = np.zeros(tiers[0].manifest.layout.size, np.int64)  # for each coordinate, an index into holders
    for tier in tiers:
        before = held[tier.positions]
        for index in np.unique(before).tolist():
            holders.append((*holders[index], tier.name))
            held[tier.positions[before == index]] = len(holders) - 1
    return [frozenset(holders[index]) for index in np.unique(held).tolist() if holders[index]]
