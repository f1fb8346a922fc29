"""The weights over time, as rows; their files are artifacts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import asyncpg

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
from .artifacts import SharedArtifacts
from .audit import write_audit
from .connection import Connection
from .database import Database
from .updates import WAITING, UpdateTable, discard_rows, merge_rows

__all__ = ["VersionTable", "first_of_versions", "insert_version"]

_VERSIONS = f"SELECT {VERSION_COLUMNS} FROM versions"
_OUTLINES = f"SELECT {OUTLINE_COLUMNS} FROM versions ORDER BY version"
_LATEST = f"{_VERSIONS} ORDER BY version DESC LIMIT 1"
_NEWEST = f"{_VERSIONS} ORDER BY version DESC LIMIT $1"
_GET = f"{_VERSIONS} WHERE version = $1"

# So many of the newest updates are looked at first.
NEWEST_UPDATES = 5_000  # pragma: no mutate


class VersionTable:
    """
    The :class:`~coordinator.store.interface.VersionStore`: rows in ``database``, files in ``artifacts``.

    ``updates`` erases those that a version consumed.
    """

    def __init__(self, database: Database, artifacts: Artifacts | SharedArtifacts, updates: UpdateTable) -> None:
        self._database = database
        self._artifacts = artifacts
        self._updates = updates

    def latest(self) -> VersionRecord:
        for version in self._select(_LATEST):
            return version
        raise StoreError(f"schema {self._database.schema} of {self._database.address} holds no run: begin one first")

    def next_number(self) -> int:
        ((number,),) = self._database.rows(
            "SELECT greatest((SELECT max(version) + 1 FROM versions), (SELECT first_number FROM run))"
        )
        return int(number)

    def get(self, number: int) -> VersionRecord:
        for version in self._select(_GET, number):
            return version
        raise StoreError(f"the run has no version {number}")

    def all(self) -> list[VersionRecord]:
        return self._select(f"{_VERSIONS} ORDER BY version")

    def newest(self, count: int) -> list[VersionRecord]:
        return self._select(_NEWEST, count)[::-1]

    def outlines(self) -> list[VersionOutline]:
        return list(self._database.read_once(_OUTLINES, _outlines))

    def points(self, after: int = -1, most: int = 2_000) -> list[VersionPoint]:
        ((count, newest),) = self._database.rows(
            "SELECT count(*), max(version) FROM versions WHERE version > $1", after
        )
        # Updates have no index by version: the newest are enough where they reach back to what is known already.
        newest_updates = f"(SELECT * FROM updates ORDER BY arrival DESC LIMIT {NEWEST_UPDATES})"
        known = self._database.rows(f"SELECT 1 FROM {newest_updates} AS u WHERE merged_into <= $1 LIMIT 1", after)
        updates = newest_updates if known else "updates"
        rows = self._database.rows(
            "SELECT v.version, v.parent, v.kind, v.created_at, v.metrics, coalesce(u.merged, 0), u.staleness, "
            "u.weight, coalesce(u.bytes, 0) FROM versions AS v LEFT JOIN (SELECT merged_into, count(*) AS merged, "
            "avg(staleness)::float8 AS staleness, avg(weight) AS weight, sum(size)::bigint AS bytes "
            f"FROM {updates} AS chosen WHERE merged_into > $1 GROUP BY merged_into) AS u "
            "ON u.merged_into = v.version WHERE v.version > $1 AND (v.version % $2 = 0 OR v.version = $3) "
            "ORDER BY v.version",
            after,
            -(-count // most) or 1,
            newest,
        )
        return [VersionPoint(*(*row[:4], json.loads(row[4]), *row[5:])) for row in map(tuple, rows)]

    def _select(self, query: str, *arguments: Any) -> list[VersionRecord]:
        return [version_record(row) for row in self._database.rows(query, *arguments)]

    def with_files(self) -> list[VersionRecord]:
        """The versions that are not pruned, oldest first."""
        return self._select(f"{_VERSIONS} WHERE NOT pruned ORDER BY version")

    def commit(
        self, version: VersionRecord, merged: Sequence[MergedUpdate], discarded: Sequence[DiscardedUpdate] = ()
    ) -> None:
        async def work(rows: Connection) -> list[str]:
            await insert_version(rows, version)
            gone = await merge_rows(rows, version.version, merged) + await discard_rows(rows, discarded)
            step("merge: rows")
            return gone

        step("merge: version written")
        gone = self._database.transact(work)
        step("merge: committed")
        self._artifacts.named(version_files(version))
        self._updates.erase(gone)

    def rollback(
        self, version: VersionRecord, discarded: Sequence[DiscardedUpdate], closed: Sequence[str], *, by: str, why: str
    ) -> None:
        async def work(rows: Connection) -> list[str]:
            await insert_version(rows, version)
            gone = await discard_rows(rows, discarded)
            numbers = [assignment_number(name) for name in closed]
            await rows.execute("UPDATE assignments SET open = false WHERE number = ANY($1::bigint[])", numbers)
            details = {"to": version.parent, "discarded": len(discarded), "why": why}
            await write_audit(rows, version.created_at, by, "rolled back", f"version {version.version}", details)
            step("rollback: rows")
            return gone

        gone = self._database.transact(work)
        step("rollback: committed")
        self._artifacts.named(version_files(version))
        self._updates.erase(gone)

    def prune(self, keep: Callable[[Sequence[VersionRecord]], Collection[int]], since: float) -> list[int]:
        versions = self.with_files()
        held = self._database.rows(
            f"SELECT version FROM updates WHERE {WAITING} UNION SELECT version FROM devices WHERE given_at > $1", since
        )
        kept = {*keep(versions), *(row[0] for row in held), versions[-1].version}
        pruned = [version.version for version in versions if version.version not in kept]
        if pruned:
            self._database.transact(
                lambda rows: rows.execute("UPDATE versions SET pruned = true WHERE version = ANY($1::bigint[])", pruned)
            )
            step("prune: committed")
        return pruned


def first_of_versions(newest: int) -> tuple[tuple[Any, ...], ...]:
    """What a run that goes on asks for: each query with its arguments."""
    return (_OUTLINES,), (_LATEST,), (_GET, 0), (_NEWEST, newest)


def _outlines(rows: list[Any]) -> list[VersionOutline]:
    return [version_outline(row) for row in rows]


async def insert_version(rows: Connection, version: VersionRecord) -> None:
    """
    Write a version's row.

    Raises:
        StoreError: if there is a version of its number.

    """
    try:
        await rows.execute(
            "INSERT INTO versions (version, parent, weights, metrics, created_at, kind, private) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7)",
            *version_row(version),
        )
    except asyncpg.exceptions.UniqueViolationError:
        raise StoreError(f"version {version.version} was written before: a number is never used again") from None
