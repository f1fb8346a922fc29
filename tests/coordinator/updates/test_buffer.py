"""The buffer is full when enough updates by enough devices are in it, and has an upper bound."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from coordinator.store.records import UpdateRecord
from coordinator.updates.buffer import Buffer, BufferedUpdate
from mobile_sdk.manifest import FileEntry


def update(number: int, device: str) -> BufferedUpdate:
    record = UpdateRecord(f"a{number:08d}", device, 0, "small", FileEntry("", 0), {}, 0.0)
    return BufferedUpdate(record, np.zeros(1, np.float32))


def test_it_is_full_at_its_capacity_and_more_waits_for_the_next_merge() -> None:
    buffer = Buffer(2)
    for number in range(3):
        assert buffer.is_full == (number >= 2)
        buffer.add(update(number, "phone-1"))
    assert (buffer.arrivals, dict(buffer.tiers)) == (3, {"small": 3})
    first = buffer.oldest()
    assert [u.record.assignment for u in first] == ["a00000000", "a00000001"]
    buffer.remove(first)
    assert not buffer.is_full
    assert len(buffer) == 1
    assert (buffer.arrivals, dict(buffer.tiers)) == (3, {"small": 1})


def test_too_few_devices_are_never_merged_however_much_they_send() -> None:
    buffer = Buffer(2, contributors=2)
    assert buffer.missing_contributors == 2
    for number in range(3):
        buffer.add(update(number, "phone-1"))
    assert buffer.missing_contributors == 1
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


def test_a_device_that_a_merge_comes_to_wait_for_is_let_in_before_those_that_came_earlier() -> None:
    async def scenario() -> None:
        buffer = Buffer(2, contributors=2, limit=2)
        for number, device in enumerate(["phone-1", "phone-1", "phone-1", "phone-2"]):
            buffer.add(update(number, device))
        earlier, needed = (asyncio.create_task(buffer.room(device)) for device in ("phone-1", "phone-3"))
        await asyncio.sleep(0)
        buffer.remove(buffer.all()[3:])  # phone-2 has withdrawn
        await needed
        assert not earlier.done()
        earlier.cancel()

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


def test_a_place_is_one_devices_until_its_update_is_here() -> None:
    async def scenario() -> None:
        buffer = Buffer(1, limit=1)  # two places
        await buffer.room("phone-1", reserve=True)
        await buffer.room("phone-2", reserve=True)
        assert not buffer.has_room("phone-3", reserve=True)
        waiting = [asyncio.create_task(buffer.room(name, reserve=True)) for name in ("phone-3", "phone-4")]
        await asyncio.sleep(0)
        buffer.release("phone-1")  # it gives up
        await waiting[0]
        await asyncio.sleep(0)
        assert not waiting[1].done(), "one place lets one in, in the order they came"
        buffer.add(update(0, "phone-2"))
        buffer.release("phone-2")
        assert not buffer.has_room("phone-4", reserve=True), "an update takes the place that its device had"
        buffer.remove(buffer.remainder())
        await waiting[1]

    asyncio.run(scenario())


def test_who_stops_waiting_takes_no_place() -> None:
    async def scenario() -> None:
        buffer = Buffer(1, limit=1)
        for name in ("phone-0", "phone-1"):
            await buffer.room(name, reserve=True)
        waiting = asyncio.create_task(buffer.room("phone-2", reserve=True))
        late = asyncio.create_task(buffer.room("phone-3", reserve=True))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        buffer.release("phone-1")
        late.cancel()  # in the very moment in which it gets its place
        await asyncio.gather(waiting, late, return_exceptions=True)
        assert buffer.has_room("phone-4", reserve=True)

    asyncio.run(scenario())


def test_a_smaller_size_can_make_it_full_and_a_larger_one_not() -> None:
    async def scenario() -> None:
        buffer = Buffer(4, limit=8)
        for number in range(3):
            buffer.add(update(number, f"phone-{number}"))
        filled = asyncio.create_task(buffer.filled())
        await asyncio.sleep(0)
        assert not filled.done()
        buffer.resize(3, 12)
        await filled
        assert len(buffer.oldest()) == 3
        buffer.resize(5, 20)
        assert not buffer.is_full
        later = asyncio.create_task(buffer.filled())
        await asyncio.sleep(0)
        assert not later.done()
        later.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("reserve", [True, False])
def test_a_larger_limit_lets_in_who_waits(reserve: bool) -> None:
    async def scenario() -> None:
        buffer = Buffer(2, limit=2)
        for number in range(4):
            buffer.add(update(number, "phone-1"))
        waiting = asyncio.create_task(buffer.room("phone-1", reserve=reserve))
        await asyncio.sleep(0)
        assert not waiting.done()
        buffer.resize(4, 16)
        await waiting

    asyncio.run(scenario())


def test_who_gives_up_waiting_for_a_place_gives_none_back() -> None:
    async def scenario() -> None:
        buffer = Buffer(1, limit=1)
        for name in ("phone-1", "phone-2"):
            await buffer.room(name, reserve=True)
        waiting = asyncio.create_task(buffer.room("phone-1", reserve=True))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not buffer.has_room("phone-3", reserve=True), "both places are still those of phone-1 and phone-2"

    asyncio.run(scenario())


def test_of_those_who_wait_to_send_as_many_begin_as_there_is_room_for() -> None:
    async def scenario() -> None:
        buffer = Buffer(2, limit=3)
        for number in range(3):
            buffer.add(update(number, "phone-1"))
        waiting = [asyncio.create_task(buffer.room(f"phone-{number}")) for number in range(2, 5)]
        await asyncio.sleep(0)
        buffer.remove(buffer.oldest())
        await asyncio.gather(*waiting[:2])
        await asyncio.sleep(0)
        assert not waiting[2].done()
        buffer.remove([])
        await waiting[2]

    asyncio.run(scenario())


def test_its_devices_are_those_of_waiting_updates_and_of_the_last_merge() -> None:
    buffer = Buffer(2)
    for number, device in enumerate(["phone-1", "phone-2", "phone-2"]):
        buffer.add(update(number, device))
    assert buffer.devices == {"phone-1", "phone-2"}
    first = buffer.oldest()
    assert buffer.holds(first)
    buffer.remove(first)
    assert not buffer.holds(first)
    assert buffer.devices == {"phone-1", "phone-2"}
    rest = buffer.all()
    assert buffer.holds(rest)
    assert not buffer.holds([*first[:1], *rest])
    buffer.remove(rest)
    assert buffer.devices == {"phone-2"}
    assert buffer.all() == []


def test_it_is_open_while_there_is_room_or_nothing_is_merged_any_more() -> None:
    buffer = Buffer(2, limit=1)
    assert buffer.is_open
    buffer.add(update(0, "phone-1"))
    assert not buffer.is_open
    assert not buffer.has_room("phone-1")
    assert buffer.has_room("phone-1", reserve=True), "what is on its way finds a place among twice as many"
    buffer.close()
    assert buffer.is_open
    buffer.open()
    assert not buffer.is_open
    assert Buffer(1, limit=None).is_open


def test_a_place_that_was_taken_while_it_was_closed_is_a_place() -> None:
    async def scenario() -> None:
        buffer = Buffer(1, limit=1)
        buffer.close()
        for number in range(3):
            await buffer.room(f"phone-{number}", reserve=True)
        buffer.open()
        for number in range(3):
            assert not buffer.has_room("phone-3", reserve=True), "there are two"
            buffer.release(f"phone-{number}")
            if number == 1:
                break
        assert buffer.has_room("phone-3", reserve=True)

    asyncio.run(scenario())


def test_a_device_that_gave_its_place_back_is_awaited_again() -> None:
    async def scenario() -> None:
        buffer = Buffer(2, contributors=2, limit=1)
        buffer.add(update(0, "phone-1"))
        await buffer.room("phone-2", reserve=True)
        assert not buffer.has_room("phone-2"), "its update is on its way"
        buffer.release("phone-2")
        assert buffer.has_room("phone-2")

    asyncio.run(scenario())


def test_who_is_not_let_in_by_a_size_that_stays_goes_on_waiting() -> None:
    async def scenario() -> None:
        buffer = Buffer(1, limit=1)
        buffer.add(update(0, "phone-1"))
        waiting = asyncio.create_task(buffer.room("phone-2"))
        await asyncio.sleep(0)
        buffer.resize(1, 1)
        buffer.resize(2, 1)
        await asyncio.sleep(0)
        assert not waiting.done()
        buffer.resize(2, 2)
        await waiting

    asyncio.run(scenario())
