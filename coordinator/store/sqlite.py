"""The store in one directory: SQLite for rows, content-addressed files for the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef
from mobile_sdk.storage import sync_folder

from ..errors import StoreError, StoreUnavailable
from .base import (
    AssignmentRecord,
    DeviceRecord,
    MergedUpdate,
    RunRecord,
    TierRecord,
    UpdateRecord,
    VersionRecord,
)
from .files import ContentFiles

__all__ = ["SqliteStore"]

SCHEMA_VERSION = 1


class SqliteStore:
    """
    The :class:`~coordinator.store.base.Store` of one machine.

    Args:
        folder: the state directory; created if missing, readable by its owner alone.

    Raises:
        StoreError: if another coordinator uses it, or it is not a state directory of this version.

    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # it holds the run's key and the devices' secrets
            self._lock_file = (folder / "lock").open("ab")
        except OSError as error:
            raise StoreError(f"cannot use the state directory {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            raise StoreError(f"another coordinator uses the state directory {folder}: stop it first") from None
        self._files = ContentFiles(folder / "artifacts")
        # Offloaded calls come from several threads; SQLite itself takes one writer at a time anyway.
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(folder / "state.sqlite", check_same_thread=False, isolation_level=None)
            self._open()
        except sqlite3.DatabaseError as error:
            self._lock_file.close()
            raise StoreError(f"{folder / 'state.sqlite'} cannot be used: {error}") from error
        sync_folder(folder)

    def _open(self) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("PRAGMA foreign_keys = ON")
        (found,) = self._database.execute("PRAGMA user_version").fetchone()
        if found == 0:
            script = Path(__file__).with_name("schema.sql").read_text()
            self._database.executescript(f"BEGIN; {script} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif found != SCHEMA_VERSION:
            raise StoreError(
                f"the state directory has schema {found}, this coordinator uses {SCHEMA_VERSION}: "
                f"run the FTTE version that made it"
            )

    def close(self) -> None:
        with self._lock:
            self._database.close()
        self._lock_file.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _available():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite itself rolls back on some errors
                    self._database.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *arguments: Any) -> list[Any]:
        with self._lock, _available():
            return self._database.execute(query, arguments).fetchall()

    # Artifacts.

    def put(self, content: bytes) -> FileEntry:
        with _available():
            return self._files.put([content])[0]

    def artifact(self, sha256: str) -> Path:
        return self._files.path(sha256)

    # The run.

    def run(self) -> RunRecord | None:
        rows = self._rows("SELECT name, plans, evaluation, created_at FROM run")
        return RunRecord(rows[0][0], json.loads(rows[0][1]), *rows[0][2:]) if rows else None

    def create(self, run: RunRecord, tiers: Sequence[TierRecord], version: VersionRecord) -> None:
        with self._transaction() as database:
            database.execute(
                "INSERT INTO run VALUES (1, ?, ?, ?, ?)",
                (run.name, json.dumps(run.plans), run.evaluation, run.created_at),
            )
            database.executemany(
                "INSERT INTO tiers VALUES (?, ?, ?, ?, ?, ?)",
                [(t.name, t.serial, t.budget_bytes, _dump(t.manifest), t.signature, _dump(t.program)) for t in tiers],
            )
            _insert_version(database, version)

    def tiers(self) -> list[TierRecord]:
        rows = self._rows(
            "SELECT name, serial, budget_bytes, manifest, signature, program FROM tiers ORDER BY budget_bytes, name"
        )
        return [
            TierRecord(name, serial, budget, _ref(manifest), signature, _ref(program))
            for name, serial, budget, manifest, signature, program in rows
        ]

    # Devices.

    def secret(self, device: str) -> bytes | None:
        rows = self._rows("SELECT secret FROM devices WHERE id = ?", device)
        return bytes(rows[0][0]) if rows else None

    def enrol(self, device: str, secret: bytes, at: float) -> bool:
        with self._transaction() as database:
            database.execute(
                "INSERT INTO devices (id, secret, enrolled_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (device, secret, at),
            )
            (known,) = database.execute("SELECT secret FROM devices WHERE id = ?", (device,)).fetchone()
        return bytes(known) == secret

    def devices(self) -> list[DeviceRecord]:
        rows = self._rows("SELECT id, tier, bytes_up, bytes_down, updates, report FROM devices ORDER BY id")
        return [
            DeviceRecord(device, tier, up, down, updates, json.loads(report))
            for device, tier, up, down, updates, report in rows
        ]

    def add_traffic(self, device: str, bytes_up: int, bytes_down: int) -> None:
        with self._transaction() as database:
            database.execute(
                "UPDATE devices SET bytes_up = bytes_up + ?, bytes_down = bytes_down + ? WHERE id = ?",
                (bytes_up, bytes_down, device),
            )

    # Assignments.

    def assign(self, device: str, version: int, tier: str, at: float) -> AssignmentRecord:
        with self._transaction() as database:
            database.execute("UPDATE assignments SET open = 0 WHERE device = ? AND open", (device,))
            cursor = database.execute(
                "INSERT INTO assignments (device, version, tier, issued_at, open) VALUES (?, ?, ?, ?, 1)",
                (device, version, tier, at),
            )
            database.execute("UPDATE devices SET tier = ? WHERE id = ?", (tier, device))
        if cursor.lastrowid is None:
            raise StoreError("the database gave no number to an assignment")
        return AssignmentRecord(cursor.lastrowid, device, version, tier, at, True)

    def assignment(self, assignment: str) -> AssignmentRecord | None:
        number = assignment.removeprefix("a")
        if not number.isdecimal():
            return None
        record = self._assignment("number = ?", min(int(number), 2**63 - 1))
        # Only the name that was given out counts, not another way to write its number.
        return record if record is not None and record.id == assignment else None

    def open_assignment(self, device: str) -> AssignmentRecord | None:
        return self._assignment("device = ? AND open", device)

    def _assignment(self, where: str, argument: Any) -> AssignmentRecord | None:
        rows = self._rows(
            f"SELECT number, device, version, tier, issued_at, open FROM assignments WHERE {where}", argument
        )
        for number, device, version, tier, issued_at, is_open in rows:
            return AssignmentRecord(number, device, version, tier, issued_at, bool(is_open))
        return None

    def close_assignment(self, assignment: str) -> None:
        with self._transaction() as database:
            database.execute("UPDATE assignments SET open = 0 WHERE number = ?", (int(assignment.removeprefix("a")),))

    # Updates.

    def accept(self, updates: Sequence[tuple[UpdateRecord, bytes]]) -> set[str]:
        # Files first: a row must never name a file that a power cut could take.
        with _available():
            self._files.put(content for _, content in updates)
        new = set()
        with self._transaction() as database:
            for update, _ in updates:
                cursor = database.execute(
                    "INSERT INTO updates (assignment, device, version, tier, sha256, size, report, received_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (
                        update.assignment,
                        update.device,
                        update.version,
                        update.tier,
                        update.artifact.sha256,
                        update.artifact.size,
                        json.dumps(update.report),
                        update.received_at,
                    ),
                )
                if cursor.rowcount == 0:
                    continue
                new.add(update.assignment)
                number = int(update.assignment.removeprefix("a"))
                database.execute("UPDATE assignments SET open = 0 WHERE number = ?", (number,))
                database.execute(
                    "UPDATE devices SET updates = updates + 1, report = ? WHERE id = ?",
                    (json.dumps(update.report), update.device),
                )
        return new

    def is_accepted(self, assignment: str) -> bool:
        return bool(self._rows("SELECT 1 FROM updates WHERE assignment = ?", assignment))

    def buffered(self) -> list[UpdateRecord]:
        rows = self._rows(
            "SELECT assignment, device, version, tier, sha256, size, report, received_at "
            "FROM updates WHERE merged_into IS NULL ORDER BY arrival"
        )
        return [
            UpdateRecord(assignment, device, version, tier, FileEntry(sha256, size), json.loads(report), at)
            for assignment, device, version, tier, sha256, size, report, at in rows
        ]

    # Versions.

    def latest(self) -> VersionRecord:
        return self._versions("ORDER BY version DESC LIMIT 1")[0]

    def version(self, number: int) -> VersionRecord:
        found = self._versions("WHERE version = ?", number)
        if not found:
            raise StoreError(f"the run has no version {number}")
        return found[0]

    def versions(self) -> list[VersionRecord]:
        return self._versions("ORDER BY version")

    def _versions(self, which: str, *arguments: Any) -> list[VersionRecord]:
        rows = self._rows(f"SELECT version, parent, weights, metrics, created_at FROM versions {which}", *arguments)
        return [
            VersionRecord(
                row[0], row[1], tuple(ArtifactRef(**item) for item in json.loads(row[2])), json.loads(row[3]), row[4]
            )
            for row in rows
        ]

    def commit(self, version: VersionRecord, merged: Sequence[MergedUpdate]) -> None:
        with self._transaction() as database:
            _insert_version(database, version)
            for update in merged:
                cursor = database.execute(
                    "UPDATE updates SET merged_into = ?, staleness = ?, weight = ? "
                    "WHERE assignment = ? AND merged_into IS NULL",
                    (version.version, update.staleness, update.weight, update.assignment),
                )
                if cursor.rowcount != 1:
                    raise StoreError(f"the update of {update.assignment} was merged before, or was never accepted")

    def merged(self) -> list[MergedUpdate]:
        rows = self._rows(
            "SELECT assignment, staleness, weight FROM updates WHERE merged_into IS NOT NULL "
            "ORDER BY merged_into, arrival"
        )
        return [MergedUpdate(*row) for row in rows]


@contextlib.contextmanager
def _available() -> Iterator[None]:
    """A full disk, a read-only one and the like as one error, which says that nothing happened."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise StoreUnavailable(f"the state directory cannot be used just now: {error}") from error


def _insert_version(database: sqlite3.Connection, version: VersionRecord) -> None:
    weights = json.dumps([dataclasses.asdict(ref) for ref in version.weights])
    database.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?)",
        (version.version, version.parent, weights, json.dumps(version.metrics), version.created_at),
    )


def _dump(ref: ArtifactRef) -> str:
    return json.dumps(dataclasses.asdict(ref))


def _ref(text: str) -> ArtifactRef:
    return ArtifactRef(**json.loads(text))
