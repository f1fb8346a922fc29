"""One run as a gateway knows it: what changes seldom is here, the rest is asked of the conductor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk.clock import Clock, Offload
from mobile_sdk.manifest import Manifest
from mobile_sdk.protocol.messages import ArtifactRef, Finished, Hex, Ready, Succession

from ..config import Config
from ..errors import StoreError, StoreUnavailable
from ..evaluation.federated import FederatedResult
from ..merge.step_sizes import Ranges
from ..merge.sums import Elements
from ..programs.tiers import Tier, unpacked_manifest
from ..scheduling.device_settings import DeviceSettings
from ..scheduling.dispatcher import Applicant
from ..scheduling.quota import Quota
from ..status import DeviceStatus
from ..store.records import AssignmentRecord, TierRecord, UpdateRecord, VersionRecord
from ..updates.partial_uploads import Uploads
from ..versions.differences import Downlink
from ..versions.lineage import Lineage
from .pipe import Pipe
from .remote_store import RemoteStore

__all__ = ["GatewayRun", "Manifests", "artifacts", "read_tiers"]

Manifests = dict[str, tuple[Manifest, npt.NDArray[np.int64]]]

# Versions whose files are remembered: work of earlier ones names its files itself.
KNOWN_VERSIONS = 64


def artifact(data: Mapping[str, Any]) -> ArtifactRef:
    """An artifact's name from its JSON."""
    return ArtifactRef(data["sha256"], data["size"], data["encoding"])


def artifacts(data: Sequence[Mapping[str, Any]]) -> tuple[ArtifactRef, ...]:
    """Several of them."""
    return tuple(map(artifact, data))


class _Versions:
    """Numbers and files of versions, as the conductor announced them."""

    def __init__(self, known: Sequence[Sequence[Any]]) -> None:
        self._lineage = Lineage()
        for version, parent, is_rollback in known:
            self._lineage.place(version, parent, is_rollback=bool(is_rollback))
        self.sent: dict[int, tuple[ArtifactRef, ...]] = {}
        self.newest = VersionRecord(known[-1][0], known[-1][1], (), {}, 0.0)

    def publish(self, record: VersionRecord, sent: Sequence[ArtifactRef], *, placed: bool = False) -> None:
        if not placed:
            self._lineage.place(record.version, record.parent, is_rollback=record.kind == "rollback")
        self.newest = record
        self.sent[record.version] = tuple(sent)
        while len(self.sent) > KNOWN_VERSIONS:
            del self.sent[next(iter(self.sent))]

    def staleness(self, version: int) -> int:
        return self._lineage.staleness(version)

    def is_ancestor(self, version: int) -> bool:
        return self._lineage.is_ancestor(version)


class _Room:
    """The buffer: whether it takes more just now, as the conductor said last. A place is taken when an update is."""

    def __init__(self, pipe: Pipe, run: str) -> None:
        self._pipe = pipe
        self._run = run
        self.open = True

    def enter(self, device: str, *, reserve: bool = False) -> bool:
        return self.open or reserve

    async def room(self, device: str, *, reserve: bool = False) -> None:
        if not self.enter(device, reserve=reserve):
            await self._pipe.ask({"m": "room", "r": self._run, "device": device})

    def release(self, device: str) -> None:
        """Nothing is held here."""


class _Intake:
    """Updates, valid as far as this process sees; the conductor writes them down."""

    def __init__(self, pipe: Pipe, run: str, moved: Mapping[str, DeviceStatus]) -> None:
        self._pipe = pipe
        self._run = run
        self._moved = moved

    async def accept(self, record: UpdateRecord, content: bytes | memoryview, delta: Elements) -> bool:
        status = self._moved.get(record.device)
        moved = (0, 0) if status is None else (status.current.up, status.current.down)
        # What else is in the record the conductor knows, and from nobody else.
        said = {
            "assignment": record.assignment,
            "device": record.device,
            "sha256": record.artifact.sha256,
            "report": record.report,
        }
        question = {"m": "accept", "r": self._run, "record": said, "moved": moved}
        return bool((await self._pipe.ask(question, content))["new"])


class _Evaluations:
    def __init__(self, pipe: Pipe, run: str) -> None:
        self._pipe = pipe
        self._run = run

    def lost(self, device: str) -> None:
        self._pipe.send({"m": "evaluation_lost", "r": self._run, "device": device})

    def answer(
        self, device: str, evaluation: str, tier: str, samples: int, metrics: Mapping[str, float]
    ) -> FederatedResult | None:
        values = {"device": device, "evaluation": evaluation, "tier": tier, "samples": samples, "metrics": metrics}
        self._pipe.send({"m": "evaluated", "r": self._run, **values})
        return None


class _Key:
    """The run's key, which the conductor keeps: it signs nothing but challenges for a gateway."""

    def __init__(self, pipe: Pipe, run: str, said: Mapping[str, Any]) -> None:
        self._pipe = pipe
        self._run = run
        self.public: str = said["public"]
        self.succession = tuple(Succession(Hex(step["key"]), Hex(step["signature"])) for step in said["succession"])

    async def sign_challenge(self, content: bytes) -> str:
        answer = await self._pipe.ask({"m": "sign", "r": self._run, "challenge": content.hex()})
        if answer["key"] != self.public:
            raise StoreUnavailable("the run has a new key since this moment")
        signature: str = answer["signature"]
        return signature


class GatewayRun:
    """
    The :class:`~coordinator.sessions.access.RunAccess` and :class:`~coordinator.sessions.access.WorkAccess` of a run
    that another process conducts.

    Args:
        pipe: to the conductor.
        said: its message ``run``.
        tiers: of the run, smallest first.
        store: the conductor's.
        folder: for what has come of uploads.
        shared: whether other processes find it there; else the conductor keeps what breaks off.
        clock: where the time comes from.
        offload: runs what must not block the event loop.

    """

    def __init__(
        self,
        pipe: Pipe,
        said: Mapping[str, Any],
        tiers: Sequence[Tier],
        store: RemoteStore,
        folder: Path,
        *,
        shared: bool,
        clock: Clock,
        offload: Offload,
    ) -> None:
        self.name: str = said["r"]
        self.config = Config.model_validate(said["config"])
        self.key = _Key(pipe, self.name, said["key"])
        self.clock = clock
        self.offload = offload
        self.store = store
        self.tiers = {tier.name: tier for tier in tiers}
        self.versions = _Versions(said["versions"])
        self.membership = 0  # the conductor looks again when a device has proved itself
        self.withdrawn: set[str] = set()
        self.finished: Finished | None = None
        self.present = 0  # devices that are connected, at whatever gateway
        self._pipe = pipe
        self._devices: dict[str, DeviceStatus] = {}
        self._open: dict[str, AssignmentRecord] = {}
        self.buffer = _Room(pipe, self.name)
        self.intake = _Intake(pipe, self.name, self._devices)
        self.federated = _Evaluations(pipe, self.name)
        self.downlink = Downlink(store.artifacts)
        # Whatever is acknowledged of an upload outlives this process: the device goes on at another gateway here.
        self._shared = shared
        self.uploads = Uploads(folder / "incoming", spool_seconds=0.0)
        self._quota = Quota(self.config.limits.bytes_per_day)
        self._settings = DeviceSettings(self.config.training)

    def renew(self, said: Mapping[str, Any], tiers: Sequence[Tier]) -> None:
        """The run has a new key, which has signed its programs again."""
        self.key = _Key(self._pipe, self.name, said["key"])
        self.tiers = {tier.name: tier for tier in tiers}

    def tier(self, name: str) -> Tier:
        """
        A tier by its name.

        Raises:
            StoreError: if the run has no such tier.

        """
        if name not in self.tiers:
            raise StoreError(f"the run has no tier {name!r}")
        return self.tiers[name]

    def settings_for(self, device: str) -> Mapping[str, Any]:
        """What a device is asked to do; as the conductor's own devices would be."""
        return self._settings.of(self.device(device).samples)

    def device(self, name: str) -> DeviceStatus:
        """The status of a device that is connected here."""
        known = self._devices.get(name)
        return known if known is not None else self._devices.setdefault(name, DeviceStatus(name))

    def ranges(self, version: int) -> Mapping[str, Ranges] | None:
        """The conductor looks at the steps of updates: it knows what they follow from."""
        return None

    def stall(self) -> str:
        """Nothing that is known here."""
        return ""

    async def fetch_part(self, device: str, sha256: str) -> None:
        """Bring here what has come of an upload at another machine's gateway."""
        if self._shared or self.uploads.has(device, sha256):
            return
        offset, size = 0, 1
        while offset < size:
            question = {"m": "part", "r": self.name, "device": device, "sha256": sha256, "offset": offset}
            answer = await self._pipe.ask(question)
            size, content = answer["size"], answer["content"]
            if not content:
                return
            await self.offload(self.uploads.put, device, sha256, offset, content)
            offset += len(content)

    async def keep_part(self, device: str) -> None:
        """The device's connection broke: what has come of an upload goes to where any gateway finds it."""
        part = None if self._shared else await self.offload(self.uploads.take, device)
        if part is None:
            return
        ref, content = part
        question = {"m": "keep_part", "r": self.name, "device": device, "sha256": ref.sha256, "size": ref.size}
        try:
            await self._pipe.ask(question, content)
        except StoreUnavailable:  # it is good here at least
            await self.offload(self.uploads.put, device, ref.sha256, 0, content)

    def count_self_check_failure(self) -> None:
        """A device's runtime failed a program's self-check."""
        self._pipe.send({"m": "self_check_failure", "r": self.name})

    # Work.

    async def ask(self, applicant: Applicant, ready: Ready) -> None:
        """A device wants work; the conductor sends it when it is its turn."""
        status = self.device(applicant.device)
        moved = status.current.up, status.current.down
        self._pipe.send({"m": "ask", "r": self.name, "device": applicant.device, "ready": vars(ready), "moved": moved})

    def ended(self, device: str, *, returned: bool = True) -> None:
        """Its assignment is over; the conductor knows of an update that it has accepted."""
        self._open.pop(device, None)
        if not returned:
            self._pipe.send({"m": "ended", "r": self.name, "device": device})

    def check_quota(self, device: str) -> None:
        """
        To be called where bytes are about to flow.

        Raises:
            OverQuota: if the device has moved as many bytes as it may in a day, as far as is known here.

        """
        if self._quota.is_limited:
            self._quota.check(device, self.device(device), self.clock.wall())

    def assignment(self, device: str) -> AssignmentRecord | None:
        """What a device is at work on."""
        return self._open.get(device)

    # What the conductor says.

    def opened(self, device: str, said: Mapping[str, Any]) -> None:
        """The conductor knows that the device is here: what it has moved before, and what it is at work on."""
        status = self.device(device)
        status.earlier.up, status.earlier.down = said["earlier"]
        self._open.pop(device, None)
        if said["assignment"] is not None:
            self._open[device] = AssignmentRecord(**said["assignment"])

    def gone(self, device: str) -> None:
        """The device's last connection here has ended."""
        self._devices.pop(device, None)
        self._open.pop(device, None)

    def assigned(self, device: str, said: Mapping[str, Any]) -> tuple[Tier, tuple[ArtifactRef, ...]]:
        """A device gets work, or is to evaluate: its tier, and the files of the version."""
        tier = self.tier(said["tier"])
        if said["graph"]:
            tier = dataclasses.replace(tier, served=tier.record.graph)
        if "number" in said:
            record = AssignmentRecord(said["number"], device, said["version"], tier.name, self.clock.wall(), True)
            self._open[device] = record
        weights = artifacts(said["weights"]) if "weights" in said else self.versions.sent[said["version"]]
        return tier, weights


def read_tiers(said: Mapping[str, Any], store: RemoteStore, state_copies: int, known: Manifests) -> list[Tier]:
    """
    The programs of a message ``run``. Blocks.

    Args:
        said: the message.
        store: the conductor's.
        state_copies: of the optimiser's state on devices.
        known: manifests by their hashes, and what they train; others are added.

    """
    tiers = []
    for data in said["tiers"]:
        names = {"manifest": artifact(data["manifest"]), "program": artifact(data["program"])}
        graph = None if data["graph"] is None else artifact(data["graph"])
        record = TierRecord(**{**data, **names, "graph": graph})
        sha256 = record.manifest.sha256
        if sha256 not in known:
            manifest = Manifest.from_bytes(unpacked_manifest(store.artifacts, record))
            known[sha256] = manifest, manifest.subset.positions()
        tiers.append(Tier(record, *known[sha256], state_copies=state_copies))
    return tiers
