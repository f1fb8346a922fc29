"""Frames of one iteration of the event loop leave in one write, in their order, and are counted."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator.net.coalescing import LONG_BYTES, coalesce_writes
from coordinator.net.traffic import Traffic
from coordinator.simulation.virtual_time import run


class Recorder(asyncio.Transport):
    """A transport that keeps what it was told to do."""

    def __init__(self) -> None:
        super().__init__()
        self.did: list[Any] = []

    def write(self, data: Any) -> None:
        self.did.append(bytes(data))

    def write_eof(self) -> None:
        self.did.append("eof")

    def close(self) -> None:
        self.did.append("close")

    def is_closing(self) -> bool:
        return "close" in self.did


def test_writes_of_one_iteration_leave_as_one() -> None:
    async def main() -> None:
        transport, traffic = Recorder(), Traffic()
        stream = coalesce_writes(transport, traffic)
        for piece in (b"one ", b"two ", b"three"):
            stream.write(piece)
        assert transport.did == []
        assert traffic.down == 13
        await asyncio.sleep(0)
        assert transport.did == [b"one two three"]
        stream.write(b"four")
        await asyncio.sleep(0)
        assert transport.did == [b"one two three", b"four"]

    run(main())


def test_a_long_frame_goes_at_once_unless_something_waits_before_it() -> None:
    async def main() -> None:
        transport = Recorder()
        stream = coalesce_writes(transport, Traffic())
        long = b"x" * LONG_BYTES
        stream.write(long)
        assert transport.did == [long]
        stream.write(b"short")
        stream.write(long)
        await asyncio.sleep(0)
        assert transport.did == [long, b"short" + long], "the order stays"
        stream.write(long[1:])
        assert len(transport.did) == 2, "one byte less waits for others"

    run(main())


def test_what_was_written_before_the_end_is_sent() -> None:
    async def main() -> None:
        for end in ("write_eof", "close"):
            transport = Recorder()
            stream = coalesce_writes(transport, Traffic())
            stream.write(b"last words")
            getattr(stream, end)()
            await asyncio.sleep(0)
            assert transport.did == [b"last words", end.removeprefix("write_")]

    run(main())


def test_anything_else_is_the_transport_itself() -> None:
    async def main() -> None:
        transport = Recorder()
        stream = coalesce_writes(transport, Traffic())
        assert not stream.is_closing()
        stream.close()
        assert stream.is_closing()

    run(main())
