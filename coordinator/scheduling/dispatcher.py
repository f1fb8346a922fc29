"""From a device's wish for work to an assignment: the scheduler's decisions, carried out."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.protocol.messages import ArtifactRef, Assign, Evaluate, Hex, Name, Ready

from ..background import BackgroundTasks
from ..errors import Expelled, StoreUnavailable
from ..programs.tiers import Tier, pick_tier
from ..run_state import RunState
from ..store.records import AssignmentRecord, AssignmentRequest, VersionRecord
from .device_settings import DeviceSettings
from .quota import OverQuota, Quota
from .scheduler import Postpone, Scheduler
from .stall_notices import StallNotices

__all__ = ["Applicant", "Dispatcher"]

log = logging.getLogger(__name__)

# Versions that an assignment may lag behind and still be given again.
LONGEST_RESUME = 20


class Applicant(Protocol):
    """A device's session, as far as work is concerned. Every method raises :exc:`ConnectionLost` if it is gone."""

    device: str

    async def assign(self, message: Assign, tier: Tier) -> None:
        """Give it work."""
        ...

    def assign_at_once(self, message: Assign, tier: Tier) -> bool:
        """Give it work, if nothing has to be waited for; else nothing happens, and the answer is false."""
        ...

    def expect(self, weights: Sequence[ArtifactRef]) -> None:
        """It is about to get work on these files."""
        ...

    async def evaluate(self, message: Evaluate, tier: Tier) -> None:
        """Ask it for metrics."""
        ...

    async def postpone(self, seconds: float, reason: str) -> None:
        """Send it away."""
        ...

    async def wait(self, reason: str) -> None:
        """Tell it what its work waits for; it stays."""
        ...

    async def fail(self, code: str, message: str) -> None:
        """Tell it what is wrong, and close."""
        ...


@dataclasses.dataclass(frozen=True)
class _Grant:
    applicant: Applicant
    tier: Tier
    version: int


class Dispatcher:
    """
    Gives out the work of one run.

    Args:
        run: the run. Its store may hold assignments from before a restart: their devices have time to come back.
        woken: called when a place has become free.

    """

    def __init__(self, run: RunState, woken: Callable[[], None] = lambda: None) -> None:
        self._run = run
        self._woken = woken
        self.scheduler = Scheduler(
            run.config.scheduling,
            run.tiers,
            buffered=lambda: run.buffer.tiers,
            contribution=lambda device: run.device(device).updates,
        )
        self._quota = Quota(run.config.limits.bytes_per_day)
        self._settings = DeviceSettings(run.config.training)
        self._open: dict[str, AssignmentRecord] = {}
        self._waiting: dict[str, tuple[Applicant, Tier]] = {}
        self._granted: list[_Grant] = []
        self._giver: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks()
        self._stalls = StallNotices(run)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # on the run's clock
        self._stopped = ""
        now = run.clock.monotonic()
        for record in run.store.assignments.open():
            self._open[record.device] = record
            self.scheduler.begin(record.device, record.tier, record.version, now)
            self.scheduler.left(record.device, now)

    # What devices do.

    async def ask(self, applicant: Applicant, ready: Ready) -> None:
        """
        A device wants work: it gets some, waits for its turn, or is sent away.

        Raises:
            Refused: if nothing fits the device.

        """
        run, device = self._run, applicant.device
        tier = pick_tier(run.tiers, ready)
        if self._stopped:
            await applicant.postpone(run.config.scheduling.retry_seconds, self._stopped)
            return
        if run.phase == "finished":
            return  # the end is announced to everybody in a moment: who leaves before may not hear of it
        if run.phase != "running":
            await applicant.postpone(run.config.scheduling.retry_seconds, f"the run is {run.phase}")
            return
        over = self._quota.seconds(device, run.device(device), run.clock.wall())
        if over > 0:
            await applicant.postpone(over, OverQuota.words)
            return
        aside = run.aside_seconds(device)
        if aside > 0:
            await applicant.postpone(aside, "the device's updates were out of line: the operator sees why")
            return
        if run.federated.wants(device):
            await applicant.evaluate(self._evaluation(device, tier), tier)
            return
        self.scheduler.came(device)
        answer = self.scheduler.ask(device, tier.name, run.clock.monotonic())
        if isinstance(answer, Postpone):
            await applicant.postpone(answer.seconds, answer.reason)
            return
        self._waiting[device] = (applicant, tier)
        self.dispatch()

    def ended(self, device: str, *, returned: bool = True) -> None:
        """The device's assignment is handed in, or refused or given back (``returned`` is false)."""
        self._open.pop(device, None)
        self.scheduler.end(device, self._run.clock.monotonic(), returned=returned)
        self.dispatch()
        self._woken()

    def check_quota(self, device: str) -> None:
        """
        To be called where bytes are about to flow.

        Raises:
            OverQuota: if the device has moved as many bytes as it may in a day.

        """
        if self._quota.is_limited:
            self._quota.check(device, self._run.device(device), self._run.clock.wall())

    def came(self, device: str) -> None:
        """The device is connected."""
        self.scheduler.came(device)
        self._arm()

    def left(self, device: str) -> None:
        """The device's connection is gone."""
        self._waiting.pop(device, None)
        self._stalls.forget(device)
        self.scheduler.left(device, self._run.clock.monotonic())
        self._arm(again=True)
        self.dispatch()

    # What the run does.

    def dispatch(self) -> None:
        """Give work to whoever waits, as far as there are places; to be called whenever something has changed."""
        self.scheduler.concurrency = self._run.concurrency(self.scheduler.present)
        soonest = math.inf
        if self._run.phase == "running" and not self._stopped:
            version = self._run.versions.newest.version
            while (device := self.scheduler.choose(version)) is not None:
                applicant, tier = self._waiting.pop(device)
                self._stalls.forget(device)
                task = self.scheduler.begin(device, tier.name, version, self._run.clock.monotonic())
                soonest = min(soonest, self.scheduler.first_look(task))
                self._granted.append(_Grant(applicant, tier, version))
        self._run.resize_buffer(self.scheduler.working.keys())
        self._run.exhausted = bool(self._waiting) and not self.scheduler.working
        self._stalls.look(self._waiting)
        if self._granted and (self._giver is None or self._giver.done()):
            self._giver = asyncio.create_task(self._give())
        self._arm(again=soonest < self._timer_at)

    def disperse(self, reason: str) -> None:
        """Send everybody away who waits."""
        seconds = self._run.config.scheduling.retry_seconds
        for device in self.scheduler.disperse():
            applicant, _ = self._waiting.pop(device)
            self._tasks.start(applicant.postpone(seconds, reason), f"sending {device} away")

    def release(self) -> None:
        """Nobody waits for work any more; everybody stays connected."""
        for device in self.scheduler.disperse():
            self._waiting.pop(device)

    def stop(self, reason: str) -> None:
        """Give no work out any more: the process is about to end."""
        self._stopped = reason
        self.disperse(reason)

    def void(self, devices: Sequence[str]) -> None:
        """What these devices train has become void, or they will not come back."""
        for device in devices:
            self._open.pop(device, None)
            self.scheduler.forget(device)
        self.dispatch()

    def assignment(self, device: str) -> AssignmentRecord | None:
        """What a device is at work on."""
        return self._open.get(device)

    @property
    def open(self) -> Sequence[AssignmentRecord]:
        """Assignments that were not answered yet."""
        return list(self._open.values())

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    # How it is done.

    async def _give(self) -> None:
        """Write assignments down, all that came meanwhile at once, and tell their devices."""
        while self._granted:
            group, self._granted = self._granted, []
            resumed = [grant for grant in group if self._resumes(grant)]
            fresh = [grant for grant in group if grant not in resumed] if resumed else group
            self._announce(fresh)
            for grant in (*resumed, *(await self._write_down(fresh) if fresh else ())):
                self._tell(grant)

    def _announce(self, grants: Sequence[_Grant]) -> None:
        """Let the devices' connections prepare while the assignments are written down."""
        for grant in grants:
            version = self._run.recent(grant.version)
            try:
                if version is not None:
                    grant.applicant.expect(self._run.versions.sent(version))
            except Exception as error:  # others are not to suffer; when the work is told, this is too
                log.debug("%s is not prepared: %s", grant.applicant.device, error)

    async def _write_down(self, grants: Sequence[_Grant]) -> Sequence[_Grant]:
        """Write assignments down; those that cannot be are turned away. Returns the others."""
        run = self._run
        now = run.clock.wall()
        deadline = now + run.config.scheduling.deadline_seconds
        requests = [
            AssignmentRequest(grant.applicant.device, grant.version, grant.tier.name, now, deadline) for grant in grants
        ]
        try:
            records = await run.offload(run.store.assignments.assign, requests)
        except Exception as error:
            if len(grants) > 1 and not isinstance(error, StoreUnavailable):
                # One of them is at fault, its device was revoked, say: the others are not to suffer.
                return [written for grant in grants for written in await self._write_down([grant])]
            for grant in grants:
                self._turn_away(grant, error)
            return ()
        for record in records:
            self._open[record.device] = record
        return grants

    def _turn_away(self, grant: _Grant, error: Exception) -> None:
        device = grant.applicant.device
        code, words = "unavailable", "the coordinator cannot write to its disk"
        if isinstance(error, Expelled):
            code, words = "revoked", "the operator has revoked this device"
        elif isinstance(error, StoreUnavailable):
            log.error("%s has to wait for work: %s", device, error)
        else:
            words = "the coordinator has a problem of its own: try again later"
            log.error("%s gets no work", device, exc_info=error)
        self.scheduler.cancel(device)
        self._tasks.start(grant.applicant.fail(code, words), f"sending {device} away")

    def _tell(self, grant: _Grant) -> None:
        """Tell a device of its work, in the background if that takes waiting."""
        applicant, tier, record = grant.applicant, grant.tier, self._open.get(grant.applicant.device)
        doing = f"giving work to {applicant.device}"
        if record is None:  # rolled back or withdrawn in this very moment
            self._tasks.start(applicant.fail("unavailable", "the assignment became void: come again"), doing)
            return
        version = self._run.recent(record.version)
        if version is None:
            self._tasks.start(self._tell_of_old(applicant, tier, record), doing)
            return
        try:
            message = self._message(record, version, tier)
            if not applicant.assign_at_once(message, tier):
                self._tasks.start(applicant.assign(message, tier), doing)
        except ConnectionLost as error:
            log.debug("%s: the device left before: %s", doing, error)
        except Exception:  # others are not to suffer
            log.exception("%s failed", doing)

    async def _tell_of_old(self, applicant: Applicant, tier: Tier, record: AssignmentRecord) -> None:
        version = await self._run.offload(self._run.store.versions.get, record.version)
        await applicant.assign(self._message(record, version, tier), tier)

    def _message(self, record: AssignmentRecord, version: VersionRecord, tier: Tier) -> Assign:
        return Assign(
            assignment=Name(record.id),
            version=version.version,
            manifest=tier.record.manifest,
            signature=Hex(tier.record.signature),
            program=tier.program,
            weights=self._run.versions.sent(version),
            settings=self._settings.of(self._run.device(record.device).samples),
            seed=record.number,
            payload=self._run.packing(version, tier),
        )

    def _resumes(self, grant: _Grant) -> bool:
        """
        Whether a device that comes back with its work undone goes on with it.

        It does while that is not too stale, so that what it has downloaded stays good: on a link that keeps
        breaking, newer weights would never arrive whole.
        """
        record = self._open.get(grant.applicant.device)
        if record is None or record.tier != grant.tier.name or not self._run.versions.is_ancestor(record.version):
            return False
        if not self._run.versions.has_weights(record.version):
            return False  # its files were removed meanwhile: nobody could train from them
        limit = self._run.config.merge.staleness.maximum
        patience = LONGEST_RESUME if limit is None else min(limit, LONGEST_RESUME)
        return self._run.versions.staleness(record.version) <= patience

    def _evaluation(self, device: str, tier: Tier) -> Evaluate:
        evaluation, version = self._run.federated.ask(device)
        return Evaluate(
            evaluation=Name(evaluation),
            version=version.version,
            manifest=tier.record.manifest,
            signature=Hex(tier.record.signature),
            program=tier.program,
            weights=self._run.versions.sent(version),
        )

    def _arm(self, *, again: bool = False) -> None:
        """
        Wake up when the next place becomes free because somebody is late.

        Looking for that moment takes a look at every task, so a timer that is set is left, unless it may be too late.
        """
        if self._timer is not None:
            if not again:
                return
            self._timer.cancel()
            self._timer = None
        expiry = self.scheduler.next_expiry()
        if expiry is not None:
            self._timer_at = expiry
            wait = max(expiry - self._run.clock.monotonic(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait, self._expire)

    def _expire(self) -> None:
        self._timer = None
        for task in self.scheduler.expire(self._run.clock.monotonic()):
            log.warning("%s has not handed version %d in: its place is given to another", task.device, task.version)
            self._run.device(task.device).failures += 1
            self._tasks.start(self._count_failure(task.device), f"counting a failure of {task.device}")
        self.dispatch()
        self._woken()

    async def _count_failure(self, device: str) -> None:
        await self._run.offload(self._run.store.devices.add_failure, device)
