"""
A run in memory: what the merge loop and the devices' sessions share.

All of it can be rebuilt from the store.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Mapping, Sequence

from mobile_sdk.clock import Clock, Offload
from mobile_sdk.protocol.messages import Finished

from .config import Config
from .errors import StoreError, UpdateRefused
from .evaluation.federated import FederatedEvaluation
from .net.traffic import Traffic
from .programs.run_key import RunKey
from .programs.tiers import Tier
from .scheduling.quota import Quota
from .status import DeviceStatus, RunStatus
from .store.interface import Store
from .store.records import DiscardedUpdate, MergedUpdate, VersionRecord
from .updates.buffer import Buffer, BufferedUpdate
from .updates.group_commit import GroupCommit
from .updates.partial_uploads import Uploads
from .updates.validation import parse_update
from .versions.differences import Downlink
from .versions.history import Versions

__all__ = ["RunState"]

log = logging.getLogger(__name__)

# Versions that a status looks back on.
HISTORY = 512


class RunState:
    """
    The state of one run.

    ``stopped`` says why nothing is merged just now, if an unexpected error is the reason. ``membership`` changes before
    and after every revocation and withdrawal: what was looked up of a device is good for as long as it stays the same.
    ``withdrawn`` names devices whose updates, written down before, must not be merged.

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
        self.buffer = Buffer(config.merge.buffer, config.merge.min_contributors, config.merge.most)
        self.intake = GroupCommit(store.updates, self._deliver, offload)
        self.downlink = Downlink(store.artifacts)
        self.uploads = Uploads(config.run.state / "incoming")
        self.quota = Quota(config.limits.bytes_per_day)
        self.federated = FederatedEvaluation(config.evaluation, config.run.name, tiers[0].manifest.metrics)
        self.phase, self.reason = store.phase()
        self.finished: Finished | None = None
        self.stopped = ""
        self.membership = 0
        self.withdrawn: set[str] = set()
        self.notice = ""
        self._by_name = {tier.name: tier for tier in tiers}
        self._devices: dict[str, DeviceStatus] = {}
        self._staleness: collections.Counter[int] = collections.Counter()
        self._history: collections.deque[VersionRecord] = collections.deque(store.versions.all(), HISTORY)
        self._recover()

    def _recover(self) -> None:
        for device in self.store.devices.all():
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
            )
        self._staleness.update(update.staleness for update in self.store.updates.merged())
        for update in self.waiting_updates():
            self.buffer.add(update)

    def waiting_updates(self) -> list[BufferedUpdate]:
        """Every update that the store says is still to be merged, oldest first; damaged ones are discarded. Blocks."""
        waiting = []
        for record in self.store.updates.buffered():
            try:
                content = self.store.updates.content(record.assignment)
                delta = parse_update(content, record.artifact.sha256, self.tier(record.tier))
            except (StoreError, UpdateRefused) as error:
                # The disk lost it after it was synced. One update is no reason to stand still.
                log.error("the update of %s is discarded: %s", record.assignment, error)
                self.store.updates.discard([DiscardedUpdate(record.assignment, "damaged")])
                details = {"assignment": record.assignment, "why": str(error)}
                self.store.audit.write(self.clock.wall(), "coordinator", "damaged", "update", details)
                continue
            waiting.append(BufferedUpdate(record, delta))
        return waiting

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
        return self._devices.setdefault(name, DeviceStatus(name))

    def use_key(self, key: RunKey) -> None:
        """The run has a new key, with which its programs were signed again."""
        self.key = key
        signatures = {record.name: record for record in self.store.tiers()}
        self.tiers = [dataclasses.replace(tier, record=signatures[tier.name]) for tier in self.tiers]
        self._by_name = {tier.name: tier for tier in self.tiers}

    def forget(self, device: str) -> None:
        """A device was withdrawn."""
        self._devices.pop(device, None)

    def published(self, version: VersionRecord) -> None:
        """There is a new version."""
        self._history.append(version)

    def recent(self, number: int) -> VersionRecord | None:
        """The record of a version, if it is one of the newest."""
        back = self._history[-1].version - number
        record = self._history[-1 - back] if 0 <= back < len(self._history) else None
        return record if record is not None and record.version == number else None

    def merged(self, updates: Sequence[MergedUpdate]) -> None:
        """Count updates that became part of a version."""
        self._staleness.update(update.staleness for update in updates)

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
            merged=self._staleness.total(),
            staleness=dict(sorted(self._staleness.items())),
            devices=tuple(self._devices[name] for name in sorted(self._devices)),
            waits_for=self._waits_for(),
            notice=self.notice,
        )

    @property
    def mean_staleness(self) -> float:
        """Versions that merged updates were old, on average; 0 where none was merged."""
        return sum(tau * count for tau, count in self._staleness.items()) / max(self._staleness.total(), 1)

    @property
    def history(self) -> Sequence[VersionRecord]:
        """The last versions, oldest first."""
        return self._history

    def _waits_for(self) -> str:
        """What a new version waits for, where more updates of the same devices would not do."""
        if self.phase != "running":
            return ""
        missing = self.buffer.missing_contributors
        if missing and len(self.buffer) >= self.buffer.capacity:
            return (
                f"updates of {missing} more devices: {len(self.buffer)} updates wait, of fewer devices than "
                f"merge.min_contributors = {self.config.merge.min_contributors}"
            )
        if all(device.state == "offline" for device in self._devices.values()):
            return "devices: none is connected"
        return ""

    def _deliver(self, update: BufferedUpdate) -> None:
        if update.record.device in self.withdrawn:
            return
        device = self.device(update.record.device)
        device.updates += 1
        device.report = update.record.report
        device.staleness = self.versions.staleness(update.record.version)
        self.buffer.add(update)
        if len(self.buffer) == self.buffer.capacity and self.buffer.missing_contributors:
            log.warning("version %d waits for %s", self.versions.newest.version + 1, self._waits_for())
