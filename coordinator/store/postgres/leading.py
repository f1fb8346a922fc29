"""A process that leads a run: it takes the lease, and renews it until it closes the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import platform
import threading
import time
from collections.abc import Callable

import asyncpg

from ...errors import LedElsewhere, StoreUnavailable
from .database import Database
from .failures import UNAVAILABLE, translate
from .lease import LeaseRow, hold_guard, wait_for_guard

__all__ = ["LEASE_SECONDS", "lead", "stop_leading"]

log = logging.getLogger(__name__)

# For how long a lease lasts that is not renewed: so long a successor waits for a process that was killed.
LEASE_SECONDS = 2.5

# A lease may be renewed just before its holder dies.
PATIENCE_SECONDS = LEASE_SECONDS + 2.0

POLL_SECONDS = 0.1  # pragma: no mutate

# How often it is looked after the leader's lock was let go, and for how long.
AWAKE_POLL_SECONDS = 0.02  # pragma: no mutate
AWAKE_SECONDS = 1.0

# Connections that are not used are closed after 300 s: whoever stands by opens them again before.
WARM_SECONDS = 100.0

# Connections that hold a lock or wait for one say something so often: a network forgets those that do not.
GUARD_SECONDS = 60.0


def lead(
    database: Database,
    lease: LeaseRow,
    run: str,
    standby: threading.Event | None,
    waits: Callable[[], None] = lambda: None,
    stands_by: Callable[[], None] = lambda: None,
) -> None:
    """
    Take the lease of ``run``, and renew it from now on. Waits for one that is about to run out.

    Args:
        database: of the run.
        lease: in it.
        run: the run's name.
        standby: wait for the lead, however long another has it, until this is set; none: wait for seconds alone.
        waits: called once when another process has the lead.
        stands_by: called once when it has had it for some seconds.

    Raises:
        LedElsewhere: if another process leads the run.

    """
    holder = f"{platform.node()}, process {os.getpid()}"
    until = time.monotonic() + PATIENCE_SECONDS
    said = False
    wakened, awake = threading.Event(), -math.inf
    waiting = []
    if standby is not None:
        waiting = [database.start(_watch_guard(database, wakened)), database.start(_stay_warm(database))]
    first = True
    while not _take(lease, holder, waits=standby is not None):
        if first:
            waits()
        first = False
        if standby is not None and not said and time.monotonic() > until:
            log.warning(
                "another coordinator%s leads the run %s in %s: waiting to take over",
                _leader(lease),
                run,
                database.address,
            )
            said = True
            stands_by()
        ended = time.monotonic() > until if standby is None else standby.is_set()
        if ended:
            raise LedElsewhere(
                f"another coordinator{_leader(lease)} uses the run {run} in {database.address}: stop it first"
            )
        if wakened.wait(AWAKE_POLL_SECONDS if time.monotonic() < awake else POLL_SECONDS):
            wakened.clear()
            awake = time.monotonic() + AWAKE_SECONDS
    if said:
        log.warning("this process leads the run %s now", run)
    for task in waiting:
        database.stop(task)
    database.start(_renew(database, lease))
    database.start(_hold_guard(database))


def _take(lease: LeaseRow, holder: str, *, waits: bool) -> bool:
    try:
        return lease.take(holder, LEASE_SECONDS) is not None
    except StoreUnavailable:
        if not waits:
            raise
        return False  # the database restarts, say: the lead is still another's


def _leader(lease: LeaseRow) -> str:
    """Who leads, in brackets; empty where that is not known."""
    try:
        other = lease.current()
    except StoreUnavailable:
        other = None
    return f" ({other.holder})" if other is not None else ""


def stop_leading(lease: LeaseRow) -> None:
    """Let another process take the lease at once."""
    try:
        lease.release()
    except StoreUnavailable as error:
        log.warning("the lease runs out by itself in %g s: %s", LEASE_SECONDS, error)


async def _renew(database: Database, lease: LeaseRow) -> None:
    away = False
    while True:
        await asyncio.sleep(POLL_SECONDS if away else LEASE_SECONDS / 3)
        try:
            renewed = await lease.renew_async(LEASE_SECONDS)
        except Exception as error:
            passing = translate(error, database.address)
            if not isinstance(passing, StoreUnavailable):
                raise
            if not away:
                log.error("%s; waiting for it", passing)
                away = True
            continue
        if not renewed:
            log.error("another process leads the run in %s by now: this one writes nothing more", database.address)
            return
        if away:
            log.info("the database %s is back", database.address)
            away = False


async def _hold_guard(database: Database) -> None:
    """Hold the leader's lock, and take it again where its connection breaks, for as long as this process leads."""
    while not database.superseded:
        closed = asyncio.Event()
        with contextlib.suppress(*UNAVAILABLE):
            async with database.own_connection() as connection:
                connection.add_termination_listener(lambda _, closed=closed: closed.set())
                await hold_guard(connection)
                while not closed.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(closed.wait(), GUARD_SECONDS)
                    await connection.fetchval("SELECT 1")
        await asyncio.sleep(POLL_SECONDS)


async def _watch_guard(database: Database, wakened: threading.Event) -> None:
    """Set ``wakened`` whenever nobody holds the leader's lock, until cancelled."""
    while True:
        with contextlib.suppress(*UNAVAILABLE):
            async with database.own_connection(lock_timeout=f"{GUARD_SECONDS:g}s") as connection:
                while True:
                    with contextlib.suppress(asyncpg.exceptions.LockNotAvailableError):
                        await wait_for_guard(connection)
                        wakened.set()
                        await asyncio.sleep(AWAKE_SECONDS)  # whoever leads now has yet to take it
        await asyncio.sleep(AWAKE_SECONDS)


async def _stay_warm(database: Database) -> None:
    """Keep connections open that a leader needs at once, until cancelled; a server that gives none is not urged."""
    while True:
        with contextlib.suppress(*UNAVAILABLE):
            await database.warm_up()
        await asyncio.sleep(WARM_SECONDS)
