"""Links in memory against real WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from websockets.asyncio.client import connect

from coordinator.config import ServerSection
from coordinator.net.listener import listen
from coordinator.net.traffic import Traffic
from coordinator.simulation.virtual_time import run
from coordinator.simulation.world.links import LinkProfile, Network
from mobile_sdk.net.connection import WEBSOCKET_LIMITS, Connection, ConnectionLost, WebSocketConnection

FRAMES: list[str | bytes] = ["", "x" * 125, "ü" * 63, "x" * 126, b"y" * 65535, b"y" * 65536, b"z" * 200_000]
FAST = LinkProfile(up=1e9, down=1e9, latency=0.0)


async def converse(connection: Connection, goodbye: str) -> None:
    """The coordinator's side: echo everything; ``goodbye`` names who closes."""
    try:
        for _ in FRAMES:
            await connection.send(await connection.receive())
        if goodbye == "coordinator":
            await connection.close("that was all")
        await connection.receive()
    except ConnectionLost:
        pass


async def visit(connection: Connection, goodbye: str) -> None:
    for frame in FRAMES:
        await connection.send(frame)
        assert await connection.receive() == frame
    if goodbye == "device":
        await connection.close("bye")
    else:
        with pytest.raises(ConnectionLost, match="that was all"):
            await connection.receive()


class Echo:
    """A host that the product's own server leads to."""

    def __init__(self, goodbye: str) -> None:
        self.traffic = Traffic()
        self._goodbye = goodbye

    async def serve(self, connection: Connection, traffic: Traffic, proven: Callable[[], None]) -> None:
        self.traffic = traffic
        proven()  # a stranger's bytes are few
        await converse(connection, self._goodbye)


async def over_websocket(goodbye: str) -> tuple[int, int, str]:
    host = Echo(goodbye)
    async with listen(host, ServerSection(port=0)) as url, connect(url, **WEBSOCKET_LIMITS) as socket:
        await visit(WebSocketConnection(socket), goodbye)
    return host.traffic.up, host.traffic.down, url


async def over_link(goodbye: str, url: str) -> tuple[int, int]:
    traffic: list[Traffic] = []

    async def handle(connection: Connection, counted: Traffic) -> None:
        traffic.append(counted)
        await converse(connection, goodbye)

    network = Network(handle, url)
    async with network.connect("phone", FAST, np.random.default_rng(0), lambda: True)() as connection:
        await visit(connection, goodbye)
    await network.drained()
    return traffic[0].up, traffic[0].down


@pytest.mark.parametrize("goodbye", ["device", "coordinator"])
def test_bytes_are_those_of_a_websocket(goodbye: str) -> None:
    """Handshake, headers, masks, payloads and farewells: the same figure, to the byte."""
    up, down, url = asyncio.run(over_websocket(goodbye))
    assert run(over_link(goodbye, url)) == (up, down)


def transfer(profile: LinkProfile, seed: int = 0, frames: int = 50) -> tuple[list[float], list[bytes]]:
    """Arrival times and frames of an upload."""

    async def main() -> tuple[list[float], list[bytes]]:
        arrivals: list[float] = []
        received: list[bytes] = []

        async def handle(connection: Connection, traffic: Traffic) -> None:
            try:
                while True:
                    frame = await connection.receive()
                    assert isinstance(frame, bytes)
                    received.append(frame)
                    arrivals.append(asyncio.get_running_loop().time())
            except ConnectionLost:
                pass

        network = Network(handle)
        async with network.connect("phone", profile, np.random.default_rng(seed), lambda: True)() as connection:
            for index in range(frames):
                await connection.send(bytes([index]) * 10_000)
        await network.drained()
        return arrivals, received

    return run(main())


def test_a_frame_takes_its_time_on_the_wire() -> None:
    """10,008 bytes with header and mask at 100 KB/s, after a handshake of two round trips, and the latency."""
    arrivals, _ = transfer(LinkProfile(up=100e3, down=1e6, latency=0.1), frames=3)
    assert arrivals == pytest.approx([0.4 + 0.1 + 0.10008 * n for n in (1, 2, 3)])


def test_jitter_and_loss_delay_but_never_reorder_and_follow_the_seed() -> None:
    """As over TCP."""
    rough = LinkProfile(up=1e6, down=1e6, latency=0.02, jitter=0.05, loss=0.05)
    arrivals, received = transfer(rough, seed=1)
    assert [frame[0] for frame in received] == list(range(50))
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] > transfer(LinkProfile(up=1e6, down=1e6, latency=0.02))[0][-1]
    assert transfer(rough, seed=1)[0] == arrivals
    assert transfer(rough, seed=2)[0] != arrivals


def test_sending_waits_while_the_link_is_full() -> None:
    """A slow link holds its sender, as a socket's buffer does."""

    async def main() -> float:
        async def handle(connection: Connection, traffic: Traffic) -> None:
            with contextlib.suppress(ConnectionLost):
                while True:
                    await connection.receive()

        network = Network(handle)
        slow = LinkProfile(up=100e3, down=1e6, latency=0.0)
        async with network.connect("phone", slow, np.random.default_rng(0), lambda: True)() as connection:
            for _ in range(10):
                await connection.send(b"x" * 100_000)
            sent = asyncio.get_running_loop().time()
        await network.drained()
        return sent

    assert 9.0 < run(main()) < 10.0


def test_a_link_that_snaps_is_noticed_at_once_here_and_by_silence_there() -> None:
    """What was under way is lost."""
    noticed: dict[str, float] = {}

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def handle(connection: Connection, traffic: Traffic) -> None:
            with pytest.raises(ConnectionLost, match="keepalive"):
                await connection.receive()
            noticed["coordinator"] = loop.time()

        network = Network(handle)
        profile = LinkProfile(up=1e3, down=1e3, latency=0.0)
        async with network.connect("phone", profile, np.random.default_rng(0), lambda: True)() as connection:
            loop.call_later(1.0, network.snap, "phone")
            await connection.send(b"x" * 10_000)
            with pytest.raises(ConnectionLost, match="network is gone"):
                await connection.receive()
            noticed["device"] = loop.time()
        await network.drained()

    run(main())
    assert noticed == {"device": 1.0, "coordinator": 41.0}


def test_no_network_no_connection() -> None:
    """Trying without a network fails as it does on a phone."""

    async def main() -> None:
        network = Network(lambda connection, traffic: None)
        with pytest.raises(ConnectionLost, match="no network"):
            async with network.connect("phone", FAST, np.random.default_rng(0), lambda: False)():
                pass

    run(main())


def test_keepalive_is_counted_without_being_simulated() -> None:
    """Two pings and two pongs of 4 bytes every 20 s."""

    async def main() -> tuple[int, int]:
        traffics: list[Traffic] = []

        async def handle(connection: Connection, traffic: Traffic) -> None:
            traffics.append(traffic)
            with pytest.raises(ConnectionLost):
                await connection.receive()

        network = Network(handle)
        async with network.connect("phone", FAST, np.random.default_rng(0), lambda: True)():
            await asyncio.sleep(0)
            up, down = traffics[0].up, traffics[0].down
            await asyncio.sleep(101)
            network.settle()
            counted = traffics[0].up - up, traffics[0].down - down
        await network.drained()
        return counted

    assert run(main()) == (5 * 2 * 10, 5 * 2 * 6)
