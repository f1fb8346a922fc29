"""A transfer that breaks goes on where it stopped, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from mobile_sdk.protocol.frames import HEADER_BYTES
from mobile_sdk.protocol.messages import Accepted, ArtifactRef, Sha256, Welcome
from mobile_sdk.protocol.session import FetchRequested

from .conftest import Peer, Site, payload

OpenPeer = Callable[[str], contextlib.AbstractAsyncContextManager[Peer]]


class CuttingProxy:
    """
    Passes TCP on to a coordinator, and breaks the first connections after so many bytes downstream.

    What it has passed on arrives; the end comes without a word of either protocol.
    """

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.port = port
        self.cuts = cuts
        self.down: list[int] = []  # bytes that each connection brought

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.down)
        self.down.append(0)
        limit = self.cuts[number] if number < len(self.cuts) else None
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def pass_up() -> None:
            while data := await reader.read(65536):
                up_writer.write(data)
                await up_writer.drain()

        async def pass_down() -> None:
            while data := await up_reader.read(4096):
                self.down[number] += len(data)
                writer.write(data)
                await writer.drain()
                if limit is not None and self.down[number] >= limit:
                    return

        tasks = [asyncio.create_task(pass_up()), asyncio.create_task(pass_down())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        up_writer.transport.abort()
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        async with await asyncio.start_server(self.handle, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]


def join_through(site: Site, cuts: list[int]) -> tuple[list[int], str]:
    """Let one device train one version; the bytes that each of its connections brought, and what it printed."""
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 1\n")

    async def main() -> tuple[list[int], str]:
        proxy = CuttingProxy(site.port, cuts)
        async with proxy.running() as port:
            site.url = f"ws://127.0.0.1:{port}"
            device = site.device("phone-1", 0)
            assert await asyncio.to_thread(device.wait) == 0
        return proxy.down, device.output

    result = asyncio.run(main())
    assert server.wait() == 0
    return result


def test_a_download_that_breaks_twice_is_not_begun_again(site: Site, planned: Path) -> None:
    (site.folder / "undisturbed").mkdir()
    undisturbed, _ = join_through(Site(site.folder / "undisturbed", planned), cuts=[])
    down, output = join_through(site, cuts=[40_000, 40_000])
    assert output.count("trying again") == 2
    assert len(down) == 3
    # At each cut the last chunk on its way is lost, 16 or 32 KB; without resuming it would be all of the 40 KB.
    assert sum(down) < sum(undisturbed) + 2 * 36_000


def test_an_upload_that_breaks_goes_on_from_what_the_coordinator_holds(site: Site, peer: OpenPeer) -> None:
    site.serve("[merge]\nbuffer = 2\n[stop]\nversions = 9\n")

    async def main() -> None:
        async with peer("phone-1") as before:
            assign = await before.join()
            content = payload(await before.zeros(assign))
            ref = ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))
            before.session.offer(assign.assignment, ref, {"version": assign.version, "samples": 10})
            fetch = await before.next(FetchRequested)
            assert fetch.offset == 0
            before.session.send_artifact(fetch.sha256, memoryview(content), 0, 0.0)
            frames = [frame for frame in before.session.frames_to_send() if isinstance(frame, bytes)]
            sent = 0
            for frame in frames[:2]:
                await before.socket.send(frame)
                sent += len(frame) - HEADER_BYTES
            while True:  # until both are acknowledged
                answer = str(await before.socket.recv())
                if f'"offset":{sent}' in answer:
                    break
            before.socket.transport.abort()
        assert 0 < sent < len(content)
        async with peer("phone-1") as after:
            await after.next(Welcome)
            after.session.offer(assign.assignment, ref, {"version": assign.version, "samples": 10})
            fetch = await after.next(FetchRequested)
            assert fetch.offset == sent
            after.session.send_artifact(fetch.sha256, memoryview(content), sent, 0.0)
            assert await after.next(Accepted) == Accepted(assign.assignment, 0, False)

    asyncio.run(main())


def test_a_part_that_was_torn_by_a_crash_is_fetched_again_from_the_start(site: Site, peer: OpenPeer) -> None:
    site.serve("[merge]\nbuffer = 2\n[stop]\nversions = 9\n")

    async def main() -> None:
        async with peer("phone-1") as phone:
            assign = await phone.join()
            content = payload(await phone.zeros(assign))
            digest = hashlib.sha256(content).hexdigest()
            torn = site.state / "incoming" / f"phone-1@{digest}"
            torn.write_bytes(b"x" * 1000)
            ref = ArtifactRef(Sha256(digest), len(content))
            phone.session.offer(assign.assignment, ref, {"version": assign.version, "samples": 10})
            for offset in (1000, 0):
                fetch = await phone.next(FetchRequested)
                assert fetch.offset == offset
                phone.session.send_artifact(fetch.sha256, memoryview(content), offset, 0.0)
            assert await phone.next(Accepted) == Accepted(assign.assignment, 0, False)

    asyncio.run(main())
