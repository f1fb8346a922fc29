"""Updates that come while others are being written are written together, and delivered once each is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.errors import Expelled, StoreUnavailable
from coordinator.run_state import RunState
from coordinator.simulation.virtual_time import offload, run
from coordinator.store.records import UpdateRecord
from coordinator.updates.buffer import BufferedUpdate
from coordinator.updates.group_commit import GroupCommit
from mobile_sdk.clock import Offload
from mobile_sdk.manifest import FileEntry

from ..small_run import give_work, make_run, update_bytes

CONTENT = update_bytes("small")
DELTA = np.ones(2, np.float32)


def assigned(state: RunState, count: int) -> list[UpdateRecord]:
    """Updates of as many devices, not yet written down."""
    records = []
    for number in range(count):
        state.store.devices.enrol(f"d{number}", b"s" * 32, 0.0)
        work = give_work(state.store, f"d{number}")
        records.append(
            UpdateRecord(work.id, work.device, 0, "small", FileEntry.of(CONTENT), {"samples": 1, "version": 0}, 0.0)
        )
    return records


class Writer:
    """A group commit; keeps the sizes of its groups, and what it delivered."""

    def __init__(self, state: RunState, through: Offload = offload) -> None:
        self.groups: list[int] = []
        self.delivered: list[str] = []
        self.state = state

        async def counted(function: Callable[..., Any], *args: Any) -> Any:
            self.groups.append(len(args[0]))
            await asyncio.sleep(0.1)
            return await through(function, *args)

        self.commit = GroupCommit(state.store.updates, self._deliver, counted)

    def _deliver(self, update: BufferedUpdate) -> None:
        assert self.state.store.updates.is_accepted(update.record.assignment), "not before it is durable"
        assert (update.largest, update.length) == (1.0, 2**0.5), "measured, so that no merge has to"
        self.delivered.append(update.record.assignment)

    async def accept(self, *records: UpdateRecord) -> list[Any]:
        tasks = []
        for record in records:
            tasks.append(asyncio.create_task(self.commit.accept(record, CONTENT, DELTA)))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_comes_while_one_is_written_is_written_as_one_group(tmp_path: Path) -> None:
    async def main() -> None:
        state = make_run(tmp_path).state()
        writer, records = Writer(state), assigned(state, 5)
        assert await writer.accept(*records) == [True] * 5
        assert writer.groups == [1, 4]
        assert writer.delivered == [record.assignment for record in records]
        assert [record.assignment for record in state.store.updates.buffered()] == writer.delivered

    run(main())


def test_an_update_that_is_handed_in_twice_is_delivered_once(tmp_path: Path) -> None:
    async def main() -> None:
        state = make_run(tmp_path).state()
        writer, (first, second) = Writer(state), assigned(state, 2)
        assert await writer.accept(first, second, second) == [True, True, False]
        assert await writer.accept(first) == [False]
        assert writer.delivered == [first.assignment, second.assignment]

    run(main())


def test_of_a_group_that_cannot_be_written_nobody_is_acknowledged_and_the_next_is_tried(tmp_path: Path) -> None:
    async def main() -> None:
        state = make_run(tmp_path).state()
        full = True

        async def disk(function: Callable[..., Any], *args: Any) -> Any:
            if full:
                raise StoreUnavailable("the disk is full")
            return await offload(function, *args)

        writer, records = Writer(state, disk), assigned(state, 3)
        answers = await writer.accept(*records)
        assert [str(answer) for answer in answers] == ["the disk is full"] * 3
        assert writer.delivered == []
        full = False
        assert await writer.accept(*records) == [True] * 3

    run(main())


def test_a_device_that_leaves_while_its_update_is_written_takes_nobody_along(tmp_path: Path) -> None:
    async def main() -> None:
        state = make_run(tmp_path).state()
        writer, (first, second) = Writer(state), assigned(state, 2)
        leaving = asyncio.create_task(writer.commit.accept(first, CONTENT, DELTA))
        await asyncio.sleep(0.05)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await writer.accept(second) == [True]
        assert writer.delivered == [first.assignment, second.assignment], "it is durable, acknowledged or not"

    run(main())


def test_a_device_that_was_expelled_meanwhile_takes_nobody_of_its_group_along(tmp_path: Path) -> None:
    async def main() -> None:
        state = make_run(tmp_path).state()
        records = assigned(state, 4)

        async def picky(function: Callable[..., Any], *args: Any) -> Any:
            if any(record.device == "d2" for record, *_ in args[0]):
                raise Expelled("d2 was revoked")
            return await offload(function, *args)

        writer = Writer(state, picky)
        first, second, expelled, last = await writer.accept(*records)
        assert (first, second, str(expelled), last) == (True, True, "d2 was revoked", True)
        assert writer.groups == [1, 3, 1, 1, 1]
        assert writer.delivered == [record.assignment for record in records if record.device != "d2"]

    run(main())


def test_what_is_delivered_has_its_elements_and_their_bound(tmp_path: Path) -> None:
    async def main() -> None:
        state = make_run(tmp_path).state()
        (record,) = assigned(state, 1)
        came: list[BufferedUpdate] = []
        commit = GroupCommit(state.store.updates, came.append, offload)
        elements = np.array([0.5, -2.0], np.float32)
        assert await commit.accept(record, CONTENT, elements)
        (update,) = came
        assert update.record == record
        assert update.delta is elements
        assert update.largest == 2.0

    run(main())
