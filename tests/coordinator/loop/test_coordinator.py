"""The merge loop over real parts: what is merged when, what devices hear, and what operators can do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.errors import ConflictError, StoreUnavailable
from coordinator.loop import coordinator as loop_module
from coordinator.loop import housekeeping
from coordinator.loop.coordinator import Coordinator
from coordinator.simulation.virtual_time import offload, run
from mobile_sdk.layout import Vector
from mobile_sdk.protocol.messages import Accepted, Announce, Finished, Later, MergedMessage, Rejected
from mobile_sdk.protocol.session import PeerError

from ..small_run import Device, accept_update, added, make_run, update_bytes


@contextlib.asynccontextmanager
async def merging(coordinator: Coordinator) -> AsyncIterator[asyncio.Task[Finished]]:
    """The merge loop at work."""
    task = asyncio.create_task(coordinator.run())
    await asyncio.sleep(0.001)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        coordinator.close()


def mean_of_trained(vector: Vector) -> dict[str, float]:
    """A metric that says which weights were evaluated."""
    return {"accuracy": float(np.mean(added(vector)[3:]))}


def test_a_full_buffer_becomes_a_version_that_devices_hear_of(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2})
        coordinator = small.coordinator(mean_of_trained)
        async with (
            merging(coordinator),
            Device(small, "phone-1").connected(coordinator.serve) as one,
            Device(small, "phone-2").connected(coordinator.serve) as two,
        ):
            for device, value in ((one, 1.0), (two, 3.0)):
                await device.join()
                assign = await device.work()
                assert isinstance(await device.upload(assign, update_bytes("large", value)), Accepted)
            for device in (one, two):
                told = await device.expect(MergedMessage)
                assert (told.version, told.staleness, told.weight) == (1, 0, 1.0)
                assert await device.expect(Announce) == Announce(1, {"accuracy": 2.0}, 2)
        assert added(coordinator.state.versions.vector).tolist() == [0.0] * 3 + [2.0] * 6
        (_, version) = small.store.versions.all()
        assert (version.version, version.parent, version.metrics) == (1, 0, {"accuracy": 2.0})
        assert small.store.updates.buffered() == []
        assert coordinator.status().merged == 2
        assert len(coordinator.state.buffer) == 0

    run(main())


def test_a_run_starts_by_itself_unless_it_is_held(tmp_path: Path) -> None:
    async def main() -> None:
        coordinator = make_run(tmp_path).coordinator()
        async with merging(coordinator):
            assert (coordinator.state.phase, coordinator.state.reason) == ("running", "started")

    run(main())


def test_what_has_come_is_merged_after_a_while_when_no_other_comes(tmp_path: Path) -> None:
    async def main() -> None:
        coordinator = make_run(tmp_path, merge={"buffer": 2, "flush_seconds": 60}).coordinator()
        async with merging(coordinator):
            accept_update(coordinator.state, "phone-1")
            await asyncio.sleep(59)
            assert coordinator.state.versions.newest.version == 0
            await asyncio.sleep(120)
            assert coordinator.state.versions.newest.version == 1

    run(main())


def test_without_a_flush_an_update_waits_for_the_buffer_to_fill(tmp_path: Path) -> None:
    async def main() -> None:
        coordinator = make_run(tmp_path, merge={"buffer": 2, "flush_seconds": 0}).coordinator()
        async with merging(coordinator):
            accept_update(coordinator.state, "phone-1")
            await asyncio.sleep(1e6)
            assert coordinator.state.versions.newest.version == 0
            accept_update(coordinator.state, "phone-2")
            await asyncio.sleep(0.001)
            assert coordinator.state.versions.newest.version == 1

    run(main())


def test_a_paused_run_merges_nothing_and_goes_on_when_it_is_started(tmp_path: Path) -> None:
    async def main() -> None:
        coordinator = make_run(tmp_path, merge={"buffer": 1}).coordinator()
        async with merging(coordinator):
            await coordinator.phases.enter("paused", "paused by anna", by="anna")
            accept_update(coordinator.state, "phone-1")
            await asyncio.sleep(1e4)
            assert coordinator.state.versions.newest.version == 0
            await coordinator.phases.enter("running", "started by anna", by="anna")
            await asyncio.sleep(0.001)
            assert coordinator.state.versions.newest.version == 1

    run(main())


def test_a_draining_run_merges_what_there_is_when_the_last_device_is_done_and_pauses(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 5, "flush_seconds": 0})
        coordinator = small.coordinator()
        async with merging(coordinator), Device(small).connected(coordinator.serve) as device:
            await device.join()
            assign = await device.work()
            await coordinator.phases.enter("draining", "drained by anna", by="anna")
            await asyncio.sleep(100)
            assert coordinator.state.phase == "draining", "phone-1 still works"
            await device.upload(assign, update_bytes("large"))
            await asyncio.sleep(0.001)
            assert coordinator.state.versions.newest.version == 1
            assert (coordinator.state.phase, coordinator.state.reason) == ("paused", "drained")

    run(main())


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ({"versions": 1}, "version 1 has reached the limit of 1"),
        ({"updates": 1}, "1 merged updates have reached the limit of 1"),
    ],
)
def test_the_end_is_told_to_devices_and_stays(tmp_path: Path, stop: dict[str, int], reason: str) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1}, stop=stop)
        coordinator = small.coordinator()
        async with merging(coordinator) as task, Device(small).connected(coordinator.serve) as device:
            await device.join()
            assign = await device.work()
            await device.upload(assign, update_bytes("large"))
            finished = await task
            assert finished == await device.expect(Finished)
            assert finished.reason == reason
        assert small.store.phase() == ("finished", finished.reason)
        await coordinator.drained()

    run(main())


def test_the_time_of_a_run_ends_it_though_nothing_happens(tmp_path: Path) -> None:
    async def main() -> None:
        coordinator = make_run(tmp_path, stop={"seconds": 100}).coordinator()
        async with merging(coordinator) as task:
            assert (await task).reason == "100 s are over"
            assert 100 <= asyncio.get_running_loop().time() < 101

    run(main())


def test_a_full_disk_delays_a_merge_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        full = True

        async def disk(function: Callable[..., Any], *args: Any) -> Any:
            if full and getattr(function, "__name__", "") == "commit":
                raise StoreUnavailable("the disk is full")
            return await offload(function, *args)

        coordinator = make_run(tmp_path, merge={"buffer": 1}).coordinator(offload=disk)
        async with merging(coordinator):
            accept_update(coordinator.state, "phone-1")
            await asyncio.sleep(2 * loop_module.RETRY_SECONDS)
            assert coordinator.state.versions.newest.version == 0
            assert len(coordinator.state.buffer) == 1
            full = False
            await asyncio.sleep(loop_module.RETRY_SECONDS)
            assert coordinator.state.versions.newest.version == 1

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "version 1 waits: the disk is full" in caplog.messages


def test_updates_that_became_too_old_while_they_waited_are_discarded(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "staleness": {"maximum": 0}})
        coordinator = small.coordinator()
        async with merging(coordinator):
            stale = accept_update(coordinator.state, "phone-1")
            versions = coordinator.state.versions
            versions.commit(versions.vector, {}, {}, [], [], 0.0)
            accept_update(coordinator.state, "phone-2")
            await asyncio.sleep(0.001)
            assert versions.newest.version == 1
            assert [update.record.device for update in coordinator.state.buffer.all()] == ["phone-2"]
            assert small.store.updates.is_accepted(stale.record.assignment)
            assert [record.device for record in small.store.updates.buffered()] == ["phone-2"]

    run(main())


def test_a_merge_that_hurts_is_rolled_back_and_after_three_the_run_is_paused(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1}, evaluation={"guard": 0.1})
        coordinator = small.coordinator(lambda vector: {"accuracy": -float(np.abs(added(vector)).sum())})
        async with merging(coordinator):
            versions = coordinator.state.versions
            coordinator.state.published(versions.commit(versions.vector, {}, {"accuracy": 0.0}, [], [], 0.0))
            coordinator.watch.see(versions.newest)
            for _ in range(3):
                assert coordinator.state.phase == "running"
                accept_update(coordinator.state, "phone-1", value=5.0)
                await asyncio.sleep(0.001)
            assert [record.kind for record in small.store.versions.all()][-6:] == ["merge", "rollback"] * 3
            assert added(versions.vector).tolist() == [0.0] * 9
            assert coordinator.state.phase == "paused"
            assert coordinator.state.reason.startswith("rolling back did not help: accuracy went from 0.0000 to")

    run(main())


def test_a_rollback_voids_what_was_based_on_later_versions_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 9})
        coordinator = small.coordinator()
        state = coordinator.state
        early = accept_update(state, "phone-1")
        async with Device(small, "phone-2").connected(coordinator.serve) as device:
            state.phase = "running"
            await device.join()
            state.published(state.versions.commit(state.versions.vector, {}, {}, [], [], 0.0))
            late = accept_update(state, "phone-3")
            assign = await device.work()
            assert assign.version == 1
            record = await coordinator.version_maker.roll_back(0, "worse", by="anna")
            assert (record.version, record.parent, record.kind) == (2, 0, "rollback")
            assert [update.record.assignment for update in state.buffer.all()] == [early.record.assignment]
            assert late.record.assignment not in [record.assignment for record in small.store.updates.buffered()]
            answer = await device.upload(assign, update_bytes("large"))
            assert isinstance(answer, Rejected)
            assert (await device.work()).version == 2
        with pytest.raises(ConflictError, match="version 1 is no ancestor of version 2"):
            await coordinator.version_maker.roll_back(1, "no", by="anna")
        with pytest.raises(ConflictError, match="version 2 is no ancestor of version 2"):
            await coordinator.version_maker.roll_back(2, "no", by="anna")

    run(main())


def test_a_device_that_connects_again_replaces_its_older_connection(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        coordinator = small.coordinator()
        older, newer = Device(small), Device(small)
        async with older.connected(coordinator.serve), newer.connected(coordinator.serve):
            await older.join()
            await newer.join()
            await older.served()
            assert older.heard[-1]["code"] == "replaced"
            assert coordinator.state.device("phone-1").state != "offline"

    run(main())


def test_dismissing_tells_every_device_and_settling_waits_for_updates_on_their_way(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        coordinator = small.coordinator()
        coordinator.state.phase = "running"
        device = Device(small)
        async with device.connected(coordinator.serve):
            await device.join()
            assign = await device.work()
            await device.offer(assign, update_bytes("large"))
            await asyncio.sleep(0.001)
            settled = asyncio.create_task(coordinator.settled())
            await asyncio.sleep(0.001)
            assert not settled.done()
            await coordinator.dismiss("unavailable", "the coordinator restarts")
            await device.served()
            await settled
            await coordinator.drained()
        assert PeerError("unavailable", "the coordinator restarts").code == device.heard[-1]["code"]

    run(main())


def test_old_versions_lose_their_files_and_never_the_newest(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1}, retention={"versions": 2, "held_days": 0})
        coordinator = small.coordinator()
        async with merging(coordinator):
            for _ in range(5):
                accept_update(coordinator.state, "phone-1")
                await asyncio.sleep(housekeeping.PRUNE_SECONDS + 1)
            kept = [record.version for record in small.store.versions.all() if not record.pruned]
            assert kept[-1] == 5
            assert len(kept) <= 3, "two, and one that an update was based on"
            assert not coordinator.state.versions.has_weights(0)

    run(main())


def test_a_run_that_does_not_learn_says_so_once_and_takes_it_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accuracies = iter([0.0, 0.0, 0.0, 0.0, 0.9, 0.9, 0.9])

    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1}, evaluation={"learns_within": 3}, training={"momentum": 0.9})
        coordinator = small.coordinator(lambda vector: {"accuracy": next(accuracies)})
        # Version 0 of this run has no metrics; the second stands in for it, as its evaluation would have.
        async with merging(coordinator):
            accept_update(coordinator.state, "phone-1")
            await asyncio.sleep(0.001)
            coordinator._learning._first = coordinator.state.versions.newest
            said = []
            for _ in range(6):
                accept_update(coordinator.state, "phone-1")
                await asyncio.sleep(0.001)
                said.append(coordinator.status().notice)
        assert [bool(notice) for notice in said] == [False, True, True, True, False, False]
        assert "median accuracy of the last 3 versions is 0.0000" in said[1]
        assert "training.momentum is 0.9: set it to 0" in said[1]
        assert [e.action for e in small.store.audit.entries()].count("does-not-learn") == 1

    run(main())
    assert caplog.text.count("the run does not learn") == 1


def test_what_a_version_waits_for_is_said_where_more_updates_would_not_do(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "min_contributors": 2})
        coordinator = small.coordinator()
        async with merging(coordinator), Device(small, "phone-1").connected(coordinator.serve) as device:
            await device.join()
            for _ in range(3):
                accept_update(coordinator.state, "phone-1")
            await asyncio.sleep(0.001)
            assert coordinator.status().waits_for == (
                "updates of 1 more device: those that wait are of fewer devices than merge.min_contributors = 2"
            )
            accept_update(coordinator.state, "phone-2")
            await asyncio.sleep(0.001)
            assert coordinator.status().version == 1
        assert make_run(tmp_path / "other").coordinator().status().waits_for == ""

    run(main())


def test_a_run_that_no_device_is_connected_to_waits_for_devices(tmp_path: Path) -> None:
    async def main() -> None:
        coordinator = make_run(tmp_path).coordinator()
        async with merging(coordinator):
            assert coordinator.status().waits_for == "devices: none is connected"

    run(main())


def test_a_device_that_waits_for_work_when_the_run_ends_hears_of_the_end_and_is_not_sent_away(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1}, stop={"versions": 1}, scheduling={"concurrency": 1})
        coordinator = small.coordinator()
        async with (
            merging(coordinator) as task,
            Device(small, "phone-1").connected(coordinator.serve) as working,
            Device(small, "phone-2").connected(coordinator.serve) as waiting,
        ):
            await working.join()
            assign = await working.work()
            await waiting.join()
            await waiting.ask()
            await asyncio.sleep(1)
            assert coordinator.dispatcher.scheduler.waiting
            await working.upload(assign, update_bytes("large"))
            finished = await task
            assert finished == await waiting.expect(Finished)
            assert not any(isinstance(event, Later) for event in waiting.events)

    run(main())


def test_a_device_that_leaves_while_the_disk_is_full_is_gone_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        small = make_run(tmp_path)

        async def full(function: Callable[..., Any], *args: Any) -> Any:
            if function == small.store.devices.add_traffic:
                raise StoreUnavailable("the disk is full")
            return await offload(function, *args)

        coordinator = small.coordinator(offload=full)
        async with merging(coordinator):
            async with Device(small, "phone-1").connected(coordinator.serve) as device:
                await device.join()
                assert list(coordinator.connected) == ["phone-1"]
            await coordinator.drained()
            assert list(coordinator.connected) == []
        assert "the traffic of phone-1 is not counted: the disk is full" in caplog.messages

    run(main())


def test_the_end_comes_though_the_disk_is_too_full_to_tidy_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1}, stop={"updates": 1})

        async def full(function: Callable[..., Any], *args: Any) -> Any:
            if function == coordinator.state.uploads.expire:
                raise StoreUnavailable("the disk is full")
            return await offload(function, *args)

        coordinator = small.coordinator(offload=full)
        async with merging(coordinator) as task, Device(small).connected(coordinator.serve) as device:
            await device.join()
            await device.upload(await device.work(), update_bytes("large"))
            assert await task == await device.expect(Finished)
        words = "old versions and unfinished uploads keep their files for now: the disk is full"
        assert words in caplog.messages

    run(main())
