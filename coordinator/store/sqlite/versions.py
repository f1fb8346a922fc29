"""The weights over time, as rows; their files are artifacts."""

from __future__ import annotations

import abc
import dataclasses
import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any

from mobile_sdk.protocol.messages import ArtifactRef

from ...errors import StoreError
from ..crash_points import step
from ..records import DiscardedUpdate, MergedUpdate, VersionRecord
from ..segments import Location
from .assignments import assignment_number
from .database import Database
from .devices import write_audit
from .updates import discard_rows, merge_rows

__all__ = ["VersionTable", "insert_version"]


class VersionTable:
    """That part of the store; see :class:`~coordinator.store.interface.Store`."""

    _database: Database
    _unnamed: set[str]

    @abc.abstractmethod
    def _erase(self, gone: Sequence[Location]) -> None:
        """Erase the bytes of updates that nobody wants any more; the table of updates does it."""

    def latest(self) -> VersionRecord:
        found = self._versions("ORDER BY version DESC LIMIT 1")
        if not found:
            raise StoreError(f"{self._database.path} holds no run: begin one first")
        return found[0]

    def next_number(self) -> int:
        ((number,),) = self._database.rows(
            "SELECT max((SELECT max(version) + 1 FROM versions), (SELECT first_number FROM run))"
        )
        return int(number)

    def version(self, number: int) -> VersionRecord:
        found = self._versions("WHERE version = ?", number)
        if not found:
            raise StoreError(f"the run has no version {number}")
        return found[0]

    def versions(self) -> list[VersionRecord]:
        return self._versions("ORDER BY version")

    def _versions(self, which: str, *arguments: Any) -> list[VersionRecord]:
        rows = self._database.rows(
            f"SELECT version, parent, weights, metrics, created_at, kind, private, pruned FROM versions {which}",
            *arguments,
        )
        return [
            VersionRecord(
                version,
                parent,
                tuple(ArtifactRef(**item) for item in json.loads(weights)),
                json.loads(metrics),
                at,
                kind,
                {name: ArtifactRef(**item) for name, item in json.loads(private).items()},
                bool(pruned),
            )
            for version, parent, weights, metrics, at, kind, private, pruned in rows
        ]

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
            self._named(version)
            self._erase(gone)

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
            self._named(version)
            self._erase(gone)

    def _named(self, version: VersionRecord) -> None:
        """A row names the files of a version."""
        self._unnamed -= {ref.sha256 for ref in (*version.weights, *version.private.values())}

    def prune(self, keep: Callable[[Sequence[VersionRecord]], Collection[int]], since: float) -> list[int]:
        with self._database.writing():
            versions = self._versions("WHERE NOT pruned ORDER BY version")
            held = self._database.rows(
                "SELECT version FROM updates WHERE merged_into IS NULL AND discarded IS NULL "
                "UNION SELECT version FROM devices WHERE given_at > ?",
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
    """Write a version's row."""
    database.execute(
        "INSERT INTO versions (version, parent, weights, metrics, created_at, kind, private) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            version.version,
            version.parent,
            json.dumps([dataclasses.asdict(ref) for ref in version.weights]),
            json.dumps(version.metrics),
            version.created_at,
            version.kind,
            json.dumps({name: dataclasses.asdict(ref) for name, ref in version.private.items()}),
        ),
    )
