"""What the store holds, one value for each kind of row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef

__all__ = [
    "AssignmentRecord",
    "AssignmentRequest",
    "AuditEntry",
    "DeviceRecord",
    "DiscardedUpdate",
    "Enrolment",
    "LeaseRecord",
    "MergeHistory",
    "MergedUpdate",
    "Phase",
    "RunRecord",
    "SetAside",
    "TierRecord",
    "TokenRecord",
    "TripRecord",
    "UpdateRecord",
    "VersionKind",
    "VersionOutline",
    "VersionPoint",
    "VersionRecord",
]

# Where a run stands in its life.
Phase = Literal["created", "running", "paused", "draining", "finished"]


# What became of a device's wish to enrol: it is in; its name has another owner; its token is unknown, used up,
# expired or revoked; it was revoked itself.
Enrolment = Literal["enrolled", "taken", "token", "revoked"]


# How a version came to be.
VersionKind = Literal["initial", "merge", "rollback"]


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
    """
    A program as it is sent: signed manifest, and the packed files that engines run, ``.pte`` and graph.

    Programs of earlier releases have no graph.
    """

    name: str
    serial: int
    budget_bytes: int
    manifest: ArtifactRef
    signature: str
    program: ArtifactRef
    graph: ArtifactRef | None


@dataclasses.dataclass(frozen=True)
class SetAside:
    """
    Nothing of a device is merged, and it gets no work, until the wall time ``until``.

    ``reason`` is a word, one of :data:`coordinator.merge.defence.REASONS`; ``why`` a sentence.
    """

    until: float
    reason: str
    why: str


@dataclasses.dataclass(frozen=True)
class DeviceRecord:
    """
    A device that has enrolled.

    ``report`` is that of its last update; ``updates`` counts those accepted, ``failures`` what went wrong. ``alias`` is
    what the audit log calls it; ``token`` the id of the token that let it in; ``profile`` what it said of itself;
    ``aside`` whether it was set aside last, which may be over.
    """

    id: str
    tier: str
    bytes_up: int
    bytes_down: int
    updates: int
    report: Mapping[str, Any]
    alias: str = ""
    token: str = ""
    enrolled_at: float = 0.0
    last_seen: float | None = None
    failures: int = 0
    revoked_at: float | None = None
    profile: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    aside: SetAside | None = None


@dataclasses.dataclass(frozen=True)
class TokenRecord:
    """
    What lets devices enrol. Only the token's SHA-256 is kept (``digest``, hex).

    ``uses_left`` is 1 for a one-time token, none for one without a limit.
    """

    id: str
    digest: str
    uses_left: int | None
    expires_at: float | None
    created_at: float
    revoked_at: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class AuditEntry:
    """
    A line of the append-only audit log: who did what to what.

    ``hash`` is the SHA-256 over the line and the hash of the one before, so a line cannot be changed or taken
    out without rewriting all that follow. Devices appear by their alias.
    """

    number: int
    at: float
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]
    hash: str


@dataclasses.dataclass(frozen=True)
class LeaseRecord:
    """
    The lead of a run: who has it, its epoch, and for how many seconds more unless it is renewed.

    ``address`` is where the leader waits for gateways of other machines; empty where it does not.
    """

    holder: str
    epoch: int
    seconds_left: float
    address: str = ""


@dataclasses.dataclass(frozen=True)
class AssignmentRequest:
    """Work that a device is to be given; past ``deadline`` (wall time) it may be given to another."""

    device: str
    version: int
    tier: str
    at: float
    deadline: float | None = None


@dataclasses.dataclass(frozen=True)
class AssignmentRecord:
    """Work that a device was given. ``number`` counts up over the run and seeds the device's training."""

    number: int
    device: str
    version: int
    tier: str
    issued_at: float
    open: bool
    deadline: float | None = None

    @property
    def id(self) -> str:
        """The assignment's name; sorts in the order of issue."""
        return f"a{self.number:08d}"


@dataclasses.dataclass(frozen=True)
class UpdateRecord:
    """An accepted update: the assignment it answers, and its bytes' hash and size. Its id is the assignment's."""

    assignment: str
    device: str
    version: int
    tier: str
    artifact: FileEntry
    report: Mapping[str, Any]
    received_at: float


@dataclasses.dataclass(frozen=True)
class MergedUpdate:
    """How an update was merged into a version; ``into`` is its number where the store gives the record back."""

    assignment: str
    staleness: int
    weight: float
    into: int = dataclasses.field(default=-1, compare=False)


@dataclasses.dataclass(frozen=True)
class MergeHistory:
    """
    What all merges of a run come to.

    ``sizes`` are the merges' numbers of updates, oldest first; ``stalenesses`` how many updates had each staleness;
    ``newest`` the stalenesses of the newest updates, in the order of merges, and of arrival within each.
    """

    sizes: Sequence[int]
    stalenesses: Mapping[int, int]
    newest: Sequence[int]


@dataclasses.dataclass(frozen=True)
class DiscardedUpdate:
    """
    An accepted update that became part of no version, and why.

    ``reason`` is ``stale``, ``outlier``, ``not-finite``, ``rolled-back``, ``withdrawn`` or ``damaged``.
    """

    assignment: str
    reason: str


@dataclasses.dataclass(frozen=True)
class VersionRecord:
    """
    A version of the weights. Numbers are never used again; ``parent`` is -1 for version 0.

    ``weights`` is what devices get; ``private`` what the coordinator alone needs of it, by name, such as the state of
    the server's optimiser. The files of a ``pruned`` version are gone.
    """

    version: int
    parent: int
    weights: tuple[ArtifactRef, ...]
    metrics: Mapping[str, float]
    created_at: float
    kind: VersionKind = "merge"
    private: Mapping[str, ArtifactRef] = dataclasses.field(default_factory=dict)
    pruned: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class VersionOutline:
    """A version without its files, of which there may be many thousands."""

    version: int
    parent: int
    kind: VersionKind
    metrics: Mapping[str, float]
    pruned: bool


@dataclasses.dataclass(frozen=True)
class TripRecord:
    """
    The way of one update, from the assignment to what became of it. Times are wall times in seconds since 1970.

    ``arrival`` counts accepted updates; ``device`` is none once it was withdrawn; ``version`` is what it trained from.
    ``bytes_up`` is the size of the update. ``issued_at`` is none where the assignment was forgotten. One that waits has
    neither ``merged_into`` nor ``discarded``.
    """

    arrival: int
    assignment: str
    device: str | None
    version: int
    tier: str
    bytes_up: int
    issued_at: float | None
    received_at: float
    report: Mapping[str, Any]
    merged_into: int | None
    merged_at: float | None
    staleness: int | None
    weight: float | None
    discarded: str | None


@dataclasses.dataclass(frozen=True)
class VersionPoint:
    """
    A version as a point of the run's curves.

    ``updates`` were merged into it, with mean ``staleness`` in versions and mean ``weight`` from 0 to 1; ``bytes_up``
    is their size.
    """

    version: int
    parent: int
    kind: VersionKind
    created_at: float
    metrics: Mapping[str, float]
    updates: int
    staleness: float | None
    weight: float | None
    bytes_up: int
