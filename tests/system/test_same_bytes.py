"""The merged versions of a run are the same to the byte, wherever it is kept and however many processes serve it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from coordinator.programs.tiers import load_tiers
from coordinator.store.interface import Store
from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.protocol.messages import Accepted, Announce, Assign, Finished, Later, Name, Ready, Welcome

from ..postgres_server import PASSWORD, PostgresServer, open_server
from .conftest import BIN, PATIENCE, Operator, Peer, Process, Site, payload

DEVICES = 4
VERSIONS = 6
KILLED_AT = 3

RUN = f"""
[run]
name = "digits"
task = "exporters.zoo.digits:task"
[budgets]
small = "1MB"
large = "5MB"
[merge]
buffer = {DEVICES}
flush_seconds = 0
optimiser = {{ kind = "momentum" }}
[scheduling]
concurrency = 0
[stop]
versions = {VERSIONS}
"""

READY = Ready(0, 10, Name("native"), EXECUTORCH_VERSION, 0, 0, False)

Hashes = list[list[str]]


class Fleet:
    """
    Devices that each hand in one update for each version: what is in it follows from device and version alone.

    ``half`` is set when every device has work from version ``KILLED_AT`` and half of them have handed it in; the
    others go on when ``on`` is set.
    """

    def __init__(self, site: Site, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.half, self.on = asyncio.Event(), asyncio.Event()
        self._site = site
        self._shapes = shapes
        self._given = 0
        self._taken = 0

    async def train(self) -> None:
        """Work until the run has ended."""
        async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
            for number in range(DEVICES):
                group.create_task(self._device(number))

    async def _device(self, number: int) -> None:
        done = -1
        while done < VERSIONS - 1:
            with contextlib.suppress(OSError, WebSocketException, AssertionError):
                async with connect(self._site.url, compression=None, max_size=2**22) as socket:
                    peer = Peer(socket, self._site, f"phone-{number}")
                    newest = (await peer.next(Welcome)).version
                    while done < VERSIONS - 1:
                        while newest <= done:  # a second update from one version would be one too many
                            newest = (await peer.next(Announce, Finished)).version
                        done = await self._trip(peer, number, done)
            await asyncio.sleep(0.05)  # the coordinator is away: come again

    async def _trip(self, peer: Peer, number: int, done: int) -> int:
        peer.session.ready(READY)
        assign = await peer.next(Assign, Later)
        if isinstance(assign, Later):
            return done
        if assign.version == KILLED_AT and not self.half.is_set():
            self._given += 1
            if number >= DEVICES // 2:
                await self.on.wait()
        value = (1 + number / 8 + assign.version / 64) / 1024  # so little that the model stays as good as it is
        content = payload({name: np.full(shape, value, np.float32) for name, shape in self._shapes.items()})
        assert isinstance(await peer.offer(assign, content, samples=10 + number), Accepted)
        if assign.version == KILLED_AT:
            self._taken += 1
            if self._given == DEVICES and self._taken == DEVICES // 2:
                self.half.set()
        return assign.version


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with open_server() as server:
        yield server


def hashes(store: Store) -> Hashes:
    with contextlib.closing(store):
        return [[ref.sha256 for ref in record.weights] for record in store.versions.all()]


def shapes_of(site: Site) -> dict[str, tuple[int, ...]]:
    with contextlib.closing(SqliteStore(site.state)) as store:
        subset = load_tiers(store)[-1].manifest.subset
        return {name: subset.shape(name) for name in subset}


def migrate(site: Site, address: str, monkeypatch: pytest.MonkeyPatch) -> PostgresStore:
    """Move the site's planned run into a database; a store to look into it."""
    monkeypatch.setenv("FTTE_TEST_DATABASE", address)
    (site.folder / "run.toml").write_text(RUN + database(site))
    Operator(site.folder)("migrate", str(site.folder / "run.toml"))
    return PostgresStore(Address(address), "digits", site.folder / "look", leading=False)


def database(site: Site) -> str:
    return f'[store]\npostgres = "$FTTE_TEST_DATABASE"\nobjects = "{site.folder}/objects"\n'


async def served_by_one(site: Site, shapes: Mapping[str, tuple[int, ...]], settings: str) -> None:
    run_file = site.folder / "run.toml"
    run_file.write_text(f"{RUN}{settings}[server]\nport = {site.port}\n")
    process = site.keep(Process(BIN / "ftte", "--verbose", "serve", run_file, log=site.folder / "serve.log"))
    await asyncio.to_thread(process.wait_for, "waits for devices")
    fleet = Fleet(site, shapes)
    fleet.on.set()
    await fleet.train()
    assert await asyncio.to_thread(process.wait) == 0


async def served_by_many(site: Site, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Three gateways and two conductors, of which the leader is killed while a buffer is half full; all their logs."""
    secret = site.folder / "gateways.secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex())
    settings = f'{RUN}{database(site)}[server]\nport = {site.port}\n[gateways]\nsecret = "{secret}"\n'

    def start(command: str, name: str, more: str = "") -> Process:
        folder = site.folder / name
        (folder / "state").mkdir(parents=True)
        shutil.copy(site.state / "run.key", folder / "state")
        (folder / "run.toml").write_text(settings + more)
        arguments = ("--verbose", command, folder / "run.toml")
        return site.keep(Process(BIN / "ftte", *arguments, log=site.folder / f"{name}.log"))

    listen = 'listen = "127.0.0.1:0"\n'
    leader = start("conduct", "first", listen)
    await asyncio.to_thread(leader.wait_for, "waits for devices")
    second = start("conduct", "second", listen)
    await asyncio.to_thread(second.wait_for, "waiting to take over")
    gateways = [start("gateway", f"gateway-{number}") for number in range(3)]
    for gateway in gateways:
        await asyncio.to_thread(gateway.wait_for, "gateway on")
    fleet = Fleet(site, shapes)
    training = asyncio.create_task(fleet.train())
    await fleet.half.wait()
    leader.kill()
    fleet.on.set()
    await training
    assert await asyncio.to_thread(second.wait) == 0
    for gateway in gateways:
        gateway.signal()
        assert await asyncio.to_thread(gateway.wait) == 0
    return "".join(path.read_text() for path in site.folder.glob("*.log"))


@pytest.mark.full
def test_one_process_a_database_and_a_killed_leader_behind_gateways_make_the_same_bytes(
    tmp_path: Path, planned: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def site(name: str) -> Site:
        (tmp_path / name).mkdir()
        return Site(tmp_path / name, planned)

    with contextlib.ExitStack() as stack:
        alone, kept, many = (stack.enter_context(contextlib.closing(site(name))) for name in ("alone", "kept", "many"))
        shapes = shapes_of(alone)
        asyncio.run(served_by_one(alone, shapes, ""))
        expected = hashes(SqliteStore(alone.state))
        assert len(expected) == VERSIONS + 1
        assert len({tuple(version) for version in expected}) == VERSIONS + 1

        look = migrate(kept, server.database(), monkeypatch)
        asyncio.run(served_by_one(kept, shapes, database(kept)))
        assert hashes(look) == expected

        look = migrate(many, server.database(), monkeypatch)
        logs = asyncio.run(served_by_many(many, shapes))
        assert look.updates.merged()
        assert hashes(look) == expected
        assert "another conductor" in logs or "devices are sent away until there is another" in logs
        assert "Traceback" not in logs
        assert PASSWORD not in logs
        assert (many.folder / "gateways.secret").read_text() not in logs
