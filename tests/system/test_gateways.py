"""``ftte serve --gateways``: any of its processes may be killed, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from coordinator.programs.tiers import load_tiers
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.messages import Accepted, ArtifactRef, Sha256, Welcome
from mobile_sdk.protocol.session import FetchRequested

from .conftest import BIN, Peer, Process, Site, payload
from .test_kills_under_load import DEVICES, Load, check, leave

SETTINGS = "[admin]\n[merge]\nbuffer = 3\ndefence = false\n"
CHUNK = 1024


def children(process: Process, command: str) -> list[int]:
    """The processes that run ``ftte COMMAND``."""
    found = []
    for line in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for child in line.read_text().split():
            if f"\0{command}\0" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(int(child))
    return sorted(found)


def kill(*processes: int) -> None:
    for process in processes:
        os.kill(process, signal.SIGKILL)


def shapes(site: Site) -> dict[str, tuple[int, ...]]:
    store = SqliteStore(site.state)
    subset = load_tiers(store)[-1].manifest.subset
    store.close()
    return {name: subset.shape(name) for name in subset}


def test_a_run_goes_on_whichever_process_is_killed_and_loses_nothing(site: Site) -> None:
    load = Load(site, shapes(site))

    async def main() -> Process:
        server = await asyncio.to_thread(site.serve, SETTINGS, options=("--gateways", "2"))
        tasks = [asyncio.create_task(load.device(f"phone-{number}")) for number in range(DEVICES)]
        try:
            async with asyncio.timeout(240):
                await load.more(10)
                for command in ("gateway", "conduct", "gateway"):
                    kill(children(server, command)[0])
                    await load.more(10)
            for task in tasks:
                assert not task.done(), task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return server

    leave(asyncio.run(main()))
    check(site, load, replay=True)


def test_an_upload_goes_on_at_another_gateway_at_the_last_acknowledged_byte(site: Site) -> None:
    content = payload({name: np.zeros(shape, np.float32) for name, shape in shapes(site).items()})
    digest = hashlib.sha256(content).hexdigest()
    server = site.serve(SETTINGS, options=("--gateways", "2"))
    server.wait_for("gateway on")

    async def main() -> None:
        async with connect(site.url, compression=None, max_size=2**22) as socket:
            peer = Peer(socket, site, "phone-1")
            assign = await peer.join()
            ref = ArtifactRef(Sha256(digest), len(content))
            peer.session.offer(assign.assignment, ref, {"version": assign.version, "samples": 10})
            asked = await peer.next(FetchRequested)
            assert asked.offset == 0
            for start in range(0, 3 * CHUNK, CHUNK):
                await socket.send(Chunk(digest, start, content[start : start + CHUNK]).to_bytes())
                acknowledged = await socket.recv()
                assert f'"offset":{start + CHUNK}' in str(acknowledged)
            kill(*children(server, "gateway"))
            try:
                while True:
                    await socket.recv()
            except ConnectionClosed:
                pass
        while True:  # both gateways are started again
            try:
                async with connect(site.url, compression=None, max_size=2**22) as socket:
                    peer = Peer(socket, site, "phone-1")
                    await peer.next(Welcome)
                    again = await peer.work()
                    assert again.assignment == assign.assignment
                    peer.session.offer(again.assignment, ref, {"version": again.version, "samples": 10})
                    asked = await peer.next(FetchRequested)
                    assert asked.offset == 3 * CHUNK
                    peer.session.send_artifact(asked.sha256, memoryview(content), asked.offset, 0.0)
                    assert (await peer.next(Accepted)).assignment == assign.assignment
                    return
            except (OSError, WebSocketException):
                await asyncio.sleep(0.1)

    asyncio.run(main())
    leave(server)


@pytest.mark.full
def test_a_conductor_that_stands_by_takes_over_from_one_that_is_killed(site: Site) -> None:
    load = Load(site, shapes(site))
    leave(site.serve(SETTINGS))  # which writes the run file
    with tempfile.TemporaryDirectory() as folder:
        common = site.folder / "run.toml", "--socket", Path(folder) / "conductor.sock"
        leader = start(site, "leader", "conduct", *common)
        leader.wait_for("waits for devices")
        second = start(site, "second", "conduct", *common, "--standby")
        second.wait_for("Standing by")
        gateway = start(site, "gateway", "gateway", *common)
        gateway.wait_for("gateway on")

        async def main() -> None:
            tasks = [asyncio.create_task(load.device(f"phone-{number}")) for number in range(DEVICES)]
            try:
                async with asyncio.timeout(240):
                    await load.more(6)
                    leader.kill()
                    await load.more(6)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(main())
        leave(gateway)
        leave(second)
    check(site, load, replay=True)


def start(site: Site, name: str, *command: str | Path) -> Process:
    """A further command of ``ftte``, with a log of its own."""
    return site.keep(Process(BIN / "ftte", "--verbose", *command, log=site.folder / f"{name}.log"))
