"""A process that leads a run: it takes the lease, and renews it until it closes the store."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time

from ...errors import StoreError, StoreUnavailable
from .database import Database
from .failures import is_lost, translate
from .lease import LeaseRow

__all__ = ["LEASE_SECONDS", "lead", "stop_leading"]

log = logging.getLogger(__name__)

# For how long a lease lasts that is not renewed: so long a successor waits for a process that was killed.
LEASE_SECONDS = 3.0

# A lease may be renewed just before its holder dies.
PATIENCE_SECONDS = LEASE_SECONDS + 2.0

POLL_SECONDS = 0.2


def lead(database: Database, lease: LeaseRow, run: str) -> None:
    """
    Take the lease of ``run``, and renew it from now on. Waits for one that is about to run out.

    Raises:
        StoreError: if another process leads the run.

    """
    holder = f"{platform.node()}, process {os.getpid()}"
    until = time.monotonic() + PATIENCE_SECONDS
    while lease.take(holder, LEASE_SECONDS) is None:
        if time.monotonic() > until:
            other = lease.current()
            who = f" ({other.holder})" if other is not None else ""
            raise StoreError(f"another coordinator{who} uses the run {run} in {database.address}: stop it first")
        time.sleep(POLL_SECONDS)
    database.start(_renew(database, lease))


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
