"""Real processes on real sockets: a coordinator, devices, and a peer that says whatever a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from coordinator.config import parse_config
from coordinator.programs.begin import begin_or_resume
from coordinator.programs.run_key import RunKey
from coordinator.store.sqlite import SqliteStore
from mobile_sdk import safetensors
from mobile_sdk.manifest import EXECUTORCH_VERSION, Manifest
from mobile_sdk.payload import unpack_text
from mobile_sdk.protocol.device_session import DeviceSession
from mobile_sdk.protocol.messages import Accepted, ArtifactRef, Assign, Name, Ready, Rejected, Sha256, Welcome
from mobile_sdk.protocol.session import Event, FetchRequested, PeerError, Received

BIN = Path(sys.executable).parent
PATIENCE = 120.0

PLANS = {
    "run": {"name": "digits", "task": "exporters.zoo.digits:task"},
    "budgets": {"small": "1MB", "large": "5MB"},
}


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory in which a run has begun, with two tiers; planned once for the tests of all processes."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "planned"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _plan(folder)


def _plan(folder: Path) -> Path:
    """Begin the run, or go on with what another process of this test run has begun."""
    config = parse_config(PLANS | {"run": PLANS["run"] | {"state": "state"}}, folder)
    store = SqliteStore(config.run.state)
    try:
        begin_or_resume(config, store, RunKey.load_or_create(config.run.state / "run.key"), time.time(), print)
    finally:
        store.close()
    return config.run.state


class Process:
    """A child process whose output can be awaited line by line."""

    def __init__(self, *command: str | Path, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._start = output.tell()
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
            )

    @property
    def output(self) -> str:
        """What this process has printed so far."""
        with self.log.open("rb") as file:
            file.seek(self._start)
            return file.read().decode()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def wait_for(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait until ``pattern`` appears in the output."""
        deadline = time.monotonic() + seconds
        while (match := re.search(pattern, self.output, re.MULTILINE)) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{pattern!r} did not come (exit code {self._process.poll()}):\n{self.output}")
            time.sleep(0.02)  # the output is a file: there is nothing to await
        return match

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the process did not end:\n{self.output}")

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self._process.kill()
        self._process.wait()

    def signal(self) -> None:
        """SIGTERM, without waiting for the end."""
        self._process.send_signal(signal.SIGTERM)

    def kill_child(self, name: str) -> None:
        """SIGKILL the child process whose command line has ``name`` in it."""
        for children in Path(f"/proc/{self._process.pid}/task").glob("*/children"):  # by the thread that started them
            for child in children.read_text().split():
                if name in Path(f"/proc/{child}/cmdline").read_text():
                    os.kill(int(child), signal.SIGKILL)

    def stop(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Site:
    """A coordinator and devices in a folder of their own."""

    def __init__(self, folder: Path, planned: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        shutil.copytree(planned, self.state)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self.key = RunKey.load_or_create(self.state / "run.key").public
        self._processes: list[Process] = []

    def serve(
        self,
        settings: str = "",
        environment: Mapping[str, str] | None = None,
        *,
        server: str = "",
        options: Sequence[str] = (),
    ) -> Process:
        """Start ``ftte serve`` with these further TOML settings and ``[server]`` keys; returns when it listens."""
        budgets = "\n".join(f'{name} = "{size}"' for name, size in PLANS["budgets"].items())
        run_file = self.folder / "run.toml"
        run_file.write_text(
            f'[run]\nname = "digits"\ntask = "exporters.zoo.digits:task"\n[server]\nport = {self.port}\n{server}'
            f"[budgets]\n{budgets}\n{settings}"
        )
        process = self.keep(
            Process(
                BIN / "ftte",
                "--verbose",
                "serve",
                run_file,
                *options,
                log=self.folder / "serve.log",
                environment=environment,
            )
        )
        process.wait_for(r"waits for devices")
        return process

    def device(self, name: str, part: int, *options: str) -> Process:
        """Start ``ftte-device join`` with its part of the data."""
        return self.keep(
            Process(
                *(BIN / "ftte-device", "join", self.url, "--run", "digits", "--key", self.key, "--name", name),
                *("--data", f"exporters.zoo.digits_data:part({part}, of=4)", "--storage", self.folder / name),
                *options,
                log=self.folder / f"{name}.log",
            )
        )

    def query(self, text: str) -> list[Any]:
        """Look into the coordinator's database."""
        with contextlib.closing(sqlite3.connect(self.state / "state.sqlite")) as database:
            rows = database.execute(text).fetchall()
            database.commit()
        return rows

    def summary(self) -> dict[str, Any]:
        """What the coordinator wrote at the end."""
        summary: dict[str, Any] = json.loads((self.state / "summary.json").read_text())
        return summary

    def keep(self, process: Process) -> Process:
        """Stop this process at the end, if it still runs."""
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Stop what still runs."""
        for process in reversed(self._processes):
            process.stop()


@pytest.fixture
def site(tmp_path: Path, planned: Path) -> Iterator[Site]:
    """A fresh copy of the planned run, with nothing running yet."""
    site = Site(tmp_path, planned)
    yield site
    site.close()


class Operator:
    """Types ``ftte`` commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *command: str, code: int = 0) -> str:
        """What a command prints; it must end with ``code``. With another than 0 that is errors, too."""
        result = subprocess.run(
            [BIN / "ftte", *command],
            env={**os.environ, "FTTE_ADMIN": str(self.folder / ".ftte"), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE,  # to create a run is to plan it
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout if code == 0 else result.stdout + result.stderr

    def json(self, *command: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(self(*command, "--json"))

    def wait_until(self, what: Callable[[dict[str, Any]], bool], run: str = "digits") -> dict[str, Any]:
        """Wait until a run's overview is as it should be."""
        deadline = time.monotonic() + PATIENCE
        while True:
            overview = next(each for each in self.json("runs")["runs"] if each["name"] == run)
            if what(overview):
                return dict(overview)
            assert time.monotonic() < deadline, overview
            time.sleep(0.1)  # another process's state: there is nothing to await


@pytest.fixture
def operator(site: Site) -> Operator:
    return Operator(site.folder)


class Peer:
    """A device by hand: speaks the real protocol, but says what the test wants."""

    def __init__(self, socket: ClientConnection, site: Site, name: str) -> None:
        self.socket = socket
        self.session = DeviceSession(
            run="digits", device=name, secret=hashlib.sha256(name.encode()).digest(), token="", key=site.key
        )

    async def flush(self) -> None:
        for frame in self.session.frames_to_send():
            await self.socket.send(frame)

    async def next(self, *kinds: type[Any]) -> Any:
        """The next event of one of these kinds; others are passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                await self.flush()
                for event in self.session.receive(await self.socket.recv(), time.monotonic()):
                    if isinstance(event, kinds):
                        return event
                    if isinstance(event, PeerError):
                        raise AssertionError(f"the coordinator said {event}")

    async def join(self) -> Assign:
        """Greet and ask for work."""
        await self.next(Welcome)
        return await self.work()

    async def work(self) -> Assign:
        """Ask for work."""
        self.session.ready(Ready(0, 10, Name("native"), EXECUTORCH_VERSION, 0, 0, False))
        assign: Assign = await self.next(Assign)
        return assign

    async def download(self, ref: ArtifactRef) -> bytes:
        """Fetch an artifact."""
        self.session.fetch(ref, 0)
        content = b""
        while True:
            event: Event = await self.next(Received)
            assert isinstance(event, Received)
            content += event.chunk.data
            self.session.acknowledge(ref.sha256, len(content))
            if event.last:
                await self.flush()
                return content

    async def zeros(self, assign: Assign) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """A well-formed update for an assignment that changes nothing."""
        manifest = unpack_text(await self.download(assign.manifest), assign.manifest.encoding)
        subset = Manifest.from_bytes(manifest).subset
        return {name: np.zeros(subset.shape(name), np.float32) for name in subset}

    async def offer(self, assign: Assign, content: bytes, **report: Any) -> Any:
        """Offer ``content`` as the update of ``assign``; the coordinator's answer: accepted or rejected."""
        ref = ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))
        self.session.offer(assign.assignment, ref, {"version": assign.version, "samples": 10} | report)
        while True:
            event = await self.next(Accepted, Rejected, FetchRequested)
            if not isinstance(event, FetchRequested):
                return event
            self.session.send_artifact(event.sha256, memoryview(content), event.offset, time.monotonic())


def payload(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """An update's file."""
    return safetensors.dumps(dict(arrays))


@pytest.fixture
def peer(site: Site) -> Callable[[str], contextlib.AbstractAsyncContextManager[Peer]]:
    """Opens connections to the site's coordinator."""

    @contextlib.asynccontextmanager
    async def open_peer(name: str) -> AsyncIterator[Peer]:
        async with connect(site.url, compression=None, max_size=2**22) as websocket:
            yield Peer(websocket, site, name)

    return open_peer
