"""Accepted updates: written down, merged or discarded, and then erased."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence

from ...errors import Expelled, StoreError
from ..crash_points import step
from ..records import DiscardedUpdate, MergedUpdate, MergeHistory, TripRecord, UpdateRecord
from ..rows import UPDATE_COLUMNS, assignment_number, update_record
from ..segments import Location, Segments
from .database import Database, available, taking_part
from .erasure import WAITING, Erasure

__all__ = ["UpdateTable", "discard_rows", "merge_rows"]

# The rows of updates that the disk has not lost: a device may still hold what was damaged here.
INTACT = "discarded IS NOT 'damaged'"


class UpdateTable:
    """
    The :class:`~coordinator.store.interface.UpdateStore`: rows in ``database``, bytes in ``segments``.

    ``erasure`` overwrites what was discarded.
    """

    def __init__(self, database: Database, segments: Segments, erasure: Erasure) -> None:
        self._database = database
        self._segments = segments
        self._erasure = erasure
        # Bytes are appended by one caller at a time, and the database is free for others meanwhile.
        self._accepting = threading.Lock()

    def close(self) -> None:
        """Wait for the updates that are being written down, then let go of the open segment."""
        with self._accepting, self._database.writing():
            self._segments.close()

    def accept(self, updates: Sequence[tuple[UpdateRecord, bytes | memoryview]]) -> set[str]:
        # Others write to the database while the bytes are synced; updates keep the order in which they came.
        with self._accepting, available():
            new = {update.assignment: (update, content) for update, content in reversed(updates)}
            marks = ", ".join("?" * len(new))
            here = f"SELECT assignment, {INTACT} FROM updates WHERE assignment IN ({marks})"
            damaged = []
            for known, intact in self._database.rows(here, *new):
                if intact:
                    del new[known]
                else:
                    damaged.append((known,))
            chosen = [new[name] for name in dict.fromkeys(u.assignment for u, _ in updates) if name in new]
            # Bytes first: a row must never name bytes that a power cut could take.
            locations = self._segments.append([content for _, content in chosen])
            try:
                with self._database.transaction() as database:
                    database.executemany("DELETE FROM updates WHERE assignment = ? AND discarded = 'damaged'", damaged)
                    _insert(database, [update for update, _ in chosen], locations)
                    step("accept: rows")
            except BaseException:
                with self._database.writing():
                    self._segments.named(locations)
                    self._erasure.erase(locations)
                raise
            self._segments.named(locations)
            step("accept: committed")
            return set(new)

    def place(self, database: sqlite3.Connection, contents: Mapping[str, bytes]) -> None:
        """Keep the bytes of updates, by assignment, whose rows are being written in the transaction of ``database``."""
        with self._accepting, available():
            locations = self._segments.append(list(contents.values()))
            database.executemany(
                "UPDATE updates SET segment = ?, start = ? WHERE assignment = ?",
                [(where.segment, where.start, name) for name, where in zip(contents, locations, strict=True)],
            )
            self._segments.named(locations)

    def is_accepted(self, assignment: str) -> bool:
        return bool(self._database.rows(f"SELECT 1 FROM updates WHERE assignment = ? AND {INTACT}", assignment))

    def taken_in(self, artifacts: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        hashes = json.dumps(sorted({sha256 for _, sha256 in artifacts}))
        rows = self._database.rows(
            f"SELECT device, sha256 FROM updates WHERE sha256 IN (SELECT value FROM json_each(?)) AND {INTACT}", hashes
        )
        return set(artifacts).intersection(rows)

    def buffered(self) -> list[UpdateRecord]:
        return [record for _, record in self.arrived(0)]

    def arrived(self, after: int) -> list[tuple[int, UpdateRecord]]:
        rows = self._database.rows(
            f"SELECT arrival, {UPDATE_COLUMNS} FROM updates WHERE {WAITING} AND arrival > ? ORDER BY arrival", after
        )
        return [(row[0], update_record(row[1:])) for row in rows]

    def content(self, assignment: str) -> bytes:
        for sha256, segment, start, size in self._database.rows(
            f"SELECT sha256, segment, start, size FROM updates WHERE assignment = ? AND {WAITING}", assignment
        ):
            content = self._segments.read(Location(segment, start, size))
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
            raise StoreError(f"the accepted update of {assignment} is damaged on the disk")
        raise StoreError(f"no update of {assignment} waits to be merged")

    def discard(self, updates: Sequence[DiscardedUpdate]) -> None:
        with self._database.writing():
            with self._database.transaction() as database:
                gone = discard_rows(database, updates)
                for update in updates:
                    if update.reason == "damaged":
                        _reopen(database, update.assignment)
                step("discard: rows")
            step("discard: committed")
            self._erasure.erase(gone)

    def merged(self) -> list[MergedUpdate]:
        rows = self._database.rows(
            "SELECT assignment, staleness, weight, merged_into FROM updates WHERE merged_into IS NOT NULL "
            "ORDER BY merged_into, arrival"
        )
        return [MergedUpdate(*row) for row in rows]

    def merge_history(self, newest: int) -> MergeHistory:
        merged = "FROM updates WHERE merged_into IS NOT NULL"
        sizes = self._database.rows(f"SELECT count(*) {merged} GROUP BY merged_into ORDER BY merged_into")
        stalenesses = self._database.rows(f"SELECT staleness, count(*) {merged} GROUP BY staleness")
        last = self._database.rows(f"SELECT staleness {merged} ORDER BY merged_into DESC, arrival DESC LIMIT ?", newest)
        return MergeHistory([size for (size,) in sizes], dict(stalenesses), [staleness for (staleness,) in last][::-1])

    def trips(self, limit: int, *, after: int = 0, device: str | None = None) -> list[TripRecord]:
        whose = "" if device is None else "AND u.device = ?"
        rows = self._database.rows(
            "SELECT u.arrival, u.assignment, u.device, u.version, u.tier, u.size, a.issued_at, u.received_at, "
            "u.report, u.merged_into, v.created_at, u.staleness, u.weight, u.discarded FROM updates AS u "
            "LEFT JOIN assignments AS a ON a.number = CAST(substr(u.assignment, 2) AS INTEGER) "
            f"LEFT JOIN versions AS v ON v.version = u.merged_into WHERE u.arrival > ? {whose} "
            "ORDER BY u.arrival DESC LIMIT ?",
            *(after, limit) if device is None else (after, device, limit),
        )
        rows = [(*row[:8], json.loads(row[8]), *row[9:]) for row in rows]
        return [TripRecord(*row) for row in reversed(rows)]


def _insert(database: sqlite3.Connection, updates: Sequence[UpdateRecord], locations: Sequence[Location]) -> None:
    """
    Each statement for all updates: statements of single rows cost a thread the interpreter's lock each time.

    Raises:
        Expelled: if a device of them was revoked or withdrawn while its update was on its way.

    """
    known = taking_part(database, {update.device for update in updates})
    for update in updates:
        if update.device not in known:
            raise Expelled(f"the device of {update.assignment} was revoked or withdrawn")
    reports = [json.dumps(update.report) for update in updates]
    database.executemany(
        "INSERT INTO updates (assignment, device, version, tier, sha256, size, report, received_at, segment, start) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                update.assignment,
                update.device,
                update.version,
                update.tier,
                update.artifact.sha256,
                update.artifact.size,
                report,
                update.received_at,
                location.segment,
                location.start,
            )
            for update, report, location in zip(updates, reports, locations, strict=True)
        ],
    )
    database.executemany(
        "UPDATE assignments SET open = 0 WHERE number = ?",
        [(assignment_number(update.assignment),) for update in updates],
    )
    database.executemany(
        "UPDATE devices SET updates = updates + 1, report = ? WHERE id = ?",
        [(report, update.device) for update, report in zip(updates, reports, strict=True)],
    )


def _reopen(database: sqlite3.Connection, assignment: str) -> None:
    """Let a device hand an update in again that the disk has lost, unless it has other work by now."""
    database.execute(
        "UPDATE assignments SET open = 1 WHERE number = ? AND NOT EXISTS "
        "(SELECT 1 FROM assignments AS other WHERE other.device = assignments.device AND other.open)",
        (assignment_number(assignment),),
    )


def discard_rows(database: sqlite3.Connection, updates: Iterable[DiscardedUpdate]) -> list[Location]:
    """
    Mark waiting updates as discarded; where their bytes are.

    Raises:
        StoreError: if one of them does not wait.

    """
    gone = []
    for update in updates:
        rows = database.execute(
            f"UPDATE updates SET discarded = ? WHERE assignment = ? AND {WAITING} RETURNING segment, start, size",
            (update.reason, update.assignment),
        ).fetchall()
        if not rows:
            raise StoreError(f"the update of {update.assignment} was merged before, or was never accepted")
        gone.append(Location(*rows[0]))
    return gone


def merge_rows(database: sqlite3.Connection, version: int, updates: Iterable[MergedUpdate]) -> list[Location]:
    """
    Mark waiting updates as merged into ``version``; where their bytes are.

    Args:
        database: in a transaction.
        version: that they are part of.
        updates: with staleness and weight.

    Raises:
        StoreError: if one of them was consumed before, or never accepted.

    """
    updates = list(updates)
    names = json.dumps([update.assignment for update in updates])
    found = database.execute(
        "SELECT assignment, segment, start, size FROM updates "
        f"WHERE assignment IN (SELECT value FROM json_each(?)) AND {WAITING}",
        (names,),
    )
    places = {assignment: Location(*place) for assignment, *place in found}
    gone = []
    for update in updates:
        place = places.pop(update.assignment, None)
        if place is None:
            raise StoreError(f"the update of {update.assignment} was merged before, or was never accepted")
        gone.append(place)
    database.executemany(
        "UPDATE updates SET merged_into = ?, staleness = ?, weight = ? WHERE assignment = ?",
        [(version, update.staleness, update.weight, update.assignment) for update in updates],
    )
    return gone
