"""What lets devices enrol."""

from __future__ import annotations

import sqlite3

from ..records import TokenRecord
from .audit import write_audit
from .database import Database

__all__ = ["TokenTable", "is_good_token", "spend_token"]


class TokenTable:
    """The :class:`~coordinator.store.interface.TokenStore` in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, token: TokenRecord, *, by: str) -> None:
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO tokens (id, digest, uses_left, expires_at, created_at, note) VALUES (?, ?, ?, ?, ?, ?)",
                (token.id, token.digest, token.uses_left, token.expires_at, token.created_at, token.note),
            )
            details = {"uses": token.uses_left, "expires_at": token.expires_at, "note": token.note}
            write_audit(database, token.created_at, by, "token created", token.id, details)

    def all(self) -> list[TokenRecord]:
        rows = self._database.rows(
            "SELECT id, digest, uses_left, expires_at, created_at, revoked_at, note FROM tokens ORDER BY created_at, id"
        )
        return [TokenRecord(*row) for row in rows]

    def revoke(self, token: str, at: float, *, by: str) -> bool:
        with self._database.transaction() as database:
            cursor = database.execute(
                "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (at, token)
            )
            if cursor.rowcount:
                write_audit(database, at, by, "token revoked", token, {})
        return bool(cursor.rowcount)


_GOOD = "digest = ? AND revoked_at IS NULL AND coalesce(expires_at > ?, 1) AND coalesce(uses_left > 0, 1)"


def is_good_token(database: sqlite3.Connection, digest: str, at: float) -> bool:
    """Whether a device could enrol with the token."""
    return database.execute(f"SELECT 1 FROM tokens WHERE {_GOOD}", (digest, at)).fetchone() is not None


def spend_token(database: sqlite3.Connection, digest: str, at: float) -> str | None:
    """
    The id of a good token, one use of which is spent; none if it is not good.

    Args:
        database: in a transaction.
        digest: SHA-256 of the token, hex.
        at: wall time.

    """
    row = database.execute(
        f"UPDATE tokens SET uses_left = uses_left - 1 WHERE {_GOOD} RETURNING id", (digest, at)
    ).fetchall()
    return str(row[0][0]) if row else None
