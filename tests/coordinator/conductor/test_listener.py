"""Gateways find the conductor on a socket that its user alone may open; their connections are counted together."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coordinator.admin.metrics import metrics_text
from coordinator.conductor.listener import GatewayConnections, RemoteGateways, listen_for_gateways
from coordinator.config import ServerSection
from coordinator.errors import ConfigError, StoreUnavailable
from coordinator.gateway.conductors import RemoteConductors
from coordinator.gateway.handshake import client_context, load_secret
from coordinator.gateway.messages import CONDUCTOR, RELEASE
from coordinator.gateway.pipe import Pipe, PipeClosed
from coordinator.net.admission import GatewayNumbers
from coordinator.net.tls import temporary_context
from coordinator.runs.service import Service


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
            pipes = [Pipe(*await asyncio.open_unix_connection(str(path)), CONDUCTOR) for _ in range(2)]
            for pipe in pipes:
                pipe.send({"m": "hello", "release": RELEASE, "process": 1, "machine": "here"})
                numbers = {"open": 5, "unproven": 2, "shed": 1, "cut": 3, "cpu_seconds": 0.5}
                pipe.send({"m": "connections", "id": 1, **numbers})
            while connections.open < 10:
                await asyncio.sleep(0.01)
            assert connections.gateways == [GatewayNumbers("here/1", 5, 2, 0.5)] * 2
            assert connections.unproven == 4
            text = metrics_text(Service(ServerSection()), connections)
            assert "ftte_gateways 2.0" in text
            assert 'ftte_gateway_connections{gateway="here/1"} 5.0' in text
            assert (connections.shed, connections.cut) == (2, 6)
            await pipes[0].close()
            while connections.open > 5:
                await asyncio.sleep(0.01)
            assert len(connections.gateways) == 1
            with contextlib.suppress(Exception):
                await pipes[1].close()

    asyncio.run(main())


SECRET = b"0123456789abcdef0123456789abcdef"


def reach(address: str, secret: bytes = SECRET) -> RemoteConductors:
    async def find() -> str:
        return address

    return RemoteConductors(find, secret)


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, GatewayConnections]]:
    """A conductor of no runs, on a port of this machine."""
    connections = GatewayConnections()
    async with listen_for_gateways(RemoteGateways("127.0.0.1:0", SECRET), dict, connections) as address:
        yield address, connections


def test_gateways_of_other_machines_come_in_by_tls_with_the_secret() -> None:
    async def main() -> None:
        async with listening() as (address, connections):
            pipe = await reach(address).connect()
            pipe.send({"m": "hello", "release": RELEASE, "process": 1, "machine": "there"})
            assert (await pipe.receive())[0] == {"m": "ready"}
            reading = asyncio.create_task(pipe.receive())
            await pipe.ask({"m": "connections", "open": 1, "unproven": 0, "shed": 0, "cut": 0, "cpu_seconds": 0.0})
            assert [link.connections["open"] for link in connections.links] == [1]
            reading.cancel()
            await pipe.close()

    asyncio.run(main())


def test_who_has_another_secret_is_not_let_in_and_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    wrong = bytes(reversed(SECRET))

    async def main() -> None:
        async with listening() as (address, connections):
            with pytest.raises(StoreUnavailable, match="it has another secret"):
                await reach(address, wrong).connect()
            assert not connections.links

    asyncio.run(main())
    assert "is no gateway of this conductor" in caplog.text
    assert SECRET.decode() not in caplog.text
    assert wrong.decode() not in caplog.text


def test_whoever_listens_in_a_conductors_place_without_the_secret_is_refused() -> None:
    async def main() -> None:
        place = RemoteGateways("127.0.0.1:0", bytes(reversed(SECRET)))
        async with listen_for_gateways(place, dict, GatewayConnections()) as address:
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await reach(address).connect()

    asyncio.run(main())


def test_a_proof_that_is_passed_on_through_another_certificate_is_of_no_use() -> None:
    """Whoever sits in between speaks TLS to both sides, and passes every byte on."""

    async def main() -> None:
        async with listening() as (address, connections):
            host, port = address.split(":")
            tls, _ = temporary_context()

            async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                onward = await asyncio.open_connection(host, int(port), ssl=client_context())
                with contextlib.suppress(OSError):
                    await asyncio.gather(pass_on(reader, onward[1]), pass_on(onward[0], writer))

            server = await asyncio.start_server(between, "127.0.0.1", 0, ssl=tls)
            with pytest.raises(StoreUnavailable, match="it has another secret"):
                await reach(f"127.0.0.1:{server.sockets[0].getsockname()[1]}").connect()
            assert not connections.links
            server.close()

    asyncio.run(main())


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1_000):
        writer.write(data)
    writer.close()


def test_a_stranger_that_says_something_else_is_cut_off_at_once() -> None:
    async def main() -> None:
        async with listening() as (address, connections):
            host, port = address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port), ssl=client_context())
            writer.write(b"GET / HTTP/1.1\r\nHost: conductor\r\n\r\n")
            assert await reader.read() == b""
            writer.close()
            assert not connections.links

    asyncio.run(main())


def test_a_gateway_of_another_release_is_sent_away_and_hears_why(path: Path) -> None:
    async def main() -> None:
        async with listen_for_gateways(path, dict, GatewayConnections()):
            pipe = Pipe(*await asyncio.open_unix_connection(str(path)), CONDUCTOR)
            pipe.send({"m": "hello", "release": RELEASE + 1, "process": 1, "machine": "here"})
            assert (await pipe.receive())[0] == {"m": "other_release", "release": RELEASE}
            with pytest.raises(PipeClosed):
                await pipe.receive()
            await pipe.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("mode", "content", "words"),
    [(0o644, SECRET, "chmod 600"), (0o600, b"short", "5 bytes"), (None, b"", "there is no file")],
)
def test_a_secret_that_protects_nothing_is_refused(
    tmp_path: Path, mode: int | None, content: bytes, words: str
) -> None:
    path = tmp_path / "gateways.secret"
    if mode is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=words) as raised:
        load_secret(path)
    assert content.decode() not in str(raised.value) or not content


def test_a_secret_may_be_readable_by_a_group_as_those_of_containers_are(tmp_path: Path) -> None:
    path = tmp_path / "gateways.secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o440)
    assert load_secret(path) == SECRET
