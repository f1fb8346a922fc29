"""What is said to whom: no redirect is followed, and a pinned certificate is compared before anything is sent."""

from __future__ import annotations

import asyncio
import contextlib
import http
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from coordinator.net.tls import make_certificate
from mobile_sdk.net.connection import ConnectionLost, Transport, websocket


class Site:
    """A server that counts what comes; with ``to`` it answers every request with a redirect."""

    def __init__(self, to: str = "", status: int = 302) -> None:
        self.requests = 0
        self.credentials: list[str] = []
        self._to = to
        self._status = status

    async def echo(self, socket: ServerConnection) -> None:
        async for frame in socket:
            await socket.send(frame)

    def request(self, socket: ServerConnection, request: Request) -> Response | None:
        self.requests += 1
        self.credentials += request.headers.get_all("Authorization")
        if not self._to:
            return None
        response = socket.respond(http.HTTPStatus(self._status), "go there")
        response.headers["Location"] = self._to
        return response

    @contextlib.asynccontextmanager
    async def serving(self, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        server: Server
        async with serve(self.echo, "127.0.0.1", 0, ssl=context, process_request=self.request) as server:
            yield next(iter(server.sockets)).getsockname()[1]


async def talk(url: str, transport: Transport | None = None) -> str:
    async with websocket(url, transport or Transport(proxy=""))() as connection:
        await connection.send("hello")
        return str(await connection.receive())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["ws://127.0.0.1:{port}/", "ws://192.0.2.1:9/"])
def test_no_redirect_is_followed_not_even_to_this_machine(to: str, status: int) -> None:
    async def main() -> None:
        target = Site()
        async with target.serving() as port:
            assert await talk(f"ws://127.0.0.1:{port}") == "hello"
            source = Site(to.format(port=port), status)
            async with source.serving() as first:
                with pytest.raises(ConnectionLost, match=f"HTTP {status}"):
                    await talk(f"ws://127.0.0.1:{first}")
        assert (source.requests, target.requests) == (1, 1)

    asyncio.run(asyncio.wait_for(main(), 30))


def tls(folder: Path, name: str) -> tuple[ssl.SSLContext, str]:
    """What a server needs, and the fingerprint of its certificate."""
    folder.mkdir(exist_ok=True)
    fingerprint = make_certificate(["127.0.0.1"], folder / f"{name}.pem", folder / f"{name}.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context, fingerprint


def test_a_server_with_another_certificate_hears_no_request_and_no_password(tmp_path: Path) -> None:
    async def main() -> None:
        context, right = tls(tmp_path, "right")
        between, _ = tls(tmp_path, "between")
        server, stranger = Site(), Site("wss://127.0.0.1:9/")
        async with server.serving(context) as port, stranger.serving(between) as other:
            pinned = Transport(proxy="", certificate=right)
            assert await talk(f"wss://ann:sesame@127.0.0.1:{port}", pinned) == "hello"
            assert len(server.credentials) == 1
            with pytest.raises(ConnectionLost, match=f"not {right} of the invite"):
                await talk(f"wss://ann:sesame@127.0.0.1:{other}", pinned)
        assert (stranger.requests, stranger.credentials) == (0, [])

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_server_with_the_pinned_certificate_cannot_send_a_device_elsewhere(tmp_path: Path) -> None:
    async def main() -> None:
        context, right = tls(tmp_path, "right")
        target = Site()
        async with target.serving(context) as port:
            source = Site(f"wss://127.0.0.1:{port}/")
            async with source.serving(context) as first:
                with pytest.raises(ConnectionLost, match="HTTP 302"):
                    await talk(f"wss://127.0.0.1:{first}", Transport(proxy="", certificate=right))
        assert (source.requests, target.requests) == (1, 0)

    asyncio.run(asyncio.wait_for(main(), 30))
