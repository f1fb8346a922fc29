"""The first message says which run a connection is for; whoever says anything else is told so and hears no more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from coordinator.sessions.first_message import Serve, serve_by_run
from coordinator.simulation.virtual_time import run
from mobile_sdk.net.connection import Connection, Prompt
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.encoding import encode
from mobile_sdk.protocol.messages import Announce, Error, Hello, Hex, Later, Name

from ..small_run import Wire, pair

HELLO = encode(Hello(1, "0", Name("digits"), Name("phone-1"), Hex("00" * 32)))
LATER = Later(30.0, "the coordinator restarts")


async def answered(first: str | bytes | None, found: Serve | Later | None = None) -> tuple[list[object], Wire]:
    """What a peer hears that says ``first``, or nothing; and its end of the connection."""
    device, server = pair()
    if first is not None:
        await device.send(first)
    asked: list[str] = []

    def find(name: str) -> Serve | Later | None:
        asked.append(name)
        return found

    await serve_by_run(server, 10.0, find)
    assert asked == (["digits"] if first == HELLO else [])
    return [decode(str(frame)) for frame in server.sent], device


@pytest.mark.parametrize(
    ("first", "code", "words"),
    [
        (None, "unavailable", "nothing was said for too long: try again"),
        (encode(Announce(1, {})), "protocol", "the first message must be hello"),
        (b"\x01" * 50, "protocol", "the first message must be hello"),
        ("{", "protocol", "not JSON"),
        (HELLO, "unknown-run", "there is no run 'digits' here: check name and address"),
    ],
    ids=["nothing", "another message", "a chunk", "no message", "an unknown run"],
)
def test_who_does_not_name_a_run_of_ours_is_told_what_is_wrong_and_left(
    first: str | bytes | None, code: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        (error,), device = await answered(first)
        assert isinstance(error, Error)
        assert error.code == code
        assert words in error.message
        assert device.closed
        assert asyncio.get_running_loop().time() == pytest.approx(10.0 if first is None else 0.0)

    run(main())
    assert "a connection was refused" in caplog.text


def test_a_device_whose_run_has_no_time_is_told_when_to_come_again() -> None:
    async def main() -> None:
        told, device = await answered(HELLO, LATER)
        assert told == [LATER]
        assert device.closed

    run(main())


def test_whoever_serves_a_run_hears_the_first_message_and_all_that_follow() -> None:
    async def main() -> None:
        heard: list[str | bytes] = []

        async def serve(connection: Connection) -> None:
            heard.append(await connection.receive())
            await device.send("more")
            heard.append(await connection.receive())
            await connection.send("answer")
            await connection.close("done")

        device, server = pair()
        await device.send(HELLO)
        await serve_by_run(server, 10.0, lambda name: serve)
        assert heard == [HELLO, "more"]
        assert await device.receive() == "answer"
        assert device.closed == "done"

    run(main())


def test_a_peer_that_has_left_before_it_said_anything_is_no_fault() -> None:
    async def main() -> None:
        device, server = pair()
        await device.close()
        await serve_by_run(server, 10.0, lambda name: None)
        assert server.sent == []

    run(main())


def test_frames_leave_at_once_where_the_connection_can_do_so() -> None:
    class PromptWire(Wire):
        def send_at_once(self, frames: Sequence[str | bytes]) -> bool:
            self.sent += frames
            return True

    async def main() -> None:
        async def serve(connection: Connection) -> None:
            assert isinstance(connection, Prompt)
            found.append(connection.send_at_once(["now"]))

        found: list[bool] = []
        for server in (PromptWire(), Wire()):
            server._inbox.put_nowait(HELLO)
            await serve_by_run(server, 10.0, lambda name: serve)
            assert server.sent == ["now"] * found[-1]
        assert found == [True, False]

    run(main())
