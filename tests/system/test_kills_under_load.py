"""
A real coordinator, killed at each labelled instant while devices work and an operator acts.

Devices here speak the protocol by hand, and each update adds one known number to every weight, so what the weights must
be follows from the list of merges alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import itertools
import signal
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from coordinator.admin.client import AdminClient
from coordinator.errors import CoordinatorError
from coordinator.programs.tiers import load_tiers
from coordinator.store.crash_points import LOOP_STEPS, OPERATION_STEPS, STEPS
from coordinator.store.sqlite import SqliteStore
from coordinator.versions.history import Versions
from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.protocol.messages import Accepted, Assign, Later, Name, Ready, Welcome

from .conftest import Peer, Process, Site, payload

SETTINGS = """
[admin]
[merge]
buffer = 3
defence = {defence}
staleness = {{ {staleness} }}
[retention]
versions = {versions}
held_days = 0
"""

DEVICES = 4
SAMPLES = 10

# What every push runs; the others take minutes together.
SAMPLE = ("merge: committed", "withdraw: committed")


def added_by(assignment: str) -> float:
    """What the update of an assignment adds to each weight: a number that float32 holds."""
    return (int(assignment[1:]) % 7 - 2) / 64


@dataclasses.dataclass
class Load:
    """
    Devices at work, over all restarts of the coordinator.

    ``acknowledged`` are the assignments whose updates the coordinator said it has.
    """

    site: Site
    shapes: dict[str, tuple[int, ...]]
    acknowledged: set[str] = dataclasses.field(default_factory=set)
    progress: asyncio.Condition = dataclasses.field(default_factory=asyncio.Condition)

    async def device(self, name: str, value: Callable[[str], float] = added_by) -> None:
        """Work until cancelled, whatever the coordinator does."""
        while True:
            with contextlib.suppress(OSError, WebSocketException, AssertionError, TimeoutError):
                async with connect(self.site.url, compression=None, max_size=2**22) as socket:
                    peer = Peer(socket, self.site, name)
                    await peer.next(Welcome)
                    while await self.task(peer, value):
                        pass
            await asyncio.sleep(0.05)  # the coordinator is away, or has nothing: come again

    async def task(self, peer: Peer, value: Callable[[str], float]) -> bool:
        """One assignment; false if there is none."""
        peer.session.ready(Ready(0, SAMPLES, Name("native"), EXECUTORCH_VERSION, 0, 0, False))
        assign = await peer.next(Assign, Later)
        if isinstance(assign, Later):
            return False
        number = value(assign.assignment)
        content = payload({name: np.full(shape, number, np.float32) for name, shape in self.shapes.items()})
        if isinstance(await peer.offer(assign, content, samples=SAMPLES), Accepted):
            async with self.progress:
                self.acknowledged.add(assign.assignment)
                self.progress.notify_all()
        return True

    async def visitors(self) -> None:
        """New devices that enrol, work once, and are seen no more."""
        for number in itertools.count():
            visitor = asyncio.create_task(self.device(f"visitor-{number}"))
            await self.more(2)
            visitor.cancel()
            await asyncio.gather(visitor, return_exceptions=True)

    async def more(self, updates: int) -> None:
        """Wait until so many more updates are acknowledged."""
        goal = len(self.acknowledged) + updates
        async with self.progress:
            await self.progress.wait_for(lambda: len(self.acknowledged) >= goal)


Act = Callable[[AdminClient, int], Awaitable[None]]


async def call(method: Callable[..., object], *path: str, **body: object) -> None:
    await asyncio.to_thread(method, *path, **body)


async def roll_back(client: AdminClient, turn: int) -> None:
    newest = (await asyncio.to_thread(client.get, "runs", "digits"))["version"]
    await call(client.post, "runs", "digits", "rollback", version=max(newest - 2, 0), why="a trial")


ACTS: dict[str, Act] = {
    "revoke": lambda client, turn: call(client.post, "runs", "digits", "devices", f"visitor-{turn}", "revoke"),
    "withdraw": lambda client, turn: call(client.delete, "runs", "digits", "devices", f"visitor-{turn}"),
    "rollback": roll_back,
    "key": lambda client, turn: call(client.post, "runs", "digits", "rotate-key"),
    "sign": lambda client, turn: call(client.post, "runs", "digits", "rotate-key"),
}


async def operate(load: Load, act: Act) -> None:
    """Do ``act`` again and again, until cancelled."""
    for turn in itertools.count():
        await load.more(4)
        with contextlib.suppress(CoordinatorError, OSError, http.client.HTTPException):
            await act(AdminClient(load.site.folder / ".ftte"), turn)


def settings_for(step: str) -> str:
    kind = step.partition(":")[0]
    return SETTINGS.format(
        defence="true" if kind == "set aside" else "false",
        staleness='policy = "polynomial", maximum = 0' if kind == "discard" else 'policy = "polynomial"',
        versions=1 if kind in ("prune", "collect") else 1000,
    )


async def campaign(site: Site, load: Load, step: str) -> None:
    """Kill the coordinator at ``step`` under load, start it again, and go on for a while."""
    kind = step.partition(":")[0]
    passes = 5 if step in LOOP_STEPS else 2 if kind == "enrol" else 1
    server = await asyncio.to_thread(site.serve, settings_for(step), {"FTTE_CRASH_AT": f"{step}*{passes}"})
    tasks = [asyncio.create_task(load.device(f"phone-{number}")) for number in range(DEVICES)]
    tasks.append(asyncio.create_task(load.visitors()))
    if kind == "set aside":
        tasks.append(asyncio.create_task(load.device("mallory", lambda assignment: 1e5)))
    if kind in ACTS:
        tasks.append(asyncio.create_task(operate(load, ACTS[kind])))
    try:
        code = await asyncio.to_thread(server.wait)
        assert code == -signal.SIGKILL, server.output
        server = await asyncio.to_thread(site.serve, settings_for(step))
        await load.more(30)
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(leave, server)


def leave(server: Process) -> None:
    server.signal()
    assert server.wait() == 0, server.output
    assert "Traceback" not in server.output


def check(site: Site, load: Load, *, replay: bool) -> None:
    """What was acknowledged is there once, and the weights are what the merges say."""
    store = SqliteStore(site.state)
    try:
        tiers = load_tiers(store)
        rows = site.query("SELECT assignment, merged_into, discarded, staleness, weight FROM updates ORDER BY arrival")
        fates = {name: (merged, discarded) for name, merged, discarded, _, _ in rows}
        assert load.acknowledged <= fates.keys()
        waiting = {record.assignment for record in store.updates.buffered()}
        for name, (merged, discarded) in fates.items():
            assert [merged is not None, discarded is not None, name in waiting].count(True) == 1, name
        for name in waiting:
            assert store.updates.content(name)
        store.audit.entries()  # raises if a line is missing
        assert not list((site.state / "artifacts").glob("*.new"))
        inside = frozenset.intersection(*(frozenset(tier.manifest.baked) for tier in tiers))
        layout, subsets = tiers[0].manifest.layout, [tier.manifest.subset for tier in tiers]
        versions = Versions(store.versions, store.artifacts, layout, subsets, inside)
        start, moved = versions.load(store.versions.get(0)), {0: 0.0}
        for record in store.versions.all()[1:]:
            moved[record.version] = moved[record.parent]
            terms = [(weight, added_by(name)) for name, merged, _, _, weight in rows if merged == record.version]
            if terms:
                moved[record.version] += sum(weight * number for weight, number in terms) / len(terms)
        if replay:
            expected = tiers[-1].manifest.subset.positions()
            off = versions.vector[expected] - start[expected] - moved[versions.newest.version]
            assert float(np.abs(off).max()) < 1e-4 * len(moved)
    finally:
        store.close()


def test_every_operation_has_an_act_here_or_happens_by_itself() -> None:
    kinds = {step.partition(":")[0] for step in OPERATION_STEPS}
    assert kinds == ACTS.keys() | {"enrol", "set aside", "discard"}


@pytest.mark.parametrize(
    "step", [step if step in SAMPLE else pytest.param(step, marks=pytest.mark.full) for step in STEPS]
)
def test_a_coordinator_killed_under_load_loses_nothing_and_merges_nothing_twice(site: Site, step: str) -> None:
    store = SqliteStore(site.state)
    subset = load_tiers(store)[-1].manifest.subset
    store.close()

    async def main() -> Load:
        load = Load(site, {name: subset.shape(name) for name in subset})
        async with asyncio.timeout(240):
            await campaign(site, load, step)
        return load

    load = asyncio.run(main())
    assert len(load.acknowledged) >= 30
    check(site, load, replay=not step.startswith("set aside"))
