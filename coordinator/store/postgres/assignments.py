"""What devices are given to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import Expelled
from ..crash_points import step
from ..records import AssignmentRecord, AssignmentRequest
from ..rows import assignment_number
from .connection import Connection
from .database import Database

__all__ = ["FIRST_OF_ASSIGNMENTS", "AssignmentTable", "lock_devices"]

_ASSIGNMENTS = "SELECT number, device, version, tier, issued_at, open, deadline FROM assignments"
_FIND = f"{_ASSIGNMENTS} WHERE number = $1"
_OPEN = f"{_ASSIGNMENTS} WHERE open ORDER BY number"

# What a run that goes on asks for.
FIRST_OF_ASSIGNMENTS = (_OPEN,)


class AssignmentTable:
    """The :class:`~coordinator.store.interface.AssignmentStore` in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def assign(self, requests: Sequence[AssignmentRequest]) -> list[AssignmentRecord]:
        records = self._database.transact(lambda rows: _assign(rows, requests))
        step("assign: committed")
        return records

    def find(self, assignment: str) -> AssignmentRecord | None:
        number = assignment_number(assignment)
        if number is None:
            return None
        record = next(iter(self._select(_FIND, number)), None)
        # Only the name that was given out counts, not another way to write its number.
        return record if record is not None and record.id == assignment else None

    def open(self) -> list[AssignmentRecord]:
        return self._select(_OPEN)

    def _select(self, query: str, *arguments: Any) -> list[AssignmentRecord]:
        rows = self._database.rows(query, *arguments)
        return [AssignmentRecord(*row) for row in rows]

    def close(self, assignment: str) -> None:
        self._database.transact(
            lambda rows: rows.execute(
                "UPDATE assignments SET open = false WHERE number = $1", assignment_number(assignment)
            )
        )

    def prune(self, before: float) -> int:
        async def work(rows: Connection) -> int:
            done = await rows.execute(
                "DELETE FROM assignments AS a WHERE NOT open AND issued_at < $1 AND NOT EXISTS (SELECT 1 FROM updates "
                "WHERE updates.assignment = 'a' || lpad(a.number::text, greatest(8, length(a.number::text)), '0'))",
                before,
            )
            return int(str(done).rpartition(" ")[2])

        return self._database.transact(work)


async def lock_devices(connection: Connection, devices: Sequence[str]) -> set[str]:
    """
    The devices among ``devices`` that take part; until the transaction ends they are neither revoked nor withdrawn.

    Rows of devices are locked before any other, and in their order, so that no two transactions wait for each other.
    """
    found = await connection.fetch(
        "SELECT id FROM devices WHERE id = ANY($1::text[]) AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE",
        sorted(set(devices)),
    )
    return {row[0] for row in found}


async def _assign(rows: Connection, requests: Sequence[AssignmentRequest]) -> list[AssignmentRecord]:
    devices = [request.device for request in requests]
    known = await lock_devices(rows, devices)
    for device in devices:
        if device not in known:
            raise Expelled(f"{device} was revoked or withdrawn: it gets no work")
    await rows.execute("UPDATE assignments SET open = false WHERE device = ANY($1::text[]) AND open", devices)
    numbers = await rows.fetch("SELECT nextval('assignment_numbers') FROM generate_series(1, $1)", len(requests))
    records = [
        AssignmentRecord(number, r.device, r.version, r.tier, r.at, True, r.deadline)
        for number, r in zip(sorted(row[0] for row in numbers), requests, strict=True)
    ]
    last = {record.device: record for record in records}  # of several for one device, the last is open
    await rows.execute(
        "INSERT INTO assignments (number, device, version, tier, issued_at, open, deadline) "
        "SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::float8[], $6::boolean[], "
        "$7::float8[])",
        [record.number for record in records],
        devices,
        [record.version for record in records],
        [record.tier for record in records],
        [record.issued_at for record in records],
        [last[record.device] is record for record in records],
        [record.deadline for record in records],
    )
    given = list(last.values())
    await rows.execute(
        "UPDATE devices SET tier = g.tier, version = g.version, given_at = g.at FROM "
        "unnest($1::text[], $2::text[], $3::bigint[], $4::float8[]) AS g (id, tier, version, at) "
        "WHERE devices.id = g.id",
        [record.device for record in given],
        [record.tier for record in given],
        [record.version for record in given],
        [record.issued_at for record in given],
    )
    return records
