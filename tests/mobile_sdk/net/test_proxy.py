"""Proxies of the environment and of an argument: which is used, and what is said where one cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import serve

from coordinator.net.tls import make_certificate
from mobile_sdk.net.connection import ConnectionLost, Transport, websocket
from mobile_sdk.net.proxy import environment_proxy, shown_proxy

DEAD = "http://127.0.0.1:7"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "socks", "ws", "wss", "no", "all"):
        for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
            monkeypatch.delenv(name, raising=False)


@contextlib.asynccontextmanager
async def echo(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A WebSocket server of this machine; its port."""

    async def handle(connection: Any) -> None:
        await connection.send(await connection.recv())

    async with serve(handle, "127.0.0.1", 0, ssl=context) as server:
        yield next(iter(server.sockets)).getsockname()[1]


def reason(url: str, **options: Any) -> str:
    """Why there is no connection."""

    async def main() -> str:
        with pytest.raises(ConnectionLost) as lost:
            async with websocket(url, Transport(**options))():
                pass
        return str(lost.value)

    return asyncio.run(main())


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "socks_proxy", "ws_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_never_reached_through_a_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, host: str
) -> None:
    monkeypatch.setenv(variable, DEAD if variable != "socks_proxy" else "socks5://127.0.0.1:7")

    async def main() -> str | bytes:
        async with echo() as port, websocket(f"ws://{host}:{port}")() as connection:
            await connection.send("hello")
            return await connection.receive()

    assert asyncio.run(main()) == "hello"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (
            "https_proxy",
            "proxy.corp:3128",
            "https_proxy of the environment is no address of a proxy: write it like http",
        ),
        ("https_proxy", "http://me:secret@127.0.0.1:7", "through the proxy http://...@127.0.0.1:7: "),
        ("socks_proxy", "socks5://127.0.0.1:7", "SOCKS proxies need the package python-socks"),
        ("https_proxy", "ftp://127.0.0.1:7", "is no address of a proxy"),
    ],
)
def test_a_proxy_of_the_environment_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    said = reason("wss://ftte.invalid:8765")
    assert words in said
    assert "secret" not in said


@pytest.mark.parametrize("proxy", ["proxy.corp:3128", "ftp://proxy.corp", "http://", "http://proxy:port"])
def test_a_proxy_that_an_app_gives_is_checked_at_once(proxy: str) -> None:
    with pytest.raises(ValueError, match="is no address of a proxy: write it like"):
        websocket("wss://ftte.invalid:8765", Transport(proxy=proxy))


def test_a_proxy_that_refuses_and_one_that_speaks_no_http_are_lost_connections() -> None:
    async def main(answer: bytes) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionLost) as lost:
                async with websocket("wss://ftte.invalid:8765", Transport(proxy=f"http://127.0.0.1:{port}"))():
                    pass
        return str(lost.value)

    for answer in (b"HTTP/1.1 403 Forbidden\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b""):
        assert "through the proxy http://127.0.0.1:" in asyncio.run(main(answer))


def test_an_argument_and_no_proxy_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", DEAD)
    assert environment_proxy("wss://ftte.example:8765") == (DEAD, "")
    monkeypatch.setenv("no_proxy", "ftte.example")
    assert environment_proxy("wss://ftte.example:8765") == (None, "")
    assert "proxy" not in reason("wss://ftte.invalid:8765", proxy="")
    assert shown_proxy("http://a.b:1") == "http://a.b:1"


def test_certificates_and_protocols_that_do_not_fit_are_told_with_a_remedy(tmp_path: Path) -> None:
    make_certificate(["127.0.0.1"], tmp_path / "c.pem", tmp_path / "k.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")

    async def main(scheme: str, tls: bool) -> str:
        async with echo(context if tls else None) as port:
            with pytest.raises(ConnectionLost) as lost:
                async with websocket(f"{scheme}://127.0.0.1:{port}")():
                    pass
            return str(lost.value)

    assert "is not trusted (self-signed certificate): join with the link" in asyncio.run(main("wss", True))
    assert "if it uses TLS, write wss://" in asyncio.run(main("ws", True))
    assert "does not speak the protocol of the address, TLS for wss://" in asyncio.run(main("wss", False))


def test_a_port_where_nobody_listens_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"cannot reach ws://127.0.0.1:{port}: nobody listens there" in reason(f"ws://127.0.0.1:{port}")


def test_a_name_that_is_not_known_is_told_so() -> None:
    assert "its name is not known here" in reason("ws://nowhere.invalid:1", insecure=True, proxy="")
