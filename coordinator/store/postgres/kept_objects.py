"""Objects that rows name: written down before they are put, so that none is forgotten."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence

from ..objects.interface import Objects
from .connection import Connection
from .database import Database

__all__ = ["KeptObjects"]

# What was put so lately may be about to be named by a row, here or in another process.
GRACE_SECONDS = 3_600.0


class KeptObjects:
    """
    Objects, with a row of ``database`` for each.

    A row without its object is harmless; an object without a row would stay for ever. So the row comes first, and goes
    in the transaction in which the object was deleted.

    Args:
        database: has the rows.
        objects: has the bytes.
        grace_seconds: for how long an object that no row names is kept, from when it was put last.

    """

    def __init__(self, database: Database, objects: Objects, grace_seconds: float = GRACE_SECONDS) -> None:
        self._database = database
        self._objects = objects
        self._grace_seconds = grace_seconds

    def put(self, items: Sequence[tuple[str, bytes | memoryview]]) -> None:
        """Keep objects, by their keys; durable when this returns."""
        keys = sorted({key for key, _ in items})
        self._database.transact(
            lambda rows: rows.execute(
                "INSERT INTO objects (key, put_at) SELECT key, clock_timestamp() FROM unnest($1::text[]) AS k (key) "
                "ON CONFLICT (key) DO UPDATE SET put_at = clock_timestamp()",
                keys,
            )
        )
        for key, content in items:
            self._objects.put_if_absent(key, content)

    def get(self, key: str) -> bytes:
        """An object; raises :exc:`StoreError` if there is none."""
        return self._objects.get(key)

    def collect(self, wanted: Collection[str], prefix: str) -> int:
        """Delete the objects of keys that begin with ``prefix``, are not ``wanted``, and were not put lately."""
        found = self._database.rows(
            "SELECT key FROM objects WHERE starts_with(key, $1) AND key <> ALL($2::text[]) "
            "AND put_at <= clock_timestamp() - make_interval(secs => $3) ORDER BY key",
            prefix,
            list(wanted),
            self._grace_seconds,
        )
        return self.delete([row[0] for row in found], self._grace_seconds)

    def delete(self, keys: Sequence[str], grace_seconds: float = 0.0) -> int:
        """Delete objects that were not put in the last ``grace_seconds``; how many."""
        deleted = 0
        for key in keys:
            deleted += self._database.transact(functools.partial(self._delete, key, grace_seconds))
        return deleted

    async def _delete(self, key: str, grace_seconds: float, rows: Connection) -> int:
        # Who puts it at this moment waits for the row's lock, and then finds neither the row nor the object.
        old = await rows.fetchval(
            "SELECT 1 FROM objects WHERE key = $1 AND put_at <= clock_timestamp() - make_interval(secs => $2) "
            "FOR UPDATE",
            key,
            grace_seconds,
        )
        if old is None:
            return 0
        await self._database.in_thread(self._objects.delete, key)
        await rows.execute("DELETE FROM objects WHERE key = $1", key)
        return 1
