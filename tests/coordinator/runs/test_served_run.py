"""A run, opened: it merges until it ends, leaves its summary and weights, and can be taken up again."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.errors import StoreError, StoreUnavailable, Superseded
from coordinator.programs.run_key import RunKey
from coordinator.runs.served_run import ServedRun, open_run
from coordinator.simulation.virtual_time import run
from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.records import DiscardedUpdate
from coordinator.store.sqlite.lease import FolderLease
from mobile_sdk import safetensors

from ...postgres_server import PostgresServer
from ..small_run import START_WEIGHTS, accept_update, make_run


def opened(folder: Path, **sections: Any) -> ServedRun:
    """A run that was planned before, opened from its files."""
    small = make_run(folder, **sections)
    small.store.close()
    return open_run(small.config, lambda text: None)


def test_a_run_that_has_ended_leaves_its_summary_and_its_weights(tmp_path: Path) -> None:
    async def main() -> None:
        running = opened(tmp_path, merge={"buffer": 1}, stop={"versions": 1})
        accept_update(running.coordinator.state, "phone-1")
        running.start()
        await running.ended()
        assert running.finished is not None
        assert not running.failed
        folder = running.config.run.state
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["ended"] == "version 1 has reached the limit of 1"
        assert (summary["run"], summary["updates_merged"]) == ("small", 1)
        arrays, metadata = safetensors.loads((folder / "weights.safetensors").read_bytes())
        assert metadata == {"version": "1"}
        assert np.array_equal(arrays["head"], START_WEIGHTS[7:] + 1)
        await running.close()

    run(main())


def test_a_finished_run_that_is_started_again_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        running = opened(tmp_path, merge={"buffer": 1})
        running.start()
        await asyncio.sleep(0.1)
        await running.coordinator.phases.enter("finished", "enough", by="anna")
        await running.ended()
        await running.coordinator.phases.enter("running", "once more", by="anna")
        running.start()
        assert running.finished is None
        accept_update(running.coordinator.state, "phone-1")
        await asyncio.sleep(0.1)
        assert running.coordinator.state.versions.newest.version == 1
        running.start()  # it runs already
        await running.close()

    run(main())


def test_closing_gives_the_state_directory_back(tmp_path: Path) -> None:
    async def main() -> None:
        running = opened(tmp_path)
        running.start()
        await asyncio.sleep(0.1)
        with pytest.raises(StoreError, match="another coordinator uses the state directory"):
            make_run(tmp_path)
        await running.close()
        make_run(tmp_path).store.close()

    run(main())


def test_a_state_directory_of_another_run_is_refused_and_given_back(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        small.store.close()
        section = small.config.run.model_copy(update={"name": "other"})
        with pytest.raises(StoreError, match="holds the run 'small', not 'other'"):
            open_run(small.config.model_copy(update={"run": section}), lambda text: None)
        make_run(tmp_path).store.close()

    run(main())


def test_a_task_without_held_out_data_has_no_metrics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        running = opened(tmp_path, merge={"buffer": 1}, stop={"versions": 1})
        accept_update(running.coordinator.state, "phone-1")
        running.start()
        await running.ended()
        assert running.coordinator.state.versions.newest.metrics == {}
        await running.close()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert caplog.messages == []


def test_a_run_that_another_process_leads_by_now_stops_at_once_and_writes_nothing(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    address = postgres_server.database()

    async def main() -> None:
        running = opened(tmp_path, merge={"buffer": 1}, store={"postgres": address})
        running.start()
        await asyncio.sleep(0.1)
        accept_update(running.coordinator.state, "phone-1")
        successor = PostgresStore(Address(address), "small", tmp_path / "other", leading=False)
        take_over(successor)
        # The run sees that it is so, or is told when it writes: whichever comes first.
        with pytest.raises(Superseded, match=r"another process leads the run (small )?by now"):
            await running.ended()
        assert running.failed
        assert [version.version for version in successor.versions.all()] == [0]
        assert len(successor.updates.buffered()) == 1, "it waits for the successor"
        successor.close()
        await running.close()

    run(main())


def test_an_update_that_a_successor_has_merged_is_no_error_of_the_run_that_it_took_over(
    tmp_path: Path, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A leader that was stopped wakes in the middle of a merge, and finds that its updates are gone."""
    address = postgres_server.database()

    async def main() -> None:
        running = opened(tmp_path, merge={"buffer": 1, "keep_updates": True}, store={"postgres": address})
        await running.coordinator.phases.enter("running", "started", by="anna")
        update = accept_update(running.coordinator.state, "phone-1")
        successor = PostgresStore(Address(address), "small", tmp_path / "other", leading=False)
        # It may not end the connections of the one that was stopped.
        successor.database.transact(lambda rows: rows.execute("UPDATE lease SET epoch = epoch + 1, sessions = 'other'"))
        successor.updates.discard([DiscardedUpdate(update.record.assignment, "stale")])
        running.start()
        with pytest.raises(Superseded):
            await running.ended()
        successor.close()
        await running.close()

    run(main())
    assert [record.getMessage() for record in caplog.records if record.name.startswith("coordinator.runs")] == []


def test_a_run_that_has_nothing_to_merge_stops_as_well_when_another_process_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        running = opened(tmp_path, merge={"buffer": 1})
        running.start()
        monkeypatch.setattr(FolderLease, "lost", True)
        with pytest.raises(Superseded, match="another process leads the run small by now"):
            await running.ended()
        await running.close()

    run(main())


def test_a_standby_takes_over_when_the_leader_has_gone(
    tmp_path: Path, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    small = make_run(tmp_path, store={"postgres": postgres_server.database(), "objects": "shared"})
    config = small.config.model_copy(update={"run": small.config.run.model_copy(update={"state": tmp_path / "two"})})
    with pytest.raises(StoreError, match=r"another coordinator \(.*\) uses the run small"):
        open_run(config, lambda text: None)
    assert not (config.run.state / "run.key").exists()
    shutil.copy(tmp_path / "state" / "run.key", config.run.state / "run.key")

    part = config.run.state / "incoming" / f"phone-1@{'ab' * 32}"
    part.parent.mkdir()
    part.write_bytes(b"the first half")

    async def main() -> None:
        standby = asyncio.create_task(asyncio.to_thread(open_run, config, lambda text: None, threading.Event()))
        while "waiting to take over" not in caplog.text:
            await asyncio.sleep(0.05)  # another thread's log
        assert not standby.done()
        while part.exists():
            await asyncio.sleep(0.05)  # another thread's work
        small.store.close()
        await (await standby).close()

    asyncio.run(main())


def test_a_standby_that_gives_up_ends(tmp_path: Path, postgres_server: PostgresServer) -> None:
    small = make_run(tmp_path, store={"postgres": postgres_server.database()})
    config = small.config.model_copy(update={"run": small.config.run.model_copy(update={"state": tmp_path / "two"})})
    giving_up = threading.Event()
    giving_up.set()
    with pytest.raises(StoreError, match="another coordinator"):
        open_run(config, lambda text: None, giving_up)


def test_a_machine_without_the_runs_key_is_refused_and_gets_none(tmp_path: Path) -> None:
    small = make_run(tmp_path)
    small.store.close()
    key = tmp_path / "state" / "run.key"
    own = key.read_bytes()
    key.unlink()
    with pytest.raises(StoreError, match=r"its key is not in .*: copy run\.key"):
        open_run(small.config, lambda text: None)
    assert not key.exists()
    RunKey.load_or_create(key)
    with pytest.raises(StoreError, match="is not the key that the run's programs are signed with"):
        open_run(small.config, lambda text: None)
    key.write_bytes(own)

    async def main() -> None:
        await open_run(small.config, lambda text: None).close()

    run(main())


def take_over(store: PostgresStore) -> None:
    """Take the lease, as after the time of a holder that was stopped."""
    store.database.transact(lambda rows: rows.execute("UPDATE lease SET until = '-infinity'"))
    assert store.lease.take("the successor", 60.0) is not None


def test_a_store_that_is_away_at_a_start_costs_no_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = make_run(tmp_path)

    async def main() -> None:
        accept_update(small.state(), "phone-1")

        def away(assignment: str) -> bytes:
            raise StoreUnavailable("the bucket is away")

        with monkeypatch.context() as patch:
            patch.setattr(small.store.updates, "content", away)
            with pytest.raises(StoreUnavailable):
                small.state()
        assert len(small.state().buffer) == 1

    run(main())
