"""
What is durable, as one small interface.

Everything the coordinator must not forget goes through :class:`Store`. Each method is one
transaction: when it returns, a power cut changes nothing; when it raises, nothing happened.
Methods block, so they are called through ``offload``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef

__all__ = [
    "AssignmentRecord",
    "DeviceRecord",
    "MergedUpdate",
    "RunRecord",
    "Store",
    "TierRecord",
    "UpdateRecord",
    "VersionRecord",
]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """
    What a run is made of; never changes.

    ``plans`` is what the programs were planned from (task and budgets), to notice a changed run file.
    ``evaluation`` is the held-out data as a safetensors artifact with ``x`` and ``y``, or empty.
    """

    name: str
    plans: Mapping[str, Any]
    evaluation: str
    created_at: float


@dataclasses.dataclass(frozen=True)
class TierRecord:
    """A program as it is sent: signed manifest and packed ``.pte``."""

    name: str
    serial: int
    budget_bytes: int
    manifest: ArtifactRef
    signature: str
    program: ArtifactRef


@dataclasses.dataclass(frozen=True)
class DeviceRecord:
    """A device that has enrolled. ``report`` is that of its last update; ``updates`` counts those accepted."""

    id: str
    tier: str
    bytes_up: int
    bytes_down: int
    updates: int
    report: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class AssignmentRecord:
    """Work that a device was given. ``number`` counts up over the run and seeds the device's training."""

    number: int
    device: str
    version: int
    tier: str
    issued_at: float
    open: bool

    @property
    def id(self) -> str:
        """The assignment's name; sorts in the order of issue."""
        return f"a{self.number:08d}"


@dataclasses.dataclass(frozen=True)
class UpdateRecord:
    """An accepted update: the assignment it answers and the file that holds it. Its id is the assignment's."""

    assignment: str
    device: str
    version: int
    tier: str
    artifact: FileEntry
    report: Mapping[str, Any]
    received_at: float


@dataclasses.dataclass(frozen=True)
class MergedUpdate:
    """How an update was merged into a version."""

    assignment: str
    staleness: int
    weight: float


@dataclasses.dataclass(frozen=True)
class VersionRecord:
    """A version of the weights. Numbers are never used again; ``parent`` is -1 for version 0."""

    version: int
    parent: int
    weights: tuple[ArtifactRef, ...]
    metrics: Mapping[str, float]
    created_at: float


class Store(Protocol):
    """The durable state of one run."""

    def close(self) -> None:
        """Let another process use it."""
        ...

    # Artifacts.

    def put(self, content: bytes) -> FileEntry:
        """Keep a file by its content."""
        ...

    def artifact(self, sha256: str) -> Path:
        """Where a file is. Raises :exc:`~coordinator.errors.StoreError` if it is not there."""
        ...

    # The run.

    def run(self) -> RunRecord | None:
        """The run, or none before :meth:`create`."""
        ...

    def create(self, run: RunRecord, tiers: Sequence[TierRecord], version: VersionRecord) -> None:
        """Begin: the run, its programs, and version 0."""
        ...

    def tiers(self) -> list[TierRecord]:
        """The programs, smallest budget first."""
        ...

    # Devices.

    def secret(self, device: str) -> bytes | None:
        """The secret that a device enrolled with, or none."""
        ...

    def enrol(self, device: str, secret: bytes, at: float) -> bool:
        """Remember a device; false if the name is taken with another secret."""
        ...

    def devices(self) -> list[DeviceRecord]:
        """All devices, by name."""
        ...

    def add_traffic(self, device: str, bytes_up: int, bytes_down: int) -> None:
        """Count bytes that went over the wire."""
        ...

    # Assignments.

    def assign(self, device: str, version: int, tier: str, at: float) -> AssignmentRecord:
        """Give a device work; what it had open is closed."""
        ...

    def assignment(self, assignment: str) -> AssignmentRecord | None:
        """An assignment by its name."""
        ...

    def open_assignment(self, device: str) -> AssignmentRecord | None:
        """What a device is working on."""
        ...

    def close_assignment(self, assignment: str) -> None:
        """The device gave it back, or its update was refused."""
        ...

    # Updates.

    def accept(self, updates: Sequence[tuple[UpdateRecord, bytes]]) -> set[str]:
        """Write updates down, many at once; returns the assignments that were not known before."""
        ...

    def is_accepted(self, assignment: str) -> bool:
        """Whether the update of an assignment is written down, merged or not."""
        ...

    def buffered(self) -> list[UpdateRecord]:
        """Accepted updates that are not merged yet, in the order they came."""
        ...

    # Versions.

    def latest(self) -> VersionRecord:
        """The newest version."""
        ...

    def version(self, number: int) -> VersionRecord:
        """A version by its number. Raises :exc:`~coordinator.errors.StoreError` if there is none."""
        ...

    def versions(self) -> list[VersionRecord]:
        """Every version, oldest first."""
        ...

    def commit(self, version: VersionRecord, merged: Sequence[MergedUpdate]) -> None:
        """A new version and the list of what it consumed, as one. Raises if any of it was consumed before."""
        ...

    def merged(self) -> list[MergedUpdate]:
        """Every merged update, oldest first."""
        ...
