"""Whoever stands by has ready what a leader needs, and looks again when it leads whether that is still so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from coordinator.config import Config
from coordinator.errors import StoreError
from coordinator.programs.export_workers import identify_task
from coordinator.runs.preparation import Preparation, Preparations
from coordinator.runs.served_run import ServedRun, open_run
from coordinator.runs.service import Service
from coordinator.store.interface import Store
from coordinator.store.postgres import PostgresStore

from ...postgres_server import PostgresServer
from ..small_run import SmallRun, make_run

TASK = """\
import torch
from torch import nn
from exporters import Task

def loss(output, y):
    return nn.functional.cross_entropy(output, y, reduction="none")

torch.manual_seed(0)
c = Task(nn.Linear(4, {classes}), loss, torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64))
"""


@pytest.fixture
def small(tmp_path: Path, postgres_server: PostgresServer) -> SmallRun:
    """A run that this process leads, with held-out data."""
    small = make_run(tmp_path, store={"postgres": postgres_server.database(), "objects": "shared"})
    hold_out(small.store, b"held-out data")
    return small


def hold_out(store: Store, content: bytes) -> None:
    """Make these the run's held-out data."""
    assert isinstance(store, PostgresStore)
    (entry,) = store.artifacts.put(content)
    store.artifacts.named([entry.sha256])
    change(store, "evaluation = $1", entry.sha256)


def change(store: Store, what: str, value: str) -> None:
    """Change the row of the run."""
    assert isinstance(store, PostgresStore)
    store.database.transact(lambda rows: rows.execute(f"UPDATE run SET {what}", value))


def another(config: Config, folder: Path) -> Config:
    """The run file of another machine, which has the run's key."""
    folder.mkdir()
    shutil.copy(config.run.state / "run.key", folder / "run.key")
    return config.model_copy(update={"run": config.run.model_copy(update={"state": folder})})


class StandBy:
    """Opens runs that others lead, one after the other; ``looked`` is set after each look at what has changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, configs: list[Config]) -> None:
        self.preparations = Preparations(configs)
        self.opened: list[Future[ServedRun]] = []
        self._giving_up = threading.Event()
        self._looked = threading.Semaphore(0)
        self._configs = configs
        self._threads = ThreadPoolExecutor()
        monkeypatch.setattr("coordinator.runs.preparation.LOOK_SECONDS", 0.01)
        for config in configs:
            preparation = self.preparations.of(config.run.name)
            assert preparation is not None
            monkeypatch.setattr(preparation, "look", self._and_say_so(preparation.look))

    def _and_say_so(self, look: Callable[[Store], None]) -> Callable[[Store], None]:
        def looked(store: Store) -> None:
            look(store)
            self._looked.release()

        return looked

    def begin(self) -> None:
        for config in self._configs:
            self.opened.append(
                self._threads.submit(open_run, config, lambda text: None, self._giving_up, self.preparations)
            )

    def look(self) -> None:
        """Wait for a look that begins from now on."""
        while self._looked.acquire(blocking=False):
            pass
        for _ in range(2 * len(self._configs)):
            assert self._looked.acquire(timeout=60)

    def close(self) -> None:
        self._giving_up.set()
        self.preparations.close()
        for opened in self.opened:
            with contextlib.suppress(StoreError):
                asyncio.run(opened.result(60).close())
        self._threads.shutdown()


@pytest.fixture
def stand_by(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., StandBy]]:
    made: list[StandBy] = []

    def begin(*configs: Config) -> StandBy:
        made.append(StandBy(monkeypatch, list(configs)))
        made[-1].begin()
        return made[-1]

    yield begin
    for each in made:
        each.close()


def test_a_standby_has_loaded_the_evaluation_that_it_leads_with(
    small: SmallRun, tmp_path: Path, stand_by: Callable[..., StandBy]
) -> None:
    config = another(small.config, tmp_path / "two")
    standby = stand_by(config)
    standby.look()
    preparation = standby.preparations.of("small")
    assert preparation is not None
    ready = preparation._evaluation
    assert ready is not None
    assert not standby.opened[0].done(), "the other leads"
    assert {path.name for path in (config.run.state / "artifacts").iterdir()} >= {
        tier.record.program.sha256 for tier in small.tiers
    }, "programs are on this machine by now"
    small.store.close()
    assert standby.opened[0].result(60)._evaluate is ready


def test_a_standby_leads_with_the_evaluation_that_the_run_has_by_then(
    small: SmallRun, tmp_path: Path, stand_by: Callable[..., StandBy]
) -> None:
    standby = stand_by(another(small.config, tmp_path / "two"))
    standby.look()
    preparation = standby.preparations.of("small")
    assert preparation is not None
    first = preparation._evaluation
    hold_out(small.store, b"other held-out data")
    standby.look()
    assert preparation._evaluation not in (None, first)
    assert first is not None
    assert first._closed
    standby.preparations._ending.set()  # it does not see the next change before it leads
    hold_out(small.store, b"what came at last")
    small.store.close()
    evaluate = standby.opened[0].result(60)._evaluate
    assert evaluate is not None
    assert evaluate._arguments[2] == b"what came at last"


def test_a_task_that_changes_while_a_process_stands_by_is_compared_before_it_leads_and_again_if_it_has_changed(
    small: SmallRun,
    tmp_path: Path,
    stand_by: Callable[..., StandBy],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tmp_path / "a" / "b.py"
    source.parent.mkdir()
    (source.parent / "__init__.py").touch()
    source.write_text(TASK.format(classes=3))
    run = small.store.run()
    assert run is not None
    change(small.store, "plans = $1", json.dumps({**run.plans, "identity": identify_task("a.b:c")}))
    source.write_text("# A remark.\n" + TASK.format(classes=3))
    standby = stand_by(another(small.config, tmp_path / "two"))
    standby.look()
    assert "goes on with the model and loss of its beginning" in caplog.text
    standby.preparations._ending.set()
    source.write_text(TASK.format(classes=5))
    small.store.close()
    with pytest.raises(StoreError, match=r"'weight' had the shape \(3, 4\) and has \(5, 4\)"):
        standby.opened[0].result(60)


def three_runs(tmp_path: Path, server: PostgresServer) -> tuple[list[SmallRun], list[Config]]:
    """Runs of one database that this process leads, and their run files on another machine."""
    store = {"postgres": server.database(), "objects": "shared"}
    led = [make_run(tmp_path, store=store)]
    for name in ("second", "third"):
        led.append(make_run(tmp_path / name, store=store, run={"name": name, "task": "a.b:c", "state": "state"}))
    return led, [another(each.config, tmp_path / f"{each.config.run.name} elsewhere") for each in led]


def test_whoever_takes_over_the_first_run_takes_over_all(tmp_path: Path, postgres_server: PostgresServer) -> None:
    led, configs = three_runs(tmp_path, postgres_server)

    async def main() -> None:
        service, preparations = Service(configs[0].server), Preparations(configs)
        taking = asyncio.create_task(service.create_all(configs, lambda text: None, preparations))
        while not preparations.started:
            await asyncio.sleep(0.01)  # another thread's work
        for each in led:
            each.store.close()
        await taking
        preparations.close()
        assert sorted(service.runs) == ["second", "small", "third"]
        await service.close()

    asyncio.run(main())


def test_of_runs_that_are_taken_over_at_once_none_is_led_where_one_cannot_be(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    led, configs = three_runs(tmp_path, postgres_server)
    (configs[1].run.state / "run.key").unlink()

    async def main() -> None:
        service, preparations = Service(configs[0].server), Preparations(configs)
        taking = asyncio.create_task(service.create_all(configs, lambda text: None, preparations))
        while not preparations.started:
            await asyncio.sleep(0.01)  # another thread's work
        for each in led:
            each.store.close()
        with pytest.raises(StoreError, match=r"its key is not in"):
            await taking
        preparations.close()
        await service.close()

    asyncio.run(main())


def test_a_look_that_fails_in_an_unforeseen_way_is_said_and_the_other_runs_are_prepared(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    led, configs = three_runs(tmp_path, postgres_server)
    looked: list[str] = []
    enough = threading.Event()

    def look(preparation: Preparation, store: Store) -> None:
        looked.append(preparation._config.run.name)
        if len(looked) == len(led):
            enough.set()
        raise KeyError("odd")

    monkeypatch.setattr(Preparation, "look", look)
    preparations = Preparations(configs)
    with caplog.at_level("ERROR"):
        preparations.start()
        assert enough.wait(30)
        preparations.close()
    assert looked == ["small", "second", "third"]
    assert "the run small is not prepared for a takeover: KeyError: 'odd'" in caplog.messages
    for each in led:
        each.store.close()
