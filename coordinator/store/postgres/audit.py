"""The audit log: append-only rows, each with a hash over the one before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import StoreError
from ..records import AuditEntry
from ..rows import audit_hash
from .connection import Connection
from .database import Database

__all__ = ["AuditTable", "write_audit"]

_COLUMNS = "number, at, actor, action, subject, details, hash"


class AuditTable:
    """The :class:`~coordinator.store.interface.AuditLog` in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, at: float, actor: str, action: str, subject: str, details: Mapping[str, Any]) -> None:
        self._database.transact(lambda rows: write_audit(rows, at, actor, action, subject, details))

    def entries(self) -> list[AuditEntry]:
        entries = []
        previous = ""
        for number, at, actor, action, subject, details, found in self._database.rows(
            f"SELECT {_COLUMNS} FROM audit ORDER BY number"
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
            f"SELECT {_COLUMNS} FROM audit WHERE number > $1 ORDER BY number DESC LIMIT $2", after, limit
        )
        return [
            AuditEntry(number, at, actor, action, subject, json.loads(details), digest)
            for number, at, actor, action, subject, details, digest in reversed(rows)
        ]


async def write_audit(
    connection: Connection, at: float, actor: str, action: str, subject: str, details: Mapping[str, Any]
) -> None:
    """
    Add a line to the audit log, as the last of the transaction that it tells of: from here on others wait for it.

    Args:
        connection: in that transaction.
        at: wall time.
        actor: who did it.
        action: what was done.
        subject: to what; devices by their alias.
        details: anything that JSON can hold.

    """
    await connection.execute("LOCK TABLE audit IN EXCLUSIVE MODE")  # readers do not wait
    last = await connection.fetchrow("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
    number, previous = (last[0] + 1, last[1]) if last is not None else (1, "")
    text = json.dumps(details, sort_keys=True)
    digest = audit_hash(previous, at, actor, action, subject, text)
    await connection.execute(
        f"INSERT INTO audit ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        number,
        at,
        actor,
        action,
        subject,
        text,
        digest,
    )
