"""A device's visit, from the greeting to the end of the run, with a real program and no socket."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_sdk import safetensors
from mobile_sdk.client import Client
from mobile_sdk.data import ArrayDataset
from mobile_sdk.events import (
    Announced,
    Assigned,
    Connected,
    Declined,
    Disconnected,
    Downloading,
    Evaluating,
    Event,
    Postponed,
    RunFinished,
    Training,
    UpdateAccepted,
    UpdateRejected,
    Waiting,
)
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.participation.surroundings import Surroundings
from mobile_sdk.protocol.messages import Announce, Decline, Evaluated, Finished, Offer
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import train

from ..engines import native_program
from .pipe import RUN, Served, Talk, connect_to

X, Y, _, _ = native_program.example(9, seed=3)
SETTINGS = TrainingSettings(epochs=2, batch_size=4)


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


class Patient(random.Random):
    """No wait between tries is longer than nothing."""

    def uniform(self, low: float, high: float) -> float:
        return 0.0


def client(served: Served, script: Callable[[Talk], Awaitable[None]], folder: Path, **options: Any) -> Client:
    return Client(
        connect_to(served, script),
        run=RUN,
        key=served.key,
        dataset=ArrayDataset(X, Y),
        storage=folder,
        name="phone-1",
        surroundings=Surroundings(rng=Patient()),
        **options,
    )


def take_part(client: Client) -> list[Event]:
    told: list[Event] = []

    async def run() -> None:
        async with client:
            await asyncio.wait_for(client.run(told.append), 60)

    asyncio.run(run())
    return told


async def give(talk: Talk, number: int) -> tuple[Offer, bytes]:
    """Let the device train once; what it offers, and its bytes."""
    await talk.ready()
    talk.session.assign(talk.served.assign(number, SETTINGS))
    await talk.link.flush()
    offer = await talk.next()
    assert isinstance(offer, Offer), offer
    return offer, await talk.update(offer.artifact, follows=offer.follows)


async def finish(talk: Talk) -> None:
    await talk.ready()
    talk.session.announce(Finished(1, "done", {"accuracy": 0.5}))
    await talk.link.flush()


def test_a_device_trains_what_it_is_given_and_sends_the_difference(served: Served, tmp_path: Path) -> None:
    offers: list[tuple[Offer, bytes]] = []
    fetched: list[str] = []

    async def script(talk: Talk) -> None:
        offers.append(await give(talk, 1))
        fetched.extend(talk.fetched)
        talk.session.announce(Announce(1, {"accuracy": 0.25}, 7))
        talk.session.accept("a00000001", staleness=1, duplicate=False)
        await finish(talk)

    told = take_part(client(served, script, tmp_path, budget=5_000_000))
    assert fetched == [served.weights_ref.sha256, served.manifest_ref.sha256, served.program_ref.sha256]
    ((offer, content),) = offers
    update, metadata = safetensors.loads(content)
    assert metadata["assignment"] == "a00000001"
    engine = native_program_engine(tmp_path / "again", served)
    expected = train(engine, served.weights, ArrayDataset(X, Y), SETTINGS, 1)
    engine.close()
    for name, array in expected.update.items():
        np.testing.assert_array_equal(update[name], array)
    assert offer.report["samples"] == 9
    assert offer.report["steps"] == expected.steps == 6
    assert offer.report["loss"] == expected.loss
    kinds = [type(event) for event in told]
    assert kinds[:2] == [Connected, Assigned]
    assert {Downloading, Training, UpdateAccepted} <= set(kinds)
    assert [event for event in told if isinstance(event, Announced)] == [Announced(1, {"accuracy": 0.25}, 7)]
    assert kinds[-1] is RunFinished
    (accepted,) = [event for event in told if isinstance(event, UpdateAccepted)]
    assert accepted.staleness == 1
    assert accepted.cost.bytes_up > len(content)
    assert accepted.cost.bytes_down > sum(len(content) for content in served.contents.values())


def native_program_engine(folder: Path, served: Served) -> Any:
    from mobile_sdk.engines import load_engine

    content = served.contents[served.program_ref.sha256]
    return load_engine(native_program.write(folder, content, served.manifest))


def test_an_update_whose_link_broke_is_offered_on_the_next_visit_and_nothing_is_fetched_again(
    served: Served, tmp_path: Path
) -> None:
    offers: list[Offer] = []
    fetched: list[list[str]] = []

    async def script(talk: Talk) -> None:
        if not offers:
            offer, _ = await give(talk, 1)
            offers.append(offer)
            fetched.append(talk.fetched)
            return  # and the link breaks before the answer
        again = await talk.next()
        assert isinstance(again, Offer)
        offers.append(again)
        await talk.update(again.artifact, follows=again.follows)
        talk.session.accept("a00000001", staleness=0, duplicate=True)
        await give(talk, 2)
        fetched.append(talk.fetched)
        talk.session.accept("a00000002", staleness=0, duplicate=False)
        await finish(talk)

    told = take_part(client(served, script, tmp_path))
    assert offers[0].artifact == offers[1].artifact
    assert [len(names) for names in fetched] == [3, 0]
    assert [type(event) for event in told].count(Disconnected) == 1
    assert not (tmp_path / "update").exists()


def test_a_refused_update_is_forgotten_and_after_three_bad_ones_the_device_leaves_for_a_while(
    served: Served, tmp_path: Path
) -> None:
    given: list[int] = []
    visits: list[int] = []

    async def refuse(talk: Talk) -> None:
        given.append(len(given) + 1)
        await give(talk, given[-1])
        talk.session.reject(f"a{given[-1]:08d}", "magnitude", "its norm is too large")
        await talk.link.flush()

    async def script(talk: Talk) -> None:
        visits.append(len(given))
        if not given:
            for _ in range(3):
                await refuse(talk)
        elif len(given) == 3:
            await refuse(talk)
        else:  # the operator has mended the weights
            await give(talk, 9)
            talk.session.accept("a00000009", staleness=0, duplicate=False)
            await finish(talk)
            return
        await talk.next()  # it leaves

    told = take_part(client(served, script, tmp_path))
    assert visits == [0, 3, 4], "three on the first visit, one on each after it"
    reasons = [event.reason for event in told if isinstance(event, Postponed)]
    assert reasons == [
        "3 assignments in a row failed: its norm is too large",
        "4 assignments in a row failed: its norm is too large",
    ]
    assert isinstance(told[-1], RunFinished)
    assert not (tmp_path / "update").exists()


def test_refusals_that_are_not_the_devices_fault_do_not_count(served: Served, tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        for number in range(1, 5):
            await give(talk, number)
            talk.session.reject(f"a{number:08d}", "stale", "it is too old")
        await finish(talk)

    told = take_part(client(served, script, tmp_path))
    assert [type(event) for event in told].count(UpdateRejected) == 4


def test_an_evaluation_tells_nothing_but_counts_and_means(served: Served, tmp_path: Path) -> None:
    answers: list[Evaluated] = []

    async def script(talk: Talk) -> None:
        await talk.ready()
        talk.session.evaluate(talk.served.evaluate(1))
        await talk.link.flush()
        answer = await talk.next()
        assert isinstance(answer, Evaluated)
        answers.append(answer)
        await finish(talk)

    told = take_part(client(served, script, tmp_path))
    (answer,) = answers
    assert (answer.evaluation, answer.samples) == ("e00000001", 9)
    loss, correct, _ = native_program.by_autograd(X, Y, np.ones(9, np.float32), served.weights)
    assert answer.metrics == pytest.approx({"loss": loss / 9, "correct": correct / 9}, rel=1e-5)
    assert Evaluating in [type(event) for event in told]


def test_a_device_without_work_comes_back_when_it_was_told_to(served: Served, tmp_path: Path) -> None:
    visits: list[int] = []

    async def script(talk: Talk) -> None:
        visits.append(1)
        if len(visits) == 1:
            await talk.ready()
            talk.session.wait("updates of 1 more device")
            talk.session.later(0.0, "others train")
            await talk.link.flush()
            await talk.next()  # it leaves
        await finish(talk)

    told = take_part(client(served, script, tmp_path))
    assert [event.reason for event in told if isinstance(event, Postponed)] == ["others train"]
    assert [event.reason for event in told if isinstance(event, Waiting)] == ["updates of 1 more device"]
    assert len(visits) == 2


def test_what_the_dataset_cannot_serve_is_given_back_with_the_reason(served: Served, tmp_path: Path) -> None:
    declined: list[Decline] = []

    async def script(talk: Talk) -> None:
        await talk.ready()
        talk.session.assign(talk.served.assign(1, SETTINGS))
        await talk.link.flush()
        answer = await talk.next()
        assert isinstance(answer, Decline)
        declined.append(answer)

    wrong = client(served, script, tmp_path)
    wrong._device._dataset = ArrayDataset(X[:, :5], Y)
    told: list[Event] = []

    async def run() -> None:
        async with wrong:
            await asyncio.wait_for(wrong.run(told.append), 60)

    with pytest.raises(Exception, match=r"\(5,\)"):
        asyncio.run(run())
    assert declined[0].code == "data"
    assert isinstance(told[-1], Declined)


def test_a_device_trains_only_when_there_is_room_for_the_update(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, tries = os.posix_fallocate, []

    def full_at_first(descriptor: int, start: int, size: int) -> None:
        tries.append(size)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", full_at_first)
    contents: list[bytes] = []

    async def script(talk: Talk) -> None:
        await talk.ready()
        talk.session.assign(talk.served.assign(1, SETTINGS))
        await talk.link.flush()
        if len(tries) == 0:
            with pytest.raises(ConnectionLost):
                await talk.next()
            return
        offer = await talk.next()
        assert isinstance(offer, Offer)
        contents.append(await talk.update(offer.artifact, follows=offer.follows))
        talk.session.accept("a00000001", staleness=0, duplicate=False)
        await finish(talk)

    told = take_part(client(served, script, tmp_path))
    kinds = [type(event) for event in told]
    (broken,) = (event for event in told if isinstance(event, Disconnected))
    assert "there is no room for" in broken.reason
    assert kinds.index(Training) > kinds.index(Disconnected), "no work was done for nothing"
    assert tries[1] >= len(contents[0])
    assert not (tmp_path / "update.reserved").exists()
