"""What devices are given to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import Expelled
from ..crash_points import step
from ..records import AssignmentRecord, AssignmentRequest
from ..rows import assignment_number
from .database import Database, taking_part

__all__ = ["AssignmentTable"]


class AssignmentTable:
    """The :class:`~coordinator.store.interface.AssignmentStore` in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def assign(self, requests: Sequence[AssignmentRequest]) -> list[AssignmentRecord]:
        # Each statement for all of them: statements of single rows cost a thread the interpreter's lock each time.
        last = {request.device: place for place, request in enumerate(requests)}  # of two for one device, the later
        with self._database.transaction() as database:
            devices = [(request.device,) for request in requests]
            known = taking_part(database, last)
            for request in requests:
                if request.device not in known:
                    raise Expelled(f"{request.device} was revoked or withdrawn: it gets no work")
            database.executemany("UPDATE assignments SET open = 0 WHERE device = ? AND open", devices)
            database.executemany(
                "INSERT INTO assignments (device, version, tier, issued_at, open, deadline) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        request.device,
                        request.version,
                        request.tier,
                        request.at,
                        last[request.device] == place,
                        request.deadline,
                    )
                    for place, request in enumerate(requests)
                ],
            )
            ((newest,),) = database.execute("SELECT last_insert_rowid()")  # nobody else writes: without gaps
            database.executemany(
                "UPDATE devices SET tier = ?, version = ?, given_at = ? WHERE id = ?",
                [(request.tier, request.version, request.at, request.device) for request in requests],
            )
        records = [
            AssignmentRecord(number, request.device, request.version, request.tier, request.at, True, request.deadline)
            for number, request in enumerate(requests, newest - len(requests) + 1)
        ]
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
