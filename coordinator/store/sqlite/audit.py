"""The audit log: append-only rows, each with a hash over the one before."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from ...errors import StoreError
from ..records import AuditEntry
from ..rows import audit_hash
from .database import Database

__all__ = ["AuditTable", "write_audit"]


class AuditTable:
    """The :class:`~coordinator.store.interface.AuditLog` in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, at: float, actor: str, action: str, subject: str, details: Mapping[str, Any]) -> None:
        with self._database.transaction() as database:
            write_audit(database, at, actor, action, subject, details)

    def entries(self) -> list[AuditEntry]:
        entries = []
        previous = ""
        for number, at, actor, action, subject, details, found in self._database.rows(
            "SELECT number, at, actor, action, subject, details, hash FROM audit ORDER BY number"
        ):
            previous = audit_hash(previous, at, actor, action, subject, details)
            if previous != found:
                raise StoreError(
                    f"line {number} of the audit log does not fit the one before: somebody has changed the database"
                )
            entries.append(AuditEntry(number, at, actor, action, subject, json.loads(details), found))
        return entries

    def newest(self, limit: int, after: int = 0) -> list[AuditEntry]:
        rows = self._database.rows(
            "SELECT number, at, actor, action, subject, details, hash FROM audit WHERE number > ? "
            "ORDER BY number DESC LIMIT ?",
            after,
            limit,
        )
        return [
            AuditEntry(number, at, actor, action, subject, json.loads(details), digest)
            for number, at, actor, action, subject, details, digest in reversed(rows)
        ]


def write_audit(
    database: sqlite3.Connection, at: float, actor: str, action: str, subject: str, details: Mapping[str, Any]
) -> None:
    """
    Add a line to the audit log, in the transaction of what it tells of.

    Args:
        database: in that transaction.
        at: wall time.
        actor: who did it.
        action: what was done.
        subject: to what; devices by their alias.
        details: anything that JSON can hold.

    """
    last = database.execute("SELECT hash FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    text = json.dumps(details, sort_keys=True)
    digest = audit_hash(last[0] if last else "", at, actor, action, subject, text)
    database.execute(
        "INSERT INTO audit (at, actor, action, subject, details, hash) VALUES (?, ?, ?, ?, ?, ?)",
        (at, actor, action, subject, text, digest),
    )
