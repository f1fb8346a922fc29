"""Accepted updates: written down, merged or discarded, and then erased."""

from __future__ import annotations

import collections
import hashlib
import json
import logging
from collections.abc import Collection, Sequence
from typing import Any

from ...errors import Expelled, StoreError, StoreUnavailable
from ..crash_points import step
from ..records import DiscardedUpdate, MergedUpdate, MergeHistory, TripRecord, UpdateRecord
from ..rows import UPDATE_COLUMNS, assignment_number, update_record
from .connection import Connection
from .database import Database
from .kept_objects import KeptObjects

__all__ = ["LARGE_BYTES", "WAITING", "UpdateTable", "discard_rows", "first_of_updates", "merge_rows", "object_key"]

log = logging.getLogger(__name__)

# The rows of updates whose bytes are wanted.
WAITING = "merged_into IS NULL AND discarded IS NULL"

# The rows of updates that were not lost: a device may still hold what was damaged here.
INTACT = "discarded IS DISTINCT FROM 'damaged'"

# Larger updates are objects.
LARGE_BYTES = 256 * 1024

OBJECTS = "updates/"

_Given = tuple[UpdateRecord, "bytes | memoryview"]

# Which of some updates are known, and which of their devices take part; the latter stay so until the end.
_KNOWN = (
    "WITH locked AS MATERIALIZED (SELECT id FROM devices WHERE id = ANY($2::text[]) AND revoked_at IS NULL "
    "ORDER BY id FOR NO KEY UPDATE) SELECT 'device', id FROM locked UNION ALL "
    f"SELECT 'update', assignment FROM updates WHERE assignment = ANY($1::text[]) AND {INTACT}"
)

_FROM_CONTENTS = f"FROM updates AS u LEFT JOIN contents AS c USING (assignment) WHERE {WAITING}"
_CONTENTS = f"SELECT u.assignment, u.sha256, u.object, c.content {_FROM_CONTENTS}"
_CONTENT = f"SELECT u.sha256, u.object, c.content {_FROM_CONTENTS} AND u.assignment = $1"

_ARRIVED = f"SELECT arrival, {UPDATE_COLUMNS} FROM updates WHERE {WAITING} AND arrival > $1 ORDER BY arrival"
_MERGED = (
    "SELECT assignment, staleness, weight, merged_into FROM updates WHERE merged_into IS NOT NULL "
    "ORDER BY merged_into, arrival"
)
# Both at once, of which the other is null: the table is read once.
_COUNTS = (
    "SELECT merged_into, staleness, count(*) FROM updates WHERE merged_into IS NOT NULL "
    "GROUP BY GROUPING SETS ((merged_into), (staleness)) ORDER BY merged_into"
)
_NEWEST = "SELECT staleness FROM updates WHERE merged_into IS NOT NULL ORDER BY merged_into DESC, arrival DESC LIMIT $1"

_INSERTED = ("arrival", *UPDATE_COLUMNS.split(", "), "object")


class UpdateTable:
    """
    The :class:`~coordinator.store.interface.UpdateStore` in ``database``; large ones are objects.

    ``lock`` is a number that no other run of the database has: updates are written down one group at a time.
    """

    # The advisory lock (lock, 0) is of groups that are written down, (lock, 1) of copies that are made.

    def __init__(self, database: Database, objects: KeptObjects, lock: int) -> None:
        self._database = database
        self._objects = objects
        self.lock = lock

    def accept(self, updates: Sequence[tuple[UpdateRecord, bytes | memoryview]]) -> set[str]:
        given = {update.assignment: (update, content) for update, content in reversed(updates)}
        given = {name: given[name] for name in dict.fromkeys(update.assignment for update, _ in updates)}
        large = {
            name: object_key(name, update.artifact.sha256)
            for name, (update, content) in given.items()
            if len(content) > LARGE_BYTES
        }
        # Bytes first: a row must never name bytes that are not there.
        self.keep_objects([(key, given[name][1]) for name, key in large.items()])
        step("accept: synced")
        new = self._database.transact(lambda rows: self._accept(rows, given, large))
        step("accept: committed")
        return new

    async def _accept(self, rows: Connection, given: dict[str, _Given], large: dict[str, str]) -> set[str]:
        found = await rows.fetch(_KNOWN, list(given), sorted({update.device for update, _ in given.values()}))
        known = {tuple(row) for row in found}
        new = {name: one for name, one in given.items() if ("update", name) not in known}
        if not new:
            return set()
        for update, _ in new.values():
            # Whoever was revoked or withdrawn while its update was on its way is no device of this run any more.
            if ("device", update.device) not in known:
                raise Expelled(f"the device of {update.assignment} was revoked or withdrawn")
        # One group at a time, from here to the commit: arrivals become visible in their order.
        numbers = await rows.fetch(
            "WITH one AS MATERIALIZED (SELECT pg_advisory_xact_lock($3::oid::int4, 0)), "
            "gone AS (DELETE FROM updates WHERE assignment = ANY($1::text[]) AND discarded = 'damaged') "
            "SELECT nextval('arrivals') FROM one, generate_series(1, $2)",
            list(new),
            len(new),
            self.lock,
        )
        arrivals = sorted(row[0] for row in numbers)
        await rows.copy_records_to_table(
            "updates",
            columns=_INSERTED,
            records=[
                (arrival, *_row(update), large.get(update.assignment))
                for arrival, (update, _) in zip(arrivals, new.values(), strict=True)
            ],
        )
        await rows.copy_records_to_table(
            "contents",
            columns=("assignment", "content"),
            records=[(name, content) for name, (_, content) in new.items() if name not in large],
        )
        await _count(rows, [update for update, _ in new.values()])
        step("accept: rows")
        return set(new)

    def keep_objects(self, items: Sequence[tuple[str, bytes | memoryview]]) -> None:
        """Keep the bytes of large updates, by their keys, before rows name them."""
        if items:
            self._objects.put(items)

    def read_object(self, key: str) -> bytes:
        """The bytes of a large update."""
        return self._objects.get(key)

    def is_accepted(self, assignment: str) -> bool:
        return bool(self._database.rows(f"SELECT 1 FROM updates WHERE assignment = $1 AND {INTACT}", assignment))

    def taken_in(self, artifacts: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        rows = self._database.rows(
            "SELECT device, sha256 FROM updates WHERE device = ANY($1::text[]) AND sha256 = ANY($2::text[]) "
            f"AND {INTACT}",
            sorted({device for device, _ in artifacts}),
            sorted({sha256 for _, sha256 in artifacts}),
        )
        return set(artifacts).intersection(tuple(row) for row in rows)

    def buffered(self) -> list[UpdateRecord]:
        return [record for _, record in self.arrived(0)]

    def arrived(self, after: int) -> list[tuple[int, UpdateRecord]]:
        rows = self._database.rows(_ARRIVED, after)
        return [(row[0], update_record(tuple(row)[1:])) for row in rows]

    def share_contents(self) -> None:
        """Answer :meth:`content` of all updates that wait from one query, while the database remembers."""
        for assignment, *row in self._database.rows(_CONTENTS):
            self._database.remember([row], _CONTENT, assignment)

    def content(self, assignment: str) -> bytes:
        for sha256, key, content in self._database.rows(_CONTENT, assignment):
            found = self._objects.get(key) if key is not None else content or b""
            if hashlib.sha256(found).hexdigest() == sha256:
                return bytes(found)
            raise StoreError(f"the accepted update of {assignment} is damaged in the database")
        raise StoreError(f"no update of {assignment} waits to be merged")

    def discard(self, updates: Sequence[DiscardedUpdate]) -> None:
        async def work(rows: Connection) -> list[str]:
            gone = await discard_rows(rows, updates)
            for update in updates:
                if update.reason == "damaged":
                    await _reopen(rows, update.assignment)
            step("discard: rows")
            return gone

        gone = self._database.transact(work)
        step("discard: committed")
        self.erase(gone)

    def erase(self, keys: Sequence[str]) -> None:
        """
        Delete the objects of updates whose rows say that nobody wants them any more.

        It is called after the rows were committed, so it raises nothing: a caller would take the error for a
        transaction that did not happen. What cannot be deleted now is deleted at the next :meth:`collect`.
        """
        try:
            self._objects.delete(keys)
        except (StoreError, StoreUnavailable) as error:
            log.error("updates that nobody wants any more are erased later: %s", error)
        step("erase: done")

    def collect(self) -> int:
        """Delete the objects of updates that a crash left without a row that wants them; how many."""
        rows = self._database.rows(f"SELECT object FROM updates WHERE {WAITING} AND object IS NOT NULL")
        return self._objects.collect([row[0] for row in rows], OBJECTS)

    def merged(self) -> list[MergedUpdate]:
        rows = self._database.rows(_MERGED)
        return [MergedUpdate(*row) for row in rows]

    def merge_history(self, newest: int) -> MergeHistory:
        counts = [tuple(row) for row in self._database.rows(_COUNTS)]
        return MergeHistory(
            [count for version, _, count in counts if version is not None],
            {staleness: count for version, staleness, count in counts if version is None},
            [row[0] for row in self._database.rows(_NEWEST, newest)][::-1],
        )

    def trips(self, limit: int, *, after: int = 0, device: str | None = None) -> list[TripRecord]:
        rows = self._database.rows(
            "SELECT u.arrival, u.assignment, u.device, u.version, u.tier, u.size, a.issued_at, u.received_at, "
            "u.report, u.merged_into, v.created_at, u.staleness, u.weight, u.discarded FROM (SELECT * FROM updates "
            "WHERE arrival > $1 AND ($3::text IS NULL OR device = $3) ORDER BY arrival DESC LIMIT $2) AS u "
            "LEFT JOIN assignments AS a ON a.number = CASE WHEN u.assignment ~ '^a[0-9]{1,18}$' "
            "THEN substr(u.assignment, 2)::bigint END "
            "LEFT JOIN versions AS v ON v.version = u.merged_into ORDER BY u.arrival",
            after,
            limit,
            device,
        )
        return [TripRecord(*(*row[:8], json.loads(row[8]), *row[9:])) for row in map(tuple, rows)]


def first_of_updates(newest: int) -> tuple[tuple[Any, ...], ...]:
    """What a run that goes on asks for: each query with its arguments."""
    return (_CONTENTS,), (_ARRIVED, 0), (_COUNTS,), (_NEWEST, newest)


def object_key(assignment: str, sha256: str) -> str:
    """The key of a large update, which no other update has."""
    return f"{OBJECTS}{assignment}.{sha256}"


async def _count(rows: Connection, updates: Sequence[UpdateRecord]) -> None:
    """Close the assignments of new updates, and count them for their devices."""
    numbers = [assignment_number(update.assignment) for update in updates]
    counts = collections.Counter(update.device for update in updates)
    reports = {update.device: json.dumps(update.report) for update in updates}
    await rows.execute(
        "WITH closed AS (UPDATE assignments SET open = false WHERE number = ANY($1::bigint[])) "
        "UPDATE devices SET updates = updates + n.count, report = n.report FROM "
        "unnest($2::text[], $3::bigint[], $4::text[]) AS n (id, count, report) WHERE devices.id = n.id",
        numbers,
        list(counts),
        list(counts.values()),
        [reports[device] for device in counts],
    )


async def _reopen(rows: Connection, assignment: str) -> None:
    """Let a device hand an update in again that was lost here, unless it has other work by now."""
    await rows.execute(
        "UPDATE assignments SET open = true WHERE number = $1 AND NOT EXISTS "
        "(SELECT 1 FROM assignments AS other WHERE other.device = assignments.device AND other.open)",
        assignment_number(assignment),
    )


async def discard_rows(rows: Connection, updates: Sequence[DiscardedUpdate]) -> list[str]:
    """
    Mark waiting updates as discarded, and delete their bytes; the keys of those that are objects.

    Raises:
        StoreError: if one of them does not wait.

    """
    return await _end(
        rows,
        "discarded = n.reason FROM unnest($1::text[], $2::text[]) AS n (assignment, reason)",
        [update.assignment for update in updates],
        [update.reason for update in updates],
    )


async def merge_rows(rows: Connection, version: int, updates: Sequence[MergedUpdate]) -> list[str]:
    """
    Mark waiting updates as merged into ``version``, and delete their bytes; the keys of those that are objects.

    Args:
        rows: in a transaction.
        version: that they are part of.
        updates: with staleness and weight.

    Raises:
        StoreError: if one of them was consumed before, or never accepted.

    """
    return await _end(
        rows,
        "merged_into = $4, staleness = n.staleness, weight = n.weight FROM "
        "unnest($1::text[], $2::bigint[], $3::float8[]) AS n (assignment, staleness, weight)",
        [update.assignment for update in updates],
        [update.staleness for update in updates],
        [update.weight for update in updates],
        version,
    )


async def _end(rows: Connection, how: str, assignments: list[str], *arguments: Any) -> list[str]:
    if not assignments:
        return []
    ended = await rows.fetch(
        f"UPDATE updates SET {how} WHERE updates.assignment = n.assignment AND {WAITING} "
        "RETURNING updates.assignment, updates.object",
        assignments,
        *arguments,
    )
    left = collections.Counter(assignments) - collections.Counter(row[0] for row in ended)
    for assignment in left:
        raise StoreError(f"the update of {assignment} was merged before, or was never accepted")
    await rows.execute("DELETE FROM contents WHERE assignment = ANY($1::text[])", assignments)
    return [row[1] for row in ended if row[1] is not None]


def _row(update: UpdateRecord) -> tuple[Any, ...]:
    return (
        update.assignment,
        update.device,
        update.version,
        update.tier,
        update.artifact.sha256,
        update.artifact.size,
        json.dumps(update.report),
        update.received_at,
    )
