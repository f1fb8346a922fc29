"""Each process says by itself whether it lives and whether it is ready."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from coordinator.errors import ConfigError
from coordinator.net.health import open_health


def test_a_process_that_is_not_ready_lives_all_the_same() -> None:
    async def main() -> None:
        ready = False
        async with open_health("127.0.0.1:0", lambda: ready) as url, aiohttp.ClientSession(url) as session:

            async def get(path: str) -> int:
                async with session.get(path) as answer:
                    return answer.status

            assert (await get("/healthz"), await get("/readyz")) == (200, 503)
            ready = True
            assert (await get("/healthz"), await get("/readyz")) == (200, 200)
            assert await get("/metrics") == 404

    asyncio.run(main())


def test_an_address_that_is_taken_is_named() -> None:
    async def main(port: int) -> None:
        async with open_health(f"127.0.0.1:{port}", lambda: True):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="--health: cannot listen"):
        asyncio.run(main(taken.getsockname()[1]))
