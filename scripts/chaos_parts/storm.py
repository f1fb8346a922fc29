"""A whole service under kills and stops: PostgreSQL, two conductors, gateways and devices as processes."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from .checks import Report, check
from .processes import BIN, Processes, count_accepted, join_command
from .remerge import read_kept_merge
from .run_file import RUN_FILE

__all__ = ["STAGES", "Database", "Storm", "stands_by"]

CONDUCTORS = ("conductor-1", "conductor-2")
GATEWAYS = ("gateway-1", "gateway-2", "gateway-3")
DEVICES = ("device-0", "device-1", "device-2", "device-3")

# What is hit how often. Leader and database are waited for after each hit, so they take most of the time.
KILLS = {"leader": 4, "standby": 2, "gateway": 4, "device": 4, "database": 3, "database session": 1}
STOPS = {"leader": 3, "standby": 1, "gateway": 3, "device": 3, "database": 1}
STOP_SHARE = 0.35
# A lease lasts 2.5 s: most stops are longer than it, some much longer, and some shorter.
STOP_SECONDS = (((0.2, 2.0), 30), ((3.0, 6.0), 64), ((30.0, 30.0), 6))
MOST_STOPPED = 2
# What the killed leader has still committed is known by then, and nobody leads yet.
IN_FLIGHT_SECONDS = 0.25
# What is looked at after the leader was killed, in order.
STAGES = (
    "another leads",
    "it listens",
    "a gateway works for it",
    "a device is back",
    "an update is accepted",  # durable, in the database
    "a device says so",
    "a version is made",
)
_NEWEST = "SELECT coalesce(max(arrival), 0) FROM ftte_digits.updates"
# What a gateway's log and a device's say then.
CONNECTED = "works for the conductor"
JOINED = "connected as "
# What a conductor prints first, and says when it stands by and when it leads after that.
BEGINS = "starting a coordinator"
WAITS = "waiting to take over"
LEADS = "this process leads the run"
# Beyond it, nobody's update being acknowledged is a finding. A stop takes 30 s, and two may overlap.
PATIENCE_SECONDS = 300.0

SERVICE = """\
[dashboard]
enabled = false
[store]
postgres = "$FTTE_CHAOS_DATABASE"
objects = "{objects}"
"""


def _changed_at(path: Path) -> int:
    """When a file was made, or changed last; 0 while there is none."""
    try:
        return path.stat().st_ctime_ns
    except FileNotFoundError:
        return 0


def stands_by(printed: str) -> bool:
    """Whether a conductor that has printed this waits to take over, by what it said since it was started last."""
    since = printed.rpartition(BEGINS)[2]
    return WAITS in since and LEADS not in since


class Database(Protocol):
    """A PostgreSQL server that can be ended as by a power cut."""

    def database(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    @property
    def processes(self) -> list[int]: ...


class Storm:
    """
    One trial.

    Args:
        folder: for everything but the database.
        seed: of the faults; what processes make of them depends on the machine.
        planned: the state directory of a run that has begun.
        server: of the database.

    Each conductor has a state directory of its own, as on two machines; objects are in a folder that both see.
    """

    def __init__(self, folder: Path, seed: int, planned: Path, server: Database) -> None:
        self.folder = folder
        self.faults: collections.Counter[str] = collections.Counter()
        self._ended = 0  # conductors that ended after a stop or without a database: no faults of their own
        self._rng = random.Random(seed)
        self._server = server
        self._address = server.database()
        self._processes = Processes(folder, {"FTTE_CHAOS_DATABASE": self._address})
        self._busy: set[str] = set()
        self._stopped: set[str] = set()
        self._excused: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._states = [folder / "state-1", folder / "state-2"]
        shutil.copytree(planned, self._states[0])
        self._states[1].mkdir()
        shutil.copy(planned / "run.key", self._states[1] / "run.key")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        update, buffer = self._rng.choice(["float32", "int8"]), self._rng.choice([2, 3, 4])
        self._files = [folder / "run-1.toml", folder / "run-2.toml"]
        for number, (file, state) in enumerate(zip(self._files, self._states, strict=True), 1):
            file.write_text(
                (RUN_FILE + SERVICE).format(
                    state=state,
                    admin=folder / f"admin-{number}",
                    objects=folder / "objects",
                    port=self._port,
                    update=update,
                    buffer=buffer,
                )
            )
        print(f"seed {seed}: updates in {update}, a buffer of {buffer}", flush=True)

    async def run(self, faults: int, seconds: float) -> Report:
        """So many faults, or as many as there is time for; then calm, then the checks."""
        try:
            await self._begin()
            until = time.monotonic() + seconds
            while self.faults.total() < faults and time.monotonic() < until:
                await asyncio.sleep(self._rng.uniform(0.3, 1.5))
                self._look_after_ended()
                await self._harm()
                if self.faults.total() % 25 == 0:
                    print(f"{self.faults.total()} faults, {self._accepted()} updates", flush=True)
            await self._settle()
            print(f"{dict(sorted(self.faults.items()))}; {self._ended} conductors ended after one", flush=True)
            return await self._check()
        finally:
            for task in self._tasks:
                task.cancel()
            self._processes.kill_all()

    async def takeovers(
        self, count: int, prepare: Callable[[str], None] = lambda address: None
    ) -> list[dict[str, float]]:
        """
        Kill the leader so often, with a standby ready.

        Args:
            count: how often.
            prepare: called with the database's address before anybody uses it.

        Returns:
            For each SIGKILL the seconds until each of :data:`STAGES`.

        """
        found = []
        try:
            await self._begin(prepare)
            for _ in range(count):
                leader = await self._wait_for_standby()
                await self._progress()
                await asyncio.sleep(self._rng.uniform(0, 2))  # at any time of the lease
                found.append(await self._take_over(leader))
                shown = ", ".join(f"{seconds:.2f} s {stage}" for stage, seconds in found[-1].items())
                print(f"{leader}: {shown}", flush=True)
                self._start(leader)
        finally:
            self._processes.kill_all()
        return found

    async def _take_over(self, leader: str) -> dict[str, float]:
        """Kill the leader, and look at what happens until there is a new version."""
        connected = {name: self._processes.printed(name).count(CONNECTED) for name in GATEWAYS}
        joined = {name: self._processes.printed(name).count(JOINED) for name in DEVICES}
        epoch = await self._ask("SELECT epoch FROM ftte_digits.lease")
        self._processes.kill(leader)
        killed = time.monotonic()
        socket = _changed_at(self.folder / "conductor.sock")
        accepted: int | None = None
        newest = version = 0
        times: dict[str, float] = {}

        async def reached(stage: str) -> bool:
            match stage:
                case "another leads":
                    return bool(await self._ask(f"SELECT 1 FROM ftte_digits.lease WHERE epoch > {epoch}"))
                case "it listens":
                    return _changed_at(self.folder / "conductor.sock") != socket
                case "a gateway works for it":
                    return any(self._processes.printed(name).count(CONNECTED) > connected[name] for name in GATEWAYS)
                case "a device is back":
                    return any(self._processes.printed(name).count(JOINED) > joined[name] for name in DEVICES)
                case "an update is accepted":
                    return accepted is not None and await self._ask(_NEWEST) > newest
                case "a device says so":
                    return accepted is not None and self._accepted() > accepted
                case _:
                    return accepted is not None and await self._version() > version

        while len(times) < len(STAGES):
            await asyncio.sleep(0.01)
            if accepted is None and time.monotonic() > killed + IN_FLIGHT_SECONDS:
                accepted, version, newest = self._accepted(), await self._version(), await self._ask(_NEWEST)
            for stage in STAGES:
                if stage not in times and await reached(stage):
                    times[stage] = time.monotonic() - killed
        return {stage: times[stage] for stage in STAGES}

    # Processes.

    async def _begin(self, prepare: Callable[[str], None] = lambda address: None) -> None:
        command: list[str | Path] = [BIN / "ftte", "migrate", self._files[0]]
        await asyncio.to_thread(self._call, *command)
        await asyncio.to_thread(prepare, self._address)
        from coordinator.programs.run_key import RunKey

        self._key = RunKey.load_or_create(self._states[0] / "run.key").public
        for name in (*CONDUCTORS, *GATEWAYS, *DEVICES):
            self._start(name)
        await self._progress()

    def _call(self, *command: str | Path) -> None:
        environment = {**os.environ, "FTTE_CHAOS_DATABASE": self._address}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")

    def _start(self, name: str) -> None:
        kind, _, number = name.partition("-")
        self._excused.discard(name)
        if kind == "device":
            address = f"ws://127.0.0.1:{self._port}"
            self._processes.start(name, join_command(address, self._key, name, self.folder / name))
            return
        file = self._files[int(number) - 1 if kind == "conductor" else 0]
        command: list[str | Path] = [BIN / "ftte", "--verbose", "conduct" if kind == "conductor" else "gateway", file]
        self._processes.start(name, [*command, "--socket", self.folder / "conductor.sock"])

    def _look_after_ended(self) -> None:
        """Who ended without being told to is a finding, except a conductor that lost its lead, or its database."""
        for name in (*CONDUCTORS, *GATEWAYS, *DEVICES):
            code = None if name in self._busy else self._processes.code(name)
            if code is None:
                continue
            if name not in self._excused:
                raise AssertionError(f"{name} ended by itself with {code}: see {self._processes.log(name)}")
            self._ended += 1
            self._start(name)

    # Faults.

    async def _harm(self) -> None:
        """One fault."""
        stop = self._rng.random() < STOP_SHARE and len(self._stopped) < MOST_STOPPED
        kinds = STOPS if stop else KILLS
        kind = self._rng.choices(list(kinds), list(kinds.values()))[0]
        if kind in ("leader", "database", "database session"):
            await self._progress()
        name = await self._target(kind)
        if name is None or name in self._busy:
            return
        if stop:
            drawn = self._rng.choices(STOP_SECONDS, [weight for _, weight in STOP_SECONDS])[0]
            seconds = self._rng.uniform(*drawn[0])
            self.faults[f"{kind} stopped for {'30 s' if seconds >= 30 else 'up to 6 s' if seconds > 2 else '2 s'}"] += 1
            self._later(name, self._stop(name, seconds))
        elif kind == "database":
            self.faults["pg_ctl -m immediate"] += 1
            self._excuse()
            self._server.stop()
            await asyncio.sleep(self._rng.choice([0.0, 0.0, self._rng.uniform(0, 5)]))
            self._server.start()
        elif kind == "database session":
            self.faults["database session killed"] += 1
            self._excuse()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rng.choice(self._server.processes[1:]), signal.SIGKILL)
        else:
            self.faults[f"{kind} killed"] += 1
            self._processes.kill(name)
            self._later(name, self._restart(name))

    def _excuse(self) -> None:
        self._excused.update(CONDUCTORS)

    async def _target(self, kind: str) -> str | None:
        if kind.startswith("database"):
            return "database"
        if kind in ("gateway", "device"):
            return self._rng.choice(GATEWAYS if kind == "gateway" else DEVICES)
        leader = await self._leader()
        if kind == "leader" or leader is None:
            return leader
        return next(name for name in CONDUCTORS if name != leader)

    def _later(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._busy.add(name)
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._busy.discard(name)
            self._tasks.discard(task)

        task.add_done_callback(done)

    async def _restart(self, name: str) -> None:
        await asyncio.sleep(self._rng.uniform(0, 1.5))
        self._start(name)

    async def _stop(self, name: str, seconds: float) -> None:
        processes = self._server.processes if name == "database" else [self._processes.pid(name)]
        if name == "database":
            self._excuse()
        self._excused.add(name)
        self._stopped.add(name)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)
            self._stopped.discard(name)

    # What can be seen of the service.

    def _accepted(self) -> int:
        return sum(count_accepted(self._processes.log(name)) for name in DEVICES)

    async def _progress(self) -> None:
        """Wait until one more update is acknowledged."""
        before, deadline = self._accepted(), time.monotonic() + PATIENCE_SECONDS
        while self._accepted() == before:
            self._look_after_ended()
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing was acknowledged for {PATIENCE_SECONDS:.0f} s: see {self.folder}")
            await asyncio.sleep(0.1)

    async def _ask(self, question: str) -> Any:
        """One value of the database; none while it is away."""
        try:
            connection = await asyncpg.connect(self._address, timeout=5)
            try:
                return await connection.fetchval(question, timeout=5)
            finally:
                connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return None

    async def _leader(self) -> str | None:
        holder = await self._ask("SELECT holder FROM ftte_digits.lease WHERE until > clock_timestamp()")
        pids = {f"process {self._processes.pid(name)}": name for name in CONDUCTORS}
        return pids.get(str(holder).rpartition(", ")[2])

    async def _version(self) -> int:
        return int(await self._ask("SELECT max(version) FROM ftte_digits.versions") or 0)

    async def _wait_for_standby(self) -> str:
        """Until one conductor leads and the other waits; the first one's name."""
        while True:
            leader = await self._leader()
            other = next((name for name in CONDUCTORS if name != leader), "")
            if leader is not None and stands_by(self._processes.printed(other)):
                return leader
            await asyncio.sleep(0.1)

    # The end.

    async def _settle(self) -> None:
        """No more faults: every device's work goes on, and is then ended in good order."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._look_after_ended()
        before = {name: count_accepted(self._processes.log(name)) for name in DEVICES}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while late := [name for name in DEVICES if count_accepted(self._processes.log(name)) == before[name]]:
            if time.monotonic() > deadline:
                raise AssertionError(f"{late} did not go on training after the faults: see {self.folder}")
            self._look_after_ended()
            await asyncio.sleep(0.5)
        leader = await self._leader()
        others = [name for name in CONDUCTORS if name != leader]
        for name in (*DEVICES, *GATEWAYS, *others, *([leader] if leader else [])):
            # One that was stopped finds just now, perhaps, that it has lost the lead.
            may_fail = name in self._excused
            await asyncio.to_thread(self._processes.end, name, 60, may_fail=may_fail)

    async def _check(self) -> Report:
        """The database as a state directory again, every row compared, and then as any other."""
        back = self.folder / "back"
        await asyncio.to_thread(self._call, BIN / "ftte", "migrate", self._files[0], "--back", back)
        left = await self._ask(
            "SELECT count(*) FROM ftte_digits.contents JOIN ftte_digits.updates USING (assignment) "
            "WHERE merged_into IS NOT NULL OR discarded IS NOT NULL"
        )
        rows = await self._ask(
            "SELECT json_object_agg(assignment, merged_into) FROM ftte_digits.updates WHERE merged_into IS NOT NULL"
        )
        self._gather_merged(back, rows)
        devices = {name: self._processes.printed(name) for name in DEVICES}
        service = {name: self._processes.printed(name) for name in (*CONDUCTORS, *GATEWAYS)}
        states = [back, *self._states, self.folder / "objects"]
        report = await asyncio.to_thread(check, back, devices, "".join(service.values()), states)
        report.expect(left == 0, f"{left} updates were merged or discarded, and their bytes are in the database")
        for name, text in {**service, **devices}.items():
            report.expect(self._address not in text, f"{name} printed the database's password")
        report.counts["faults"] = self.faults.total()
        return report

    def _gather_merged(self, back: Path, rows: Any) -> None:
        """
        Each version's kept updates, into one folder.

        A conductor that lost its lead while it merged has kept what nobody published. The
        one whose updates are those of the list is meant; where there is none, the checks find so.
        """
        merged: dict[str, int] = {} if rows is None else json.loads(rows)
        into = back / "merged"
        into.mkdir(exist_ok=True)
        names = sorted({path.name for state in self._states for path in (state / "merged").glob("*.safetensors")})
        for name in names:
            version = int(Path(name).stem)
            expected = {assignment for assignment, number in merged.items() if number == version}
            found = [state / "merged" / name for state in self._states if (state / "merged" / name).exists()]
            fit = [path for path in found if set(read_kept_merge(path)) == expected]
            if expected:
                shutil.copy((fit or found)[0], into / name)
