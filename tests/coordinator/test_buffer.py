"""The buffer is full when enough updates by enough devices are in it, and has an upper bound."""

from __future__ import annotations

import asyncio

import numpy as np

from coordinator.buffer import Buffer, BufferedUpdate
from coordinator.store.base import UpdateRecord
from mobile_sdk.manifest import FileEntry


def update(number: int, device: str) -> BufferedUpdate:
    record = UpdateRecord(f"a{number:08d}", device, 0, "small", FileEntry("", 0), {}, 0.0)
    return BufferedUpdate(record, np.zeros(1, np.float32))


def test_it_is_full_at_its_capacity_and_more_waits_for_the_next_merge() -> None:
    buffer = Buffer(2)
    for number in range(3):
        assert buffer.is_full == (number >= 2)
        buffer.add(update(number, "phone-1"))
    first = buffer.oldest()
    assert [u.record.assignment for u in first] == ["a00000000", "a00000001"]
    buffer.remove(first)
    assert not buffer.is_full
    assert len(buffer) == 1


def test_too_few_devices_are_never_merged_however_much_they_send() -> None:
    buffer = Buffer(2, contributors=2)
    for number in range(3):
        buffer.add(update(number, "phone-1"))
    assert buffer.oldest() == []
    assert buffer.remainder() == []
    buffer.add(update(3, "phone-2"))
    assert len(buffer.oldest()) == 4
    assert len(buffer.remainder()) == 4


def test_a_device_waits_while_there_is_no_room() -> None:
    async def scenario() -> None:
        buffer = Buffer(2, limit=2)
        await buffer.room("phone-1")
        for number in range(2):
            buffer.add(update(number, "phone-1"))
        waiting = asyncio.create_task(buffer.room("phone-1"))
        await asyncio.sleep(0)
        assert not waiting.done()
        buffer.remove(buffer.oldest())
        await waiting

    asyncio.run(scenario())


def test_a_device_that_a_merge_waits_for_always_has_room() -> None:
    async def scenario() -> None:
        buffer = Buffer(2, contributors=2, limit=2)
        for number in range(2):
            buffer.add(update(number, "phone-1"))
        await buffer.room("phone-2")  # or nothing would ever be merged again
        waiting = asyncio.create_task(buffer.room("phone-1"))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(scenario())


def test_nobody_waits_for_a_merge_that_will_not_come() -> None:
    async def scenario() -> None:
        buffer = Buffer(2, limit=1)
        buffer.add(update(0, "phone-1"))
        waiting = asyncio.create_task(buffer.room("phone-1"))
        await asyncio.sleep(0)
        buffer.close()
        await waiting

    asyncio.run(scenario())
