"""A gateway's life: it finds its conductor, listens, and ends without losing an upload that is on its way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from ..config import ServerSection
from ..net.admission import ConnectionLimits
from ..net.health import open_health
from ..net.listener import listen
from .conductors import Conductors
from .gateway import Gateway

__all__ = ["run_gateway"]

log = logging.getLogger(__name__)


async def run_gateway(
    section: ServerSection, conductors: Conductors, folder: Path | None = None, health: str | None = None
) -> None:
    """
    Serve devices for the conductor that leads, until cancelled.

    Other gateways of this machine may listen on the same port: the kernel spreads connections over them.

    Args:
        section: how devices connect.
        conductors: where the conductor is.
        folder: for copies of its files, where they are not on this machine.
        health: ``HOST:PORT`` of a page about this process; none: there is none.

    Raises:
        ConfigError: if an address cannot be listened on, or the certificate cannot be used.

    """
    limits = ConnectionLimits(section.connections, section.handshakes, section.handshakes_per_address)
    gateway = Gateway(section, limits, folder)
    listens = False
    following = asyncio.create_task(gateway.follow(conductors))
    try:
        async with open_health(health, lambda: listens and gateway.is_ready):
            await gateway.connected.wait()
            async with listen(gateway, section, limits, reuse_port=True) as url:
                listens = True
                log.info("gateway on %s for the conductor on %s", url, conductors)
                try:
                    await asyncio.shield(following)  # it is needed until the last upload has arrived
                finally:
                    await gateway.close()
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
