"""Who takes part: devices that have enrolled."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping
from typing import Any, get_args

import asyncpg

from ..crash_points import step
from ..interface import DeviceOrder
from ..records import DeviceRecord, DiscardedUpdate, Enrolment, SetAside
from ..rows import DEVICE_COLUMNS, device_record, is_text
from .audit import write_audit
from .connection import Connection
from .database import Database
from .tokens import is_good_token, spend_token
from .updates import WAITING, UpdateTable, discard_rows

__all__ = ["FIRST_OF_DEVICES", "DeviceTable", "device_model"]

# What may be sorted by, as columns: nothing else comes into a query.
_COLUMNS = {name: name for name in get_args(DeviceOrder)}

_ALL = f"SELECT {DEVICE_COLUMNS} FROM devices ORDER BY id"

# What a run that goes on asks for.
FIRST_OF_DEVICES = (_ALL,)

_SECRET = "SELECT secret, revoked_at FROM devices WHERE id = $1"


class DeviceTable:
    """The :class:`~coordinator.store.interface.DeviceStore` in ``database``; a withdrawal erases ``updates``."""

    def __init__(self, database: Database, updates: UpdateTable) -> None:
        self._database = database
        self._updates = updates

    def secret(self, device: str) -> bytes | None:
        if not is_text(device):
            return None
        for (secret,) in self._database.rows("SELECT secret FROM devices WHERE id = $1", device):
            return bytes(secret)
        return None

    def enrol(self, device: str, secret: bytes, at: float, *, token: str | None = None) -> Enrolment:
        try:
            outcome = self._database.transact(lambda rows: _enrol(rows, device, secret, at, token))
        except asyncpg.exceptions.UniqueViolationError:
            # Two of one name at the same moment: by now the name is known.
            outcome = self._database.transact(lambda rows: _enrol(rows, device, secret, at, token))
        step("enrol: committed")
        return outcome

    def find(self, device: str) -> DeviceRecord | None:
        return next(iter(self._devices("WHERE id = $1", device)), None) if is_text(device) else None

    def all(self) -> list[DeviceRecord]:
        return [device_record(row) for row in self._database.rows(_ALL)]

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
        which, arguments = "WHERE true", list[Any]()
        if search:
            arguments.append("%" + re.sub(r"([%_\\])", r"\\\1", search) + "%")
            which += (
                f" AND (id ILIKE ${len(arguments)} OR tier ILIKE ${len(arguments)} OR model ILIKE ${len(arguments)})"
            )
        if among is not None:
            arguments.append(sorted(filter(is_text, among)))
            which += f" AND id = ANY(${len(arguments)}::text[])"
        ((total,),) = self._database.rows(f"SELECT count(*) FROM devices {which}", *arguments)
        # What is not known is the smallest.
        way = "DESC NULLS LAST" if descending else "ASC NULLS FIRST"
        sort = f"ORDER BY {_COLUMNS[order]} {way}, id LIMIT ${len(arguments) + 1} OFFSET ${len(arguments) + 2}"
        return int(total), self._devices(f"{which} {sort}", *arguments, limit, offset)

    def _devices(self, which: str, *arguments: Any) -> list[DeviceRecord]:
        rows = self._database.rows(f"SELECT {DEVICE_COLUMNS} FROM devices {which}", *arguments)
        return [device_record(row) for row in rows]

    def seen(self, device: str, at: float, profile: Mapping[str, Any] | None = None) -> None:
        text = None if profile is None else json.dumps(profile)
        model = None if profile is None else device_model(profile)
        self._database.transact(
            lambda rows: rows.execute(
                "UPDATE devices SET last_seen = $1, profile = coalesce($2, profile), model = coalesce($3, model) "
                "WHERE id = $4",
                at,
                text,
                model,
                device,
            )
        )

    def add_traffic(self, device: str, bytes_up: int, bytes_down: int) -> None:
        self._database.transact(
            lambda rows: rows.execute(
                "UPDATE devices SET bytes_up = bytes_up + $1, bytes_down = bytes_down + $2 WHERE id = $3",
                bytes_up,
                bytes_down,
                device,
            )
        )

    def add_failure(self, device: str) -> None:
        self._database.transact(
            lambda rows: rows.execute("UPDATE devices SET failures = failures + 1 WHERE id = $1", device)
        )

    def set_aside(self, device: str, aside: SetAside, at: float) -> None:
        async def work(rows: Connection) -> None:
            alias = await rows.fetchval(
                "UPDATE devices SET aside_until = $1, aside_reason = $2, aside_why = $3 WHERE id = $4 RETURNING alias",
                aside.until,
                aside.reason,
                aside.why,
                device,
            )
            if alias is not None:
                await _close_work(rows, device)
                details = {"reason": aside.reason, "why": aside.why, "until": aside.until}
                await write_audit(rows, at, "coordinator", "set aside", alias, details)
            step("set aside: rows")

        self._database.transact(work)
        step("set aside: committed")

    def revoke(self, device: str, at: float, *, by: str) -> bool:
        async def work(rows: Connection) -> bool:
            alias = await rows.fetchval(
                "UPDATE devices SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2 RETURNING alias", at, device
            )
            if alias is not None:
                await _close_work(rows, device)
                await write_audit(rows, at, by, "revoked", alias, {})
            step("revoke: rows")
            return alias is not None

        known = self._database.transact(work)
        step("revoke: committed")
        return known

    def withdraw(self, device: str, at: float, *, by: str) -> list[str] | None:
        found = self._database.transact(lambda rows: _withdraw(rows, device, at, by))
        if found is None:
            return None
        step("withdraw: committed")
        stopped, gone = found
        self._updates.erase(gone)
        return stopped


def device_model(profile: Mapping[str, Any]) -> str:
    """What is searched for a device's model: the profile itself may hold what no text of PostgreSQL can."""
    model = profile.get("model", "")
    return model.replace("\0", "").encode("utf-8", "replace").decode() if isinstance(model, str) else ""


async def _enrol(rows: Connection, device: str, secret: bytes, at: float, token: str | None) -> Enrolment:
    known = await rows.fetchrow(_SECRET, device)
    if known is not None:
        if bytes(known[0]) == secret:
            # It may not have heard that it is in: a token is spent once.
            return "enrolled" if known[1] is None else "revoked"
        # Only who may enrol learns that a name is taken.
        return "taken" if token is None or await is_good_token(rows, token, at) else "token"
    name = "" if token is None else await spend_token(rows, token, at)
    if name is None:
        return "token"
    alias = secrets.token_hex(8)
    await rows.execute(
        "INSERT INTO devices (id, secret, enrolled_at, alias, token) VALUES ($1, $2, $3, $4, $5)",
        device,
        secret,
        at,
        alias,
        name,
    )
    await write_audit(rows, at, name or "open enrolment", "enrolled", alias, {})
    step("enrol: rows")
    return "enrolled"


async def _withdraw(rows: Connection, device: str, at: float, by: str) -> tuple[list[str], list[str]] | None:
    alias = await rows.fetchval("SELECT alias FROM devices WHERE id = $1 FOR UPDATE", device)
    if alias is None:
        return None
    waiting = await rows.fetch(
        f"SELECT assignment FROM updates WHERE device = $1 AND {WAITING} ORDER BY arrival", device
    )
    stopped = [row[0] for row in waiting]
    gone = await discard_rows(rows, [DiscardedUpdate(name, "withdrawn") for name in stopped])
    # What was merged keeps its place in the history, without a name, a report or a hash: an object's key has the hash.
    await rows.execute(
        "UPDATE updates SET device = NULL, report = '{}', sha256 = '', object = NULL WHERE device = $1", device
    )
    await rows.execute("DELETE FROM assignments WHERE device = $1", device)
    await rows.execute("DELETE FROM devices WHERE id = $1", device)
    await write_audit(rows, at, by, "withdrawn", alias, {"stopped": len(stopped)})
    step("withdraw: rows")
    return stopped, gone


async def _close_work(rows: Connection, device: str) -> None:
    await rows.execute("UPDATE assignments SET open = false WHERE device = $1 AND open", device)
