"""
What is durable, as small interfaces: one per kind of row, and :class:`Store`, which holds them together.

A class that needs one kind of row takes that interface alone. Each method is one transaction: when it returns, a
power cut changes nothing; when it raises, nothing happened. Methods block, so they are called through ``offload``.

``by`` in a call is who asked for it: an operator's name, ``coordinator``, or a token's id. The audit log keeps it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from mobile_sdk.manifest import FileEntry

from .records import (
    AssignmentRecord,
    AssignmentRequest,
    AuditEntry,
    DeviceRecord,
    DiscardedUpdate,
    Enrolment,
    LeaseRecord,
    MergedUpdate,
    MergeHistory,
    Phase,
    RunRecord,
    SetAside,
    TierRecord,
    TokenRecord,
    TripRecord,
    UpdateRecord,
    VersionOutline,
    VersionPoint,
    VersionRecord,
)

__all__ = [
    "ArtifactFiles",
    "ArtifactStore",
    "AssignmentStore",
    "AuditLog",
    "DeviceOrder",
    "DeviceStore",
    "LeaseStore",
    "Store",
    "TokenStore",
    "UpdateStore",
    "VersionStore",
]


# What a list of devices can be sorted by.
DeviceOrder = Literal["id", "tier", "updates", "failures", "bytes_up", "bytes_down", "last_seen", "enrolled_at"]


class ArtifactFiles(Protocol):
    """Files, addressed by the SHA-256 of their content."""

    def path(self, sha256: str) -> Path:
        """
        Where a file is.

        Raises:
            StoreError: if it is not there.

        """
        ...

    def verified(self, sha256: str) -> Path:
        """
        Where a file is, after reading it in full.

        Raises:
            StoreError: if it is not there, or its content has another hash.

        """
        ...


class ArtifactStore(ArtifactFiles, Protocol):
    """Where files are kept, too."""

    def put(self, *contents: bytes) -> list[FileEntry]:
        """Keep files. Until a record names them, they are kept for this process only."""
        ...


class AuditLog(Protocol):
    """The append-only log of who did what to what."""

    def write(self, at: float, actor: str, action: str, subject: str, details: Mapping[str, Any]) -> None:
        """
        Append a line.

        Args:
            at: wall time.
            actor: who did it.
            action: what was done.
            subject: to what; devices by their alias.
            details: anything that JSON can hold.

        """
        ...

    def entries(self) -> list[AuditEntry]:
        """
        Every line, oldest first.

        Raises:
            StoreError: if the hashes do not fit: somebody has changed the log.

        """
        ...

    def newest(self, limit: int, after: int = 0) -> list[AuditEntry]:
        """The newest ``limit`` lines of those after line ``after``, oldest first. Their hashes are not checked."""
        ...


class TokenStore(Protocol):
    """What lets devices enrol."""

    def add(self, token: TokenRecord, *, by: str) -> None:
        """Remember a token."""
        ...

    def all(self) -> list[TokenRecord]:
        """All tokens, oldest first."""
        ...

    def revoke(self, token: str, at: float, *, by: str) -> bool:
        """
        Let nobody enrol with a token any more. False if there is no such token.

        Args:
            token: its id.
            at: wall time.
            by: who asked for it.

        """
        ...


class DeviceStore(Protocol):
    """Devices that have enrolled."""

    def secret(self, device: str) -> bytes | None:
        """The secret that a device enrolled with, or None."""
        ...

    def enrol(self, device: str, secret: bytes, at: float, *, token: str | None = None) -> Enrolment:
        """
        Remember a device.

        Args:
            device: its name.
            secret: what it will answer challenges with.
            at: wall time.
            token: SHA-256 (hex) of the token it gave, of which one use is spent; None if it needs none.

        """
        ...

    def find(self, device: str) -> DeviceRecord | None:
        """One device, or None."""
        ...

    def all(self) -> list[DeviceRecord]:
        """All devices, by name."""
        ...

    def page(
        self,
        search: str,
        order: DeviceOrder,
        *,
        descending: bool,
        offset: int,
        limit: int,
        among: Collection[str] | None = None,
    ) -> tuple[int, list[DeviceRecord]]:
        """
        A part of a sorted list of devices.

        Args:
            search: part of the device's name, its tier or its model, in any case of letters; empty: all.
            order: what to sort by, then by name.
            descending: the largest first.
            offset: how many come before.
            limit: how many to give.
            among: only devices of these names; none: all.

        Returns:
            How many there are in all, and the records.

        """
        ...

    def seen(self, device: str, at: float, profile: Mapping[str, Any] | None = None) -> None:
        """
        Note that a device was here, and what it said of itself.

        Args:
            device: its name.
            at: wall time.
            profile: engine, budget and the like; :obj:`None` leaves what is known.

        """
        ...

    def add_traffic(self, device: str, bytes_up: int, bytes_down: int) -> None:
        """
        Count bytes that went over the wire.

        Args:
            device: its name.
            bytes_up: from the device.
            bytes_down: to the device.

        """
        ...

    def add_failure(self, device: str) -> None:
        """Count something that went wrong with a device: given back, refused, overdue."""
        ...

    def set_aside(self, device: str, aside: SetAside, at: float) -> None:
        """Remember that nothing of a device is merged for a while, and why; its open assignment is closed."""
        ...

    def revoke(self, device: str, at: float, *, by: str) -> bool:
        """
        Keep a device out from now on and close its open assignment. False if there is no such device.

        Args:
            device: its name.
            at: wall time.
            by: who asked for it.

        """
        ...

    def withdraw(self, device: str, at: float, *, by: str) -> list[str] | None:
        """
        Delete a device: its record, its assignments, and its updates that wait to be merged.

        What was merged stays, without its name. Returns the assignments of the updates that were
        stopped; None if there is no such device.

        Args:
            device: its name.
            at: wall time.
            by: who asked for it.

        """
        ...


class AssignmentStore(Protocol):
    """What devices are given to do. A device has at most one open assignment."""

    def assign(self, requests: Sequence[AssignmentRequest]) -> list[AssignmentRecord]:
        """
        Give devices work, in the order of ``requests``. An assignment that a device had open is closed.

        Raises:
            Expelled: if one of them was revoked or withdrawn; then none gets work.

        """
        ...

    def find(self, assignment: str) -> AssignmentRecord | None:
        """An assignment by the name that was given out, or None."""
        ...

    def open(self) -> list[AssignmentRecord]:
        """Every open assignment, oldest first."""
        ...

    def close(self, assignment: str) -> None:
        """Close an assignment: the device gave it back, or its update was refused."""
        ...

    def prune(self, before: float) -> int:
        """
        Forget assignments that ended without an update and were given out before the wall time ``before``; how many.

        What was handed in keeps its assignment: the device may ask again whether it arrived.
        """
        ...


class UpdateStore(Protocol):
    """Updates that devices were promised will be merged."""

    def accept(self, updates: Sequence[tuple[UpdateRecord, bytes | memoryview]]) -> set[str]:
        """
        Write updates down, many at once. Returns the assignments that were not known before.

        Raises:
            Expelled: if the device of one of them was revoked or withdrawn; then none is written down.

        """
        ...

    def is_accepted(self, assignment: str) -> bool:
        """Whether the update of an assignment was written down, unless the disk has lost it since."""
        ...

    def taken_in(self, artifacts: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """
        Which artifacts are updates that were written down, unless the disk has lost them since.

        Args:
            artifacts: device and SHA-256 of each.

        """
        ...

    def buffered(self) -> list[UpdateRecord]:
        """Accepted updates that are not merged yet, in the order they came."""
        ...

    def arrived(self, after: int) -> list[tuple[int, UpdateRecord]]:
        """
        The buffered updates of a higher arrival than ``after``, each with its arrival, in order.

        Arrivals become visible in their order: whoever asks again with the highest that it has seen misses none.
        """
        ...

    def content(self, assignment: str) -> bytes:
        """
        The bytes of a buffered update.

        Raises:
            StoreError: if they are damaged or gone.

        """
        ...

    def discard(self, updates: Sequence[DiscardedUpdate]) -> None:
        """
        Erase accepted updates that shall become part of no version.

        Raises:
            StoreError: if any of them was merged or discarded before, or never accepted; then none is discarded.

        """
        ...

    def merged(self) -> list[MergedUpdate]:
        """Every merged update, oldest first."""
        ...

    def merge_history(self, newest: int) -> MergeHistory:
        """What :meth:`merged` comes to, with the stalenesses of the ``newest`` updates; reads little of each."""
        ...

    def trips(self, limit: int, *, after: int = 0, device: str | None = None) -> list[TripRecord]:
        """
        The newest trips, oldest first.

        Args:
            limit: the most that are given.
            after: only those of a higher ``arrival``.
            device: only those of one device.

        """
        ...


class VersionStore(Protocol):
    """The weights over time."""

    def latest(self) -> VersionRecord:
        """
        The newest version.

        Raises:
            StoreError: if no run has begun.

        """
        ...

    def next_number(self) -> int:
        """The number of the next version: above every number that was ever used."""
        ...

    def get(self, number: int) -> VersionRecord:
        """
        A version by its number.

        Raises:
            StoreError: if there is none.

        """
        ...

    def all(self) -> list[VersionRecord]:
        """Every version, oldest first."""
        ...

    def newest(self, count: int) -> list[VersionRecord]:
        """The newest ``count`` versions, oldest first."""
        ...

    def outlines(self) -> list[VersionOutline]:
        """Every version without its files, oldest first."""
        ...

    def points(self, after: int = -1, most: int = 2_000) -> list[VersionPoint]:
        """
        The run's curves, oldest first.

        Args:
            after: only versions above this number.
            most: where there are more versions, every n-th of them is left, and the newest.

        """
        ...

    def commit(
        self, version: VersionRecord, merged: Sequence[MergedUpdate], discarded: Sequence[DiscardedUpdate] = ()
    ) -> None:
        """
        Write a new version and the list of what it consumed, as one; then erase what it consumed.

        Args:
            version: with the files that hold it.
            merged: updates that are part of it, with staleness and weight.
            discarded: updates that are erased without being part of it.

        Raises:
            StoreError: if any of it was consumed before, or was never accepted; then there is no new version.

        """
        ...

    def rollback(
        self, version: VersionRecord, discarded: Sequence[DiscardedUpdate], closed: Sequence[str], *, by: str, why: str
    ) -> None:
        """
        Write a version that repeats an older one, its ``parent``, and end what built on the versions in between.

        Args:
            version: the new version.
            discarded: updates that are based on versions in between.
            closed: assignments that are based on versions in between.
            by: who asked for it.
            why: for the audit log.

        """
        ...

    def prune(self, keep: Callable[[Sequence[VersionRecord]], Collection[int]], since: float) -> list[int]:
        """
        Forget the files of versions; their records stay.

        Args:
            keep: given the versions that have files, oldest first, the numbers to keep. Kept in any case are the
                newest, and those that waiting updates are based on.
            since: so are those that a device was given after this wall time.

        Returns:
            The numbers that were pruned.

        """
        ...


class LeaseStore(Protocol):
    """
    Which process leads the run: at most one at a time, by a lease that it renews.

    Each lease has an epoch, above that of every lease before. Once a store has taken the lease, each of its writes is
    fenced: where the run's epoch is another by then, it raises :exc:`~coordinator.errors.Superseded` and nothing
    happens. So a leader that was stopped for a while, and has a successor, writes nothing when it wakes.
    """

    def take(self, holder: str, seconds: float) -> int | None:
        """
        Take the lease where nobody has it, or it has run out; by the clock of the database.

        Args:
            holder: who takes it, for people: a machine and a process.
            seconds: for how long.

        Returns:
            The lease's epoch; none where another holds it.

        """
        ...

    def renew(self, seconds: float) -> bool:
        """Hold the lease for ``seconds`` from now on; false where another has taken it, or nobody here did."""
        ...

    def announce(self, address: str) -> None:
        """Say where the holder waits for gateways, ``HOST:PORT``; forgotten when another takes the lease."""
        ...

    def release(self) -> None:
        """Let another take the lease at once. What this store writes afterwards is fenced still."""
        ...

    @property
    def lost(self) -> bool:
        """Whether another has taken the lease that this store had."""
        ...

    def look(self) -> bool:
        """Ask the database whether another has taken the lease that this store had; :attr:`lost` says so then."""
        ...

    def current(self) -> LeaseRecord | None:
        """Who holds the lease; none where nobody does, or it has run out."""
        ...


class Store(Protocol):
    """The durable state of one run."""

    @property
    def artifacts(self) -> ArtifactStore:
        """The files that records name."""
        ...

    @property
    def versions(self) -> VersionStore:
        """The weights over time."""
        ...

    @property
    def updates(self) -> UpdateStore:
        """Accepted updates."""
        ...

    @property
    def assignments(self) -> AssignmentStore:
        """What devices are given to do."""
        ...

    @property
    def devices(self) -> DeviceStore:
        """Who takes part."""
        ...

    @property
    def tokens(self) -> TokenStore:
        """What lets devices enrol."""
        ...

    @property
    def audit(self) -> AuditLog:
        """Who did what to what."""
        ...

    @property
    def lease(self) -> LeaseStore:
        """Which process leads the run."""
        ...

    def close(self) -> None:
        """Let another process use the state."""
        ...

    def collect(self) -> int:
        """Remove artifacts that no record names any more; how many."""
        ...

    def read_ahead(self, *, versions: int = 0, updates: int = 0) -> contextlib.AbstractContextManager[None]:
        """
        What a run needs to begin is read at once, and remembered while the context lasts or until something is written.

        Only for the process that leads.

        Args:
            versions: of which the newest so many are asked for, and
            updates: the stalenesses of the newest so many that were merged.

        """
        ...

    def run(self) -> RunRecord | None:
        """The run, or None before :meth:`create`."""
        ...

    def create(
        self, run: RunRecord, tiers: Sequence[TierRecord], version: VersionRecord, *, by: str = "coordinator"
    ) -> None:
        """
        Begin: write the run, its programs, and version 0.

        Args:
            run: its row.
            tiers: its programs.
            version: version 0.
            by: who asked for it.

        """
        ...

    def tiers(self) -> list[TierRecord]:
        """The programs, smallest budget first."""
        ...

    def sign(self, signatures: Mapping[str, str]) -> None:
        """Replace the signatures of programs, by tier: the run has a new key."""
        ...

    def phase(self) -> tuple[Phase, str]:
        """The run's phase, and the reason that was given for it."""
        ...

    def set_phase(self, phase: Phase, reason: str, at: float, *, by: str) -> None:
        """
        Put the run into another phase.

        Args:
            phase: the new one.
            reason: for operators.
            at: wall time.
            by: who asked for it.

        """
        ...

    def started_at(self, now: float) -> float:
        """Wall time at which the run first served devices; that is ``now`` if it never did."""
        ...
