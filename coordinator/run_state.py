"""
A run in memory: what the merge loop and the devices' sessions share.

All of it can be rebuilt from the store.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mobile_sdk.clock import Clock, Offload
from mobile_sdk.payload import Steps, UpdateFormat
from mobile_sdk.payload.steps import BITS
from mobile_sdk.protocol.messages import Finished
from mobile_sdk.sizes import format_count

from .config import Config
from .errors import StoreError, StoreUnavailable, UpdateRefused
from .evaluation.federated import FederatedEvaluation
from .merge.from_config import safe_gain, staleness_policy
from .merge.step_sizes import Ranges, steps_of_ranges
from .net.traffic import Traffic
from .programs.run_key import RunKey
from .programs.tiers import Tier
from .status import DeviceStatus, RunStatus
from .store.interface import Store
from .store.records import DiscardedUpdate, MergedUpdate, SetAside, VersionRecord
from .updates.buffer import Buffer, BufferedUpdate
from .updates.buffer_size import LOOKED_BACK_ON, AdaptiveSize
from .updates.group_commit import GroupCommit
from .updates.partial_uploads import Uploads
from .updates.validation import parse_update
from .versions.differences import Downlink
from .versions.history import Versions

__all__ = ["HISTORY", "RunState"]

log = logging.getLogger(__name__)

# The part of the devices that are there that an adaptive limit lets work at once.
SHARE = 1 / 3
# But as many always: a small fleet is not made slower, whatever its buffer.
FEWEST = 10

# A device that was out of line too often gets another chance after a day.
ASIDE_SECONDS = 86_400.0

# Packings of updates, by version and tier, that are kept in memory.
PACKINGS = 64

# Versions that a status looks back on.
HISTORY = 512


class RunState:
    """
    The state of one run.

    ``stopped`` says why nothing is merged just now, if an unexpected error is the reason. ``membership`` changes before
    and after every revocation and withdrawal: what was looked up of a device is good for as long as it stays the same.
    ``withdrawn`` names devices whose updates, written down before, must not be merged; ``aside`` those of which nothing
    is merged for a while, and why. ``exhausted`` tells that devices wait for work, that none trains, and that none of
    those that wait may train the newest version.

    Args:
        config: the operator's decisions.
        store: what is durable; accepted updates that wait in it are buffered again.
        key: signs what devices run.
        tiers: the programs, smallest first.
        clock: where the time comes from.
        offload: runs what must not block the event loop.

    """

    def __init__(
        self, config: Config, store: Store, key: RunKey, tiers: Sequence[Tier], *, clock: Clock, offload: Offload
    ) -> None:
        self.config = config
        self.store = store
        self.key = key
        self.tiers = list(tiers)
        self.clock = clock
        self.offload = offload
        self.layout = tiers[0].manifest.layout
        inside = frozenset.intersection(*(frozenset(tier.manifest.baked) for tier in tiers))
        self.versions = Versions(
            store.versions, store.artifacts, self.layout, [tier.manifest.subset for tier in tiers], inside
        )
        merge = config.merge
        self.buffer = Buffer(merge.smallest, merge.min_contributors, merge.most(merge.smallest))
        self.buffer_size = AdaptiveSize(staleness_policy(merge.staleness).by_age, safe_gain(merge), merge.smallest)
        self.intake = GroupCommit(store.updates, self._deliver, offload)
        self.downlink = Downlink(store.artifacts)
        self.uploads = Uploads(config.run.state / "incoming")
        self.uploads.forget_all_but({record.device for record in store.assignments.open()})
        # A power cut may bring back the name of a part whose update was taken in.
        for device, sha256 in store.updates.taken_in(self.uploads.kept) if self.uploads.kept else ():
            self.uploads.accepted(device, sha256)
        self.federated = FederatedEvaluation(config.evaluation, config.run.name, tiers[0].manifest.metrics)
        self.phase, self.reason = store.phase()
        self.finished: Finished | None = None
        self.stopped = ""
        self.membership = 0
        self.withdrawn: set[str] = set()
        self.aside: dict[str, SetAside] = {}
        self.notice = ""
        self.exhausted = False
        self.followers: list[Callable[[VersionRecord], None]] = []  # told of each version first
        self.self_check_failures = 0  # since the coordinator's start
        self.saturated = 0  # elements that devices had to cut off in their updates, since then
        self._by_name = {tier.name: tier for tier in tiers}
        self._packings: dict[tuple[int, str], Mapping[str, Any]] = {}
        self._devices: dict[str, DeviceStatus] = {}
        self._staleness: collections.Counter[int] = collections.Counter()
        self._history: collections.deque[VersionRecord] = collections.deque(store.versions.newest(HISTORY), HISTORY)
        self._recover()

    def _recover(self) -> None:
        for device in self.store.devices.all():
            if device.aside is not None and device.aside.until > self.clock.wall():
                self.aside[device.id] = device.aside
            self._devices[device.id] = DeviceStatus(
                device.id,
                tier=device.tier,
                updates=device.updates,
                report=device.report,
                earlier=Traffic(device.bytes_up, device.bytes_down),
                failures=device.failures,
                samples=device.profile.get("samples"),
                peak_rss_bytes=device.profile.get("peak_rss_bytes"),
                torch_loaded=device.profile.get("torch_loaded"),
                engine=device.profile.get("engine", ""),
                model=device.profile.get("model", ""),
                self_check=device.profile.get("self_check", ""),
            )
        history = self.store.updates.merge_history(LOOKED_BACK_ON)
        self._staleness.update(history.stalenesses)
        self.buffer_size.take_up(history.sizes, history.newest)
        for update in self.waiting_updates():
            self.buffer.add(update)

    def waiting_updates(self) -> list[BufferedUpdate]:
        """
        Every update that the store says is still to be merged, oldest first; damaged ones are discarded. Blocks.

        Raises:
            StoreUnavailable: if the store cannot be read just now; then none is discarded.

        """
        waiting = []
        for record in self.store.updates.buffered():
            try:
                content = self.store.updates.content(record.assignment)
                delta = parse_update(content, record.artifact.sha256, self.tier(record.tier))
            except StoreUnavailable:
                raise  # it says nothing about the update
            except (StoreError, UpdateRefused) as error:
                # The disk lost it after it was synced. One update is no reason to stand still.
                log.error("the update of %s is discarded: %s", record.assignment, error)
                self.store.updates.discard([DiscardedUpdate(record.assignment, "damaged")])
                details = {"assignment": record.assignment, "why": str(error)}
                self.store.audit.write(self.clock.wall(), "coordinator", "damaged", "update", details)
                continue
            waiting.append(BufferedUpdate.measured(record, delta))
        return waiting

    def ranges(self, version: int) -> Mapping[str, Ranges]:
        """
        What the steps of updates of a version follow from, by tier. Blocks if the version is an old one.

        Raises:
            UpdateRefused: if that is not known any more.

        """
        try:
            return self.versions.ranges(self.recent(version) or self.store.versions.get(version))
        except StoreError:
            raise UpdateRefused(
                "stale", f"version {version} is so old that the steps of its updates are not kept any more"
            ) from None

    def packing(self, version: VersionRecord, tier: Tier) -> Mapping[str, Any]:
        """How updates of a tier that start from a version are to be packed, as :class:`Assign` says it. May block."""
        key = version.version, tier.name
        known = self._packings.get(key)
        if known is None:
            while len(self._packings) >= PACKINGS:
                del self._packings[next(iter(self._packings))]
            known = self._packings[key] = self._packing(version, tier).to_json()
        return known

    def _packing(self, version: VersionRecord, tier: Tier) -> UpdateFormat:
        packing = self.config.payload.packing
        if packing.dtype not in BITS:
            return packing
        shapes = [tier.manifest.subset.shape(name) for name in tier.manifest.subset]
        known = self.versions.ranges(version).get(tier.name)
        steps = Steps.open(shapes) if known is None else steps_of_ranges(shapes, known, packing.dtype)
        return dataclasses.replace(packing, steps=steps.to_text())

    def tier(self, name: str) -> Tier:
        """
        A tier by its name.

        Raises:
            StoreError: if the run has no such tier.

        """
        try:
            return self._by_name[name]
        except KeyError:
            raise StoreError(f"the run has no tier {name!r}") from None

    def device(self, name: str) -> DeviceStatus:
        """The status of a device, kept up to date by its session."""
        known = self._devices.get(name)  # a new status is made for new devices alone: this is asked at every message
        return known if known is not None else self._devices.setdefault(name, DeviceStatus(name))

    def set_aside(self, device: str, reason: str, why: str) -> SetAside:
        """Merge nothing of a device for a while, and give it no work; to be written down by the caller."""
        self.aside[device] = SetAside(self.clock.wall() + ASIDE_SECONDS, reason, why)
        return self.aside[device]

    def aside_seconds(self, device: str) -> float:
        """For how long a device is still set aside; 0 if it is not."""
        aside = self.aside.get(device)
        if aside is None:
            return 0.0
        left = aside.until - self.clock.wall()
        if left <= 0:
            del self.aside[device]
        return max(left, 0.0)

    def use_key(self, key: RunKey) -> None:
        """The run has a new key, with which its programs were signed again."""
        self.key = key
        signatures = {record.name: record for record in self.store.tiers()}
        self.tiers = [dataclasses.replace(tier, record=signatures[tier.name]) for tier in self.tiers]
        self._by_name = {tier.name: tier for tier in self.tiers}

    def forget(self, device: str) -> None:
        """A device was withdrawn."""
        self._devices.pop(device, None)
        self.aside.pop(device, None)

    def published(self, version: VersionRecord) -> None:
        """There is a new version."""
        self._history.append(version)
        for follow in self.followers:
            follow(version)

    def recent(self, number: int) -> VersionRecord | None:
        """The record of a version, if it is one of the newest."""
        back = self._history[-1].version - number
        record = self._history[-1 - back] if 0 <= back < len(self._history) else None
        return record if record is not None and record.version == number else None

    def merged(self, updates: Sequence[MergedUpdate]) -> None:
        """Count updates that became part of a version, in the order in which they came."""
        self._staleness.update(update.staleness for update in updates)
        self.buffer_size.merged([update.staleness for update in updates])

    def concurrency(self, present: int) -> int:
        """
        How many devices may work at once; 0: as many as want to.

        Where all are at work at all times, fast ones send most of the updates, and the model becomes theirs. So an
        adaptive limit leaves two of three waiting, who are served by fewest contributions.

        Args:
            present: devices at work or waiting.

        """
        section, least = self.config.scheduling, self.config.merge.smallest
        if section.concurrency != "auto":
            return section.concurrency
        if section.cohort:
            return 0  # a cohort is a limit itself
        return max(FEWEST, least, min(self.buffer_size.concurrency, math.ceil(present * SHARE)))

    def resize_buffer(self, working: Collection[str]) -> None:
        """
        Let the buffer have its size, if it is adaptive: not more than there are devices to fill it.

        Args:
            working: devices at work.

        """
        merge = self.config.merge
        if merge.buffer != "auto":
            return
        size = self.buffer_size.size if merge.limit is None else min(self.buffer_size.size, merge.limit)
        if len(working) < size:
            size = max(1, min(size, len(self.buffer.devices.union(working))))
        size = max(size, merge.min_contributors)
        self.buffer.resize(size, merge.most(size))

    @property
    def updates_merged(self) -> int:
        """Updates that became part of a version, since the run began."""
        return self._staleness.total()

    def finish(self, reason: str, metrics: Mapping[str, float]) -> Finished:
        """The run has ended; devices are told."""
        self.buffer.close()
        self.finished = Finished(self.versions.newest.version, reason, metrics)
        return self.finished

    def status(self) -> RunStatus:
        """One look at the run."""
        return RunStatus(
            name=self.config.run.name,
            phase="stopped" if self.stopped else self.phase,
            reason=self.stopped or self.reason,
            version=self.versions.newest.version,
            metrics=self.versions.newest.metrics,
            history=tuple((version.version, version.metrics) for version in self._history),
            buffered=len(self.buffer),
            capacity=self.buffer.capacity,
            adaptive=self.config.merge.buffer == "auto",
            mean_staleness=self.buffer_size.mean_staleness,
            margin=self.buffer_size.margin if self.config.merge.buffer == "auto" else None,
            merged=self.updates_merged,
            staleness=dict(sorted(self._staleness.items())),
            devices=tuple(self._devices[name] for name in sorted(self._devices)),
            waits_for=self._waits_for(),
            notice=self.notice,
            watched=self.config.evaluation.metric,
        )

    @property
    def mean_staleness(self) -> float:
        """Versions that merged updates were old, on average; 0 where none was merged."""
        return sum(tau * count for tau, count in self._staleness.items()) / max(self._staleness.total(), 1)

    @property
    def history(self) -> Sequence[VersionRecord]:
        """The last versions, oldest first."""
        return self._history

    async def fetch_part(self, device: str, sha256: str) -> None:
        """Nothing: whatever comes, comes here."""

    def count_self_check_failure(self) -> None:
        """A device's runtime failed a program's self-check."""
        self.self_check_failures += 1

    def stall(self) -> str:
        """What a new version waits for, where more updates of the devices that contribute would not do; else empty."""
        if self.phase != "running":
            return ""
        missing, merge = self.buffer.missing_contributors, self.config.merge
        if missing and len(self.buffer) >= self.buffer.capacity:
            return (
                f"updates of {format_count(missing, 'more device')}: those that wait are of fewer devices than "
                f"merge.min_contributors = {merge.min_contributors}"
            )
        if self.exhausted and not self.buffer.is_full:
            few = self.buffer.capacity - len(self.buffer)
            flush = f"; they are merged {merge.flush_seconds:g} s after the last" if merge.flush_seconds else ""
            return (
                f"updates of {format_count(few, 'more device')}: every device that is here has trained version "
                f"{self.versions.newest.version}, and scheduling.repeat is false{flush if len(self.buffer) else ''}"
            )
        return ""

    def _waits_for(self) -> str:
        if stall := self.stall():
            return stall
        if self.phase != "running":
            return ""
        devices = self._devices.values()
        back = [device for device in devices if device.gave_back]
        if back and all(device.gave_back or device.state == "offline" for device in devices):
            last = back[-1]
            return f"an update: {format_count(len(back), 'device')} gave work back, {last.id} because {last.gave_back}"
        if all(device.state == "offline" for device in devices):
            return "devices: none is connected"
        return ""

    def traffic(self) -> Traffic:
        """What all devices have moved since the run began."""
        devices = self._devices.values()
        return Traffic(sum(device.bytes_up for device in devices), sum(device.bytes_down for device in devices))

    def _deliver(self, update: BufferedUpdate) -> None:
        if update.record.device in self.withdrawn:
            return
        device = self.device(update.record.device)
        device.updates += 1
        device.gave_back = ""
        device.report = update.record.report
        self.saturated += min(max(int(update.record.report.get("saturated", 0)), 0), len(update.delta))
        device.staleness = self.versions.staleness(update.record.version)
        self.buffer.add(update)
