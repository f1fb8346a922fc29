"""Questions over a pipe are answered in any order, errors keep their meaning, and a death answers all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from coordinator.errors import Expelled, StoreError, StoreUnavailable, UpdateRefused
from coordinator.gateway.pipe import Pipe, PipeClosed
from mobile_sdk.errors import Refused


@contextlib.asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[Pipe, Pipe]]:
    """A gateway's end, which reads its answers, and the conductor's."""
    ours, theirs = socket.socketpair()
    gateway = Pipe(*await asyncio.open_unix_connection(sock=ours))
    conductor = Pipe(*await asyncio.open_unix_connection(sock=theirs))
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
            asking = [asyncio.create_task(gateway.ask({"m": "double", "n": n}, bytes([n]))) for n in range(3)]
            questions = [await conductor.receive() for _ in range(3)]
            assert [content for _, content in questions] == [b"\0", b"\1", b"\2"]
            for question, _ in reversed(questions):
                conductor.answer(question["id"], twice=2 * question["n"])
            assert [(await task)["twice"] for task in asking] == [0, 2, 4]

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
            asking = asyncio.create_task(gateway.ask({"m": "fail"}))
            question, _ = await conductor.receive()
            conductor.answer_error(question["id"], error)
            with pytest.raises(kind) as raised:
                await asking
            assert type(raised.value) is kind
            assert str(raised.value) == str(error)
            assert getattr(raised.value, "code", None) == getattr(error, "code", None)

    asyncio.run(main())


def test_whoever_waits_for_an_answer_hears_of_the_end() -> None:
    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            asking = asyncio.create_task(gateway.ask({"m": "wait"}))
            await conductor.receive()
            await gateway.close()
            with pytest.raises(PipeClosed):
                await asking
            with pytest.raises(PipeClosed):
                await gateway.ask({"m": "wait"})
            with pytest.raises(PipeClosed):
                await conductor.receive()

    asyncio.run(main())


def test_a_question_that_nobody_waits_for_any_more_is_taken_back() -> None:
    async def main() -> None:
        async with two_ends() as (gateway, conductor):
            asking = asyncio.create_task(gateway.ask({"m": "wait"}))
            question, _ = await conductor.receive()
            asking.cancel()
            assert (await conductor.receive())[0] == {"m": "cancel", "of": question["id"]}
            conductor.answer(question["id"])  # which came too late
            again = asyncio.create_task(gateway.ask({"m": "again"}))
            question, _ = await conductor.receive()
            conductor.answer(question["id"], fine=True)
            assert (await again)["fine"]

    asyncio.run(main())


def test_what_is_no_message_ends_the_pipe() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        pipe = Pipe(*await asyncio.open_unix_connection(sock=ours))
        theirs.sendall(b"\xff" * 64)
        with pytest.raises(PipeClosed, match="is none of a gateway's"):
            await pipe.receive()
        await pipe.close()
        theirs.close()

    asyncio.run(main())
