"""Nothing that an operator does while the merge loop is busy ends a run, whatever comes between two steps of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.admin.operations import Operations
from coordinator.errors import StoreError
from coordinator.loop.coordinator import Coordinator
from coordinator.run_state import RunState
from coordinator.runs.served_run import ATTEMPTS, ServedRun
from coordinator.simulation.virtual_time import offload, run
from mobile_sdk.protocol.messages import Accepted, Assign

from ..small_run import Device, SmallRun, accept_update, make_run, update_bytes


class Slow:
    """An ``offload`` in which chosen calls take a virtual second, before or after what they do."""

    def __init__(self, *, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> None:
        self._before = before
        self._after = after

    async def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        name = getattr(function, "__qualname__", "")
        if name.endswith(self._before) and self._before:
            await asyncio.sleep(1)
        result = await offload(function, *args)
        if name.endswith(self._after) and self._after:
            await asyncio.sleep(1)
        return result


def serve(small: SmallRun, through: Any = offload) -> tuple[ServedRun, Operations]:
    coordinator = small.coordinator(offload=through)
    running = ServedRun(small.config, small.store, coordinator, None)
    running.start()
    return running, Operations(running, "anna")


def versions(small: SmallRun) -> list[str]:
    return [record.kind for record in small.store.versions.all()]


def test_a_rollback_takes_away_what_a_merge_was_about_to_merge(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1})
        running, anna = serve(small, Slow(after=("roll_back.<locals>.<lambda>",)))
        state = running.coordinator.state
        await asyncio.sleep(0.1)
        accept_update(state, "phone-1")
        await asyncio.sleep(0.1)
        assert state.versions.newest.version == 1
        rolling = asyncio.create_task(anna.roll_back(0, "worse"))
        late = accept_update(state, "phone-1")  # based on version 1, and the buffer is full: the loop waits its turn
        await rolling
        await asyncio.sleep(0.1)
        assert not running.failed
        assert late.record.assignment not in [update.assignment for update in small.store.updates.merged()]
        accept_update(state, "phone-1")
        await asyncio.sleep(0.1)
        assert versions(small) == ["initial", "merge", "rollback", "merge"]
        await running.close()

    run(main())


def test_a_withdrawal_takes_away_what_a_merge_was_about_to_merge(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2})
        running, anna = serve(small, Slow(after=("withdraw.<locals>.<lambda>",)))
        state = running.coordinator.state
        await asyncio.sleep(0.1)
        accept_update(state, "phone-1")
        withdrawing = asyncio.create_task(anna.withdraw("phone-1"))
        await asyncio.sleep(0.1)
        accept_update(state, "phone-2")  # the buffer is full: the loop has what is withdrawn in its hands
        await withdrawing
        await asyncio.sleep(0.1)
        assert not running.failed
        assert versions(small) == ["initial"]
        accept_update(state, "phone-3")
        await asyncio.sleep(0.1)
        assert versions(small) == ["initial", "merge"]
        assert state.status().merged == 2
        await running.close()

    run(main())


def test_an_update_that_was_written_down_before_its_device_was_withdrawn_is_not_merged(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2})
        running, anna = serve(small, Slow(after=("GroupCommit._accept",)))
        await asyncio.sleep(0.1)
        device = Device(small)
        async with device.connected(running.coordinator.serve):
            await device.join()
            assign = await device.work()
            uploading = asyncio.create_task(device.upload(assign, update_bytes("large")))
            await asyncio.sleep(0.5)  # it is in the store, and not yet in the buffer
            assert len(small.store.updates.buffered()) == 1
            await anna.withdraw("phone-1")
            with pytest.raises(AssertionError, match="revoked"):
                await uploading
            await device.served()
        await asyncio.sleep(2)
        assert len(running.coordinator.state.buffer) == 0
        accept_update(running.coordinator.state, "phone-2")
        accept_update(running.coordinator.state, "phone-3")
        await asyncio.sleep(0.1)
        assert not running.failed
        assert running.coordinator.state.status().merged == 2
        await running.close()

    run(main())


def test_a_rollback_while_an_update_is_written_down_leaves_the_device_an_answer_that_it_understands(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1, "defence": False})
        running, anna = serve(small, Slow(after=("GroupCommit._accept",)))
        state = running.coordinator.state
        await asyncio.sleep(0.1)
        for _ in range(3):
            accept_update(state, "other")
            await asyncio.sleep(1)
        assert state.versions.newest.version == 3
        device = Device(small)
        async with device.connected(running.coordinator.serve):
            await device.join()
            assign = await device.work()
            assert assign.version == 3
            uploading = asyncio.create_task(device.upload(assign, update_bytes("large")))
            await asyncio.sleep(0.5)
            await anna.roll_back(1, "a trial")
            answer = await uploading
            assert isinstance(answer, Accepted)
            assert answer.staleness == 0
        await asyncio.sleep(2)
        assert not running.failed
        assert state.status().merged == 3, "the update is void"
        await running.close()

    run(main())


@pytest.mark.parametrize("end", ["revoke", "withdraw"])
def test_revoked_and_withdrawn_devices_are_not_let_in_by_a_proof_that_was_on_its_way(tmp_path: Path, end: str) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        running, anna = serve(small)
        await asyncio.sleep(0.1)
        async with Device(small).connected(running.coordinator.serve) as first:
            await first.join()
        device = Device(small, enrolled=True)
        async with device.connected(running.coordinator.serve):
            await device.flush()  # hello
            await asyncio.sleep(0.1)
            assert device.heard[0]["type"] == "challenge"
            await getattr(anna, end)("phone-1")
            with pytest.raises(AssertionError, match=r"revoked|auth"):
                await device.expect(Assign)  # it answers the challenge, and asks for work if it is welcomed
            await device.served()
        assert running.coordinator.dispatcher.open == []
        assert running.coordinator.state.buffer.arrivals == 0
        await running.close()

    run(main())


def test_a_withdrawn_device_that_asks_for_work_takes_nobody_along(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        coordinator = small.coordinator(offload=Slow(before=("AssignmentTable.assign",)))
        coordinator.state.phase = "running"
        names = ("phone-1", "phone-2", "phone-3")
        devices = [Device(small, name) for name in names]
        async with (
            devices[0].connected(coordinator.serve),
            devices[1].connected(coordinator.serve),
            devices[2].connected(coordinator.serve),
        ):
            for device in devices:
                await device.join()
            await devices[0].ask()
            await asyncio.sleep(0.1)  # its assignment is being written down: the others form a group behind it
            for device in devices[1:]:
                await device.ask()
            await asyncio.sleep(0.1)
            small.store.devices.withdraw("phone-2", 0.0, by="anna")
            assert isinstance(await devices[0].expect(Assign), Assign)
            assert isinstance(await devices[2].expect(Assign), Assign)
            await devices[1].served()
            assert devices[1].heard[-1]["code"] == "revoked"
        coordinator.close()

    run(main())


def test_a_withdrawn_device_that_hands_in_takes_nobody_along(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        coordinator = small.coordinator(offload=Slow(before=("GroupCommit._accept",)))
        coordinator.state.phase = "running"
        devices = [Device(small, f"phone-{number}") for number in range(3)]
        async with (
            devices[0].connected(coordinator.serve),
            devices[1].connected(coordinator.serve),
            devices[2].connected(coordinator.serve),
        ):
            tasks = []
            for device in devices:
                await device.join()
                tasks.append((device, await device.work()))
            uploads = []
            for device, assign in tasks:
                uploads.append(asyncio.create_task(device.upload(assign, update_bytes("large"))))
                await asyncio.sleep(0.1)
            small.store.devices.withdraw("phone-1", 0.0, by="anna")
            assert isinstance(await uploads[0], Accepted)
            assert isinstance(await uploads[2], Accepted)
            with pytest.raises(AssertionError, match="revoked: the operator has revoked this device"):
                await uploads[1]
        coordinator.close()

    run(main())


def test_an_unexpected_error_is_shown_with_its_reason_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1})
        broken = True

        async def breaking(function: Callable[..., Any], *args: Any) -> Any:
            if broken and getattr(function, "__qualname__", "") == "Versions.commit":
                raise KeyError("something nobody thought of")
            return await offload(function, *args)

        running, anna = serve(small, breaking)
        await asyncio.sleep(0.1)
        accept_update(running.coordinator.state, "phone-1")
        await asyncio.sleep(0.5)
        assert running.failed
        seen = anna.overview()
        assert seen["phase"] == "stopped"
        assert seen["reason"] == "stopped, because of KeyError: 'something nobody thought of'"
        await asyncio.sleep(2)
        assert [record.exc_info is not None for record in caplog.records if "has stopped" in record.message] == [
            True,
            False,
        ], "one traceback, then a line for each attempt"
        broken = False
        await asyncio.sleep(10)
        assert not running.failed
        assert anna.overview()["phase"] == "running"
        assert versions(small) == ["initial", "merge"]
        await running.close()

    run(main())


def test_a_run_that_keeps_failing_is_given_up_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1})
        tries = 0

        async def broken(function: Callable[..., Any], *args: Any) -> Any:
            nonlocal tries
            if getattr(function, "__qualname__", "") == "Versions.commit":
                tries += 1
                raise StoreError("the disk makes no sense")
            return await offload(function, *args)

        running, anna = serve(small, broken)
        await asyncio.sleep(0.1)
        accept_update(running.coordinator.state, "phone-1")
        with pytest.raises(StoreError, match="the disk makes no sense"):
            await running.ended()
        assert tries == ATTEMPTS
        assert anna.overview()["reason"] == "stopped, because the disk makes no sense"
        await running.close()

    run(main())


def test_recovery_takes_the_stores_word_over_memorys(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 5})
        coordinator: Coordinator = small.coordinator()
        state: RunState = coordinator.state
        gone, kept = accept_update(state, "phone-1"), accept_update(state, "phone-2")
        small.store.devices.withdraw("phone-1", 0.0, by="anna")
        state.buffer.remove([kept])
        other = small.state()  # somebody committed a version that this memory knows nothing of
        theirs = other.versions
        moved = theirs.with_trained(theirs.trained.gather(theirs.vector) + 1)
        theirs.commit(moved, {}, {"accuracy": 0.5}, [], [], 0.0)
        await coordinator.version_maker.recover()
        assert [update.record.assignment for update in state.buffer.all()] == [kept.record.assignment]
        assert gone.record.assignment not in [update.record.assignment for update in state.buffer.all()]
        assert state.versions.newest.version == 1
        assert state.versions.vector.tolist() == other.versions.vector.tolist()
        assert state.status().history[-1] == (1, {"accuracy": 0.5})
        assert coordinator.watch.best == 1

    run(main())


def test_a_withdrawn_device_leaves_neither_part_of_an_update_nor_its_name(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        running, anna = serve(small)
        await asyncio.sleep(0.1)
        device = Device(small)
        async with device.connected(running.coordinator.serve):
            await device.join()
            assign = await device.work()
            await device.offer(assign, update_bytes("large"))
            await asyncio.sleep(0.1)
            running.coordinator.state.uploads.forget("phone-2")  # of nobody
            await anna.finish()
            await running.ended()
            summary = small.config.run.state / "summary.json"
            assert "phone-1" in summary.read_text()
            await anna.withdraw("phone-1")
            assert "phone-1" not in summary.read_text()
        assert list((small.config.run.state / "incoming").iterdir()) == []
        await running.close()

    run(main())
