"""
What a device's connection needs of its run, wherever that is.

In one process this is the run itself (:class:`~coordinator.run_state.RunState`) and its dispatcher. In a gateway it is
:class:`~coordinator.gateway.run.GatewayRun`, which knows what changes seldom and asks the conductor for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mobile_sdk.clock import Clock, Offload
from mobile_sdk.protocol.messages import Announce, ArtifactRef, Difference, Finished, MergedMessage, Ready, Succession

from ..config import Config
from ..evaluation.federated import FederatedResult
from ..merge.step_sizes import Ranges
from ..merge.sums import Elements
from ..programs.tiers import Tier
from ..scheduling.dispatcher import Applicant
from ..status import DeviceStatus
from ..store.records import AssignmentRecord, DeviceRecord, Enrolment, UpdateRecord, VersionRecord
from ..updates.partial_uploads import Uploads

__all__ = ["ChallengeKey", "ConnectedDevice", "RunAccess", "WorkAccess"]


class ConnectedDevice(Protocol):
    """A connection whose device has proved who it is, as far as its run is concerned."""

    device: str

    def push(self, message: Announce | Finished) -> None:
        """Tell it of a new version, or of the end; does not wait for its link."""
        ...

    def tell(self, message: MergedMessage) -> None:
        """Tell it what became of its update; does not wait for its link."""
        ...

    async def fail(self, code: str, message: str) -> None:
        """Tell it what is wrong, and close."""
        ...

    async def replace(self) -> None:
        """It has a newer connection."""
        ...

    async def leave(self) -> None:
        """Settle the accounts after the connection has ended."""
        ...


class _Versions(Protocol):
    @property
    def newest(self) -> VersionRecord: ...

    def staleness(self, version: int) -> int: ...

    def is_ancestor(self, version: int) -> bool: ...


class _Room(Protocol):
    def enter(self, device: str, *, reserve: bool = False) -> bool: ...

    async def room(self, device: str, *, reserve: bool = False) -> None: ...

    def release(self, device: str) -> None: ...


class _Intake(Protocol):
    async def accept(self, record: UpdateRecord, content: bytes | memoryview, delta: Elements) -> bool: ...


class _Evaluations(Protocol):
    def lost(self, device: str) -> None: ...

    def answer(
        self, device: str, evaluation: str, tier: str, samples: int, metrics: Mapping[str, float]
    ) -> FederatedResult | None: ...


class _Downlink(Protocol):
    async def find(
        self, holds: Sequence[str], weights: Sequence[ArtifactRef], offload: Offload
    ) -> Mapping[Difference, bytes]: ...

    def seek(self, holds: Sequence[str], weights: Sequence[ArtifactRef], offload: Offload) -> None: ...

    def known(self, holds: Sequence[str], weights: Sequence[ArtifactRef]) -> Mapping[Difference, bytes] | None: ...


class _Artifacts(Protocol):
    def path(self, sha256: str) -> Path: ...


class _Devices(Protocol):
    def secret(self, device: str) -> bytes | None: ...

    def find(self, device: str) -> DeviceRecord | None: ...

    def enrol(self, device: str, secret: bytes, at: float, *, token: str | None = None) -> Enrolment: ...

    def add_failure(self, device: str) -> None: ...

    def add_traffic(self, device: str, bytes_up: int, bytes_down: int) -> None: ...

    def seen(self, device: str, at: float, profile: Mapping[str, Any] | None = None) -> None: ...


class _Assignments(Protocol):
    def find(self, assignment: str) -> AssignmentRecord | None: ...

    def close(self, assignment: str) -> None: ...


class _Updates(Protocol):
    def is_accepted(self, assignment: str) -> bool: ...


class _Records(Protocol):
    def get(self, number: int) -> VersionRecord: ...


class _Store(Protocol):
    """Every method blocks."""

    @property
    def artifacts(self) -> _Artifacts: ...

    @property
    def devices(self) -> _Devices: ...

    @property
    def versions(self) -> _Records: ...

    @property
    def assignments(self) -> _Assignments: ...

    @property
    def updates(self) -> _Updates: ...


class ChallengeKey(Protocol):
    """The run's key, as far as devices are to know who speaks for the run; its private half may be elsewhere."""

    @property
    def public(self) -> str:
        """What devices pin, hex."""
        ...

    @property
    def succession(self) -> Sequence[Succession]:
        """How the run's earlier keys led to this one."""
        ...

    async def sign_challenge(self, content: bytes) -> str:
        """The signature of a challenge, hex."""
        ...


class RunAccess(Protocol):
    """A run, as its devices' connections see it; :class:`~coordinator.run_state.RunState` says what each part is."""

    @property
    def config(self) -> Config: ...

    @property
    def key(self) -> ChallengeKey: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def offload(self) -> Offload: ...

    @property
    def finished(self) -> Finished | None: ...

    @property
    def membership(self) -> int: ...

    @property
    def withdrawn(self) -> set[str]: ...

    @property
    def versions(self) -> _Versions: ...

    @property
    def buffer(self) -> _Room: ...

    @property
    def intake(self) -> _Intake: ...

    @property
    def federated(self) -> _Evaluations: ...

    @property
    def downlink(self) -> _Downlink: ...

    @property
    def uploads(self) -> Uploads: ...

    @property
    def store(self) -> _Store: ...

    def tier(self, name: str) -> Tier:
        """A tier by its name. Raises :exc:`~coordinator.errors.StoreError` if there is none."""
        ...

    def device(self, name: str) -> DeviceStatus:
        """The status of a device."""
        ...

    def ranges(self, version: int) -> Mapping[str, Ranges] | None:
        """What the steps of updates of a version follow from; none where others look at them."""
        ...

    def stall(self) -> str:
        """What a new version waits for; empty where nothing is known to be in its way."""
        ...

    async def fetch_part(self, device: str, sha256: str) -> None:
        """Bring here what has come of an upload elsewhere: ``uploads`` goes on with it."""
        ...

    def count_self_check_failure(self) -> None:
        """A device's runtime failed a program's self-check."""
        ...


class WorkAccess(Protocol):
    """Who gives out work; :class:`~coordinator.scheduling.dispatcher.Dispatcher` says what each method does."""

    async def ask(self, applicant: Applicant, ready: Ready) -> None:
        """A device wants work."""
        ...

    def ended(self, device: str, *, returned: bool = True) -> None:
        """Its assignment is over."""
        ...

    def check_quota(self, device: str) -> None:
        """Raises :exc:`~coordinator.scheduling.quota.OverQuota` where bytes are about to flow that may not."""
        ...

    def assignment(self, device: str) -> AssignmentRecord | None:
        """What it is at work on."""
        ...
