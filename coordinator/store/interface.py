"""
What is durable, as one small interface.

Everything the coordinator must not forget goes through :class:`Store`. Each method is one
transaction: when it returns, a power cut changes nothing; when it raises, nothing happened.
Methods block, so they are called through ``offload``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mobile_sdk.manifest import FileEntry

from .records import (
    AssignmentRecord,
    AssignmentRequest,
    AuditEntry,
    DeviceRecord,
    DiscardedUpdate,
    Enrolment,
    MergedUpdate,
    Phase,
    RunRecord,
    TierRecord,
    TokenRecord,
    UpdateRecord,
    VersionRecord,
)

__all__ = ["Store"]


class Store(Protocol):
    """
    The durable state of one run.

    ``by`` in a call is who asked for it: an operator's name, ``coordinator``, or a token's id. The audit log keeps it.
    """

    def close(self) -> None:
        """Let another process use it."""
        ...

    # Artifacts.

    def put(self, *contents: bytes) -> list[FileEntry]:
        """Keep files by their content. Until a record names them, they are kept for this process only."""
        ...

    def artifact(self, sha256: str) -> Path:
        """Where a file is. Raises :exc:`~coordinator.errors.StoreError` if it is not there."""
        ...

    def verified(self, sha256: str) -> Path:
        """As :meth:`artifact`, read in full: raises :exc:`~coordinator.errors.StoreError` if it is not what it was."""
        ...

    def collect(self) -> int:
        """Remove files that nothing names any more; how many."""
        ...

    # The run.

    def run(self) -> RunRecord | None:
        """The run, or none before :meth:`create`."""
        ...

    def create(
        self, run: RunRecord, tiers: Sequence[TierRecord], version: VersionRecord, *, by: str = "coordinator"
    ) -> None:
        """Begin: the run, its programs, and version 0."""
        ...

    def tiers(self) -> list[TierRecord]:
        """The programs, smallest budget first."""
        ...

    def sign(self, signatures: Mapping[str, str]) -> None:
        """New signatures of programs, by tier: the run has a new key."""
        ...

    def phase(self) -> tuple[Phase, str]:
        """Where the run stands, and the reason that was given."""
        ...

    def set_phase(self, phase: Phase, reason: str, at: float, *, by: str) -> None:
        """The run goes into another phase."""
        ...

    def started_at(self, now: float) -> float:
        """Wall time at which the run first served devices; that is ``now`` if it never did."""
        ...

    # The audit log.

    def audit(self, at: float, actor: str, action: str, subject: str, details: Mapping[str, Any]) -> None:
        """Write a line."""
        ...

    def audit_log(self) -> list[AuditEntry]:
        """Every line, oldest first. Raises :exc:`~coordinator.errors.StoreError` where the hashes do not fit."""
        ...

    # Tokens.

    def add_token(self, token: TokenRecord, *, by: str) -> None:
        """Remember a token."""
        ...

    def tokens(self) -> list[TokenRecord]:
        """All tokens, oldest first."""
        ...

    def revoke_token(self, token: str, at: float, *, by: str) -> bool:
        """Nobody enrols with it any more; false if there is no such token."""
        ...

    # Devices.

    def secret(self, device: str) -> bytes | None:
        """The secret that a device enrolled with, or none."""
        ...

    def enrol(self, device: str, secret: bytes, at: float, *, token: str | None = None) -> Enrolment:
        """
        Remember a device.

        Args:
            device: its name.
            secret: what it will answer challenges with.
            at: wall time.
            token: SHA-256 (hex) of the token it gave, of which one use is spent; none if it needs none.

        """
        ...

    def device(self, device: str) -> DeviceRecord | None:
        """One device."""
        ...

    def devices(self) -> list[DeviceRecord]:
        """All devices, by name."""
        ...

    def seen(self, device: str, at: float, profile: Mapping[str, Any] | None = None) -> None:
        """The device was here, and what it said of itself."""
        ...

    def add_traffic(self, device: str, bytes_up: int, bytes_down: int) -> None:
        """Count bytes that went over the wire."""
        ...

    def add_failure(self, device: str) -> None:
        """Count something that went wrong with a device: given back, refused, overdue."""
        ...

    def revoke(self, device: str, at: float, *, by: str) -> bool:
        """The device may not come back; what it has open is closed. False if there is no such device."""
        ...

    def withdraw(self, device: str, at: float, *, by: str) -> list[str] | None:
        """
        Delete a device: its record, its assignments, and its updates that wait to be merged.

        What was merged stays, without its name. Returns the assignments of the updates that were
        stopped; none if there is no such device.
        """
        ...

    # Assignments.

    def assign(
        self, device: str, version: int, tier: str, at: float, deadline: float | None = None
    ) -> AssignmentRecord:
        """Give a device work; what it had open is closed."""
        ...

    def assign_all(self, requests: Sequence[AssignmentRequest]) -> list[AssignmentRecord]:
        """As :meth:`assign`, many at once."""
        ...

    def assignment(self, assignment: str) -> AssignmentRecord | None:
        """An assignment by its name."""
        ...

    def open_assignment(self, device: str) -> AssignmentRecord | None:
        """What a device is working on."""
        ...

    def open_assignments(self) -> list[AssignmentRecord]:
        """What all devices are working on, oldest first."""
        ...

    def close_assignment(self, assignment: str) -> None:
        """The device gave it back, or its update was refused."""
        ...

    # Updates.

    def accept(self, updates: Sequence[tuple[UpdateRecord, bytes | memoryview]]) -> set[str]:
        """Write updates down, many at once; returns the assignments that were not known before."""
        ...

    def is_accepted(self, assignment: str) -> bool:
        """Whether the update of an assignment was written down, whatever became of it since."""
        ...

    def buffered(self) -> list[UpdateRecord]:
        """Accepted updates that are not merged yet, in the order they came."""
        ...

    def content(self, assignment: str) -> bytes:
        """The bytes of a buffered update. Raises :exc:`~coordinator.errors.StoreError` if they are damaged or gone."""
        ...

    def discard(self, updates: Sequence[DiscardedUpdate]) -> None:
        """Accepted updates that shall become part of no version; they are erased."""
        ...

    # Versions.

    def latest(self) -> VersionRecord:
        """The newest version."""
        ...

    def next_number(self) -> int:
        """The number of the next version: above every number that was ever used."""
        ...

    def version(self, number: int) -> VersionRecord:
        """A version by its number. Raises :exc:`~coordinator.errors.StoreError` if there is none."""
        ...

    def versions(self) -> list[VersionRecord]:
        """Every version, oldest first."""
        ...

    def commit(
        self, version: VersionRecord, merged: Sequence[MergedUpdate], discarded: Sequence[DiscardedUpdate] = ()
    ) -> None:
        """
        A new version and the list of what it consumed, as one; then what it consumed is erased.

        Raises if any of it was consumed before.
        """
        ...

    def rollback(
        self, version: VersionRecord, discarded: Sequence[DiscardedUpdate], closed: Sequence[str], *, by: str, why: str
    ) -> None:
        """A version that repeats an older one, its ``parent``; what was based on versions in between ends, as one."""
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

    def merged(self) -> list[MergedUpdate]:
        """Every merged update, oldest first."""
        ...
