"""The store of a run that several machines may serve: rows in PostgreSQL, large things in objects."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from ...errors import StoreError
from ..artifacts import Artifacts, disk_available
from ..crash_points import step
from ..objects.folder import FolderObjects
from ..objects.interface import Objects
from ..records import Phase, RunRecord, TierRecord, VersionRecord
from ..rows import TIER_COLUMNS, tier_record, tier_row, version_files
from ..sqlite.backup import backup_runs
from ..sqlite.store import lock_folder
from .address import Address, schema_name
from .artifacts import SharedArtifacts
from .assignments import FIRST_OF_ASSIGNMENTS, AssignmentTable
from .audit import AuditTable, write_audit
from .connection import Connection
from .database import Database
from .devices import FIRST_OF_DEVICES, DeviceTable
from .kept_objects import GRACE_SECONDS, KeptObjects
from .leading import lead, stop_leading
from .lease import LeaseRow
from .tokens import TokenTable
from .updates import UpdateTable, first_of_updates
from .versions import VersionTable, first_of_versions, insert_version

__all__ = ["PostgresStore"]

_RUN = "SELECT name, plans, evaluation, created_at FROM run"
_TIERS = f"SELECT {TIER_COLUMNS} FROM tiers ORDER BY budget_bytes, name"
_PHASE = "SELECT phase, reason FROM run"

# What a run that begins or goes on asks for, whatever it looks back on.
_FIRST = ((_RUN,), (_TIERS,), (_PHASE,), FIRST_OF_DEVICES, FIRST_OF_ASSIGNMENTS)


class PostgresStore:
    """
    The :class:`~coordinator.store.interface.Store` of a run in PostgreSQL.

    Each run has a schema of its own, so one database holds many runs.

    Args:
        address: of the database.
        run: the run's name.
        folder: the state directory: what belongs to this machine, such as copies of artifacts; created if missing.
        objects: hold artifacts and large updates; by default, files in ``folder``, which only this machine has.
        leading: this process alone leads the run, from now until it closes the store; or it takes no lead unless
            it asks :attr:`lease` for it.
        standby: wait for the lead, however long another process has it, and for the database, until this is set. A new
            leader is waited for: what is left over is for the caller to :meth:`collect`, once there is time.
        waits: called once when another process has the lead.
        stands_by: called once when it has had it for some seconds.
        grace_seconds: for how long objects are kept that no row names.

    Raises:
        StoreError: if another process leads the run, or the database cannot be used.

    """

    def __init__(
        self,
        address: Address,
        run: str,
        folder: Path,
        objects: Objects | None = None,
        *,
        leading: bool = True,
        standby: threading.Event | None = None,
        waits: Callable[[], None] = lambda: None,
        stands_by: Callable[[], None] = lambda: None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._folder = folder
        self._leading = leading
        self._lock_file: IO[bytes] | None = lock_folder(folder) if leading else None
        self._database: Database | None = None
        self._collecting = threading.Lock()
        try:
            with disk_available():
                files = Artifacts(folder / "artifacts", alone=False)
            self._database = database = Database(address, schema_name(run), standby)
            kept = KeptObjects(database, objects or FolderObjects(folder / "objects"), grace_seconds)
            self.artifacts = SharedArtifacts(kept, files) if objects is not None else files
            ((namespace,),) = database.rows("SELECT oid FROM pg_namespace WHERE nspname = $1", database.schema)
            self.updates = UpdateTable(database, kept, int(namespace))
            self.versions = VersionTable(database, self.artifacts, self.updates)
            self.assignments = AssignmentTable(database)
            self.devices = DeviceTable(database, self.updates)
            self.tokens = TokenTable(database)
            self.audit = AuditTable(database)
            self.lease = LeaseRow(database)
            if leading:
                lead(database, self.lease, run, standby, waits, stands_by)
                if standby is None:
                    self.collect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._database is not None and not self._database.closed:
            if self._database.epoch is not None:
                stop_leading(self.lease)
            self._database.close()
        with self._collecting:  # what still removes files would remove those of the folder's next process
            if self._lock_file is not None:
                self._lock_file.close()

    @property
    def database(self) -> Database:
        """
        The database, for what copies rows.

        Raises:
            StoreError: if the store was not opened.

        """
        if self._database is None:
            raise StoreError("the store is not open")
        return self._database

    @contextlib.contextmanager
    def read_ahead(self, *, versions: int = 0, updates: int = 0) -> Iterator[None]:
        first = (*_FIRST, *first_of_versions(versions), *first_of_updates(updates))
        with self.database.remembering(first):
            self.updates.share_contents()
            yield

    def _forget_receipts(self) -> None:
        """Those of processes that ended long ago."""
        self.database.transact(
            lambda rows: rows.execute("DELETE FROM receipts WHERE opened_at < now() - interval '30 days'")
        )

    def collect(self) -> int:
        with self._collecting, backup_runs(self._folder) as reading:
            leads = self.database.epoch is not None
            if reading or self._is_copied() or not (leads or isinstance(self.artifacts, SharedArtifacts)):
                return 0  # files that no row names yet may be another process's
            if leads:
                self._forget_receipts()
                self.updates.collect()
            wanted: set[str] = set()
            for tier in self.tiers():
                wanted |= {ref.sha256 for ref in (tier.manifest, tier.program, tier.graph) if ref is not None}
            run = self.run()
            if run is not None:
                wanted.add(run.evaluation)
            for version in self.versions.with_files():
                wanted |= version_files(version)
            if isinstance(self.artifacts, SharedArtifacts) and not leads:
                return self.artifacts.collect_copies(wanted)
            return self.artifacts.collect(wanted)

    def _is_copied(self) -> bool:
        """Whether a backup or a migration reads what rows name, on whatever machine."""
        ((copies,),) = self.database.rows(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::oid AND objid = 1 "
            "AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            self.updates.lock,
        )
        return bool(copies)

    def run(self) -> RunRecord | None:
        for name, plans, evaluation, at in self.database.rows(_RUN):
            return RunRecord(name, json.loads(plans), evaluation, at)
        return None

    def create(
        self, run: RunRecord, tiers: Sequence[TierRecord], version: VersionRecord, *, by: str = "coordinator"
    ) -> None:
        async def work(rows: Connection) -> None:
            await rows.execute(
                "INSERT INTO run (name, plans, evaluation, created_at) VALUES ($1, $2, $3, $4)",
                run.name,
                json.dumps(run.plans),
                run.evaluation,
                run.created_at,
            )
            await rows.executemany(
                f"INSERT INTO tiers ({TIER_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                [tier_row(tier) for tier in tiers],
            )
            await insert_version(rows, version)
            await write_audit(rows, run.created_at, by, "created", run.name, {})
            for tier in tiers:
                details = {"serial": tier.serial, "manifest": tier.manifest.sha256}
                await write_audit(rows, run.created_at, by, "signed", tier.name, details)

        self.database.transact(work)
        named = {ref.sha256 for tier in tiers for ref in (tier.manifest, tier.program, tier.graph) if ref is not None}
        self.artifacts.named({run.evaluation, *named, *version_files(version)})

    def tiers(self) -> list[TierRecord]:
        rows = self.database.rows(_TIERS)
        return [tier_record(row) for row in rows]

    def sign(self, signatures: Mapping[str, str]) -> None:
        self.database.transact(
            lambda rows: rows.executemany(
                "UPDATE tiers SET signature = $1 WHERE name = $2", [(text, name) for name, text in signatures.items()]
            )
        )
        step("sign: committed")

    def phase(self) -> tuple[Phase, str]:
        ((phase, reason),) = self.database.rows(_PHASE)
        return phase, reason

    def set_phase(self, phase: Phase, reason: str, at: float, *, by: str) -> None:
        async def work(rows: Connection) -> None:
            await rows.execute("UPDATE run SET phase = $1, reason = $2", phase, reason)
            await write_audit(rows, at, by, phase, "run", {"reason": reason})

        self.database.transact(work)

    def started_at(self, now: float) -> float:
        async def work(rows: Connection) -> float:
            return float(
                await rows.fetchval("UPDATE run SET started_at = coalesce(started_at, $1) RETURNING started_at", now)
            )

        return self.database.transact(work)
