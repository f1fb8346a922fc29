"""The weights over time, as rows; their files are artifacts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ...errors import StoreError
from ..artifacts import Artifacts
from ..crash_points import step
from ..records import DiscardedUpdate, MergedUpdate, VersionOutline, VersionPoint, VersionRecord
from ..rows import (
    OUTLINE_COLUMNS,
    VERSION_COLUMNS,
    assignment_number,
    version_files,
    version_outline,
    version_record,
    version_row,
)
from .audit import write_audit
from .database import Database
from .erasure import WAITING, Erasure
from .updates import discard_rows, merge_rows

__all__ = ["VersionTable", "insert_version"]

# So many of the newest updates are looked at first.
NEWEST_UPDATES = 5_000  # pragma: no mutate


class VersionTable:
    """
    The :class:`~coordinator.store.interface.VersionStore`: rows in ``database``, files in ``artifacts``.

    ``erasure`` overwrites the updates that a version consumed.
    """

    def __init__(self, database: Database, artifacts: Artifacts, erasure: Erasure) -> None:
        self._database = database
        self._artifacts = artifacts
        self._erasure = erasure

    def latest(self) -> VersionRecord:
        for version in self._select("ORDER BY version DESC LIMIT 1"):
            return version
        raise StoreError(f"{self._database.path} holds no run: begin one first")

    def next_number(self) -> int:
        ((number,),) = self._database.rows(
            "SELECT max((SELECT max(version) + 1 FROM versions), (SELECT first_number FROM run))"
        )
        return int(number)

    def get(self, number: int) -> VersionRecord:
        for version in self._select("WHERE version = ?", number):
            return version
        raise StoreError(f"the run has no version {number}")

    def all(self) -> list[VersionRecord]:
        return self._select("ORDER BY version")

    def newest(self, count: int) -> list[VersionRecord]:
        return self._select("ORDER BY version DESC LIMIT ?", count)[::-1]

    def outlines(self) -> list[VersionOutline]:
        rows = self._database.rows(f"SELECT {OUTLINE_COLUMNS} FROM versions ORDER BY version")
        return [version_outline(row) for row in rows]

    def points(self, after: int = -1, most: int = 2_000) -> list[VersionPoint]:
        ((count, newest),) = self._database.rows("SELECT count(*), max(version) FROM versions WHERE version > ?", after)
        # Updates have no index by version: the newest are enough where they reach back to what is known already.
        newest_updates = f"(SELECT * FROM updates ORDER BY arrival DESC LIMIT {NEWEST_UPDATES})"
        known = self._database.rows(f"SELECT 1 FROM {newest_updates} WHERE merged_into <= ? LIMIT 1", after)
        updates = newest_updates if known else "updates"
        rows = self._database.rows(
            "SELECT v.version, v.parent, v.kind, v.created_at, v.metrics, coalesce(u.merged, 0), u.staleness, "
            "u.weight, coalesce(u.bytes, 0) FROM versions AS v LEFT JOIN (SELECT merged_into, count(*) AS merged, "
            "avg(staleness) AS staleness, avg(weight) AS weight, sum(size) AS bytes "
            f"FROM {updates} WHERE merged_into > ? GROUP BY merged_into) AS u ON u.merged_into = v.version "
            "WHERE v.version > ? AND (v.version % ? = 0 OR v.version = ?) ORDER BY v.version",
            *(after, after, -(-count // most) or 1, newest),
        )
        rows = [(*row[:4], json.loads(row[4]), *row[5:]) for row in rows]
        return [VersionPoint(*row) for row in rows]

    def _select(self, which: str, *arguments: Any) -> list[VersionRecord]:
        rows = self._database.rows(f"SELECT {VERSION_COLUMNS} FROM versions {which}", *arguments)
        return [version_record(row) for row in rows]

    def with_files(self) -> list[VersionRecord]:
        """The versions that are not pruned, oldest first."""
        return self._select("WHERE NOT pruned ORDER BY version")

    def commit(
        self, version: VersionRecord, merged: Sequence[MergedUpdate], discarded: Sequence[DiscardedUpdate] = ()
    ) -> None:
        with self._database.writing():
            step("merge: version written")
            with self._database.transaction() as database:
                insert_version(database, version)
                gone = merge_rows(database, version.version, merged) + discard_rows(database, discarded)
                step("merge: rows")
            step("merge: committed")
            self._artifacts.named(version_files(version))
            self._erasure.erase(gone)

    def rollback(
        self, version: VersionRecord, discarded: Sequence[DiscardedUpdate], closed: Sequence[str], *, by: str, why: str
    ) -> None:
        with self._database.writing():
            with self._database.transaction() as database:
                insert_version(database, version)
                gone = discard_rows(database, discarded)
                database.executemany(
                    "UPDATE assignments SET open = 0 WHERE number = ?", [(assignment_number(name),) for name in closed]
                )
                details = {"to": version.parent, "discarded": len(discarded), "why": why}
                write_audit(database, version.created_at, by, "rolled back", f"version {version.version}", details)
                step("rollback: rows")
            step("rollback: committed")
            self._artifacts.named(version_files(version))
            self._erasure.erase(gone)

    def prune(self, keep: Callable[[Sequence[VersionRecord]], Collection[int]], since: float) -> list[int]:
        with self._database.writing():
            versions = self.with_files()
            held = self._database.rows(
                f"SELECT version FROM updates WHERE {WAITING} UNION SELECT version FROM devices WHERE given_at > ?",
                since,
            )
            kept = {*keep(versions), *(number for (number,) in held), versions[-1].version}
            pruned = [version.version for version in versions if version.version not in kept]
            if pruned:
                with self._database.transaction() as database:
                    database.executemany(
                        "UPDATE versions SET pruned = 1 WHERE version = ?", [(number,) for number in pruned]
                    )
                step("prune: committed")
        return pruned


def insert_version(database: sqlite3.Connection, version: VersionRecord) -> None:
    """
    Write a version's row.

    Raises:
        StoreError: if there is a version of its number.

    """
    try:
        database.execute(
            "INSERT INTO versions (version, parent, weights, metrics, created_at, kind, private) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            version_row(version),
        )
    except sqlite3.IntegrityError as error:
        raise StoreError(f"version {version.version} was written before: a number is never used again") from error
