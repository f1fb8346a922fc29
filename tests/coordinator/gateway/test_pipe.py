"""Questions over a pipe are answered in any order, errors keep their meaning, and a death answers all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator.errors import Expelled, StoreError, StoreUnavailable, UpdateRefused
from coordinator.gateway.messages import CONDUCTOR, GATEWAY
from coordinator.gateway.pipe import Pipe, PipeClosed
from mobile_sdk.errors import Refused


def question(number: int = 0) -> dict[str, Any]:
    return {"m": "is_accepted", "r": "small", "assignment": f"a{number}"}


def update(size: int) -> dict[str, Any]:
    record = {"assignment": f"a{size}", "device": "phone-1", "sha256": "00" * 32, "report": {"loss": 0.5}}
    return {"m": "accept", "r": "small", "record": record, "moved": (1, 2)}


@contextlib.asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[Pipe, Pipe]]:
    """A gateway's end, which reads its answers, and the conductor's."""
    ours, theirs = socket.socketpair()
    gateway = Pipe(*await asyncio.open_unix_connection(sock=ours), CONDUCTOR)
    conductor = Pipe(*await asyncio.open_unix_connection(sock=theirs), GATEWAY)
    reading = asyncio.create_task(gateway.receive())
    try:
        yield gateway, conductor
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await gateway.close()
        await conductor.close()


def test_answers_go_to_who_asked_in_whatever_order_they_come() -> None:
    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            asking = [asyncio.create_task(gateway.ask(update(n), bytes(n))) for n in range(1, 4)]
            questions = [await conductor.receive() for _ in range(3)]
            assert [len(content) for _, content in questions] == [1, 2, 3]
            for asked, content in reversed(questions):
                conductor.answer(asked, {"new": len(content) == 2})
            assert [(await task)["new"] for task in asking] == [False, True, False]

    asyncio.run(main())


def test_an_answer_may_have_bytes_of_its_own() -> None:
    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            ask = {"m": "piece", "r": "small", "sha256": "ab" * 32, "offset": 7}
            asking = asyncio.create_task(gateway.ask(ask))
            asked, _ = await conductor.receive()
            conductor.answer(asked, {"size": 10}, b"end")
            answer = await asking
            assert (answer["size"], answer["content"]) == (10, b"end")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Expelled("gone"), Expelled),
        (StoreUnavailable("the disk is full"), StoreUnavailable),
        (StoreError("damaged"), StoreError),
        (Refused("auth", "not you"), Refused),
        (UpdateRefused("rolled-back", "void"), UpdateRefused),
        (RuntimeError("a bug"), StoreUnavailable),
    ],
)
def test_an_error_there_is_the_same_error_here(error: Exception, kind: type[Exception]) -> None:
    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            asking = asyncio.create_task(gateway.ask(question()))
            asked, _ = await conductor.receive()
            conductor.answer_error(asked, error)
            with pytest.raises(kind) as raised:
                await asking
            assert type(raised.value) is kind
            assert str(raised.value) == str(error)
            assert getattr(raised.value, "code", None) == getattr(error, "code", None)

    asyncio.run(main())


def test_whoever_waits_for_an_answer_hears_of_the_end() -> None:
    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            asking = asyncio.create_task(gateway.ask(question()))
            await conductor.receive()
            await gateway.close()
            with pytest.raises(PipeClosed):
                await asking
            with pytest.raises(PipeClosed):
                await gateway.ask(question())
            with pytest.raises(PipeClosed):
                await conductor.receive()

    asyncio.run(main())


def test_whoever_asks_hears_of_the_end_before_this_side_closes() -> None:
    """A gateway that begins a run asks for files, and closes its side only after that."""

    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            asking = asyncio.create_task(gateway.ask(question()))
            await conductor.receive()
            await conductor.close()
            with pytest.raises(PipeClosed):
                await asking
            with pytest.raises(PipeClosed):
                await gateway.ask(question())

    asyncio.run(main())


def test_a_question_that_nobody_waits_for_any_more_is_taken_back() -> None:
    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            asking = asyncio.create_task(gateway.ask(question()))
            asked, _ = await conductor.receive()
            asking.cancel()
            assert (await conductor.receive())[0] == {"m": "cancel", "of": asked["id"]}
            conductor.answer(asked, {"accepted": False})  # which came too late
            again = asyncio.create_task(gateway.ask(question(1)))
            asked, _ = await conductor.receive()
            conductor.answer(asked, {"accepted": True})
            assert (await again)["accepted"]

    asyncio.run(main())


def test_of_many_large_updates_some_wait_until_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.gateway.pipe.IN_FLIGHT_BYTES", 10)

    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            asking = [asyncio.create_task(gateway.ask(update(size), bytes(size))) for size in (6, 7, 50)]
            for size in (6, 7, 50):
                asked, content = await conductor.receive()
                assert len(content) == size
                conductor.answer(asked, {"new": True})
            await asyncio.gather(*asking)

    asyncio.run(main())


def frame(message: object, content: bytes = b"", claimed: int | None = None) -> bytes:
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack(">II", len(text) if claimed is None else claimed, len(content)) + text + content


GOOD: dict[str, Any] = {"m": "open", "id": 1, "r": "small", "device": "phone-1", "n": 1, "secret": "00ff"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (b"\xff" * 64, "too long"),
        (frame(b"{}", claimed=2_000_000_000), "too long"),
        (frame(b"no JSON"), "Invalid JSON"),
        (frame({**GOOD, "m": "become-root"}), "does not match"),
        (frame({**GOOD, "n": -1}), "open.n"),
        (frame({**GOOD, "n": "1"}), "open.n"),
        (frame({**GOOD, "device": "../phone"}), "open.device"),
        (frame({**GOOD, "more": 1}), "open.more"),
        (frame({name: value for name, value in GOOD.items() if name != "secret"}), "open.secret"),
        (frame(GOOD, b"bytes that no question has"), "26 bytes follow it"),
        (frame({"m": "re:open", "re": 1, "earlier": [0, 0], "assignment": None}), "does not match"),
    ],
)
def test_what_is_no_message_ends_the_pipe_and_names_the_field(wrong: bytes, named: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        pipe = Pipe(*await asyncio.open_unix_connection(sock=ours), GATEWAY)
        theirs.sendall(wrong)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(PipeClosed, match="what came is no message") as raised:
            await pipe.receive()
        assert named in str(raised.value)
        assert "00ff" not in str(raised.value), "a secret is not repeated"
        await pipe.close()
        theirs.close()

    asyncio.run(main())


def test_an_answer_to_another_question_ends_the_pipe() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        pipe = Pipe(*await asyncio.open_unix_connection(sock=ours), CONDUCTOR)
        asking = asyncio.create_task(pipe.ask(question()))
        await asyncio.sleep(0)
        theirs.sendall(frame({"m": "re:secret", "re": 1, "secret": "00"}))
        with pytest.raises(PipeClosed, match="re:secret answers is_accepted"):
            await pipe.receive()
        await pipe.close()
        with pytest.raises(PipeClosed):
            await asking
        theirs.close()

    asyncio.run(main())
