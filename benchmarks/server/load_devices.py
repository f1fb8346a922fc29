"""
The devices' side of ``server_load.py``: many connections in one process, which train nothing.

They speak the real protocol through the SDK's own session objects, and send the same update again and again.
Prints ``connected`` once all are, then works until its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import ssl
import sys
import time
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from mobile_sdk import safetensors
from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.protocol.device_session import DeviceSession
from mobile_sdk.protocol.messages import Accepted, ArtifactRef, Assign, Finished, Name, Ready, Rejected, Sha256, Welcome
from mobile_sdk.protocol.session import FetchRequested, PeerError

# Handshakes at once: a fleet does not come in one instant either.
HANDSHAKES = 50


class Device:
    """One connection."""

    def __init__(self, options: argparse.Namespace, number: int, content: bytes) -> None:
        self._options = options
        self._content = memoryview(content)
        self._ref = ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))
        name = f"device-{options.first + number}"
        secret = hashlib.sha256(name.encode()).digest()
        self._session = DeviceSession(run="load", device=name, secret=secret, token="", key=options.key)
        self._socket: ClientConnection | None = None

    async def join(self) -> None:
        """Connect and prove who this is."""
        options = self._options
        # Its own certificate is not verified: the run's key says who the coordinator is.
        tls: dict[str, Any] = {"ssl": ssl._create_unverified_context()} if options.url.startswith("wss:") else {}
        tls |= {"local_addr": (options.address, 0)} if options.address else {}
        self._socket = await connect(
            options.url, compression=None, max_size=None, ping_interval=None, open_timeout=120, **tls
        )
        while True:
            await self._flush()
            for event in await self._events():
                if isinstance(event, Welcome):
                    return

    async def work(self) -> None:
        """Ask, offer, send, until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            self._ask()
            while True:
                await self._flush()
                for event in await self._events():
                    match event:
                        case Assign():
                            report = {"version": event.version, "samples": 10}
                            content = self._content if self._session.is_short(len(self._content)) else None
                            self._session.offer(event.assignment, self._ref, report, content, time.monotonic())
                        case FetchRequested():
                            self._session.send_artifact(event.sha256, self._content, event.offset, time.monotonic())
                        case Accepted():
                            self._ask()
                        case Rejected() | PeerError():
                            raise RuntimeError(f"{event}")
                        case Finished():
                            return

    def _ask(self) -> None:
        self._session.ready(Ready(0, 10, Name("native"), EXECUTORCH_VERSION, 0, 0, False))

    async def _events(self) -> list[object]:
        assert self._socket is not None
        return list(self._session.receive(await self._socket.recv(), time.monotonic()))

    async def _flush(self) -> None:
        assert self._socket is not None
        for frame in self._session.frames_to_send():
            await self._socket.send(frame)


async def bare(
    options: argparse.Namespace, number: int, payload: bytes, started: asyncio.Event, ready: list[int]
) -> None:
    """A client of the ceiling."""
    with contextlib.suppress(ConnectionClosed):
        async with connect(
            options.url, compression=None, max_size=None, ping_interval=None, open_timeout=120
        ) as socket:
            ready.append(1)
            await started.wait()
            if number >= options.at_once:
                await socket.recv()  # connected, and waits for its turn
            while True:
                await socket.send(payload)
                await socket.recv()


async def until_the_end() -> None:
    """Wait for the end of standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def run(options: argparse.Namespace) -> None:
    """Connect, say so, wait for a line, and work."""
    elements = options.update_bytes // 4
    values = np.random.default_rng(0).standard_normal(elements).astype(np.float32) * np.float32(1e-3)
    tasks: list[asyncio.Task[None]] = []
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    if options.kind != "coordinator":
        started, ready = asyncio.Event(), list[int]()
        payload = values.tobytes()
        tasks = [asyncio.create_task(bare(options, n, payload, started, ready)) for n in range(options.devices)]
        while len(ready) < options.devices:
            await asyncio.sleep(0.05)
        print("connected", flush=True)
        await reader.readline()
        started.set()
    else:
        content = safetensors.dumps({"trained": values.reshape(-1, 50)})
        devices = [Device(options, number, content) for number in range(options.devices)]
        gate = asyncio.Semaphore(options.handshakes)

        async def join(device: Device) -> None:
            async with gate:
                await device.join()

        await asyncio.gather(*(join(device) for device in devices))
        print("connected", flush=True)
        if not await reader.readline():
            return
        tasks = [asyncio.create_task(device.work()) for device in devices]
    end = asyncio.create_task(reader.read())
    await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_EXCEPTION if tasks else asyncio.ALL_COMPLETED)
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            print(f"failed: {task.exception()}", flush=True)
        task.cancel()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["coordinator", "ceiling", "durable"])
    parser.add_argument("url")
    parser.add_argument("--key", default="")
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--handshakes", type=int, default=HANDSHAKES, help="at once")
    parser.add_argument("--address", default="", help="of this machine, to connect from")
    parser.add_argument("--update-bytes", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=1_000_000, help="connections of the ceiling that send")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
