"""A no is final where a proven coordinator means it, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mobile_sdk.errors import Refused
from mobile_sdk.events import Connected, Disconnected, Event, RunFinished
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.participation.refusals import MOST_DISTURBED, MOST_UNPROVEN
from mobile_sdk.protocol.messages import Hello

from .pipe import Served, Talk
from .test_visit import client, finish, take_part

Script = Callable[[Talk], Awaitable[None]]

WORDS = ["revoked", "unknown-run", "auth", "protocol", "rate", "enrolment", "made-up", "version"]


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


async def say(talk: Talk, code: str) -> None:
    talk.session.fail(code, "go away")
    await talk.link.flush()


async def stranger(talk: Talk, code: str) -> None:
    """Answer hello with an error, as anybody at the address could."""
    async for event in talk.link.events():
        assert isinstance(event, Hello)
        await say(talk, code)
        return


def in_turn(*scripts: Script) -> tuple[Script, list[int]]:
    """One script for each connection; and the numbers of those that were made."""
    made: list[int] = []

    async def script(talk: Talk) -> None:
        made.append(len(made))
        await scripts[min(made[-1], len(scripts) - 1)](talk)

    return script, made


def expect_refusal(served: Served, script: Script, folder: Path) -> tuple[Refused, list[Event]]:
    told: list[Event] = []

    async def run() -> None:
        async with client(served, script, folder) as device:
            await asyncio.wait_for(device.run(told.append), 60)

    with pytest.raises(Refused) as refused:
        asyncio.run(run())
    return refused.value, told


@pytest.mark.parametrize("code", WORDS)
def test_a_device_that_was_let_in_before_comes_back_whatever_a_stranger_says(
    served: Served, tmp_path: Path, code: str
) -> None:
    take_part(client(served, finish, tmp_path))
    script, made = in_turn(*[lambda talk: stranger(talk, code)] * 8, finish)
    told = take_part(client(served, script, tmp_path))
    assert len(made) == 9
    assert isinstance(told[-1], RunFinished)
    assert [event.reason for event in told if isinstance(event, Disconnected)] == [f"go away [{code}]"] * 8


def test_a_new_device_that_hears_nobody_but_strangers_ends_with_what_they_say(served: Served, tmp_path: Path) -> None:
    script, made = in_turn(lambda talk: stranger(talk, "unknown-run"))
    refused, _ = expect_refusal(served, script, tmp_path)
    assert (refused.code, len(made)) == ("unknown-run", MOST_UNPROVEN)


def test_another_runs_coordinator_at_the_address_costs_time_only(served: Served, tmp_path: Path) -> None:
    take_part(client(served, finish, tmp_path))
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))

    async def other(talk: Talk) -> None:
        talk.session._key = key.public_key().public_bytes_raw().hex()
        talk.session._sign = lambda content: key.sign(content).hex()
        with pytest.raises(ConnectionLost):
            await talk.next()

    script, made = in_turn(other, other, other, other, finish)
    told = take_part(client(served, script, tmp_path))
    assert len(made) == 5
    reasons = [event.reason for event in told if isinstance(event, Disconnected)]
    assert len(reasons) == 4
    assert all("check address and key" in reason for reason in reasons)


def test_a_coordinator_that_was_restored_from_before_the_device_enrolled_lets_it_in_again(
    served: Served, tmp_path: Path
) -> None:
    take_part(client(served, finish, tmp_path))
    secret = json.loads((tmp_path / "device.json").read_text())["secret"]

    served.secrets.clear()

    async def forgot(talk: Talk) -> None:
        with pytest.raises(AssertionError):  # the proof is wrong
            await talk.next()
        await say(talk, "auth")

    script, made = in_turn(forgot, finish)
    told = take_part(client(served, script, tmp_path))
    assert len(made) == 2
    assert [type(event) for event in told if isinstance(event, (Connected, RunFinished))] == [Connected, RunFinished]
    found = json.loads((tmp_path / "device.json").read_text())
    assert (found["secret"], found["enrolled"]) == (secret, True), "the same name and secret"


def test_a_proven_coordinator_that_does_not_want_the_device_is_believed(served: Served, tmp_path: Path) -> None:
    async def revoke(talk: Talk) -> None:
        await talk.ready()
        await say(talk, "revoked")

    script, made = in_turn(revoke)
    refused, told = expect_refusal(served, script, tmp_path)
    assert (refused.code, len(made)) == ("revoked", 1)
    assert isinstance(told[-1], Connected)


@pytest.mark.parametrize("code", ["protocol", "rewoked"])
def test_a_link_that_garbles_is_tried_again_a_bounded_number_of_times(
    served: Served, tmp_path: Path, code: str
) -> None:
    async def garbled(talk: Talk) -> None:
        await talk.ready()
        await say(talk, code)

    script, made = in_turn(garbled)
    refused, _ = expect_refusal(served, script, tmp_path)
    assert (refused.code, len(made)) == (code, MOST_DISTURBED)
    script, made = in_turn(garbled, garbled, garbled, finish)
    assert isinstance(take_part(client(served, script, tmp_path / "other"))[-1], RunFinished)
