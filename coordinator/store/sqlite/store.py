"""The store of one machine, in one directory."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mobile_sdk.durable_files import sync_folder
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef

from ...errors import StoreError
from ..content_files import ContentFiles
from ..records import Phase, RunRecord, TierRecord, VersionRecord
from ..segments import Location, Segments
from .assignments import AssignmentTable
from .backup import backup_runs
from .database import Database, available
from .devices import DeviceTables, write_audit
from .updates import UpdateTable
from .versions import VersionTable, insert_version

__all__ = ["SqliteStore", "lock_folder"]


class SqliteStore(UpdateTable, VersionTable, AssignmentTable, DeviceTables):
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
            self._to_erase: list[Location] = []
            self._accepting = threading.Lock()
            # Artifacts that no row names yet, by their hash: not to be collected.
            self._unnamed: set[str] = set()
            with available():
                self._files = ContentFiles(folder / "artifacts")
                self._segments = Segments(folder / "updates")
            self._database = Database(folder / "state.sqlite")
            self._database.migrate({2: self._move_updates})
            with self._database.writing():
                self._erase_leftovers()
                self.collect()
                sync_folder(folder)
        except BaseException:
            self._lock_file.close()
            raise

    def close(self) -> None:
        with self._accepting, self._database.writing():
            self._segments.close()
        self._database.close()
        self._lock_file.close()

    def _move_updates(self, database: sqlite3.Connection) -> None:
        """From schema 1: updates that wait to be merged were files of their own."""
        rows = database.execute("SELECT arrival, sha256 FROM updates WHERE merged_into IS NULL").fetchall()
        for arrival, sha256 in rows:
            (location,) = self._segments.append([self._files.verified(sha256).read_bytes()])
            database.execute(
                "UPDATE updates SET segment = ?, start = ? WHERE arrival = ?",
                (location.segment, location.start, arrival),
            )

    # Artifacts.

    def put(self, *contents: bytes) -> list[FileEntry]:
        with available():  # others write to the database meanwhile
            self._unnamed.update(hashlib.sha256(content).hexdigest() for content in contents)
            return self._files.put(contents)

    def artifact(self, sha256: str) -> Path:
        return self._files.path(sha256)

    def verified(self, sha256: str) -> Path:
        with available():
            return self._files.verified(sha256)

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
            for version in self._versions("WHERE NOT pruned"):
                wanted |= {ref.sha256 for ref in (*version.weights, *version.private.values())}
            return self._files.remove_unless(lambda name: name in wanted or name in self._unnamed)

    # The run.

    def run(self) -> RunRecord | None:
        rows = self._database.rows("SELECT name, plans, evaluation, created_at FROM run")
        return RunRecord(rows[0][0], json.loads(rows[0][1]), *rows[0][2:]) if rows else None

    def create(
        self, run: RunRecord, tiers: Sequence[TierRecord], version: VersionRecord, *, by: str = "coordinator"
    ) -> None:
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO run (only, name, plans, evaluation, created_at) VALUES (1, ?, ?, ?, ?)",
                (run.name, json.dumps(run.plans), run.evaluation, run.created_at),
            )
            database.executemany(
                "INSERT INTO tiers VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *(t.name, t.serial, t.budget_bytes, _dump(t.manifest), t.signature, _dump(t.program)),
                        _dump(t.graph) if t.graph else None,
                    )
                    for t in tiers
                ],
            )
            insert_version(database, version)
            write_audit(database, run.created_at, by, "created", run.name, {})
            for tier in tiers:
                details = {"serial": tier.serial, "manifest": tier.manifest.sha256}
                write_audit(database, run.created_at, by, "signed", tier.name, details)
        self._unnamed.clear()

    def tiers(self) -> list[TierRecord]:
        rows = self._database.rows(
            "SELECT name, serial, budget_bytes, manifest, signature, program, graph FROM tiers "
            "ORDER BY budget_bytes, name"
        )
        return [
            TierRecord(name, serial, budget, _ref(manifest), signature, _ref(program), _ref(graph) if graph else None)
            for name, serial, budget, manifest, signature, program, graph in rows
        ]

    def sign(self, signatures: Mapping[str, str]) -> None:
        with self._database.transaction() as database:
            database.executemany(
                "UPDATE tiers SET signature = ? WHERE name = ?", [(text, name) for name, text in signatures.items()]
            )

    def phase(self) -> tuple[Phase, str]:
        ((phase, reason),) = self._database.rows("SELECT phase, reason FROM run")
        return phase, reason

    def set_phase(self, phase: Phase, reason: str, at: float, *, by: str) -> None:
        with self._database.transaction() as database:
            database.execute("UPDATE run SET phase = ?, reason = ?", (phase, reason))
            write_audit(database, at, by, phase, "run", {"reason": reason})

    def started_at(self, now: float) -> float:
        with self._database.transaction() as database:
            database.execute("UPDATE run SET started_at = coalesce(started_at, ?)", (now,))
            (at,) = database.execute("SELECT started_at FROM run").fetchone()
        return float(at)


def lock_folder(folder: Path) -> IO[bytes]:
    """
    Take a state directory for this process until the file that is returned is closed; created if missing.

    Raises:
        StoreError: if another process has it, or it cannot be used.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # it holds the run's key and the devices' secrets
        file = (folder / "lock").open("ab")
    except OSError as error:
        raise StoreError(f"cannot use the state directory {folder}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreError(f"another coordinator uses the state directory {folder}: stop it first") from None
    return file


def _dump(ref: ArtifactRef) -> str:
    return json.dumps(dataclasses.asdict(ref))


def _ref(text: str) -> ArtifactRef:
    return ArtifactRef(**json.loads(text))
