"""What lets devices enrol."""

from __future__ import annotations

from ..records import TokenRecord
from .audit import write_audit
from .connection import Connection
from .database import Database

__all__ = ["TokenTable", "is_good_token", "spend_token"]


class TokenTable:
    """The :class:`~coordinator.store.interface.TokenStore` in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, token: TokenRecord, *, by: str) -> None:
        async def work(rows: Connection) -> None:
            await rows.execute(
                "INSERT INTO tokens (id, digest, uses_left, expires_at, created_at, note) "
                "VALUES ($1, $2, $3, $4, $5, $6)",
                token.id,
                token.digest,
                token.uses_left,
                token.expires_at,
                token.created_at,
                token.note,
            )
            details = {"uses": token.uses_left, "expires_at": token.expires_at, "note": token.note}
            await write_audit(rows, token.created_at, by, "token created", token.id, details)

        self._database.transact(work)

    def all(self) -> list[TokenRecord]:
        rows = self._database.rows(
            "SELECT id, digest, uses_left, expires_at, created_at, revoked_at, note FROM tokens ORDER BY created_at, id"
        )
        return [TokenRecord(*row) for row in rows]

    def revoke(self, token: str, at: float, *, by: str) -> bool:
        async def work(rows: Connection) -> bool:
            found = await rows.fetchval(
                "UPDATE tokens SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2 RETURNING id", at, token
            )
            if found is not None:
                await write_audit(rows, at, by, "token revoked", token, {})
            return found is not None

        return self._database.transact(work)


_GOOD = "digest = $1 AND revoked_at IS NULL AND coalesce(expires_at > $2, true) AND coalesce(uses_left > 0, true)"


async def is_good_token(connection: Connection, digest: str, at: float) -> bool:
    """Whether a device could enrol with the token."""
    return await connection.fetchval(f"SELECT 1 FROM tokens WHERE {_GOOD}", digest, at) is not None


async def spend_token(connection: Connection, digest: str, at: float) -> str | None:
    """
    The id of a good token, one use of which is spent; none if it is not good.

    Args:
        connection: in a transaction.
        digest: SHA-256 of the token, hex.
        at: wall time.

    """
    found = await connection.fetchval(
        f"UPDATE tokens SET uses_left = uses_left - 1 WHERE {_GOOD} RETURNING id", digest, at
    )
    return None if found is None else str(found)
