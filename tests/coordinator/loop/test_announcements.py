"""Devices hear of the newest version, at a bounded rate, and of the end at once."""

from __future__ import annotations

import asyncio
import dataclasses

from coordinator.loop.announcements import ANNOUNCEMENTS_PER_SECOND, Announcements
from coordinator.simulation.virtual_time import run
from coordinator.store.records import VersionRecord
from mobile_sdk.protocol.messages import Announce, Finished


@dataclasses.dataclass
class Ear:
    """Hears announcements; keeps when, and what."""

    heard: list[tuple[float, Announce | Finished]] = dataclasses.field(default_factory=list)

    def push(self, message: Announce | Finished) -> None:
        self.heard.append((asyncio.get_running_loop().time(), message))


@dataclasses.dataclass
class Hall:
    """A fleet of equal listeners and the newest version."""

    ears: dict[str, Ear]
    newest: VersionRecord

    def publish(self, announcements: Announcements) -> None:
        number = self.newest.version + 1
        self.newest = VersionRecord(number, number - 1, (), {"accuracy": number / 10}, 0.0)
        announcements.announce()


def hall(devices: int) -> tuple[Hall, Announcements]:
    room = Hall({f"d{number}": Ear() for number in range(devices)}, VersionRecord(0, -1, (), {}, 0.0))
    return room, Announcements(room.ears, lambda: room.newest)


def test_a_version_is_announced_to_everybody_with_its_metrics_and_how_many_they_are() -> None:
    async def main() -> None:
        room, announcements = hall(3)
        room.publish(announcements)
        await asyncio.sleep(0.001)
        assert [ear.heard for ear in room.ears.values()] == [[(0.0, Announce(1, {"accuracy": 0.1}, 3))]] * 3

    run(main())


def test_of_versions_that_follow_fast_only_the_newest_is_announced_when_its_time_has_come() -> None:
    async def main() -> None:
        room, announcements = hall(2 * ANNOUNCEMENTS_PER_SECOND)
        for _ in range(3):
            room.publish(announcements)
        await asyncio.sleep(10)
        assert [(at, message.version) for at, message in room.ears["d0"].heard] == [(0.0, 1), (2.0, 3)]
        room.publish(announcements)
        await asyncio.sleep(0.001)
        assert [message.version for _, message in room.ears["d0"].heard] == [1, 3, 4], "its time has come long since"

    run(main())


def test_the_end_is_announced_at_once_and_nothing_after_it() -> None:
    async def main() -> None:
        room, announcements = hall(2 * ANNOUNCEMENTS_PER_SECOND)
        room.publish(announcements)
        room.publish(announcements)
        announcements.finish(Finished(2, "enough", {}))
        await asyncio.sleep(10)
        assert [message for _, message in room.ears["d0"].heard] == [
            Announce(1, {"accuracy": 0.1}, 2 * ANNOUNCEMENTS_PER_SECOND),
            Finished(2, "enough", {}),
        ]

    run(main())


def test_nothing_is_announced_after_closing() -> None:
    async def main() -> None:
        room, announcements = hall(2 * ANNOUNCEMENTS_PER_SECOND)
        room.publish(announcements)
        room.publish(announcements)
        announcements.close()
        await asyncio.sleep(10)
        assert [message.version for _, message in room.ears["d0"].heard] == [1]

    run(main())
