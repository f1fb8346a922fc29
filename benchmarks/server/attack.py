"""
One attacker beside one honest device, on the same machine: what the honest device notices, and what stays behind.

A coordinator with default limits runs in a process of its own, the attacker in another. The honest device asks for
work, uploads an update of 4 KB and hears that it is accepted, again and again: that is a trip. For each attack the
median trip is measured without it and with it, and the growth of the coordinator's memory and of its log.

    python -m benchmarks.server.attack [--seconds 10] [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from mobile_sdk import safetensors
from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.protocol.device_session import DeviceSession
from mobile_sdk.protocol.messages import Accepted, ArtifactRef, Assign, Later, Name, Ready, Rejected, Sha256, Welcome
from mobile_sdk.protocol.session import PeerError, Received

UPDATE_BYTES = 4_000
LOST = (OSError, WebSocketException, EOFError, TimeoutError, RuntimeError)


class Speaker:
    """A device that says what it wants."""

    def __init__(self, socket: ClientConnection, name: str, key: str) -> None:
        self.socket = socket
        secret = hashlib.sha256(name.encode()).digest()
        self.session = DeviceSession(run="load", device=name, secret=secret, token="", key=key)

    async def flush(self) -> None:
        for frame in self.session.frames_to_send():
            await self.socket.send(frame)

    async def next(self, *kinds: type[Any]) -> Any:
        """The next event of one of these kinds."""
        while True:
            await self.flush()
            for event in self.session.receive(await self.socket.recv(), time.monotonic()):
                if isinstance(event, kinds):
                    return event
                if isinstance(event, PeerError):
                    raise RuntimeError(event.message)

    def ready(self, holds: tuple[Sha256, ...] = ()) -> None:
        self.session.ready(Ready(0, 10, Name("native"), EXECUTORCH_VERSION, 0, 0, False, "", holds))

    async def hand_in(self, assign: Assign, content: bytes, **report: Any) -> Accepted | Rejected:
        ref = ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))
        told = {"version": assign.version, "samples": 10} | report
        self.session.offer(assign.assignment, ref, told, memoryview(content), time.monotonic())
        answer: Accepted | Rejected = await self.next(Accepted, Rejected)
        return answer


@contextlib.asynccontextmanager
async def device(url: str, key: str, name: str) -> AsyncIterator[Speaker]:
    async with connect(url, compression=None, max_size=2**22, proxy=None) as socket:
        speaker = Speaker(socket, name, key)
        await speaker.next(Welcome)
        yield speaker


def update() -> bytes:
    return safetensors.dumps({"trained": np.zeros((UPDATE_BYTES // 200, 50), np.float32)}, {"format": "float32"})


async def trips(url: str, key: str, seconds: float) -> list[float]:
    """Seconds of each trip of an honest device."""
    found, content, end = [], update(), time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(*LOST):
            async with device(url, key, "honest") as speaker:
                while time.monotonic() < end:
                    began = time.perf_counter()
                    speaker.ready()
                    assign = await speaker.next(Assign, Later)
                    if isinstance(assign, Assign) and isinstance(await speaker.hand_in(assign, content), Accepted):
                        found.append(time.perf_counter() - began)
    return found


# What attackers do, until they are stopped; each gives how many times.


async def made_up_holds(url: str, key: str) -> None:
    """64 file names that nobody has, with each wish for work."""
    async with device(url, key, "mallory") as speaker:
        for number in range(10**9):
            names = tuple(Sha256(hashlib.sha256(b"%d %d" % (number, k)).hexdigest()) for k in range(64))
            speaker.ready(names)
            await speaker.next(Assign, Later)
            speaker.session.decline(f"a{number}", "data", "no")
            await speaker.flush()
            await asyncio.sleep(0.006)


async def pings(url: str, key: str) -> None:
    """Empty pings by a stranger, as fast as they go out."""
    async with connect(url, compression=None, proxy=None, ping_interval=None) as socket:
        while not socket.transport.is_closing():
            socket.transport.write(b"\x89\x80\0\0\0\0" * 10_000)
            await asyncio.sleep(0.01)


async def long_type(url: str, key: str) -> None:
    """A first message whose type has 60,000 characters."""
    async with connect(url, compression=None, proxy=None) as socket:
        await socket.send(json.dumps({"type": "x" * 60_000}))
        await socket.recv()


async def escapes(url: str, key: str) -> None:
    """Lines and escape sequences for the operator's log, before any proof."""
    async with connect(url, compression=None, proxy=None) as socket:
        metrics = {"x\n2026-01-01 ERROR the run was deleted by the operator\n\x1b[2J": "a"}
        await socket.send(json.dumps({"type": "evaluated", "evaluation": "e1", "samples": 1, "metrics": metrics}))
        await socket.recv()


async def long_report(url: str, key: str) -> None:
    """Reports of 60 KB that are refused."""
    content = update()
    async with device(url, key, "mallory") as speaker:
        while True:
            speaker.ready()
            assign = await speaker.next(Assign, Later)
            if isinstance(assign, Later):
                return
            await speaker.hand_in(assign, content, version="x" * 60_000)


async def take_and_decline(url: str, key: str) -> None:
    """Work that is taken and given back at once."""
    async with device(url, key, "mallory") as speaker:
        while True:
            speaker.ready()
            assign = await speaker.next(Assign, Later)
            if isinstance(assign, Later):
                return
            speaker.session.decline(assign.assignment, "data", "no")
            await asyncio.sleep(0.004)


async def downloads(url: str, key: str) -> None:
    """The same file again and again, beyond the quota."""
    async with device(url, key, "mallory") as speaker:
        speaker.ready()
        assign = await speaker.next(Assign)
        while True:
            ref = assign.weights[0]
            speaker.session.fetch(ref, 0)
            event = await speaker.next(Received)
            while not event.last:
                event = await speaker.next(Received)


async def handshakes(url: str, key: str) -> None:
    """Connections that say nothing."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(400):
            await stack.enter_async_context(connect(url, compression=None, proxy=None, ping_interval=None))
        await asyncio.sleep(5)


async def noise(url: str, key: str) -> None:
    """Random frames."""
    async with connect(url, compression=None, proxy=None) as socket:
        while True:
            await socket.send(os.urandom(200))
            await socket.send(os.urandom(60).hex())
            await asyncio.sleep(0)


ATTACKS: dict[str, Callable[[str, str], Awaitable[None]]] = {
    each.__name__.replace("_", " "): each
    for each in (
        made_up_holds, pings, long_type, escapes, long_report, take_and_decline, downloads, handshakes, noise
    )
}  # fmt: skip


async def attack(name: str, url: str, key: str) -> None:
    """Attack until killed, coming back whenever the coordinator has had enough."""
    while True:
        with contextlib.suppress(*LOST):
            await ATTACKS[name](url, key)
        await asyncio.sleep(0)


class Server:
    """The coordinator under attack."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.server.load_server", "coordinator", folder),
                    *("--update-bytes", str(UPDATE_BYTES), "--buffer", "4", "--attacked", "--bytes-per-day", "50MB"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.said = self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line

    def status(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def measure(name: str, seconds: float) -> dict[str, Any]:
    """One attack beside an honest device, after the same time without."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        url, key = server.said["url"], server.said["key"]
        try:
            alone = asyncio.run(trips(url, key, seconds))
            before, logged = server.status(), server.log.stat().st_size
            mallory = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.server.attack", "--attack", name, url, key],
                stderr=subprocess.DEVNULL,
            )
            try:
                beside = asyncio.run(trips(url, key, seconds))
            finally:
                mallory.kill()
                mallory.wait()
            after = server.status()
            lines = server.log.read_text(errors="replace")
        finally:
            server.stop()
    medians = [statistics.median(each) * 1000 if each else float("inf") for each in (alone, beside)]
    return {
        "attack": name,
        "alone_ms": medians[0],
        "beside_ms": medians[1],
        "ratio": medians[1] / medians[0],
        "trips": [len(alone), len(beside)],
        "rss_mb": (after["rss"] - before["rss"]) / 1e6,
        "log_kb": (len(lines) - logged) / 1000,
        "escaped": "\x1b" not in lines and "\n2026-01-01 ERROR" not in lines,
        "traceback": "Traceback" in lines,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--attack", nargs=3, metavar=("NAME", "URL", "KEY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        asyncio.run(attack(*options.attack))
    print(f"{'attack':20}{'alone':>9}{'beside':>9}{'ratio':>7}{'trips':>12}{'memory':>10}{'log':>10}")
    rows = []
    for name in options.only:
        row = measure(name, options.seconds)
        rows.append(row)
        print(
            f"{name:20}{row['alone_ms']:6.1f} ms{row['beside_ms']:6.1f} ms{row['ratio']:7.2f}"
            f"{row['trips'][0]:6}{row['trips'][1]:6}{row['rss_mb']:+7.1f} MB{row['log_kb']:+7.1f} KB"
            f"{'' if row['escaped'] else '  log injected'}{'  traceback' if row['traceback'] else ''}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"seconds": options.seconds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
