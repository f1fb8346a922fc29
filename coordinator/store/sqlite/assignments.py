"""What devices are given to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import Expelled, StoreError
from ..crash_points import step
from ..records import AssignmentRecord, AssignmentRequest
from ..rows import assignment_number
from .database import Database

__all__ = ["AssignmentTable"]


class AssignmentTable:
    """The :class:`~coordinator.store.interface.AssignmentStore` in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def assign(self, requests: Sequence[AssignmentRequest]) -> list[AssignmentRecord]:
        records = []
        with self._database.transaction() as database:
            for request in requests:
                known = "SELECT 1 FROM devices WHERE id = ? AND revoked_at IS NULL"
                if not database.execute(known, (request.device,)).fetchone():
                    raise Expelled(f"{request.device} was revoked or withdrawn: it gets no work")
                database.execute("UPDATE assignments SET open = 0 WHERE device = ? AND open", (request.device,))
                cursor = database.execute(
                    "INSERT INTO assignments (device, version, tier, issued_at, open, deadline) "
                    "VALUES (?, ?, ?, ?, 1, ?)",
                    (request.device, request.version, request.tier, request.at, request.deadline),
                )
                database.execute(
                    "UPDATE devices SET tier = ?, version = ?, given_at = ? WHERE id = ?",
                    (request.tier, request.version, request.at, request.device),
                )
                if cursor.lastrowid is None:
                    raise StoreError("the database gave no number to an assignment")
                records.append(
                    AssignmentRecord(
                        cursor.lastrowid,
                        request.device,
                        request.version,
                        request.tier,
                        request.at,
                        True,
                        request.deadline,
                    )
                )
        step("assign: committed")
        return records

    def find(self, assignment: str) -> AssignmentRecord | None:
        number = assignment_number(assignment)
        if number is None:
            return None
        record = next(iter(self._select("WHERE number = ?", number)), None)
        # Only the name that was given out counts, not another way to write its number.
        return record if record is not None and record.id == assignment else None

    def open(self) -> list[AssignmentRecord]:
        return self._select("WHERE open ORDER BY number")

    def _select(self, which: str, *arguments: Any) -> list[AssignmentRecord]:
        rows = self._database.rows(
            f"SELECT number, device, version, tier, issued_at, open, deadline FROM assignments {which}", *arguments
        )
        return [
            AssignmentRecord(number, device, version, tier, at, bool(is_open), deadline)
            for number, device, version, tier, at, is_open, deadline in rows
        ]

    def close(self, assignment: str) -> None:
        with self._database.transaction() as database:
            database.execute("UPDATE assignments SET open = 0 WHERE number = ?", (assignment_number(assignment),))

    def prune(self, before: float) -> int:
        with self._database.transaction() as database:
            cursor = database.execute(
                "DELETE FROM assignments WHERE NOT open AND issued_at < ? AND NOT EXISTS "
                "(SELECT 1 FROM updates WHERE updates.assignment = printf('a%08d', assignments.number))",
                (before,),
            )
        return cursor.rowcount
