"""
The server's side of ``server_load.py``: a coordinator, or the bare loop that it is compared with.

Prints one JSON line when it listens, and one for each line that it reads from its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from coordinator.cli.event_loop import run
from coordinator.conductor.listener import GatewayConnections, listen_for_gateways
from coordinator.config import Config, parse_config
from coordinator.loop.coordinator import Coordinator
from coordinator.net.listener import listen
from coordinator.programs.run_key import RunKey
from coordinator.programs.tiers import load_tiers
from coordinator.store.records import RunRecord, TierRecord, VersionRecord
from coordinator.store.segments import SEGMENT_BYTES
from coordinator.store.sqlite import SqliteStore
from coordinator.versions.files import put_weights
from mobile_sdk.layout import Layout, Parameter, Subset, Vector
from mobile_sdk.manifest import PROGRAM_FILE, FileEntry, InputContract, Manifest, Memory
from mobile_sdk.payload import Grid
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

TICK_SECONDS = 0.005


def begin(config: Config, store: SqliteStore, key: RunKey, elements: int) -> None:
    """A run whose one program trains a vector; devices of a load test never run it."""
    if store.run() is not None:
        return

    def put(content: bytes) -> ArtifactRef:
        (entry,) = store.artifacts.put(content)
        return ArtifactRef(Sha256(entry.sha256), entry.size)

    layout = Layout([Parameter("trained", (elements // 50, 50))])
    subset = Subset(layout, {"trained": None})
    program = b"program"
    manifest = Manifest(
        run=config.run.name,
        serial=1,
        tier="all",
        task=config.run.task,
        files={PROGRAM_FILE: FileEntry.of(program)},
        methods={},
        layout=layout,
        subset=subset,
        contract=InputContract((1,), "float32", (), "int64"),
        metrics=(),
        micro_batch=1,
        memory=Memory(1, 1, 1),
    ).to_bytes()
    tier = TierRecord("all", 1, 1, put(manifest), key.sign(manifest), put(program), None)
    start = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    grid = Grid.of(layout.views(start), config.payload.grid_bits)
    files = put_weights(store.artifacts, layout, [subset], start, grid)
    plans = {
        "task": config.run.task,
        "budgets": dict(config.budgets),
        "planning": config.planning.model_dump(mode="json"),
    }
    first = VersionRecord(0, -1, files.weights, {}, time.time(), kind="initial", private=files.private)
    store.create(RunRecord(config.run.name, plans, "", time.time()), [tier], first)


def evaluate(vector: Vector) -> Mapping[str, float]:
    """A held-out set's worth of matrix products, about 50 ms, outside the event loop as in any run."""
    a = np.resize(vector, (512, 512))
    for _ in range(10):
        a = a @ a * np.float32(1e-3)
    return {"accuracy": float(np.isfinite(a).mean())}


@dataclasses.dataclass
class LoopDelay:
    """How late the event loop is, in seconds, every few milliseconds."""

    delays: list[float] = dataclasses.field(default_factory=list)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.delays.append(max(time.perf_counter() - due, 0.0))

    def take(self) -> list[float]:
        """What was seen since the last time."""
        delays, self.delays = self.delays, []
        return delays


def rss_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def lines() -> asyncio.StreamReader:
    """Standard input, to be awaited."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def say(**values: Any) -> None:
    """One line to whoever started this."""
    print(json.dumps(values), flush=True)


@contextlib.asynccontextmanager
async def _open_port(coordinator: Coordinator, config: Config, socket: Path | None) -> AsyncIterator[str]:
    """Serve devices, or the gateways that do."""
    if socket is None:
        async with listen(coordinator, config.server) as url:
            yield url
        return
    async with listen_for_gateways(socket, lambda: {config.run.name: coordinator}, GatewayConnections()):
        yield ""


async def coordinate(options: argparse.Namespace) -> None:
    """Serve a run until standard input ends."""
    began = time.perf_counter()
    merge = {"buffer": options.buffer, "flush_seconds": 0} | ({"limit": options.limit} if options.limit else {})
    data = {
        "run": {"name": "load", "task": "load:task", "state": "state"},
        "server": {"port": 0, "handshakes": 10_000, "handshakes_per_address": 10_000},
        "budgets": {"all": 1},
        "merge": merge,
        "scheduling": {"concurrency": options.concurrency, "waiting": 10_000},
        "limits": {"messages_per_second": 100_000},
        "retention": {"versions": 2, "held_days": 0},
    }
    if options.attacked:
        data |= {"server": {"port": 0}, "limits": {"bytes_per_day": options.bytes_per_day or None}}
    config = parse_config(data, options.folder)
    store = SqliteStore(config.run.state)
    key = RunKey.load_or_create(config.run.state / "run.key")
    begin(config, store, key, options.update_bytes // 4)
    coordinator = Coordinator(config, store, key, load_tiers(store), evaluate if options.evaluate else None)
    delay = LoopDelay()
    async with _open_port(coordinator, config, options.socket) as url:
        work = [asyncio.create_task(coordinator.run()), asyncio.create_task(delay.watch())]
        say(url=url, key=key.public, seconds=time.perf_counter() - began, buffered=len(coordinator.state.buffer))
        reader = await lines()
        while await reader.readline():
            status = coordinator.status()
            usage = resource.getrusage(resource.RUSAGE_SELF)
            say(
                accepted=status.merged + status.buffered,
                merged=status.merged,
                version=status.version,
                rss=rss_bytes(),
                delays=delay.take(),
                cpu=usage.ru_utime + usage.ru_stime,
                at=time.perf_counter(),
            )
        for task in work:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await coordinator.dismiss("unavailable", "the test is over")
    coordinator.close()
    store.close()


class _Disk:
    """The least that is durable: a hash of each update, all that wait written at once, one sync for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._descriptor = -1
        self._end = 0
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def keep(self, update: bytes) -> None:
        """Returns once it would survive a power cut."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((update, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await future

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            await asyncio.to_thread(self._append, [update for update, _ in group])
            for _, future in group:
                future.set_result(None)

    def _append(self, updates: list[bytes]) -> None:
        if self._descriptor < 0 or self._end >= SEGMENT_BYTES:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                (self._folder / str(self._number)).unlink()
            self._number += 1
            self._descriptor = os.open(self._folder / str(self._number), os.O_WRONLY | os.O_CREAT, 0o600)
            self._end = 0
        for update in updates:
            hashlib.sha256(update).digest()
            self._end += os.write(self._descriptor, update)
        os.fdatasync(self._descriptor)


async def only_receive_and_add(options: argparse.Namespace) -> None:
    """The ceiling: no protocol, no checks; nothing written down, or for ``durable`` hashed and synced."""
    total = np.zeros(options.update_bytes // 4, np.float32)
    accepted = 0
    disk = _Disk(options.folder) if options.kind == "durable" else None

    async def handle(socket: ServerConnection) -> None:
        nonlocal accepted
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                assert isinstance(message, bytes)
                if disk is not None:
                    await disk.keep(message)
                np.add(total, np.frombuffer(message, np.float32), out=total)
                accepted += 1
                await socket.send(b"ok")

    async with serve(handle, "127.0.0.1", 0, max_size=None, compression=None, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        say(url=f"ws://127.0.0.1:{port}", key="")
        reader = await lines()
        while await reader.readline():
            usage = resource.getrusage(resource.RUSAGE_SELF)
            say(accepted=accepted, rss=rss_bytes(), cpu=usage.ru_utime + usage.ru_stime, at=time.perf_counter())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["coordinator", "ceiling", "durable"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--update-bytes", type=int, required=True)
    parser.add_argument("--buffer", type=int, default=32)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=0)
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--attacked", action="store_true", help="limits as they are by default")
    parser.add_argument("--bytes-per-day", default="", help="of one device")
    parser.add_argument("--socket", type=Path, help="serve gateways on this Unix socket, not devices")
    parser.add_argument("--asyncio", action="store_true", help="asyncio's own event loop, not uvloop")
    options = parser.parse_args()
    main = coordinate(options) if options.kind == "coordinator" else only_receive_and_add(options)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main) if options.asyncio else run(main)


if __name__ == "__main__":
    main()
