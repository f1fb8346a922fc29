"""
Two machines, one of which leads a run in a real PostgreSQL server; the other stands by.

The server is none of what is simulated, and neither is its time: a statement takes no virtual time, and a lease runs
out when the campaign says so. What fails is what lies between: connections are lost before or after a statement,
processes end at any of them, and a leader that was thought to be gone goes on beside its successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import asyncpg

from coordinator.config import Config
from coordinator.errors import LedElsewhere, StoreError, StoreUnavailable, Superseded
from coordinator.store.interface import Store
from coordinator.store.objects.folder import FolderObjects
from coordinator.store.postgres import Address, PostgresStore, leading
from coordinator.store.postgres import store as postgres_store
from coordinator.store.postgres.address import schema_name
from coordinator.store.postgres.database import Database

from .interposer import PowerCut
from .machines import Machine, running
from .service import Service

__all__ = ["DatabaseService", "DatabaseSite", "Pair", "statements_that_fail"]

# Seconds between looks of the one that stands by, and how seldom it tries while the other leads.
STANDBY_SECONDS = 3.0
TRIES_IN_VAIN = 0.1

# After so many seconds a leader renews its lease.
RENEWAL_SECONDS = 0.8

# How often a process looks whether it leads still.
LOOK_SECONDS = 1.0


class DatabaseSite:
    """
    The database and the objects that both machines share, with what goes wrong on the way to them.

    Args:
        address: of a PostgreSQL server.
        run: the run's name.
        objects: an empty folder.

    """

    def __init__(self, address: str, run: str, objects: Path) -> None:
        self.address = Address(address)
        self.run = run
        self.objects = objects
        self.lost = 0
        self.free = False
        self.opened: dict[Machine, list[Database]] = {}
        self._left: dict[Machine, tuple[int, bool]] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._connection: Any = self._do(asyncpg.connect(address))
        self._schema = f'"{schema_name(run)}"'
        self.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def execute(self, statement: str) -> None:
        """As an administrator, whom nothing happens to."""
        self._do(self._connection.execute(statement))

    def close(self) -> None:
        """Leave nothing behind."""
        for databases in self.opened.values():
            for database in databases:
                _abandon(database)
        self.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")
        self._do(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def expire(self) -> None:
        """The time of the lease is over, though its holder may go on."""
        with contextlib.suppress(asyncpg.PostgresError):  # nobody has begun the run yet
            self.execute(f"UPDATE {self._schema}.lease SET until = '-infinity'")

    def lose_after(self, machine: Machine, statements: int, *, answered: bool) -> None:
        """A machine's connection is lost at the so-many-th statement from now: before it, or instead of its answer."""
        self._left[machine] = statements, answered

    def loses(self, machine: Machine) -> str:
        """Whether the connection is lost at this statement, and when; empty if it is not."""
        left, answered = self._left.get(machine, (0, False))
        if left > 1:
            self._left[machine] = left - 1, answered
        elif left == 1:
            del self._left[machine]
            self.lost += 1
            return "after" if answered else "before"
        return ""


class DatabaseService(Service):
    """
    A coordinator on one of two machines: it leads the run where it can, and stands by where it cannot.

    ``site`` has the database; ``other`` is on the other machine.
    """

    site: DatabaseSite
    other: DatabaseService

    def _open_store(self, config: Config) -> Store:
        objects = FolderObjects(self.site.objects)
        return PostgresStore(self.site.address, self.site.run, config.run.state, objects)

    def expected(self, error: Exception) -> bool:
        return isinstance(error, LedElsewhere | StoreUnavailable | Superseded)

    async def _serve(self) -> None:
        while self.other.run is not None and not self.site.free and self._rng.random() > TRIES_IN_VAIN:
            await asyncio.sleep(STANDBY_SECONDS)
        self.site.free = False
        await super()._serve()

    async def _goes_on(self) -> None:
        assert self.run is not None
        task = self.run._task
        if self.other.run is not None and self._rng.random() < 0.5:
            # The predecessor, which was thought to be gone, wants to renew its lease; else it finds out at a write.
            self.other.machine.context().run(asyncio.get_running_loop().call_later, RENEWAL_SECONDS, self.other.renew)
        self._note("serves")
        self.up.set()
        store: Any = self.run.store
        assert task is not None
        while not store.lease.lost and not (task.done() and isinstance(task.exception(), Superseded)):
            await asyncio.sleep(LOOK_SECONDS)
        self._note("is superseded")

    def renew(self) -> None:
        """As the store does by itself, in real time."""
        if self.run is not None:
            store: Any = self.run.store
            with contextlib.suppress(StoreError, PowerCut):
                store.lease.renew(1.0)

    def ended(self) -> None:
        """The process is gone: its connections are closed, whatever they did; nobody gave the lease back."""
        for database in self.site.opened.pop(self.machine, ()):
            _abandon(database)
        if self.other.run is None:
            self.site.expire()


def _abandon(database: Database) -> None:
    if not database.closed:
        database._closing.set()

        async def end() -> None:
            for task in database._tasks:
                task.cancel()
            if database._pool is not None:
                database._pool.terminate()
            await asyncio.sleep(0)

        database._submit(end())
        database._loop.call_soon_threadsafe(database._loop.stop)
        database._thread.join()
        database._loop.close()


class _LedRun:
    """The run of whichever machine leads it: a :class:`~.service.HostedRun`."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pair.leader.hosted[0], name)


class Pair:
    """
    Both services, as those see them who want the one that leads: the operator and the faults.

    Args:
        first: begins the run.
        second: stands by.

    """

    def __init__(self, first: DatabaseService, second: DatabaseService) -> None:
        self.both = first, second
        self.hosted = [_LedRun(self)]
        first.other, second.other = second, first

    @property
    def leader(self) -> DatabaseService:
        """The one that began to serve last, of those that serve."""
        serving = [each for each in self.both if each.run is not None]
        return max(serving or self.both, key=lambda each: each.served_at)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.leader, name)

    @property
    def machines(self) -> list[Machine]:
        """Of both."""
        return [each.machine for each in self.both]

    def database_fault(self, kind: str, statements: int) -> None:
        """Something happens between the leader and the database."""
        leader = self.leader
        if kind == "takeover":
            leader.site.expire()
            leader.site.free = True
        else:
            leader.site.lose_after(leader.machine, statements, answered=kind == "lost after")

    @property
    def starts(self) -> int:
        """Of both."""
        return sum(each.starts for each in self.both)

    def stop(self) -> None:
        """End both for good."""
        for each in self.both:
            each.stopping = True
            each.machine.cut_after(1, whole=True)

    async def live(self) -> None:
        """Until both have been stopped."""
        first, second = self.both
        beginning = asyncio.ensure_future(first.live())
        await first.up.wait()
        key = "run.key"
        with second.machine.powered() as root:
            (root / "state").mkdir()
            (root / "state" / key).write_bytes((first.config.run.state / key).read_bytes())
            (root / "state" / key).chmod(0o600)
        second.machine.disk.take_as_synced()
        await asyncio.gather(beginning, second.live())


@contextlib.contextmanager
def statements_that_fail(site: DatabaseSite) -> Iterator[None]:
    """Every statement of a machine's process may be the last of the process, or of its connection."""

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        async def statement(self: Any, query: str, *rest: Any, **options: Any) -> Any:
            machine = running()
            if machine is None or query.startswith("UPDATE lease SET until = clock"):
                return await real(self, query, *rest, **options)
            commits = query == "COMMIT"
            try:
                machine.before("commit of the database" if commits else "statement of the database", "")
            except PowerCut:
                fate, machine.disk.commit_fate = machine.disk.commit_fate, None
                if fate is not None and fate >= 0.4:
                    await real(self, query, *rest, **options)
                raise
            lost = site.loses(machine)
            if lost:
                if lost == "after":
                    await real(self, query, *rest, **options)
                self.terminate()
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
            return await real(self, query, *rest, **options)

        return statement

    class _Known(Database):
        """A database that is known to belong to a machine, however its opening ends."""

        def __init__(self, *arguments: Any) -> None:
            machine = running()
            assert machine is not None
            site.opened.setdefault(machine, []).append(self)
            super().__init__(*arguments)

    names = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "copy_records_to_table")
    with contextlib.ExitStack() as stack:
        for name in names:
            real = getattr(asyncpg.Connection, name)
            stack.enter_context(mock.patch.object(asyncpg.Connection, name, failing(real)))
        stack.enter_context(mock.patch.object(postgres_store, "Database", _Known))
        stack.enter_context(mock.patch.object(leading, "PATIENCE_SECONDS", 0.0))
        stack.enter_context(mock.patch.object(leading, "LEASE_SECONDS", 3_600.0))
        yield
