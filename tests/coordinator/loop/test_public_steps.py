"""Steps of updates are given with the work, follow what was merged, and no others are taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.loop.coordinator import Coordinator
from coordinator.loop.kept_merges import KeptMerges
from coordinator.loop.replay import replay
from coordinator.simulation.virtual_time import run
from coordinator.store.records import UpdateRecord
from coordinator.versions.files import RANGES
from mobile_sdk import safetensors
from mobile_sdk.manifest import FileEntry
from mobile_sdk.payload import SteppedVector, Steps, UpdateFormat, encode_update
from mobile_sdk.payload.steps import OPEN
from mobile_sdk.protocol.messages import Accepted, Assign, MergedMessage, Rejected

from ..small_run import SUBSETS, Device, SmallRun, give_work, make_run

SHAPES = [SUBSETS["small"].shape(name) for name in SUBSETS["small"]]


def small_run(folder: Path, update: str = "int8", **merge: Any) -> SmallRun:
    """A run that merges every update by itself."""
    return make_run(folder, payload={"update": update}, merge={"buffer": 1, "keep_updates": True, **merge})


@contextlib.asynccontextmanager
async def serving(small: SmallRun) -> AsyncIterator[Coordinator]:
    coordinator = small.coordinator()
    task = asyncio.create_task(coordinator.run())
    await asyncio.sleep(0.1)
    try:
        yield coordinator
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        coordinator.close()


def packed(assign: Assign, values: list[float], **changes: Any) -> bytes:
    """An update as the assignment wants it, or with ``changes`` of the packing."""
    how = UpdateFormat.from_json({**assign.payload, **changes})
    arrays = {"head": np.array(values, np.float32)}
    return safetensors.dumps(*encode_update(arrays, how, assign.seed))


def steps(assign: Assign) -> list[int]:
    exponents: list[int] = Steps.from_text(SHAPES, assign.payload["steps"]).exponents.tolist()
    return exponents


async def trip(device: Device, values: list[float]) -> Assign:
    """Work, an update, and its merge."""
    assign = await device.work(budget=1_000)
    assert isinstance(await device.upload(assign, packed(assign, values)), Accepted)
    await device.expect(MergedMessage)
    return assign


def test_the_first_steps_are_the_devices_own_and_from_the_first_merge_on_they_are_given(tmp_path: Path) -> None:
    async def main() -> None:
        small = small_run(tmp_path)
        async with serving(small) as coordinator:
            device = Device(small)
            async with device.connected(coordinator.serve):
                await device.join()
                assert steps(await trip(device, [0.4, -0.2])) == [OPEN]
                second = await device.work(budget=1_000)
                assert steps(second) == [-7], "a range of a half, seven bits, of which one is room"
                update = packed(second, [0.45, 0.0])
                assert isinstance(await device.upload(second, update), Accepted)

    run(main())


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": Steps(SHAPES, np.array([-6], np.int8)).to_text()},
        {"steps": Steps(SHAPES, np.array([-20], np.int8)).to_text()},
        {"steps": ""},
    ],
    ids=["coarser", "finer", "scales of its own"],
)
def test_other_steps_than_those_that_were_given_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    async def main() -> None:
        small = small_run(tmp_path)
        async with serving(small) as coordinator:
            device = Device(small)
            async with device.connected(coordinator.serve):
                await device.join()
                await trip(device, [0.4, -0.2])
                assign = await device.work(budget=1_000)
                answer = await device.upload(assign, packed(assign, [0.1, 0.1], **changes))
                assert isinstance(answer, Rejected)
                assert answer.code == "steps"
                assert coordinator.state.versions.newest.version == 1

    run(main())


def test_a_late_update_is_held_against_the_steps_of_its_own_version(tmp_path: Path) -> None:
    async def main() -> None:
        small = small_run(tmp_path)
        async with serving(small) as coordinator:
            late, fast = Device(small, "late"), Device(small, "fast")
            async with late.connected(coordinator.serve), fast.connected(coordinator.serve):
                await late.join()
                await fast.join()
                await trip(fast, [0.4, -0.2])
                old = await late.work(budget=1_000)
                for _ in range(4):
                    await trip(fast, [30.0, 60.0])
                assert steps(await fast.work(budget=1_000)) != steps(old)
                assert isinstance(await late.upload(old, packed(old, [0.4, 0.1])), Accepted)

    run(main())


def test_an_update_of_a_version_whose_steps_are_not_kept_any_more_is_refused_in_words(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(
            tmp_path,
            payload={"update": "int8"},
            merge={"buffer": 1},
            retention={"versions": 1, "held_days": 0},
        )
        async with serving(small) as coordinator:
            late, fast = Device(small, "late"), Device(small, "fast")
            async with late.connected(coordinator.serve), fast.connected(coordinator.serve):
                await late.join()
                await fast.join()
                await trip(fast, [0.4, -0.2])
                old = await late.work(budget=1_000)
                for _ in range(8):
                    await trip(fast, [30.0, 60.0])
                    await asyncio.sleep(2)
                coordinator.state.versions.reload()  # as after a restart: nothing of then is in memory
                answer = await late.upload(old, packed(old, [0.4, 0.1]))
                assert isinstance(answer, Rejected)
                assert answer.code == "stale"
                assert "steps of its updates are not kept any more" in answer.message

    run(main())


def test_what_is_cut_off_is_counted_and_makes_the_steps_larger(tmp_path: Path) -> None:
    async def main() -> None:
        small = small_run(tmp_path)
        async with serving(small) as coordinator:
            device = Device(small)
            async with device.connected(coordinator.serve):
                await device.join()
                given = [steps(await trip(device, [0.4, -0.2]))]
                for _ in range(16):
                    given.append(steps(await trip(device, [50.0, 50.0])))
                last = await device.work(budget=1_000)
                await device.upload(last, packed(last, [50.0, 50.0]), saturated=2)
            changes = [now for now, before in zip(given[1:], given, strict=False) if now != before]
            assert changes == [[-7], [-3], [1], [0]]
            assert steps(last) == [0], "and no larger than they have to be"
            assert coordinator.state.saturated == 2

    run(main())


@pytest.mark.parametrize("dtype", ["int8", "int4", "int16"])
def test_a_restart_goes_on_with_the_same_steps_in_whatever_dtype(tmp_path: Path, dtype: str) -> None:
    async def main() -> None:
        small = small_run(tmp_path)
        async with serving(small) as coordinator:
            device = Device(small)
            async with device.connected(coordinator.serve):
                await device.join()
                await trip(device, [0.4, -0.2])
                old = await device.work(budget=1_000)
        small.store.close()
        small = small_run(tmp_path, dtype)
        async with serving(small) as coordinator:
            device = Device(small, enrolled=True)
            async with device.connected(coordinator.serve):
                await device.join()
                # What was trained before the restart comes in the dtype of then.
                assert isinstance(await device.upload(old, packed(old, [0.3, 0.1])), Accepted)
                await device.expect(MergedMessage)
                assert steps(await device.work(budget=1_000)) == [{"int8": -7, "int4": -4, "int16": -14}[dtype]]
        assert [verdict.word for verdict in replay(small.store, KeptMerges(small.config.run.state), small.tiers)] == [
            "equal",
            "equal",
        ]

    run(main())


def test_a_rollback_takes_the_steps_back_too(tmp_path: Path) -> None:
    async def main() -> None:
        small = small_run(tmp_path)
        async with serving(small) as coordinator:
            device = Device(small)
            async with device.connected(coordinator.serve):
                await device.join()
                await trip(device, [0.4, -0.2])
                await trip(device, [50.0, 60.0])
                await coordinator.version_maker.roll_back(1, "a test", by="anna")
                assert steps(await device.work(budget=1_000)) == [-7]

    run(main())


def test_an_earlier_state_directory_goes_on(tmp_path: Path) -> None:
    """Its versions say nothing of steps, and an update with scales of its own waits in it, and one on a device."""

    async def main() -> None:
        small = small_run(tmp_path)
        small.store.devices.enrol("phone-1", b"s" * 32, 0.0)
        work = give_work(small.store, "phone-1")
        arrays = {"head": np.array([0.25, -0.125], np.float32)}
        content = safetensors.dumps(*encode_update(arrays, UpdateFormat("int8"), 0))
        assert "head:scale" in safetensors.loads(content)[0]
        report = {"version": 0, "samples": 10}
        record = UpdateRecord(work.id, "phone-1", 0, "small", FileEntry.of(content), report, 0.0)
        small.store.updates.accept([(record, content)])
        async with serving(small) as coordinator:
            await asyncio.sleep(1)
            assert coordinator.state.versions.newest.version == 1
            assert RANGES not in coordinator.state.versions.newest.private
            device = Device(small, enrolled=True)
            async with device.connected(coordinator.serve):
                await device.join()
                assign = await device.work(budget=1_000)
                assert steps(assign) == [OPEN]
                answer = await device.upload(assign, packed(assign, [0.1, 0.1], steps=""))
                assert isinstance(answer, Accepted), "a device that was updated with an update of before"

    run(main())


def test_what_waits_in_the_buffer_is_integers(tmp_path: Path) -> None:
    async def main() -> None:
        small = small_run(tmp_path, buffer=2, min_contributors=2)
        async with serving(small) as coordinator:
            device = Device(small)
            async with device.connected(coordinator.serve):
                await device.join()
                assign = await device.work(budget=1_000)
                await device.upload(assign, packed(assign, [0.4, -0.2]))
                (update,) = coordinator.state.buffer.all()
                assert isinstance(update.delta, SteppedVector)
                assert update.delta.integers.dtype == np.int8
        small.store.close()
        small = small_run(tmp_path, buffer=2, min_contributors=2)
        async with serving(small) as coordinator:
            (update,) = coordinator.state.buffer.all()
            assert isinstance(update.delta, SteppedVector), "after a restart as well"

    run(main())
