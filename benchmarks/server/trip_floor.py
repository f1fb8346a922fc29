"""
What a trip costs a server that does only what cannot be left out: the floor under ``trip_cost``.

A process with ``websockets`` and ``sqlite3`` alone takes the frames of a coordinator's trips and gives their answers: a
wish for work, an assignment, an offer with its update, the acknowledgement, and what became of it. It reads and writes
JSON, gives assignments and takes updates in with one transaction for all that wait, hashes and syncs the bytes. It
checks nothing, merges nothing, and schedules nobody.

    python -m benchmarks.server.trip_floor [--devices N] [--update-bytes N] [--seconds N] [--disk FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

LIMITS: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
REF = {"sha256": "ab" * 32, "size": 10_000, "encoding": "identity"}
WORK = {"version": 3, "manifest": REF, "signature": "cd" * 64, "program": REF, "weights": [REF], "differences": []}
SETTINGS = {"epochs": 1, "batch_size": 16, "learning_rate": 0.05, "momentum": 0.0, "payload": {"dtype": "float32"}}
TABLES = """
CREATE TABLE devices (id TEXT PRIMARY KEY, updates INTEGER NOT NULL DEFAULT 0, report TEXT);
CREATE TABLE assignments (number INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, open INTEGER NOT NULL);
CREATE TABLE updates (arrival INTEGER PRIMARY KEY, assignment TEXT UNIQUE, sha256 TEXT, start INTEGER, report TEXT);
"""


class Disk:
    """A table of assignments, one of updates, and a file of their bytes."""

    def __init__(self, folder: Path) -> None:
        self._database = sqlite3.connect(folder / "floor.sqlite", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(TABLES)
        self._writing = threading.Lock()
        self._file = os.open(folder / "updates", os.O_WRONLY | os.O_CREAT, 0o600)
        self._end = 0

    def assign(self, devices: Sequence[str]) -> list[int]:
        """Number work for devices."""
        with self._writing:
            self._database.execute("BEGIN IMMEDIATE")
            insert = "INSERT INTO assignments (device, open) VALUES (?, 1)"
            numbers = [self._database.execute(insert, (device,)).lastrowid or 0 for device in devices]
            self._database.execute("COMMIT")
        return numbers

    def accept(self, updates: Sequence[tuple[str, str, str, bytes]]) -> list[bool]:
        """Keep device, assignment, report and bytes."""
        rows = []
        for _, assignment, report, content in updates:
            rows.append((assignment, hashlib.sha256(content).hexdigest(), self._end, report))
            self._end += os.pwrite(self._file, content, self._end)
        os.fdatasync(self._file)
        with self._writing:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "INSERT INTO updates (assignment, sha256, start, report) VALUES (?, ?, ?, ?)", rows
            )
            numbers = [(int(assignment[1:]),) for _, assignment, _, _ in updates]
            self._database.executemany("UPDATE assignments SET open = 0 WHERE number = ?", numbers)
            counts = [(report, device) for device, _, report, _ in updates]
            self._database.executemany("UPDATE devices SET updates = updates + 1, report = ? WHERE id = ?", counts)
            self._database.execute("COMMIT")
        return [True] * len(updates)


class Group:
    """All that comes while others are being written is written together."""

    def __init__(self, write: Callable[[Any], list[Any]]) -> None:
        self._write = write
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None

    def put(self, what: object) -> asyncio.Future[Any]:
        """Written down once it is awaited."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((what, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._work())
        return future

    async def _work(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            answers = await asyncio.to_thread(self._write, [what for what, _ in group])
            for (_, future), answer in zip(group, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


async def be_server(folder: Path) -> None:
    """Serve until standard input ends; for each line of it, say what was done."""
    disk, trips = Disk(folder), 0
    assigning, accepting = Group(disk.assign), Group(disk.accept)

    async def handle(socket: ServerConnection) -> None:
        nonlocal trips
        with contextlib.suppress(ConnectionClosed):
            while True:
                ready = json.loads(await socket.recv())
                number = await assigning.put(ready["model"])
                work = WORK | {"type": "assign", "assignment": f"a{number:08d}", "seed": number, "settings": SETTINGS}
                await socket.send(json.dumps(work))
                offer = json.loads(await socket.recv())
                content = await socket.recv()
                await accepting.put((ready["model"], offer["assignment"], json.dumps(offer["report"]), content))
                accepted = {"type": "accepted", "assignment": offer["assignment"], "staleness": 0, "duplicate": False}
                await socket.send(json.dumps(accepted))
                merged = {
                    "type": "merged",
                    "assignment": offer["assignment"],
                    "version": 4,
                    "staleness": 0,
                    "weight": 1.0,
                }
                await socket.send(json.dumps(merged))
                trips += 1

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with serve(handle, "127.0.0.1", 0, **LIMITS) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        while await reader.readline():
            usage = resource.getrusage(resource.RUSAGE_SELF)
            print(json.dumps([trips, usage.ru_utime + usage.ru_stime, time.perf_counter()]), flush=True)
    os._exit(0)


async def be_devices(port: int, devices: int, update: bytes) -> None:
    """Make trips until killed."""

    async def one(name: str) -> None:
        ready = {"type": "ready", "budget": 0, "samples": 10, "engine": "native", "executorch": "1.0", "serial": 0}
        async with connect(f"ws://127.0.0.1:{port}", open_timeout=120, **LIMITS) as socket:
            while True:
                await socket.send(json.dumps(ready | {"model": name, "holds": []}))
                work = json.loads(await socket.recv())
                report = {"version": 3, "samples": 10}
                offer = {"type": "offer", "assignment": work["assignment"], "artifact": REF, "report": report}
                await socket.send(json.dumps(offer | {"follows": True}))
                await socket.send(update)
                await socket.recv()
                await socket.recv()

    await asyncio.gather(*(one(f"device-{number}") for number in range(devices)))


def measure_floor(devices: int, update_bytes: int, seconds: float, disk: Path) -> tuple[float, float]:
    """Milliseconds of the server's processor time per trip, and trips per second."""
    me = [sys.executable, str(Path(__file__))]
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([*me, "--serve", folder], **pipes) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            given = ["--connect", port, "--devices", str(devices), "--update-bytes", str(update_bytes)]
            with subprocess.Popen([*me, *given]) as fleet:

                def look(server: subprocess.Popen[str] = server) -> list[float]:
                    assert server.stdin is not None
                    assert server.stdout is not None
                    server.stdin.write("\n")
                    server.stdin.flush()
                    found: list[float] = json.loads(server.stdout.readline())
                    return found

                while (before := look())[0] < 2 * devices:
                    time.sleep(0.1)
                time.sleep(seconds)
                trips, used, elapsed = (b - a for a, b in zip(before, look(), strict=True))
                fleet.kill()
            server.stdin.close()
    return 1e3 * used / trips, trips / elapsed


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--update-bytes", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--disk", type=Path, default=Path(__file__).parent)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--connect", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        uvloop.run(be_server(options.serve))
    elif options.connect is not None:
        asyncio.run(be_devices(options.connect, options.devices, bytes(options.update_bytes)))
    else:
        cost, rate = measure_floor(options.devices, options.update_bytes, options.seconds, options.disk)
        print(f"{cost:.3f} ms of processor time per trip, {rate:.0f} trips/s")


if __name__ == "__main__":
    main()
