"""Who takes part: devices that have enrolled."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping
from typing import Any, get_args

from ..crash_points import step
from ..interface import DeviceOrder
from ..records import DeviceRecord, DiscardedUpdate, Enrolment, SetAside
from ..rows import DEVICE_COLUMNS, device_record, is_text
from .audit import write_audit
from .database import Database
from .erasure import WAITING, Erasure
from .tokens import is_good_token, spend_token
from .updates import discard_rows

__all__ = ["DeviceTable"]

# What may be sorted by, as columns: nothing else comes into a query.
_COLUMNS = {name: name for name in get_args(DeviceOrder)}


class DeviceTable:
    """The :class:`~coordinator.store.interface.DeviceStore` in ``database``; a withdrawal erases updates."""

    def __init__(self, database: Database, erasure: Erasure) -> None:
        self._database = database
        self._erasure = erasure

    def secret(self, device: str) -> bytes | None:
        if not is_text(device):
            return None
        for (secret,) in self._database.rows("SELECT secret FROM devices WHERE id = ?", device):
            return bytes(secret)
        return None

    def enrol(self, device: str, secret: bytes, at: float, *, token: str | None = None) -> Enrolment:
        with self._database.transaction() as database:
            known = database.execute("SELECT secret, revoked_at FROM devices WHERE id = ?", (device,)).fetchone()
            if known is not None:
                if bytes(known[0]) == secret:
                    # It may not have heard that it is in: a token is spent once.
                    return "enrolled" if known[1] is None else "revoked"
                # Only who may enrol learns that a name is taken.
                return "taken" if token is None or is_good_token(database, token, at) else "token"
            name = "" if token is None else spend_token(database, token, at)
            if name is None:
                return "token"
            alias = secrets.token_hex(8)
            database.execute(
                "INSERT INTO devices (id, secret, enrolled_at, alias, token) VALUES (?, ?, ?, ?, ?)",
                (device, secret, at, alias, name),
            )
            write_audit(database, at, name or "open enrolment", "enrolled", alias, {})
            step("enrol: rows")
        step("enrol: committed")
        return "enrolled"

    def find(self, device: str) -> DeviceRecord | None:
        return next(iter(self._devices("WHERE id = ?", device)), None) if is_text(device) else None

    def all(self) -> list[DeviceRecord]:
        return self._devices("ORDER BY id")

    def page(
        self,
        search: str,
        order: DeviceOrder,
        *,
        descending: bool,
        offset: int,
        limit: int,
        among: Collection[str] | None = None,
    ) -> tuple[int, list[DeviceRecord]]:
        if not is_text(search):
            return 0, []
        which, arguments = "WHERE 1", list[Any]()
        if search:
            pattern = "%" + re.sub(r"([%_\\])", r"\\\1", search) + "%"
            columns = ("id", "tier", "json_extract(profile, '$.model')")
            which += " AND (" + " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in columns) + ")"
            arguments += [pattern] * len(columns)
        if among is not None:
            which += " AND id IN (SELECT value FROM json_each(?))"
            arguments.append(json.dumps(sorted(filter(is_text, among))))
        ((total,),) = self._database.rows(f"SELECT count(*) FROM devices {which}", *arguments)
        sort = f"ORDER BY {_COLUMNS[order]} {'DESC' if descending else 'ASC'}, id LIMIT ? OFFSET ?"
        return int(total), self._devices(f"{which} {sort}", *arguments, limit, offset)

    def _devices(self, which: str, *arguments: Any) -> list[DeviceRecord]:
        rows = self._database.rows(f"SELECT {DEVICE_COLUMNS} FROM devices {which}", *arguments)
        return [device_record(row) for row in rows]

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

    def set_aside(self, device: str, aside: SetAside, at: float) -> None:
        with self._database.transaction() as database:
            row = database.execute("SELECT alias FROM devices WHERE id = ?", (device,)).fetchone()
            if row is not None:
                database.execute(
                    "UPDATE devices SET aside_until = ?, aside_reason = ?, aside_why = ? WHERE id = ?",
                    (aside.until, aside.reason, aside.why, device),
                )
                database.execute("UPDATE assignments SET open = 0 WHERE device = ? AND open", (device,))
                details = {"reason": aside.reason, "why": aside.why, "until": aside.until}
                write_audit(database, at, "coordinator", "set aside", row[0], details)
            step("set aside: rows")
        step("set aside: committed")

    def revoke(self, device: str, at: float, *, by: str) -> bool:
        with self._database.transaction() as database:
            row = database.execute("SELECT alias FROM devices WHERE id = ?", (device,)).fetchone()
            if row is not None:
                database.execute("UPDATE devices SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (at, device))
                database.execute("UPDATE assignments SET open = 0 WHERE device = ? AND open", (device,))
                write_audit(database, at, by, "revoked", row[0], {})
            step("revoke: rows")
        step("revoke: committed")
        return row is not None

    def withdraw(self, device: str, at: float, *, by: str) -> list[str] | None:
        with self._database.writing():
            with self._database.transaction() as database:
                row = database.execute("SELECT alias FROM devices WHERE id = ?", (device,)).fetchone()
                if row is None:
                    return None
                waiting = [
                    DiscardedUpdate(name, "withdrawn")
                    for (name,) in database.execute(
                        f"SELECT assignment FROM updates WHERE device = ? AND {WAITING}", (device,)
                    )
                ]
                gone = discard_rows(database, waiting)
                # What was merged keeps its place in the history, without a name, a report or a hash.
                database.execute(
                    "UPDATE updates SET device = NULL, report = '{}', sha256 = '' WHERE device = ?", (device,)
                )
                database.execute("DELETE FROM assignments WHERE device = ?", (device,))
                database.execute("DELETE FROM devices WHERE id = ?", (device,))
                write_audit(database, at, by, "withdrawn", row[0], {"stopped": len(waiting)})
                step("withdraw: rows")
            step("withdraw: committed")
            self._erasure.erase(gone, forget=True)
        return [update.assignment for update in waiting]
