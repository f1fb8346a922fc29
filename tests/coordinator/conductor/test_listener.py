"""Gateways find the conductor on a socket that its user alone may open; their connections are counted together."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.conductor.listener import GatewayConnections, listen_for_gateways
from coordinator.errors import ConfigError
from coordinator.gateway.pipe import Pipe


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path is short
        yield Path(folder) / "conductor.sock"


def test_the_socket_is_its_owners_alone_and_replaces_one_that_a_kill_left(path: Path) -> None:
    async def main() -> None:
        path.touch()
        async with listen_for_gateways(path, dict, GatewayConnections()):
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        assert not path.exists()

    asyncio.run(main())


def test_a_conductor_that_was_stopped_for_a_while_leaves_its_successors_socket(path: Path) -> None:
    async def main() -> None:
        async with listen_for_gateways(path, dict, GatewayConnections()):
            successor = listen_for_gateways(path, dict, GatewayConnections())
            await successor.__aenter__()
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.close()
        await writer.wait_closed()
        await successor.__aexit__(None, None, None)
        assert not path.exists()

    asyncio.run(main())


def test_a_path_too_long_for_a_socket_is_named_with_a_remedy(tmp_path: Path) -> None:
    async def main() -> None:
        async with listen_for_gateways(tmp_path / ("x" * 120), dict, GatewayConnections()):
            pass

    with pytest.raises(ConfigError, match="give a shorter one"):
        asyncio.run(main())


def test_connections_of_all_gateways_are_added_up(path: Path) -> None:
    async def main() -> None:
        connections = GatewayConnections()
        async with listen_for_gateways(path, dict, connections):
            pipes = [Pipe(*await asyncio.open_unix_connection(str(path))) for _ in range(2)]
            for pipe in pipes:
                pipe.send({"m": "connections", "open": 5, "unproven": 2, "shed": 1, "cut": 3})
            while connections.open < 10:
                await asyncio.sleep(0.01)
            assert (connections.gateways, connections.unproven) == (2, 4)
            assert (connections.shed, connections.cut) == (2, 6)
            await pipes[0].close()
            while connections.open > 5:
                await asyncio.sleep(0.01)
            assert connections.gateways == 1
            with contextlib.suppress(Exception):
                await pipes[1].close()

    asyncio.run(main())
