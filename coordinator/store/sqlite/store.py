"""The store of one machine, in one directory."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mobile_sdk.system.locks import Locked, take_lock
from mobile_sdk.system.syncs import make_folder, sync_folder

from ...errors import LedElsewhere, StoreError
from ..artifacts import Artifacts
from ..crash_points import step
from ..records import Phase, RunRecord, TierRecord, VersionRecord
from ..rows import TIER_COLUMNS, tier_record, tier_row, version_files
from ..segments import Segments
from ..tables import TABLES, named_files
from .assignments import AssignmentTable
from .audit import AuditTable, write_audit
from .backup import backup_runs
from .database import Database, available
from .devices import DeviceTable
from .erasure import Erasure
from .lease import FolderLease
from .tokens import TokenTable
from .updates import UpdateTable
from .versions import VersionTable, insert_version

__all__ = ["SqliteStore", "lock_folder"]


class SqliteStore:
    """
    The :class:`~coordinator.store.interface.Store` of one machine.

    Args:
        folder: the state directory; created if missing, readable by its owner alone. State of an earlier
            release is brought up to date.

    Raises:
        StoreError: if another coordinator uses it, or it is not a state directory, or of a later release.

    """

    def __init__(self, folder: Path) -> None:
        self._lock_file = lock_folder(folder)
        try:
            self._folder = folder
            with available():
                self.artifacts = Artifacts(folder / "artifacts")
                segments = Segments(folder / "updates")
            self._database = Database(folder / "state.sqlite")
            self._database.migrate({2: lambda database: _move_updates(database, self.artifacts, segments)})
            erasure = Erasure(self._database, segments, folder)
            self.updates = UpdateTable(self._database, segments, erasure)
            self.versions = VersionTable(self._database, self.artifacts, erasure)
            self.assignments = AssignmentTable(self._database)
            self.devices = DeviceTable(self._database, erasure)
            self.tokens = TokenTable(self._database)
            self.audit = AuditTable(self._database)
            self.lease = FolderLease()
            with self._database.writing():
                erasure.erase_leftovers()
                self.collect()
                sync_folder(folder)
        except BaseException:
            self._lock_file.close()
            raise

    def close(self) -> None:
        self.updates.close()
        self._database.close()
        self._lock_file.close()

    def read_ahead(self, *, versions: int = 0, updates: int = 0) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # a question takes microseconds here

    def collect(self) -> int:
        with self._database.writing(), backup_runs(self._folder) as reading:
            if reading:
                return 0
            wanted: set[str] = set()
            for tier in self.tiers():
                wanted |= {ref.sha256 for ref in (tier.manifest, tier.program, tier.graph) if ref is not None}
            run = self.run()
            if run is not None:
                wanted.add(run.evaluation)
            for version in self.versions.with_files():
                wanted |= version_files(version)
            return self.artifacts.collect(wanted)

    def run(self) -> RunRecord | None:
        for name, plans, evaluation, at in self._database.rows("SELECT name, plans, evaluation, created_at FROM run"):
            return RunRecord(name, json.loads(plans), evaluation, at)
        return None

    def create(
        self, run: RunRecord, tiers: Sequence[TierRecord], version: VersionRecord, *, by: str = "coordinator"
    ) -> None:
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO run (only, name, plans, evaluation, created_at) VALUES (1, ?, ?, ?, ?)",
                (run.name, json.dumps(run.plans), run.evaluation, run.created_at),
            )
            database.executemany(
                f"INSERT INTO tiers ({TIER_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", [tier_row(tier) for tier in tiers]
            )
            insert_version(database, version)
            write_audit(database, run.created_at, by, "created", run.name, {})
            for tier in tiers:
                details = {"serial": tier.serial, "manifest": tier.manifest.sha256}
                write_audit(database, run.created_at, by, "signed", tier.name, details)
        named = {ref.sha256 for tier in tiers for ref in (tier.manifest, tier.program, tier.graph) if ref is not None}
        self.artifacts.named({run.evaluation, *named, *version_files(version)})

    def tiers(self) -> list[TierRecord]:
        rows = self._database.rows(f"SELECT {TIER_COLUMNS} FROM tiers ORDER BY budget_bytes, name")
        return [tier_record(row) for row in rows]

    def sign(self, signatures: Mapping[str, str]) -> None:
        with self._database.transaction() as database:
            database.executemany(
                "UPDATE tiers SET signature = ? WHERE name = ?", [(text, name) for name, text in signatures.items()]
            )
        step("sign: committed")

    def phase(self) -> tuple[Phase, str]:
        ((phase, reason),) = self._database.rows("SELECT phase, reason FROM run")
        return phase, reason

    def set_phase(self, phase: Phase, reason: str, at: float, *, by: str) -> None:
        with self._database.transaction() as database:
            database.execute("UPDATE run SET phase = ?, reason = ?", (phase, reason))
            write_audit(database, at, by, phase, "run", {"reason": reason})

    def read_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of every table, by :data:`~coordinator.store.tables.TABLES`."""
        with self._database.writing():
            return {
                table: self._database.rows(f"SELECT {columns} FROM {table} ORDER BY {columns.partition(',')[0]}")
                for table, columns in TABLES.items()
            }

    def read_sequences(self) -> dict[str, int]:
        """The highest number that each table ever used, where such numbers are not used again."""
        return dict(self._database.rows("SELECT name, seq FROM sqlite_sequence"))

    def write_rows(
        self,
        rows: Mapping[str, Sequence[tuple[Any, ...]]],
        contents: Mapping[str, bytes],
        sequences: Mapping[str, int],
    ) -> None:
        """
        Fill an empty store with the rows of another.

        Args:
            rows: of every table.
            contents: of the updates that wait to be merged, by assignment.
            sequences: the highest number that each table used.

        """
        with self._database.transaction() as database:
            for table, columns in TABLES.items():
                marks = ", ".join("?" * len(columns.split(", ")))
                database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows[table])
            self.updates.place(database, contents)
            for table, number in sequences.items():
                database.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
                database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))
        self.artifacts.named(named_files(rows))

    def started_at(self, now: float) -> float:
        with self._database.transaction() as database:
            database.execute("UPDATE run SET started_at = coalesce(started_at, ?)", (now,))
            (at,) = database.execute("SELECT started_at FROM run").fetchone()
        return float(at)


def lock_folder(folder: Path) -> IO[bytes]:
    """
    Take a state directory for this process until the file that is returned is closed; created if missing.

    Raises:
        LedElsewhere: if another process has it.
        StoreError: if it cannot be used.

    """
    try:
        make_folder(folder)
        folder.chmod(0o700)  # it holds the run's key and the devices' secrets
        return take_lock(folder / "lock")
    except Locked:
        raise LedElsewhere(f"another coordinator uses the state directory {folder}: stop it first") from None
    except OSError as error:
        raise StoreError(f"cannot use the state directory {folder}: {error.strerror}") from error


def _move_updates(database: sqlite3.Connection, artifacts: Artifacts, segments: Segments) -> None:
    """From schema 1: updates that wait to be merged were files of their own."""
    rows = database.execute("SELECT arrival, sha256 FROM updates WHERE merged_into IS NULL").fetchall()
    for arrival, sha256 in rows:
        (location,) = segments.append([artifacts.verified(sha256).read_bytes()])
        database.execute(
            "UPDATE updates SET segment = ?, start = ? WHERE arrival = ?",
            (location.segment, location.start, arrival),
        )
