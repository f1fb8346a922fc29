"""The device port on loopback: limits, byte counts, TLS, and errors that name the address."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import connect

from coordinator.config import ServerSection
from coordinator.errors import ConfigError
from coordinator.net.admission import ConnectionLimits
from coordinator.net.listener import listen
from coordinator.net.tls import make_certificate
from coordinator.net.traffic import Traffic
from mobile_sdk.net.connection import Connection, ConnectionLost


class Echo:
    """Says everything back; keeps the traffic of each connection. A peer that says ``prove`` has proved itself."""

    def __init__(self) -> None:
        self.traffic: list[Traffic] = []

    async def serve(self, connection: Connection, traffic: Traffic, proven: Callable[[], None]) -> None:
        self.traffic.append(traffic)
        with contextlib.suppress(ConnectionLost):
            while True:
                frame = await connection.receive()
                if frame == "prove":
                    proven()
                await connection.send(frame)


def test_frames_come_and_go_and_every_byte_is_counted() -> None:
    async def main() -> None:
        echo = Echo()
        async with listen(echo, ServerSection(port=0)) as url, connect(url, compression=None) as socket:
            assert url.startswith("ws://127.0.0.1:")
            before = echo.traffic[0].up, echo.traffic[0].down
            await socket.send(b"x" * 100)
            assert await socket.recv() == b"x" * 100
            # RFC 6455: two bytes of header, and four of mask from the client.
            assert (echo.traffic[0].up - before[0], echo.traffic[0].down - before[1]) == (106, 102)

    asyncio.run(main())


def test_an_address_has_so_many_places_for_peers_that_prove_nothing() -> None:
    async def main() -> None:
        gate = ConnectionLimits(connections=10, handshakes=10, per_address=1)
        async with listen(Echo(), ServerSection(port=0), gate) as url, connect(url) as first:
            with pytest.raises((websockets.InvalidHandshake, EOFError, OSError)):
                await connect(url)
            assert (gate.open, gate.unproven, gate.shed) == (1, 1, 1)
            await first.send("prove")
            await first.recv()
            await first.send("prove")  # once is enough
            await first.recv()
            assert (gate.open, gate.unproven) == (1, 0)
            async with connect(url) as second:
                await second.send("x")
                await second.recv()
                assert (gate.open, gate.unproven) == (2, 1)
        assert (gate.open, gate.unproven) == (0, 0)

    asyncio.run(main())


def test_a_web_page_cannot_join() -> None:
    async def main() -> None:
        async with listen(Echo(), ServerSection(port=0)) as url:
            with pytest.raises(websockets.InvalidStatus, match="403"):
                await connect(url, origin=websockets.Origin("https://example.org"))

    asyncio.run(main())


def test_with_a_certificate_the_port_speaks_tls(tmp_path: Path) -> None:
    async def main() -> None:
        certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
        make_certificate(["127.0.0.1"], certificate, key)
        section = ServerSection(port=0, certificate=certificate, private_key=key)
        context = ssl.create_default_context(cafile=str(certificate))
        async with listen(Echo(), section) as url, connect(url, ssl=context) as socket:
            assert url.startswith("wss://")
            await socket.send("x")
            assert await socket.recv() == "x"

    asyncio.run(main())


def test_a_port_that_is_taken_is_named() -> None:
    async def main() -> None:
        async with listen(Echo(), ServerSection(port=0)) as url:
            port = int(url.rsplit(":", 1)[1])
            with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .* another coordinator"):
                async with listen(Echo(), ServerSection(port=port)):
                    pass

    asyncio.run(main())


async def until_cut(gate: ConnectionLimits) -> None:
    """Wait until a connection was cut."""
    async with asyncio.timeout(30):
        while not gate.cut:
            await asyncio.sleep(0.01)


def test_who_has_proved_nothing_may_send_little() -> None:
    async def main() -> None:
        gate = ConnectionLimits(10, 10, 10)
        async with listen(Echo(), ServerSection(port=0), gate) as url, connect(url, compression=None) as socket:
            with contextlib.suppress(websockets.ConnectionClosed):
                for _ in range(40):
                    await socket.send(b"x" * 1000)
            await until_cut(gate)

    asyncio.run(main())


def test_who_has_proved_itself_may_send_much() -> None:
    async def main() -> None:
        gate = ConnectionLimits(10, 10, 10)
        async with listen(Echo(), ServerSection(port=0), gate) as url, connect(url, compression=None) as socket:
            await socket.send("prove")
            await socket.recv()
            for _ in range(40):
                await socket.send(b"x" * 1000)
                await socket.recv()
            assert gate.cut == 0

    asyncio.run(main())


def test_a_flood_of_pings_ends_the_connection_also_of_a_device_that_is_in() -> None:
    async def main() -> None:
        gate = ConnectionLimits(10, 10, 10)
        async with listen(Echo(), ServerSection(port=0), gate) as url, connect(url, compression=None) as socket:
            await socket.send("prove")
            await socket.recv()
            for number in range(20):
                await socket.ping(str(number))  # as a keepalive may do
            assert gate.cut == 0
            with contextlib.suppress(websockets.ConnectionClosed):
                for number in range(20, 200):
                    await socket.ping(str(number))
            await until_cut(gate)

    asyncio.run(main())
