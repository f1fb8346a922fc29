"""A process that leads a run: it takes the lease, and renews it until it closes the store."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
import time
from collections.abc import Callable

from ...errors import LedElsewhere, StoreUnavailable
from .database import Database
from .failures import is_lost, translate
from .lease import LeaseRow

__all__ = ["LEASE_SECONDS", "lead", "stop_leading"]

log = logging.getLogger(__name__)

# For how long a lease lasts that is not renewed: so long a successor waits for a process that was killed.
LEASE_SECONDS = 2.5

# A lease may be renewed just before its holder dies.
PATIENCE_SECONDS = LEASE_SECONDS + 2.0

POLL_SECONDS = 0.1


def lead(
    database: Database,
    lease: LeaseRow,
    run: str,
    standby: threading.Event | None,
    stands_by: Callable[[], None] = lambda: None,
) -> None:
    """
    Take the lease of ``run``, and renew it from now on. Waits for one that is about to run out.

    Args:
        database: of the run.
        lease: in it.
        run: the run's name.
        standby: wait for the lead, however long another has it, until this is set; none: wait for seconds alone.
        stands_by: called once when another process has had the lead for some seconds.

    Raises:
        LedElsewhere: if another process leads the run.

    """
    holder = f"{platform.node()}, process {os.getpid()}"
    until = time.monotonic() + PATIENCE_SECONDS
    said = False
    while not _take(lease, holder, waits=standby is not None):
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
        time.sleep(POLL_SECONDS)
    if said:
        log.warning("this process leads the run %s now", run)
    database.start(_renew(database, lease))


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
            if not is_lost(error):
                raise
            if not away:
                log.error("%s; waiting for it", translate(error, database.address))
                away = True
            continue
        if not renewed:
            log.error("another process leads the run in %s by now: this one writes nothing more", database.address)
            return
        if away:
            log.info("the database %s is back", database.address)
            away = False
