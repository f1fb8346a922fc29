"""A no is final where a proven coordinator means it, and nowhere else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mobile_sdk.errors import FtteError, PayloadError, ProgramRejected, Refused
from mobile_sdk.events import Connected, Declined, Disconnected, Event, RunFinished, Training
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.participation.refusals import FINAL, MOST_DISTURBED, MOST_SAID, MOST_UNPROVEN, Refusals
from mobile_sdk.protocol.messages import Assign, Decline, Hello, Hex
from mobile_sdk.storage.identity import Identity

from .pipe import Served, Talk
from .test_visit import SETTINGS, client, finish, give, take_part

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


def expect(served: Served, script: Script, folder: Path, error: type[FtteError]) -> tuple[FtteError, list[Event]]:
    """What ends a device, and what it told before."""
    told: list[Event] = []

    async def run() -> None:
        async with client(served, script, folder) as device:
            await asyncio.wait_for(device.run(told.append), 60)

    with pytest.raises(error) as raised:
        asyncio.run(run())
    return raised.value, told


def expect_refusal(served: Served, script: Script, folder: Path) -> tuple[Refused, list[Event]]:
    refused, told = expect(served, script, folder, Refused)
    assert isinstance(refused, Refused)
    return refused, told


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
        talk.private = key
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


def test_a_device_that_cannot_write_meanwhile_comes_back_and_enrols_again_when_it_can(
    served: Served, tmp_path: Path
) -> None:
    take_part(client(served, finish, tmp_path))
    served.secrets.clear()
    in_the_way = tmp_path / "device.json.new"  # where the file is written first

    async def forgot(talk: Talk) -> None:
        with pytest.raises(AssertionError):  # the proof is wrong
            await talk.next()
        if len(made) == 1:
            in_the_way.mkdir()
        else:
            in_the_way.rmdir()
        await say(talk, "auth")

    script, made = in_turn(forgot, forgot, finish)
    told = take_part(client(served, script, tmp_path))
    assert len(made) == 3
    assert isinstance(told[-1], RunFinished)
    assert json.loads((tmp_path / "device.json").read_text())["enrolled"]


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


@pytest.mark.parametrize("code", sorted({*FINAL} - {"auth"}))
def test_what_a_coordinator_says_of_the_device_is_meant_when_it_is_said_three_times(
    served: Served, tmp_path: Path, code: str
) -> None:
    """A link may have changed the token, the engine or the budget that the device named."""

    async def refuse(talk: Talk) -> None:
        await talk.ready()
        await say(talk, code)

    script, made = in_turn(refuse)
    refused, _ = expect_refusal(served, script, tmp_path / "meant")
    assert (refused.code, len(made)) == (code, MOST_SAID)
    script, made = in_turn(refuse, refuse, finish)
    assert isinstance(take_part(client(served, script, tmp_path / "garbled"))[-1], RunFinished)


def test_a_device_that_cannot_prove_itself_enrols_again_and_then_believes_it_the_third_time(tmp_path: Path) -> None:
    identity = Identity(tmp_path / "device.json", "digits", "phone-1")
    identity.remember_enrolment()
    refusals = Refusals(identity)
    for _ in range(MOST_SAID):
        refusals.weigh(Refused("auth", "who are you?"))
        assert not identity.enrolled
    with pytest.raises(Refused):
        refusals.weigh(Refused("auth", "who are you?"))


def test_another_word_in_between_begins_the_count_anew(served: Served, tmp_path: Path) -> None:
    def refuse(code: str) -> Script:
        async def script(talk: Talk) -> None:
            await talk.ready()
            await say(talk, code)

        return script

    script, _ = in_turn(*[refuse(code) for code in ("budget", "budget", "engine", "engine", "budget")], finish)
    assert isinstance(take_part(client(served, script, tmp_path))[-1], RunFinished)


def altered(assign: Assign, what: str) -> Assign:
    """One letter of an assignment is another, as a link without TLS may change it."""
    if what == "signature":
        other = "1" if assign.signature[0] == "0" else "0"
        return dataclasses.replace(assign, signature=Hex(other + assign.signature[1:]))
    return dataclasses.replace(assign, weights=(assign.program,))


def decline(what: str, heard: list[str]) -> Script:
    """Give work that is altered, and hear what the device says of it."""

    async def script(talk: Talk) -> None:
        await talk.ready()
        talk.session.assign(altered(talk.served.assign(1, SETTINGS), what))
        await talk.link.flush()
        answer = await talk.next()
        assert isinstance(answer, Decline), answer
        heard.append(answer.code)

    return script


CODES = {"signature": "program-rejected", "weights": "weights"}
ERRORS = {"signature": ProgramRejected, "weights": PayloadError}


@pytest.mark.parametrize("what", CODES)
def test_an_assignment_that_a_link_has_changed_is_declined_and_the_device_comes_back(
    served: Served, tmp_path: Path, what: str
) -> None:
    heard: list[str] = []

    async def work(talk: Talk) -> None:
        await give(talk, 2)
        talk.session.accept("a00000002", staleness=0, duplicate=False)
        await finish(talk)

    script, made = in_turn(*[decline(what, heard)] * (MOST_DISTURBED - 1), work)
    told = take_part(client(served, script, tmp_path))
    assert heard == [CODES[what]] * (MOST_DISTURBED - 1)
    assert len(made) == MOST_DISTURBED
    assert isinstance(told[-1], RunFinished)


@pytest.mark.full
@pytest.mark.parametrize("what", CODES)
def test_ten_such_assignments_in_a_row_end_the_device_and_nothing_of_them_was_run(
    served: Served, tmp_path: Path, what: str
) -> None:
    heard: list[str] = []
    script, made = in_turn(decline(what, heard))
    error, told = expect(served, script, tmp_path, ERRORS[what])
    assert len(made) == len(heard) == MOST_DISTURBED
    reasons = [event.reason for event in told if isinstance(event, Declined)]
    assert reasons == [str(error)] * MOST_DISTURBED
    assert [event.reason for event in told if isinstance(event, Disconnected)] == reasons[:-1]
    assert not any(isinstance(event, Training) for event in told)
    installed = [*(tmp_path / "programs").iterdir()]
    assert bool(installed) == (what == "weights"), "a program that nobody signed is not even written down"
