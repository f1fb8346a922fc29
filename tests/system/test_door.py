"""The device port under strangers, and behind proxies, private authorities and self-signed certificates."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from coordinator.net.tls import make_certificate
from mobile_sdk import Client, Transport
from mobile_sdk.data import load_dataset
from mobile_sdk.errors import Refused
from mobile_sdk.events import Connected, Disconnected, Event, UpdateAccepted
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.encoding import encode
from mobile_sdk.protocol.messages import Error, Later, Ready, Welcome

from .conftest import BIN, PATIENCE, Peer, Site

OpenPeer = Callable[[str], contextlib.AbstractAsyncContextManager[Peer]]


async def first_update(client: Client) -> list[Event]:
    """Take part until an update is accepted; what happened until then."""
    seen: list[Event] = []
    async with asyncio.timeout(PATIENCE):
        async with client:
            async for event in client.events():
                seen.append(event)
                if isinstance(event, UpdateAccepted):
                    return seen
    raise AssertionError(seen)


def test_strangers_who_say_nothing_are_cut_off_and_keep_no_device_out(site: Site, peer: OpenPeer) -> None:
    """Half of the strangers never finish the HTTP request, the other half never say hello."""
    server = site.serve(server="handshakes = 8\nhandshakes_per_address = 6\nhandshake_seconds = 1.5\n")

    async def main() -> None:
        async with peer("phone-1") as phone:
            await phone.join()
            slow = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(3)]
            for each in slow:
                each.sendall(b"GET / HTTP/1.1\r\nHost: ")
            mute = [await connect(site.url) for _ in range(3)]
            with pytest.raises((ConnectionClosed, InvalidMessage, OSError)):  # a seventh finds no room
                async with connect(site.url) as seventh:
                    await seventh.recv()
            for stranger in mute:
                answer = decode(str(await stranger.recv()))
                assert isinstance(answer, Error)
                assert "too long" in answer.message
                await stranger.wait_closed()
            # There is room again, and the device that was in has not noticed.
            async with peer("phone-2") as other:
                await other.join()
            await phone.work()
            for each in slow:
                each.close()

    asyncio.run(main())
    server.stop()


def test_a_flood_of_messages_ends_the_connection_with_its_reason(site: Site, peer: OpenPeer) -> None:
    site.serve("[limits]\nmessages_per_second = 5\n")

    async def main() -> None:
        async with peer("mallory") as mallory:
            assign = await mallory.join()
            for _ in range(200):
                mallory.session.decline(assign.assignment, "data", "no")
            with pytest.raises(AssertionError, match="more than 5 messages per second"):
                await mallory.next(Welcome)

    asyncio.run(main())


def test_tiny_chunks_are_refused(site: Site, peer: OpenPeer) -> None:
    site.serve()

    async def main() -> None:
        async with peer("mallory") as mallory:
            assign = await mallory.join()
            arrays = await mallory.zeros(assign)
            from mobile_sdk.protocol.frames import Chunk
            from mobile_sdk.protocol.messages import ArtifactRef, Sha256
            from mobile_sdk.protocol.session import FetchRequested

            from .conftest import payload

            content = payload(arrays)
            ref = ArtifactRef(Sha256("ab" * 32), len(content))
            mallory.session.offer(assign.assignment, ref, {"version": assign.version, "samples": 1})
            await mallory.next(FetchRequested)
            await mallory.socket.send(Chunk(ref.sha256, 0, content[:10]).to_bytes())
            with pytest.raises(AssertionError, match="at least 1024"):
                await mallory.next(Welcome)

    asyncio.run(main())


def test_a_connection_must_begin_with_hello(site: Site) -> None:
    site.serve()

    async def say(frame: str | bytes) -> str:
        async with connect(site.url) as stranger:
            await stranger.send(frame)
            answer = decode(str(await stranger.recv()))
            assert isinstance(answer, Error)
            return answer.message

    async def main() -> None:
        assert "must be hello" in await say(b"\x01")
        assert "must be hello" in await say(encode(Later(1.0, "x")))
        assert "not JSON" in await say("GET / HTTP/1.1")

    asyncio.run(main())


def test_a_device_beyond_its_bytes_is_sent_away_for_the_day(site: Site, peer: OpenPeer) -> None:
    site.serve('[limits]\nbytes_per_day = "1KB"\n')

    async def main() -> None:
        async with peer("phone-1") as phone:
            await phone.next(Welcome)
            phone.session.ready(Ready(0, 10, *ready_rest()))
            await phone.next(*WORK)
        async with peer("phone-1") as phone:
            await phone.next(Welcome)
            phone.session.ready(Ready(0, 10, *ready_rest()))
            later = await phone.next(Later)
            assert 86_000 < later.seconds <= 86_400
            assert "as many bytes as it may" in later.reason

    from mobile_sdk.protocol.messages import Assign

    WORK = (Assign,)
    asyncio.run(main())


def ready_rest() -> Any:
    """What is not of interest in a ready message."""
    from mobile_sdk.manifest import EXECUTORCH_VERSION

    return "native", EXECUTORCH_VERSION, 0, 0, False


# TLS.


def authority(folder: Path) -> tuple[Path, Path, Path]:
    """A private authority with a certificate for localhost, made as its owner would: certificate, key, authority."""

    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Private CA", "-days", "2")
    openssl("req", *curve, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,DNS:coordinator.test,IP:127.0.0.1\n")
    openssl(
        *("x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", "names", "-out", "cert.pem"),
    )
    return folder / "cert.pem", folder / "key.pem", folder / "ca.pem"


@contextlib.asynccontextmanager
async def connect_proxy(port: int) -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP proxy that knows CONNECT alone and asks for a password; every tunnel ends at ``port`` of this machine."""
    asked: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.splitlines()[0])
        if "proxy-authorization: basic" not in head.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def test_a_device_behind_a_proxy_reaches_a_coordinator_with_a_private_authority(site: Site) -> None:
    certificate, key, ca = authority(site.folder)
    server = site.serve(server=f'certificate = "{certificate}"\nprivate_key = "{key}"\n')
    data = load_dataset("exporters.zoo.digits_data:part(0, of=4)")

    def client(proxy: str, name: str, url: str = f"wss://coordinator.test:{site.port}", ca: Path | None = ca) -> Client:
        return Client(
            url,
            run="digits",
            key=site.key,
            dataset=data,
            storage=site.folder / name,
            name=name,
            transport=Transport(certificates=ca, proxy=proxy),
        )

    async def main() -> None:
        async with connect_proxy(site.port) as (address, asked):
            # The name is the proxy's to resolve: this machine does not know it.
            events = await first_update(client(f"http://ann:secret@{address}", "behind"))
            assert asked == [f"CONNECT coordinator.test:{site.port} HTTP/1.1"]
            assert isinstance(events[0], Connected)
            async with client(f"http://{address}", "without-password") as refused:
                async for event in refused.events():
                    assert isinstance(event, Disconnected)
                    assert "407" in event.reason
                    break
            async with client("", "distrustful", f"wss://localhost:{site.port}", None) as distrustful:
                async for event in distrustful.events():
                    assert isinstance(event, Disconnected)
                    assert "its certificate is not trusted" in event.reason
                    break

    asyncio.run(main())
    assert "secret" not in server.output


def test_an_invitation_carries_a_self_signed_certificate(site: Site) -> None:
    result = subprocess.run(
        [BIN / "ftte", "certificate", "localhost", "127.0.0.1", "--out", site.folder],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "SHA-256" in result.stdout
    assert (site.folder / "private_key.pem").stat().st_mode & 0o777 == 0o600
    site.serve(server='certificate = "certificate.pem"\nprivate_key = "private_key.pem"\n')
    link = json.loads(
        subprocess.run(
            [BIN / "ftte", "invite", "--json", "--admin", site.folder / ".ftte"], check=True, capture_output=True
        ).stdout
    )["link"]
    data = load_dataset("exporters.zoo.digits_data:part(0, of=4)")

    async def main() -> None:
        invited = Client.from_invite(
            link, dataset=data, storage=site.folder / "invited", name="invited", transport=Transport(proxy="")
        )
        await first_update(invited)
        other = make_certificate(["localhost"], site.folder / "other.pem", site.folder / "other.key")
        misled = Client.from_invite(
            link, dataset=data, storage=site.folder / "misled", transport=Transport(proxy="", certificate=other)
        )
        async with misled:
            async for event in misled.events():
                assert isinstance(event, Disconnected)
                assert f"not {other} of the invite" in event.reason
                break

    asyncio.run(main())


def test_an_impostor_with_a_trusted_certificate_is_told_neither_token_nor_secret(site: Site) -> None:
    """It knows the run's public key, as everybody may, and answers in the coordinator's place."""
    heard: list[str] = []

    async def impostor(websocket: Any) -> None:
        async for frame in websocket:
            heard.append(str(frame))
            challenge = {
                "type": "challenge",
                "protocol": 1,
                "nonce": "00" * 32,
                "key": site.key,
                "signature": "11" * 64,
                "succession": [],
            }
            await websocket.send(json.dumps(challenge))

    async def main() -> None:
        from websockets.asyncio.server import serve

        async with serve(impostor, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            data = load_dataset("exporters.zoo.digits_data:part(0, of=4)")
            client = Client(
                f"ws://127.0.0.1:{port}",
                run="digits",
                key=site.key,
                dataset=data,
                storage=site.folder / "victim",
                token="open sesame",
                transport=Transport(proxy=""),
            )
            async with client:
                with pytest.raises(Refused, match="could not prove that it holds the run's key"):
                    await client.run()

    asyncio.run(main())
    assert len(heard) >= 1
    assert "hello" in heard[0]
    secret = json.loads((site.folder / "victim" / "device.json").read_text())["secret"]
    assert not any("sesame" in frame or secret in frame for frame in heard)
