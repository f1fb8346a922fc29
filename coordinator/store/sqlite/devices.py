"""Who takes part: tokens, devices, and the audit log."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Mapping
from typing import Any

from ...errors import StoreError
from ..records import AuditEntry, DeviceRecord, Enrolment, TokenRecord
from .database import Database

__all__ = ["DeviceTables", "write_audit"]


class DeviceTables:
    """That part of the store; see :class:`~coordinator.store.interface.Store`."""

    _database: Database

    # The audit log.

    def audit(self, at: float, actor: str, action: str, subject: str, details: Mapping[str, Any]) -> None:
        with self._database.transaction() as database:
            write_audit(database, at, actor, action, subject, details)

    def audit_log(self) -> list[AuditEntry]:
        entries = []
        previous = ""
        for number, at, actor, action, subject, details, found in self._database.rows(
            "SELECT number, at, actor, action, subject, details, hash FROM audit ORDER BY number"
        ):
            previous = _audit_hash(previous, at, actor, action, subject, details)
            if previous != found:
                raise StoreError(
                    f"line {number} of the audit log does not fit the one before: somebody has changed the database"
                )
            entries.append(AuditEntry(number, at, actor, action, subject, json.loads(details), found))
        return entries

    # Tokens.

    def add_token(self, token: TokenRecord, *, by: str) -> None:
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO tokens (id, digest, uses_left, expires_at, created_at, note) VALUES (?, ?, ?, ?, ?, ?)",
                (token.id, token.digest, token.uses_left, token.expires_at, token.created_at, token.note),
            )
            details = {"uses": token.uses_left, "expires_at": token.expires_at, "note": token.note}
            write_audit(database, token.created_at, by, "token created", token.id, details)

    def tokens(self) -> list[TokenRecord]:
        rows = self._database.rows(
            "SELECT id, digest, uses_left, expires_at, created_at, revoked_at, note FROM tokens ORDER BY created_at, id"
        )
        return [TokenRecord(*row) for row in rows]

    def revoke_token(self, token: str, at: float, *, by: str) -> bool:
        with self._database.transaction() as database:
            cursor = database.execute(
                "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (at, token)
            )
            if cursor.rowcount:
                write_audit(database, at, by, "token revoked", token, {})
        return bool(cursor.rowcount)

    # Devices.

    def secret(self, device: str) -> bytes | None:
        rows = self._database.rows("SELECT secret FROM devices WHERE id = ?", device)
        return bytes(rows[0][0]) if rows else None

    def enrol(self, device: str, secret: bytes, at: float, *, token: str | None = None) -> Enrolment:
        with self._database.transaction() as database:
            known = database.execute("SELECT secret, revoked_at FROM devices WHERE id = ?", (device,)).fetchone()
            if known is not None:
                # It may not have heard that it is in: a token is spent once.
                return "taken" if bytes(known[0]) != secret else "enrolled" if known[1] is None else "revoked"
            name = "" if token is None else _spend(database, token, at)
            if name is None:
                return "token"
            alias = secrets.token_hex(8)
            database.execute(
                "INSERT INTO devices (id, secret, enrolled_at, alias, token) VALUES (?, ?, ?, ?, ?)",
                (device, secret, at, alias, name),
            )
            write_audit(database, at, name or "open enrolment", "enrolled", alias, {})
        return "enrolled"

    def device(self, device: str) -> DeviceRecord | None:
        return next(iter(self._devices("WHERE id = ?", device)), None)

    def devices(self) -> list[DeviceRecord]:
        return self._devices("ORDER BY id")

    def _devices(self, which: str, *arguments: Any) -> list[DeviceRecord]:
        rows = self._database.rows(
            "SELECT id, tier, bytes_up, bytes_down, updates, report, alias, token, enrolled_at, last_seen, failures, "
            f"revoked_at, profile FROM devices {which}",
            *arguments,
        )
        return [
            DeviceRecord(
                row[0],
                tier=row[1],
                bytes_up=row[2],
                bytes_down=row[3],
                updates=row[4],
                report=json.loads(row[5]),
                alias=row[6],
                token=row[7],
                enrolled_at=row[8],
                last_seen=row[9],
                failures=row[10],
                revoked_at=row[11],
                profile=json.loads(row[12]),
            )
            for row in rows
        ]

    def seen(self, device: str, at: float, profile: Mapping[str, Any] | None = None) -> None:
        with self._database.transaction() as database:
            database.execute(
                "UPDATE devices SET last_seen = ?, profile = coalesce(?, profile) WHERE id = ?",
                (at, None if profile is None else json.dumps(profile), device),
            )

    def add_traffic(self, device: str, bytes_up: int, bytes_down: int) -> None:
        with self._database.transaction() as database:
            database.execute(
                "UPDATE devices SET bytes_up = bytes_up + ?, bytes_down = bytes_down + ? WHERE id = ?",
                (bytes_up, bytes_down, device),
            )

    def add_failure(self, device: str) -> None:
        with self._database.transaction() as database:
            database.execute("UPDATE devices SET failures = failures + 1 WHERE id = ?", (device,))

    def revoke(self, device: str, at: float, *, by: str) -> bool:
        with self._database.transaction() as database:
            row = database.execute("SELECT alias FROM devices WHERE id = ?", (device,)).fetchone()
            if row is not None:
                database.execute("UPDATE devices SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (at, device))
                database.execute("UPDATE assignments SET open = 0 WHERE device = ? AND open", (device,))
                write_audit(database, at, by, "revoked", row[0], {})
        return row is not None


def _spend(database: sqlite3.Connection, digest: str, at: float) -> str | None:
    """The id of a good token, one use of which is spent; none if it is not good."""
    row = database.execute(
        "UPDATE tokens SET uses_left = uses_left - 1 WHERE digest = ? AND revoked_at IS NULL "
        "AND coalesce(expires_at > ?, 1) AND coalesce(uses_left > 0, 1) RETURNING id",
        (digest, at),
    ).fetchall()
    return str(row[0][0]) if row else None


def write_audit(
    database: sqlite3.Connection, at: float, actor: str, action: str, subject: str, details: Mapping[str, Any]
) -> None:
    """Add a line to the audit log, in the transaction of what it tells of."""
    last = database.execute("SELECT hash FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    text = json.dumps(details, sort_keys=True)
    digest = _audit_hash(last[0] if last else "", at, actor, action, subject, text)
    database.execute(
        "INSERT INTO audit (at, actor, action, subject, details, hash) VALUES (?, ?, ?, ?, ?, ?)",
        (at, actor, action, subject, text, digest),
    )


def _audit_hash(previous: str, at: float, actor: str, action: str, subject: str, details: str) -> str:
    return hashlib.sha256(json.dumps([previous, at, actor, action, subject, details]).encode()).hexdigest()
