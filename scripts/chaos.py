"""
Real processes under faults: ``python scripts/chaos.py --minutes 10``.

A coordinator (``ftte serve``) and devices (``ftte-device``, whose engine needs no torch) as processes, with a TCP proxy
between them that cuts, delays and flips, SIGKILLs of both at random, and a small disk that is full now and then. In
the end the faults stop, the devices hand in what they have, and state and logs are checked: nothing acknowledged is
lost, nothing is merged twice, versions chain, no merged update is left, and an independent program makes the same
weights of the recorded updates. The code is 0 if all of it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.chaos_parts.checks import Report, check  # noqa: E402
from scripts.chaos_parts.disk import SmallDisk  # noqa: E402
from scripts.chaos_parts.processes import BIN, Processes, count_accepted, join_command  # noqa: E402
from scripts.chaos_parts.proxy import Proxy  # noqa: E402
from scripts.chaos_parts.run_file import RUN_FILE  # noqa: E402

DEVICES = 4
MEGABYTES = 48
# What the coordinator may take at the most, however long it goes on: resident memory, and open files and sockets.
MOST_MEGABYTES = 600
MOST_OPEN = 100
START_SECONDS = 300.0  # planning is part of the first start
CALM_SECONDS = 30.0


class Chaos:
    """
    One trial.

    Args:
        folder: for everything.
        seed: of the faults; what processes make of them depends on the machine.
        planned: the state directory of a run that has begun, to save planning it.
        mount: whether to mount a tmpfs, if that can be done.

    """

    def __init__(self, folder: Path, seed: int, planned: Path | None, *, mount: bool = True) -> None:
        self.folder = folder
        self.kills = {"coordinator": 0, "devices": 0, "full disks": 0}
        self._rng = random.Random(seed)
        self._most = {"megabytes": 0, "open": 0}
        self._disk = SmallDisk(folder / "disk", MEGABYTES, mount=mount)
        self._state = self._disk.folder / "state"
        if planned is not None:
            shutil.copytree(planned, self._state)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._run_file = folder / "run.toml"
        update, buffer = self._rng.choice(["float32", "int8"]), self._rng.choice([2, 3, 4])
        self._run_file.write_text(
            RUN_FILE.format(state=self._state, admin=folder / "admin", port=self._port, update=update, buffer=buffer)
        )
        self._proxy = Proxy(self._port, self._rng)
        self._address = ""
        self._processes = Processes(folder)
        self._key = ""
        print(f"seed {seed}: updates in {update}, a buffer of {buffer}, the state on {self._disk.kind}", flush=True)

    async def run(self, seconds: float) -> Report:
        """Faults for so long, then calm, then the checks."""
        try:
            await self._begin()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await asyncio.sleep(self._rng.uniform(0.5, 4.0))
                await self._harm()
            await self._settle()
        finally:
            await self._proxy.close()
            self._processes.kill_all()
        print(f"{self.kills}, connections {dict(self._proxy.faults)}", flush=True)
        logs = {name: self._processes.printed(name) for name in (*self._names(), "serve")}
        report = check(self._state, {name: logs[name] for name in self._names()}, logs["serve"])
        megabytes, files = self._most["megabytes"], self._most["open"]
        report.counts |= {"MB that the coordinator took at the most": megabytes, "files that it had open": files}
        report.expect(megabytes <= MOST_MEGABYTES, f"the coordinator took {megabytes} MB")
        report.expect(files <= MOST_OPEN, f"the coordinator had {files} files open")
        return report

    def close(self) -> None:
        """Unmount the disk; what it held stays in the folder ``state``."""
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(self._state, self.folder / "state", symlinks=True)
        self._disk.close()

    async def _begin(self) -> None:
        # Kept updates grow without an end: beside the disk, which is to be full when it is made so.
        self._state.mkdir(parents=True, exist_ok=True)
        merged = self.folder / "merged"
        merged.mkdir(exist_ok=True)
        (self._state / "merged").symlink_to(merged)
        port = await self._proxy.start()
        self._address = f"ws://127.0.0.1:{port}"
        await self._serve()
        for name in self._names():
            self._join(name)

    def _measure(self) -> None:
        """Look at the coordinator's memory and open files."""
        process = Path("/proc") / str(self._processes.pid("serve"))
        with contextlib.suppress(OSError):  # it has ended: that is looked at by itself
            resident = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
            if resident is not None:
                self._most["megabytes"] = max(self._most["megabytes"], int(resident[1]) // 1000)
            self._most["open"] = max(self._most["open"], len([*(process / "fd").iterdir()]))

    async def _harm(self) -> None:
        """One fault."""
        self._measure()
        kind = self._rng.choices(["device", "coordinator", "disk", "nothing"], [5, 2, 1, 3])[0]
        if kind == "device":
            name = self._rng.choice(self._names())
            self._processes.kill(name)
            self.kills["devices"] += 1
            self._join(name)
        elif kind == "coordinator":
            self._processes.kill("serve")
            self.kills["coordinator"] += 1
            await asyncio.sleep(self._rng.uniform(0, 1))
            await self._serve()
        elif kind == "disk":
            serve = self._processes.pid("serve")
            self.kills["full disks"] += 1
            self._disk.fill(serve)
            await asyncio.sleep(self._rng.uniform(0.5, 3))
            self._disk.free(serve)
        # Who ended without being told to is a finding, except a coordinator that could not start on a full disk.
        for name in self._names():
            code = self._processes.code(name)
            if code is not None:
                raise AssertionError(f"{name} ended by itself with {code}: see {self._processes.log(name)}")
        if self._processes.code("serve") is not None:
            raise AssertionError(f"the coordinator ended by itself: see {self._processes.log('serve')}")

    async def _settle(self) -> None:
        """No more faults: every device's work goes on, and is then ended in good order."""
        await self._proxy.heal()
        logs = {name: self._processes.log(name) for name in self._names()}
        before = {name: count_accepted(path) for name, path in logs.items()}
        deadline = time.monotonic() + 4 * CALM_SECONDS
        while any(count_accepted(path) == before[name] for name, path in logs.items()):
            if time.monotonic() > deadline:
                late = [name for name, path in logs.items() if count_accepted(path) == before[name]]
                raise AssertionError(f"{late} did not go on training after the faults: see {self.folder}")
            await asyncio.sleep(0.5)
        for name in (*self._names(), "serve"):
            await asyncio.to_thread(self._processes.end, name, 60)

    def _names(self) -> list[str]:
        return [f"device-{number}" for number in range(DEVICES)]

    async def _serve(self) -> None:
        """Start the coordinator, and wait until it listens."""
        log = self._processes.log("serve")
        began = log.stat().st_size if log.exists() else 0
        self._processes.start("serve", [BIN / "ftte", "--verbose", "serve", self._run_file])
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(rb"waits for devices", log.read_bytes()[began:])):
            if self._processes.code("serve") is not None or time.monotonic() > deadline:
                raise AssertionError(f"the coordinator did not start: see {log}")
            await asyncio.sleep(0.1)
        assert found
        if not self._key:
            command: list[str | Path] = [
                BIN / "ftte",
                "invite",
                "--no-qr",
                "--run",
                "digits",
                "--admin",
                self.folder / "admin",
            ]
            said = await asyncio.to_thread(_output, command)
            match = re.search(r"key=([0-9a-f]{64})", said)
            assert match is not None, said
            self._key = match[1]

    def _join(self, name: str) -> None:
        self._processes.start(name, join_command(self._address, self._key, name, self.folder / name))


def _output(command: Sequence[str | Path]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="scripts/chaos.py", description="A coordinator and devices under faults.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults go on (default: 10)")
    parser.add_argument("--seed", type=int, help="of the faults (default: a new one)")
    parser.add_argument("--planned", type=Path, help="state directory of a run that has begun, to start from a copy")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and storages (default: a temporary one)")
    parser.add_argument("--no-mount", action="store_true", help="mount no tmpfs: RLIMIT_FSIZE stands for a full disk")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    with contextlib.ExitStack() as stack:
        if options.keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftte-chaos-")))
        else:
            folder = options.keep.absolute()
            folder.mkdir(parents=True, exist_ok=True)
        chaos = Chaos(folder, seed, options.planned, mount=not options.no_mount)
        stack.callback(chaos.close)
        try:
            report = asyncio.run(chaos.run(60 * options.minutes))
        except AssertionError as error:
            print(f"FAILED: {error}", flush=True)
            return 1
        return report.show()


if __name__ == "__main__":
    sys.exit(main())
