"""A page of each process by itself, for whoever watches it: whether it lives, and whether it is ready."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from ..config import split_address
from ..errors import ConfigError

__all__ = ["open_health"]


@contextlib.asynccontextmanager
async def open_health(address: str | None, ready: Callable[[], bool]) -> AsyncIterator[str]:
    """
    Answer for as long as the context lasts; gives the address.

    ``GET /healthz``: 200 as long as the process answers. ``GET /readyz``: 200 while it does its work, else 503, as a
    standby does. Whoever reaches the address may ask; nothing else is there.

    Args:
        address: ``HOST:PORT`` to listen on; none: nobody is answered.
        ready: whether the process does its work.

    Raises:
        ConfigError: if the address cannot be listened on.

    """
    if address is None:
        yield ""
        return

    async def live(request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readiness(request: web.Request) -> web.Response:
        is_ready = ready()
        return web.json_response({"ready": is_ready}, status=200 if is_ready else 503)

    app = web.Application()
    app.router.add_get("/healthz", live)
    app.router.add_get("/readyz", readiness)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, port = split_address(address)
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, socket.gaierror) as error:
            raise ConfigError(f"--health: cannot listen on {address}: {error.strerror or error}") from error
        yield f"http://{address.rpartition(':')[0]}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
