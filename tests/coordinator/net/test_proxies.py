"""A load balancer says whose connection it passes on; nobody else is believed, and wrong headers are refused."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import socket as sockets
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from websockets.asyncio.client import connect

from coordinator.config import ServerSection
from coordinator.net.admission import ConnectionLimits
from coordinator.net.listener import listen
from coordinator.net.proxies import Proxies
from coordinator.net.proxy_header import HeaderReader, WrongHeader
from coordinator.net.tls import make_certificate
from coordinator.net.traffic import Traffic
from mobile_sdk.net.connection import Connection

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOOPBACK = ("127.0.0.1/32",)
Loop = Callable[[], asyncio.AbstractEventLoop]


def binary(command: int = 0x21, family: int = 0x11, content: bytes | None = None, length: int | None = None) -> bytes:
    """A header of version 2; by default of 203.0.113.7."""
    if content is None:
        content = ipaddress.ip_address("203.0.113.7").packed + bytes([192, 0, 2, 1]) + struct.pack(">HH", 4_000, 8_765)
    return SIGNATURE + struct.pack(">BBH", command, family, len(content) if length is None else length) + content


SIX = ipaddress.ip_address("2001:db8::7").packed * 2 + struct.pack(">HH", 4_000, 8_765)

GOOD = [
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4000 8765\r\n", "203.0.113.7"),
    (b"PROXY TCP6 2001:DB8::7 ::1 4000 8765\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""),
    (binary(), "203.0.113.7"),
    (binary(content=binary()[16:] + b"\x03\x00\x04abcd"), "203.0.113.7"),  # with a further field
    (binary(family=0x21, content=SIX), "2001:db8::7"),
    (binary(command=0x20, family=0x00, content=b""), ""),  # of itself: it looks whether somebody listens
    (binary(command=0x21, family=0x00, content=b"\x03\x00\x01x"), ""),
]

WRONG = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "begins with no header"),  # TLS
    (b"GET / HTTP/1.1\r\n", "begins with no header"),
    (b"PUT / HTTP/1.1\r\n", "begins with no header"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4000\r\n", "is not PROXY"),
    (b"PROXY TCP4  203.0.113.7 192.0.2.1 4000 8765\r\n", "is not PROXY"),
    (b"PROXY UDP4 203.0.113.7 192.0.2.1 4000 8765\r\n", "is not PROXY"),
    (b"PROXY TCP4 203.0.113.777 192.0.2.1 4000 8765\r\n", "an address that is none"),
    (b"PROXY TCP4 2001:db8::7 ::1 4000 8765\r\n", "an address that is none"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 04000 8765\r\n", "a port that is none"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4000 65536\r\n", "a port that is none"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4000 -1\r\n", "a port that is none"),
    (b"PROXY " + b"x" * 200, "does not end"),
    (SIGNATURE[:-1] + b"\r" + bytes(4), "begins with no header"),
    (binary(command=0x11), "another version or command"),
    (binary(command=0x22), "another version or command"),
    (binary(length=5_000), "5000 bytes long"),
    (binary(content=bytes(11)), "too short"),
    (binary(family=0x21, content=bytes(35)), "too short"),
    (binary(family=0x31, content=bytes(216)), "something else than TCP"),
    (binary(family=0x12), "something else than TCP"),
]


def read(header: bytes, piece: int) -> str:
    """What a header says that comes in pieces; no byte beyond it is asked for."""
    reader, at = HeaderReader(), 0
    while reader.wanted:
        assert at < len(header), "more was wanted than there is"
        data = header[at : at + min(piece, reader.wanted)]
        reader.feed(data)
        at += len(data)
    assert at == len(header)
    return reader.address


@pytest.mark.parametrize("piece", [1, 3, 1_000])
@pytest.mark.parametrize(("header", "address"), GOOD)
def test_a_header_names_the_peer_and_is_read_to_its_last_byte(header: bytes, address: str, piece: int) -> None:
    assert read(header, piece) == address


@pytest.mark.parametrize("piece", [1, 1_000])
@pytest.mark.parametrize(("header", "words"), WRONG)
def test_a_wrong_header_is_refused_with_a_sentence(header: bytes, words: str, piece: int) -> None:
    with pytest.raises(WrongHeader, match=words):
        read(header, piece)


def test_networks_of_load_balancers_are_believed_and_no_others() -> None:
    proxies = Proxies(["10.0.0.0/8", "fd00::/8"])
    assert all(address in proxies for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1"))
    assert not any(address in proxies for address in ("11.1.2.3", "::ffff:11.1.2.3", "fe80::1%eth0", "", "nobody"))


class Doors(ConnectionLimits):
    """Remembers the addresses that have come."""

    def __init__(self) -> None:
        super().__init__(10, 10, 10)
        self.addresses: list[str] = []
        self.came = asyncio.Event()

    def enter(self, address: str) -> bool:
        self.addresses.append(address)
        self.came.set()
        return super().enter(address)


class Echo:
    async def serve(self, connection: Connection, traffic: Traffic, proven: Callable[[], None]) -> None:
        await connection.send(await connection.receive())


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Both kinds of event loop have to begin TLS in the middle of a connection."""
    loop: Loop | None = uvloop.new_event_loop if request.param == "uvloop" else None
    with asyncio.Runner(loop_factory=loop) as runner:
        yield runner


@pytest.fixture(params=["plain", "tls"])
def section(request: pytest.FixtureRequest, tmp_path: Path) -> ServerSection:
    """A server that believes a load balancer of this machine."""
    if request.param == "plain":
        return ServerSection(port=0, proxies=LOOPBACK)
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    make_certificate(["127.0.0.1"], certificate, key)
    return ServerSection(port=0, proxies=LOOPBACK, certificate=certificate, private_key=key)


def client_tls(section: ServerSection) -> ssl.SSLContext | None:
    if section.certificate is None:
        return None
    return ssl.create_default_context(cafile=str(section.certificate))


@pytest.mark.parametrize("header", [GOOD[0][0], binary()], ids=["line", "binary"])
def test_a_device_behind_a_load_balancer_counts_by_its_own_address(
    runner: asyncio.Runner, section: ServerSection, header: bytes
) -> None:
    async def main() -> None:
        doors = Doors()
        async with listen(Echo(), section, doors) as url, asyncio.timeout(10):
            port = int(url.rpartition(":")[2])
            with sockets.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(header)
                raw.setblocking(False)
                name = "127.0.0.1" if section.certificate else None
                async with connect(url, sock=raw, ssl=client_tls(section), server_hostname=name) as socket:
                    await socket.send("hello")
                    assert await socket.recv() == "hello"
        assert doors.addresses == ["203.0.113.7"]
        assert (doors.open, doors.unproven) == (0, 0)

    runner.run(main())


def test_who_is_no_load_balancer_is_served_by_their_own_address(runner: asyncio.Runner, section: ServerSection) -> None:
    async def main() -> None:
        doors = Doors()
        other = section.model_copy(update={"proxies": ("192.0.2.0/24",)})
        async with listen(Echo(), other, doors) as url, asyncio.timeout(10):
            async with connect(url, ssl=client_tls(section)) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
            assert doors.addresses == ["127.0.0.1"]

    runner.run(main())


@pytest.mark.parametrize("proxies", [LOOPBACK, ("192.0.2.0/24",), ()], ids=["believed", "another's", "none"])
def test_a_wrong_header_and_one_of_a_stranger_are_cut_off(proxies: tuple[str, ...]) -> None:
    header = b"GET / HTTP/1.1\r\n\r\n" if proxies == LOOPBACK else GOOD[0][0]

    async def main() -> None:
        doors = Doors()
        async with listen(Echo(), ServerSection(port=0, proxies=proxies), doors) as url, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(header + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b""
            writer.close()
            assert b"101" not in answer
            assert "203.0.113.7" not in doors.addresses

    asyncio.run(main())


def test_a_load_balancer_that_only_connects_is_cut_off_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.net.listener.OPEN_SECONDS", 0.05)

    async def main() -> None:
        doors = Doors()
        async with listen(Echo(), ServerSection(port=0, proxies=LOOPBACK), doors) as url, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"PROXY TC")
            assert await reader.read() == b""
            writer.close()
            assert doors.addresses == []

    asyncio.run(main())


HAPROXY = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend devices
  bind fd@{listening}
  default_backend ftte
backend ftte
  server one 127.0.0.1:{port} {send}
"""


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_haproxy_passes_devices_on_with_their_addresses(section: ServerSection, tmp_path: Path, send: str) -> None:
    found = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        pytest.skip("HAProxy is not installed: apt-get install haproxy")

    async def main() -> None:
        doors = Doors()
        with sockets.create_server(("127.0.0.1", 0)) as listening:
            async with listen(Echo(), section, doors) as url, asyncio.timeout(20):
                port = url.rpartition(":")[2]
                config = tmp_path / "haproxy.cfg"
                config.write_text(HAPROXY.format(listening=listening.fileno(), port=port, send=send))
                balancer = subprocess.Popen([found, "-db", "-f", str(config)], pass_fds=[listening.fileno()])
                try:
                    front = url.replace(port, str(listening.getsockname()[1]))
                    # From another address of this machine, to tell it from the load balancer's.
                    async with connect(
                        front, ssl=client_tls(section), local_addr=("127.0.0.77", 0), proxy=None
                    ) as socket:
                        await socket.send("hello")
                        assert await socket.recv() == "hello"
                finally:
                    balancer.terminate()
                    balancer.wait(10)
        assert doors.addresses == ["127.0.0.77"]

    asyncio.run(main())
