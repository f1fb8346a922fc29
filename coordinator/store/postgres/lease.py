"""
Which process leads the run: one row, taken by compare-and-set on the database's clock.

The leader also holds an advisory lock, which ends with its connection. It decides nothing: it wakes those who stand by.
"""

from __future__ import annotations

import contextlib

import asyncpg

from ..records import LeaseRecord
from .connection import Connection
from .database import Database

__all__ = ["LeaseRow", "hold_guard", "wait_for_guard"]

# So many looks in turn must miss the leader's connections: it may open another one at this moment.
MISSED = 3

# The advisory lock (number of the run's schema, 2) is its leader's.
_GUARD = "(SELECT oid::int4 FROM pg_namespace WHERE nspname = current_schema()), 2"

_END = "clock_timestamp() + make_interval(secs => $1)"


class LeaseRow:
    """
    The :class:`~coordinator.store.interface.LeaseStore` in ``database``.

    Whoever takes the lease ends the connections of its predecessor: a process that was stopped in the middle of a
    transaction would hold up its successor. The epoch alone makes sure that it writes nothing more.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # The process that leads, as seen over a connection of ours that has lasted since, and how often it was missed.
        self._seen = ("", 0)
        self._missed = 0

    def take(self, holder: str, seconds: float) -> int | None:
        return self._database.run(self.take_async(holder, seconds))

    async def take_async(self, holder: str, seconds: float) -> int | None:
        """As :meth:`take`, in the database's event loop."""
        own = self._database.sessions
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT epoch, sessions, holder, until <= clock_timestamp() AS over, pg_backend_pid() AS own, "
                "(SELECT count(*) FROM pg_stat_activity WHERE application_name = sessions) AS open FROM lease"
            )
            if not row["over"]:
                if (row["sessions"], row["holder"]) == (own, holder):
                    # The answer of an earlier call was lost.
                    self._database.epoch = row["epoch"]
                    return self._database.epoch
                if row["sessions"] == own or not self._has_died(row["sessions"], row["own"], row["open"]):
                    return None
            if row["sessions"] not in ("", own):
                # Who has the right to write the run has that to end its connections, unless they are a superuser's.
                with contextlib.suppress(asyncpg.exceptions.InsufficientPrivilegeError):
                    await connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
                        row["sessions"],
                    )
            taken: int | None = await connection.fetchval(
                f"UPDATE lease SET holder = $2, epoch = epoch + 1, sessions = $3, address = '', until = {_END} "
                "WHERE epoch = $4 AND (until <= clock_timestamp() OR sessions = $5) RETURNING epoch",
                seconds,
                holder,
                own,
                row["epoch"],
                "" if row["over"] else row["sessions"],
            )
        if taken is not None:
            self._database.epoch = taken
        return taken

    def _has_died(self, sessions: str, own: int, connections: int) -> bool:
        """
        Whether the leader's connections are gone, while ours, of the process ``own``, has lasted: it was killed.

        A server that restarts ends our connection as well, and a network that breaks leaves the leader's connections at
        the server; then the lease runs out. Should the leader live after all, the epoch keeps it from writing.
        """
        seen = (sessions, own)
        if connections or self._seen != seen:
            self._seen, self._missed = (seen if connections else ("", 0)), 0
            return False
        self._missed += 1
        return self._missed >= MISSED

    def renew(self, seconds: float) -> bool:
        return self._database.run(self.renew_async(seconds))

    async def renew_async(self, seconds: float) -> bool:
        """As :meth:`renew`, in the database's event loop."""
        if self._database.epoch is None:
            return False
        async with self._database.connection() as connection:
            found = await connection.fetchval(
                f"UPDATE lease SET until = {_END} WHERE epoch = $2 AND sessions = $3 AND holder <> '' RETURNING 1",
                seconds,
                self._database.epoch,
                self._database.sessions,
            )
        self._database.superseded |= found is None
        return found is not None

    def announce(self, address: str) -> None:
        async def write() -> None:
            async with self._database.connection() as connection:
                await connection.execute(
                    "UPDATE lease SET address = $1 WHERE epoch = $2 AND sessions = $3",
                    address,
                    self._database.epoch,
                    self._database.sessions,
                )

        self._database.run(write())

    def release(self) -> None:
        self._database.run(self.release_async())

    async def release_async(self) -> None:
        """As :meth:`release`, in the database's event loop."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE lease SET until = '-infinity', holder = '', address = '' WHERE epoch = $1 AND sessions = $2",
                self._database.epoch,
                self._database.sessions,
            )

    @property
    def lost(self) -> bool:
        return self._database.superseded

    def look(self) -> bool:
        own = self._database.epoch
        if own is not None:
            ((epoch,),) = self._database.rows("SELECT epoch FROM lease")
            self._database.superseded |= epoch != own
        return self.lost

    def current(self) -> LeaseRecord | None:
        ((holder, epoch, address, left),) = self._database.rows(
            "SELECT holder, epoch, address, CASE WHEN until > clock_timestamp() "
            "THEN extract(epoch FROM until - clock_timestamp())::float8 ELSE 0 END FROM lease"
        )
        return LeaseRecord(holder, epoch, left, address) if left > 0 else None


async def hold_guard(connection: Connection) -> None:
    """Hold the leader's lock from now on, for as long as the connection lasts; waits for a predecessor's."""
    await connection.execute(f"SELECT pg_advisory_lock({_GUARD})")


async def wait_for_guard(connection: Connection) -> None:
    """Return when nobody holds the leader's lock: at once when a leader's process dies."""
    await connection.execute(f"SELECT pg_advisory_lock_shared({_GUARD})")
    await connection.execute(f"SELECT pg_advisory_unlock_shared({_GUARD})")
