"""An update's way in: offered, fetched, checked, written down, and acknowledged once."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.errors import UpdateRefused
from coordinator.scheduling.dispatcher import Dispatcher
from coordinator.scheduling.quota import OverQuota
from coordinator.sessions import update_upload
from coordinator.sessions.update_upload import UpdateUpload
from coordinator.simulation.virtual_time import run
from coordinator.store.records import AssignmentRecord, UpdateRecord
from coordinator.updates.validation import most_bytes
from mobile_sdk.errors import ProtocolError, Refused
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.messages import Accepted, ArtifactRef, Fetch, Message, Name, Offer, Rejected, Sha256, Wait
from mobile_sdk.protocol.session import Received, State

from ..small_run import SmallRun, accept_update, give_work, make_run, open_work, update_bytes


class Hand:
    """A device that is in and has work; offers and chunks are given to the upload by hand."""

    def __init__(self, small: SmallRun, device: str = "phone-1", tier: str = "small") -> None:
        self.small = small
        self.state = small.state()
        self.state.store.devices.enrol(device, b"s" * 32, 0.0)
        self.record: AssignmentRecord = give_work(self.state.store, device, tier)
        self.dispatcher = Dispatcher(self.state)
        self.now = 0.0
        self.device = device
        self.connect()

    def connect(self) -> None:
        """A connection: the first, or the one after a break."""
        self.session = CoordinatorSession(run="small", key=self.small.key.public)
        self.session.state = State.OPEN
        self.status = self.state.device(self.device)
        self.upload = UpdateUpload(
            self.state, self.session, self.dispatcher, self.device, self.status, lambda: self.now, self._flush
        )
        self.heard: list[Message] = []

    async def _flush(self) -> None:
        self.heard += self.said()

    def said(self) -> list[Message]:
        return [decode(frame) for frame in self.session.frames_to_send() if isinstance(frame, str)]

    async def offer(self, content: bytes, *, follows: bool = False, **changes: Any) -> list[Message]:
        """Offer ``content``; what was answered."""
        ref = ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))
        report = {"version": self.record.version, "samples": 10} | changes.pop("report", {})
        fields: dict[str, Any] = {"assignment": Name(self.record.id), "artifact": ref} | changes
        await self.upload.offered(Offer(report=report, follows=follows, **fields))
        return self.said()

    async def send(self, content: bytes, start: int, stop: int) -> list[Message]:
        """Send part of ``content``; what was answered."""
        chunk = Chunk(hashlib.sha256(content).hexdigest(), start, memoryview(content)[start:stop])
        await self.upload.received(Received(chunk, stop == len(content)))
        return self.said()


def test_an_update_is_fetched_written_down_and_acknowledged_in_this_order(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        (fetch,) = await hand.offer(content)
        assert fetch == Fetch(Sha256(hashlib.sha256(content).hexdigest()), 0)
        assert hand.status.state == "uploading"
        (ack,) = await hand.send(content, 0, 100)
        assert getattr(ack, "offset", None) == 100
        assert hand.state.store.updates.buffered() == []
        assert await hand.send(content, 100, len(content)) == [Accepted(Name("a00000001"), 0, False)]
        assert [record.assignment for record in hand.state.store.updates.buffered()] == ["a00000001"]
        (update,) = hand.state.buffer.all()
        assert np.asarray(update.delta).tolist() == [1.0, 1.0]
        assert (hand.status.state, hand.status.updates, hand.status.staleness) == ("idle", 1, 0)
        assert hand.dispatcher.assignment("phone-1") is None, "its work is done"

    run(main())


def test_an_update_that_follows_its_offer_is_not_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        assert await hand.offer(content, follows=True) == []
        assert [type(message) for message in await hand.send(content, 0, len(content))] == [Accepted]

    run(main())


def test_an_update_that_is_offered_again_is_acknowledged_and_counted_once(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        await hand.send(content, 0, len(content))
        assert await hand.offer(content) == [Accepted(Name("a00000001"), 0, True)]
        assert len(hand.state.buffer) == 1
        assert hand.status.updates == 1

    run(main())


@pytest.mark.parametrize("late", [False, True], ids=["left before", "leaves when all is here"])
def test_a_broken_upload_goes_on_where_it_stopped(tmp_path: Path, late: bool) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        await hand.send(content, 0, 100)
        older = hand.upload
        if not late:
            await older.leave()
        hand.connect()
        (fetch,) = await hand.offer(content)
        assert fetch == Fetch(Sha256(hashlib.sha256(content).hexdigest()), 100)
        assert [type(message) for message in await hand.send(content, 100, len(content))] == [Accepted]
        if late:
            await older.leave()
        assert list((tmp_path / "state" / "incoming").iterdir()) == []

    run(main())


def test_what_a_crash_has_torn_is_fetched_from_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        await hand.send(content, 0, 100)
        await hand.upload.leave()
        (part,) = (tmp_path / "state" / "incoming").iterdir()
        part.write_bytes(b"\0" * 100)
        hand.connect()
        await hand.offer(content)
        (fetch,) = await hand.send(content, 100, len(content))
        assert fetch == Fetch(Sha256(hashlib.sha256(content).hexdigest()), 0)
        assert [type(message) for message in await hand.send(content, 0, len(content))] == [Accepted]

    run(main())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"assignment": Name("a00000009")}, "unknown-assignment"),
        ({"assignment": Name("made-up")}, "unknown-assignment"),
        ({"report": {"version": 7}}, "unknown-version"),
        ({"report": {"samples": 0}}, "report"),
        ({"report": {"samples": 1.5}}, "report"),
        ({"report": {"samples": True}}, "report"),
        ({"artifact": ArtifactRef(Sha256("ab" * 32), 100_009)}, "size"),
        ({"artifact": ArtifactRef(Sha256("ab" * 32), 100, "zlib")}, "payload"),
    ],
)
def test_what_cannot_be_taken_is_refused_before_it_is_sent(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        (rejected,) = await hand.offer(update_bytes("small"), **changes)
        assert isinstance(rejected, Rejected)
        assert rejected.code == code
        assert hand.status.failures == 1
        assert hand.state.store.updates.buffered() == []

    run(main())


def test_an_update_of_the_largest_size_that_a_tier_can_have_is_fetched(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        most = most_bytes(hand.state.tiers[0])
        (fetch,) = await hand.offer(b"", artifact=ArtifactRef(Sha256("ab" * 32), most))
        assert isinstance(fetch, Fetch)

    run(main())


def test_the_assignment_of_another_device_is_refused_and_stays_open(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        hand.state.store.devices.enrol("phone-2", b"t" * 32, 0.0)
        other = give_work(hand.state.store, "phone-2")
        (rejected,) = await hand.offer(update_bytes("small"), assignment=Name(other.id))
        assert isinstance(rejected, Rejected)
        assert rejected.code == "unknown-assignment"
        assert open_work(hand.state.store, "phone-2") == other

    run(main())


def test_a_bit_that_flips_on_the_way_costs_one_more_upload_and_not_the_work(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        flipped = bytes([content[0] ^ 1]) + content[1:]
        fetch = Fetch(Sha256(hashlib.sha256(content).hexdigest()), 0)
        assert await hand.offer(content) == [fetch]
        name = hashlib.sha256(content).hexdigest()
        for _ in range(2):
            await hand.upload.received(Received(Chunk(name, 0, memoryview(flipped)), True))
            assert hand.said() == [fetch]
        assert [type(message) for message in await hand.send(content, 0, len(content))] == [Accepted]

    run(main())


def test_what_is_never_what_was_announced_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        name = hashlib.sha256(content).hexdigest()
        said: list[Message] = []
        for _ in range(update_upload.MOST_FETCHES):
            await hand.upload.received(Received(Chunk(name, 0, memoryview(bytes(len(content)))), True))
            said += hand.said()
        assert [type(message) for message in said] == [Fetch, Fetch, Rejected]

    run(main())


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"no safetensors file at all" * 10, "payload"),
        (update_bytes("large"), "payload"),
        (update_bytes("small", float("nan")), "not-finite"),
        (update_bytes("small", float("inf")), "not-finite"),
    ],
)
def test_what_has_come_is_checked_before_it_is_written_down(tmp_path: Path, content: bytes, code: str) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        await hand.offer(content)
        (rejected,) = await hand.send(content, 0, len(content))
        assert isinstance(rejected, Rejected)
        assert rejected.code == code
        assert hand.state.store.updates.buffered() == []
        assert open_work(hand.state.store, "phone-1") is None
        assert list((tmp_path / "state" / "incoming").iterdir()) == []

    run(main())


def test_an_update_of_a_version_that_was_rolled_back_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        versions = small.state().versions
        versions.commit(versions.vector, {}, {}, [], [], 0.0)
        hand = Hand(small)
        hand.record = give_work(hand.state.store, "phone-1", version=1)
        hand.dispatcher = Dispatcher(hand.state)
        hand.connect()
        hand.state.versions.roll_back(0, [], [], 0.0, by="anna", why="worse")
        (rejected,) = await hand.offer(update_bytes("small"))
        assert isinstance(rejected, Rejected)
        assert (rejected.code, rejected.message) == ("rolled-back", "version 1 was rolled back: the update is void")

    run(main())


def test_a_stale_update_is_refused_beyond_the_limit_and_taken_at_it(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path, merge={"staleness": {"maximum": 1}}))
        versions = hand.state.versions
        versions.commit(versions.vector, {}, {}, [], [], 0.0)
        assert [type(message) for message in await hand.offer(update_bytes("small"))] == [Fetch]
        hand.connect()
        versions.commit(versions.vector, {}, {}, [], [], 0.0)
        (rejected,) = await hand.offer(update_bytes("small"))
        assert isinstance(rejected, Rejected)
        assert (rejected.code, rejected.message) == (
            "stale",
            "the update is 2 versions old; this run takes 1 at the most",
        )

    run(main())


def test_after_the_end_updates_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        hand.state.finish("enough", {})
        (rejected,) = await hand.offer(update_bytes("small"))
        assert isinstance(rejected, Rejected)
        assert rejected.code == "finished"

    run(main())


def test_a_full_buffer_lets_a_device_wait_and_sends_it_away_after_a_while(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path, merge={"buffer": 1, "limit": 1}))
        accept_update(hand.state, "phone-2")
        loop_time = hand.state.clock.monotonic
        before = loop_time()
        with pytest.raises(Refused, match="more updates wait than are merged just now") as refused:
            await hand.offer(update_bytes("small"))
        assert refused.value.code == "unavailable"
        assert loop_time() - before == 60.0
        hand.state.buffer.remove(hand.state.buffer.all())
        assert [type(message) for message in await hand.offer(update_bytes("small"))] == [Fetch]

    run(main())


def test_an_update_that_is_here_whole_has_a_place_beyond_the_limit_and_waits_for_it_without_a_word(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path, merge={"buffer": 1, "limit": 1}))
        content = update_bytes("small")
        await hand.offer(content)
        for _ in range(2):  # as many as have a place when the buffer's is taken
            accept_update(hand.state, "phone-2")
        sending = asyncio.create_task(hand.send(content, 0, len(content)))
        await asyncio.sleep(1)
        assert (hand.heard, hand.status.state, sending.done()) == ([], "uploading", False)
        hand.state.buffer.remove(hand.state.buffer.all()[:1])
        assert [type(message) for message in await sending] == [Accepted]
        assert len(hand.state.buffer) == 2

    run(main())


def test_a_device_whose_update_has_to_wait_for_other_devices_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path, merge={"buffer": 2, "limit": 2, "min_contributors": 2}))
        hand.state.phase = "running"
        for _ in range(2):
            accept_update(hand.state, "phone-1")
        words = "updates of 1 more device: those that wait are of fewer devices than merge.min_contributors = 2"
        offer = asyncio.create_task(hand.offer(update_bytes("small")))
        await asyncio.sleep(1)
        assert (hand.heard, hand.status.state) == ([Wait(words)], "waiting")
        with pytest.raises(Refused, match=f"the next version waits for {words}: come again later"):
            await offer

    run(main())


def test_two_updates_at_once_and_chunks_without_an_offer_break_the_protocol(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        with pytest.raises(ProtocolError, match="of an upload that was not offered"):
            await hand.send(content, 0, 100)
        await hand.offer(content)
        with pytest.raises(ProtocolError, match="while another is on its way"):
            await hand.offer(content)

    run(main())


def test_a_device_that_gives_its_work_back_gets_other_work(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        await hand.upload.failed(hand.record.id)
        assert open_work(hand.state.store, "phone-1") is None
        assert hand.dispatcher.assignment("phone-1") is None
        device = hand.state.store.devices.find("phone-1")
        assert device is not None
        assert device.failures == hand.status.failures == 1

    run(main())


def test_a_device_cannot_give_back_the_work_of_another(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        hand.state.store.devices.enrol("phone-2", b"t" * 32, 0.0)
        other = give_work(hand.state.store, "phone-2")
        await hand.upload.failed(other.id)
        assert open_work(hand.state.store, "phone-2") == other

    run(main())


def test_what_is_forgotten_takes_no_memory_and_is_not_spooled(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        await hand.send(content, 0, 100)
        hand.upload.forget()
        assert hand.state.uploads._memory.bytes == 0
        await hand.upload.leave()
        assert list((tmp_path / "state" / "incoming").iterdir()) == []
        with pytest.raises(ProtocolError, match="of an upload that was not offered"):
            await hand.send(content, 100, 200)

    run(main())


def test_what_came_before_a_break_takes_no_memory_even_if_the_disk_does_not_take_it(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        await hand.send(content, 0, 100)
        folder = tmp_path / "state" / "incoming"
        folder.rmdir()
        folder.write_text("no folder any more")
        await hand.upload.leave()
        assert hand.state.uploads._memory.bytes == 0

    run(main())


def test_an_update_that_was_here_whole_before_a_break_is_taken_in_at_its_next_offer(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        await hand.upload.received(Received(Chunk(hashlib.sha256(content).hexdigest(), 0, memoryview(content)), False))
        await hand.upload.leave()
        hand.connect()
        assert await hand.offer(content) == [Accepted(Name("a00000001"), 0, False)]

    run(main())


def test_a_slow_upload_goes_to_its_file_now_and_then(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        written = []
        for second, (start, stop) in {5.0: (0, 20), 5.5: (20, 40), 10.5: (40, 60), 11.0: (60, 80)}.items():
            hand.now = second
            await hand.send(content, start, stop)
            written.append([path.stat().st_size for path in (tmp_path / "state" / "incoming").iterdir()])
        assert written == [[], [40], [40], [80]]
        assert [type(message) for message in await hand.send(content, 80, len(content))] == [Accepted]
        assert list((tmp_path / "state" / "incoming").iterdir()) == []

    run(main())


def test_neither_an_offer_nor_a_chunk_is_taken_of_a_device_that_has_moved_its_bytes_of_the_day(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path, limits={"bytes_per_day": 10_000}))
        content = update_bytes("small")
        await hand.offer(content)
        hand.status.current.up += 10_000
        with pytest.raises(OverQuota):
            await hand.send(content, 0, 100)
        await hand.upload.leave()
        hand.connect()
        with pytest.raises(OverQuota):
            await hand.offer(content)

    run(main())


def test_the_place_of_an_update_is_free_again_whatever_came_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        for content in (b"no safetensors file at all" * 10, update_bytes("small")):
            await hand.offer(content)
            await hand.send(content, 0, len(content))
            assert hand.state.buffer._coming == ({"phone-1"} if hand.state.buffer.all() else set())
            hand.record = give_work(hand.state.store, "phone-1")
            hand.dispatcher = Dispatcher(hand.state)
            hand.connect()
        assert not hand.state.buffer._reserved

    run(main())


def test_what_was_here_of_an_update_that_was_accepted_meanwhile_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        content = update_bytes("small")
        await hand.offer(content)
        await hand.send(content, 0, 100)
        await hand.upload.leave()
        entry, report = FileEntry.of(content), {"version": 0, "samples": 10}
        hand.state.store.updates.accept(
            [(UpdateRecord(hand.record.id, "phone-1", 0, "small", entry, report, 0.0), content)]
        )
        hand.dispatcher.ended("phone-1")
        hand.connect()
        assert await hand.offer(content) == [Accepted(Name("a00000001"), 0, True)]
        assert list((tmp_path / "state" / "incoming").iterdir()) == []

    run(main())


def test_an_acknowledgement_says_how_stale_the_update_is(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        versions = hand.state.versions
        versions.commit(versions.vector, {}, {}, [], [], 0.0)
        content = update_bytes("small")
        await hand.offer(content)
        assert await hand.send(content, 0, len(content)) == [Accepted(Name("a00000001"), 1, False)]
        versions.commit(versions.vector, {}, {}, [], [], 0.0)
        assert await hand.offer(content) == [Accepted(Name("a00000001"), 2, True)]

    run(main())


def test_what_is_written_down_of_an_update_says_when_it_came_and_how_long_that_took(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        await asyncio.sleep(1000)
        content = update_bytes("small")
        hand.now = 3.0
        await hand.offer(content)
        hand.now = 7.5
        await hand.send(content, 0, len(content))
        (record,) = hand.state.store.updates.buffered()
        assert record.received_at == hand.state.clock.wall()
        assert record.report["samples"] == 10
        assert record.report["trip"] == {"upload": 4.5}
        assert (record.device, record.version, record.tier) == ("phone-1", 0, "small")
        assert record.artifact == FileEntry.of(content)

    run(main())


def test_an_update_that_becomes_void_while_it_is_sent_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(make_run(tmp_path))
        hand.state.intake.accept = refuse  # type: ignore[method-assign, assignment]  # as that of a gateway does
        content = update_bytes("small")
        await hand.offer(content)
        hand.now = 6.0  # it goes to its file
        await hand.send(content, 0, 100)
        (rejected,) = await hand.send(content, 100, len(content))
        assert rejected == Rejected(Name(hand.record.id), Name("rolled-back"), "version 0 was rolled back")
        assert list((tmp_path / "state" / "incoming").iterdir()) == []
        assert hand.state.store.updates.buffered() == []
        (rejected,) = await hand.offer(content)
        assert getattr(rejected, "code", "") == "unknown-assignment", "its work was taken back"

    async def refuse(record: UpdateRecord, content: bytes, delta: object) -> bool:
        raise UpdateRefused("rolled-back", "version 0 was rolled back")

    run(main())
