"""The PostgreSQL database: connections in an event loop of their own, used in whole transactions from any thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from typing import Any, TypeVar, cast

import asyncpg

from ...errors import StoreUnavailable, Superseded
from .address import Address
from .connection import Connection
from .failures import REPEAT, is_lost, translate
from .schema import check_server, migrate, quoted

__all__ = ["Database"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# The most connections of one process.
CONNECTIONS = 6

# For how long a start waits for a server that does not answer: after a power cut both come up together.
START_SECONDS = 30.0
CONNECT_SECONDS = 10.0
# Who serves waits as long as it takes, and says so again and again.
SAY_SECONDS = 60.0
CLOSE_SECONDS = 5.0

# A statement that takes longer has lost its server, or waits for a lock that nobody will give.
STATEMENT_SECONDS = 60.0

# A transaction that failed because of another, or of a connection that had died before, is begun anew so often.
ATTEMPTS = 5

RETRY_SECONDS = 0.25  # pragma: no mutate


class _Remembered:
    """
    Answers of the database, by query and arguments.

    A write puts other ``answers`` in their place: one that another thread has asked for before goes with the old ones.
    """

    def __init__(self, answers: dict[tuple[Any, ...], list[Any]]) -> None:
        self.answers = answers


class Database:
    """
    One schema of a database.

    The store's methods block, and come from several threads; the driver is asynchronous. So a thread of its own runs
    an event loop, and each method hands it one coroutine.

    Args:
        address: of the database.
        schema: that holds the run; made, or brought up to date.
        giving_up: wait for a server that does not answer until this is set; without it, for :data:`START_SECONDS`.

    ``epoch`` is that of the lease that this process took: every write is fenced with it, where it is not :obj:`None`;
    ``superseded`` says whether another process has taken the lease since. ``sessions`` names the connections of this
    process, in ``pg_stat_activity`` for instance.

    Raises:
        StoreError: if the server lets nobody in, or the schema is of a newer release.
        StoreUnavailable: if it does not answer.

    """

    def __init__(self, address: Address, schema: str, giving_up: threading.Event | None = None) -> None:
        self.address = address
        self.schema = schema
        self.sessions = f"ftte {os.getpid()} {secrets.token_hex(8)}"
        self.epoch: int | None = None
        self.superseded = False
        self._slots: dict[Any, int] = {}
        self._settings: dict[str, str] = {}
        self._remembered: _Remembered | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._giving_up = giving_up
        self._closing = threading.Event()
        self._submitting = threading.Lock()  # nothing is begun that the end of the event loop would leave unanswered
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ftte-postgres", daemon=True)
        self._thread.start()
        self._pool: Any = None
        try:
            self._pool = self.run(self._open())
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closing.is_set()

    def close(self) -> None:
        """Close every connection."""
        with self._submitting:
            if self._closing.is_set():
                return
            self._closing.set()
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut_down(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What another thread has asked for ends with an error, and not never.
        asked = asyncio.all_tasks() - {asyncio.current_task()}
        if asked:
            await asyncio.wait(asked, timeout=CLOSE_SECONDS)
        for question in asked:
            question.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), CLOSE_SECONDS)
            except Exception:
                self._pool.terminate()
        await asyncio.sleep(0)  # transports close in the next iteration
        await self._loop.shutdown_default_executor()

    # From other threads.

    def rows(self, query: str, *arguments: Any) -> list[Any]:
        """What a query finds in what is committed."""
        remembered = self._remembered
        if remembered is None or any(isinstance(argument, list) for argument in arguments):
            return self.run(self._rows(query, arguments))
        answers = remembered.answers
        known = answers.get((query, *arguments))
        if known is None:
            known = answers[query, *arguments] = self.run(self._rows(query, arguments))
        return known

    @contextlib.contextmanager
    def remembering(self, queries: Collection[tuple[Any, ...]] = ()) -> Iterator[None]:
        """
        While the context lasts, a query is asked once, until this process writes.

        Only for the process that leads: nobody else writes meanwhile.

        Args:
            queries: each with its arguments; they are asked at once. One after the other takes long where the machine
                is busy: each answer waits for a processor several times.

        """
        self._remembered = _Remembered(dict(zip(queries, self.run(self._all_rows(queries)), strict=True)))
        try:
            yield
        finally:
            self._remembered = None

    def read_once(self, query: str, read: Callable[[list[Any]], T]) -> T:
        """What ``read`` makes of a query's rows; made once within :meth:`remembering`, until this process writes."""
        if (remembered := self._remembered) is None:
            return read(self.rows(query))
        answers = remembered.answers
        known = answers.get((query, read))
        if known is None:
            known = answers[query, read] = [read(self.rows(query))]
        return cast(T, known[0])

    def remember(self, rows: list[Any], query: str, *arguments: Any) -> None:
        """A query finds ``rows``, as another has shown; nothing happens unless within :meth:`remembering`."""
        if (remembered := self._remembered) is not None:
            remembered.answers[query, *arguments] = rows

    def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """
        All that ``work`` does, durably, or nothing.

        Args:
            work: called with a connection in a transaction; more than once, where a transaction has to be repeated.

        Raises:
            Superseded: if this process took the lease, and another has it by now.
            StoreUnavailable: if nothing can be written just now; nothing happened.

        """
        try:
            return self.run(self._transact(work))
        finally:
            if (remembered := self._remembered) is not None:
                remembered.answers = {}

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """
        Run a coroutine in the database's thread.

        Raises:
            StoreUnavailable: if the database cannot be used just now, or was closed.
            Exception: what the coroutine raises, with the database's errors as those of the store.

        """
        try:
            return self._submit(coroutine)
        except concurrent.futures.CancelledError:
            raise StoreUnavailable(f"the store in {self.address} was closed meanwhile") from None
        except Exception as error:
            translated = translate(error, self.address)
            self.superseded |= isinstance(translated, Superseded)
            if translated is error:
                raise
            raise translated from None  # the driver's error may quote what is in rows

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside everything else, until it ends, :meth:`stop` is called, or the database is closed."""
        return self._submit(self._begin(work))

    def stop(self, task: asyncio.Task[None]) -> None:
        """End what :meth:`start` has begun; returns at once."""
        with self._submitting:
            if not self._closing.is_set():
                self._loop.call_soon_threadsafe(task.cancel)

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._submitting:
            if self._closing.is_set():
                coroutine.close()
                raise StoreUnavailable(f"the store in {self.address} is closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()

    # In the database's thread.

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection, while the context lasts; not in a transaction."""
        assert self._pool is not None
        async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def own_connection(self, **settings: str) -> AsyncIterator[Any]:
        """A connection beside the pool's, while the context lasts, on which a statement may take any time."""
        connection = await asyncpg.connect(
            self.address.url, server_settings={**self._settings, **settings}, timeout=CONNECT_SECONDS
        )
        try:
            yield connection
        finally:
            connection.terminate()

    async def warm_up(self) -> None:
        """Have every connection open that there may be, so that nobody has to wait for one."""
        async with contextlib.AsyncExitStack() as held:
            for _ in range(CONNECTIONS):
                await held.enter_async_context(self.connection())

    async def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._say_why)
        self._tasks.append(task)
        return task

    def _say_why(self, ended: asyncio.Task[None]) -> None:
        """Nobody waits for what runs beside everything else: the error that ends it is logged at once."""
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            log.error("%s", translate(error, self.address))

    async def in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what blocks, on something else than this database, without holding up the event loop."""
        return await asyncio.to_thread(work, *arguments)

    async def _open(self) -> Any:
        settings = {
            "application_name": self.sessions,
            "search_path": quoted(self.schema),
            "jit": "off",
            # A plan that was made while a table was empty would read all of it for ever.
            "plan_cache_mode": "force_custom_plan",
            "default_transaction_isolation": "read committed",
            # A process that was stopped in the middle of a transaction must not hold up its successor.
            "idle_in_transaction_session_timeout": "20s",
        }
        connection = await self._connect_patiently(settings)
        try:
            settings |= await check_server(connection, self.address)
            await migrate(connection, self.schema, self.address)
        finally:
            await connection.close()
        self._settings = settings
        return await asyncpg.create_pool(
            self.address.url,
            min_size=0,  # the pool itself would try to keep more, and fill the log while the server is away
            max_size=CONNECTIONS,
            server_settings=settings,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            reset=_leave_as_it_is,
        )

    async def _connect_patiently(self, settings: dict[str, str]) -> Any:
        began, said = time.monotonic(), -math.inf
        while True:
            try:
                connection = await asyncpg.connect(
                    self.address.url,
                    server_settings=settings,
                    timeout=CONNECT_SECONDS,
                    command_timeout=STATEMENT_SECONDS,
                )
            except Exception as error:
                waited = time.monotonic() - began
                if not is_lost(error) or self._closing.is_set() or self._gives_up(waited):
                    raise
                if waited >= said + SAY_SECONDS:
                    patience = f"trying for {START_SECONDS:g} s" if self._giving_up is None else "waiting for it"
                    so_far = f" ({waited:.0f} s so far)" if said >= 0 else ""
                    log.warning("%s; %s%s", translate(error, self.address), patience, so_far)
                    said = waited
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if said >= 0:
                    log.warning("the database %s is back", self.address)
                return connection

    def _gives_up(self, waited: float) -> bool:
        return waited > START_SECONDS if self._giving_up is None else self._giving_up.is_set()

    async def _all_rows(self, queries: Collection[tuple[Any, ...]]) -> list[list[Any]]:
        return await asyncio.gather(*(self._rows(query, arguments) for query, *arguments in queries))

    async def _rows(self, query: str, arguments: Sequence[Any]) -> list[Any]:
        for attempt in range(ATTEMPTS):
            try:
                async with self.connection() as connection:
                    return await connection.fetch(query, *arguments)
            except Exception as error:
                # A connection that lay idle while the server restarted says so at its next use only.
                again = is_lost(error) and not isinstance(error, TimeoutError) and attempt < ATTEMPTS - 1
                if not again or await self._is_away():
                    raise
        raise AssertionError("the loop returns or raises")

    async def _transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            token = secrets.randbits(63)
            slot = -1
            committing = False
            try:
                async with self.connection() as connection:
                    slot = await self._slot(connection)
                    try:
                        # Numbers alone, so they need no second round trip for arguments.
                        fence = f"SELECT begin_writing({_number(self.epoch)}, {slot}, {token})"
                        await connection.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED; {fence}")
                        result = await work(connection)
                        committing = True
                        await connection.execute("COMMIT")
                    except BaseException:
                        await _roll_back(connection, committing=committing)
                        raise
                    return result
            except REPEAT:
                if last:
                    raise
                await asyncio.sleep(secrets.randbelow(20) / 1_000)
            except Exception as error:
                if not is_lost(error):
                    raise
                if committing and await self._happened(slot, token):
                    return result
                # Nothing happened.
                if last or await self._is_away():
                    raise
        raise AssertionError("the loop returns or raises")

    async def _slot(self, connection: Connection) -> int:
        """The receipt of this connection; a row of its own from its first use on."""
        raw = getattr(connection, "_con", connection)  # what the pool hands out anew each time
        if raw not in self._slots:
            self._slots = {known: slot for known, slot in self._slots.items() if not known.is_closed()}
            slot = secrets.randbits(63)
            await connection.execute("INSERT INTO receipts (slot, token) VALUES ($1, 0)", slot)
            self._slots[raw] = slot
        return self._slots[raw]

    async def _is_away(self) -> bool:
        """Whether the server takes no connection at this moment."""
        try:
            async with self.connection() as connection:
                await connection.fetchval("SELECT 1")
        except Exception as error:
            return is_lost(error)
        return False

    async def _happened(self, slot: int, token: int) -> bool:
        """
        Whether the commit happened that was under way when the connection was lost: asked until the server answers.

        Raises:
            StoreUnavailable: if the store is closed before.

        """
        said = False
        while not self._closing.is_set():
            try:
                async with self.connection() as connection:
                    # The lock waits for the end of the transaction, should the server still work on it.
                    found = await connection.fetchval("SELECT token FROM receipts WHERE slot = $1 FOR UPDATE", slot)
                    return bool(found == token)
            except Exception as error:
                if not is_lost(error):
                    raise
                if not said:
                    log.error("%s; waiting for it, to learn what became of a write", translate(error, self.address))
                    said = True
                await asyncio.sleep(RETRY_SECONDS)
        raise StoreUnavailable(f"the store in {self.address} was closed before it was known what became of a write")


def _number(value: int | None) -> str:
    return "NULL" if value is None else str(int(value))


async def _roll_back(connection: Connection, *, committing: bool) -> None:
    """End a transaction that failed; with its connection, where nobody knows in which state that is."""
    try:
        if committing:
            connection.terminate()
        else:
            await connection.execute("ROLLBACK")
    except Exception:
        connection.terminate()


async def _leave_as_it_is(connection: Any) -> None:
    """Between two uses nothing is reset: no session state is ever set."""
