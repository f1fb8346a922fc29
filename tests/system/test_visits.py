"""One visit at a time, and leaving instead of waiting: what phones do; against a real coordinator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from exporters.zoo.digits_data import part
from mobile_sdk import Client
from mobile_sdk.conditions import Conditions, fixed
from mobile_sdk.events import (
    Assigned,
    Connected,
    Disconnected,
    Event,
    Paused,
    Postponed,
    Training,
    UpdateAccepted,
)
from mobile_sdk.net.connection import Connection, ConnectionLost, websocket
from mobile_sdk.participation.surroundings import Surroundings
from mobile_sdk.policy.rules import Policy

from .conftest import Site
from .test_client_api import SETTINGS, options

PHONE = Conditions(charging=True, battery=0.9, unmetered=True, idle=True, thermal=0)


def client(site: Site, name: str = "phone", **more: Any) -> Client:
    return Client(more.pop("url", site.url), dataset=part(0, of=4), **options(site, name, **more))


def test_a_visit_trains_once_hands_in_and_leaves(site: Site) -> None:
    site.serve(SETTINGS.format(versions=100))
    told: list[Event] = []

    async def visit() -> None:
        async with client(site) as phone:
            assert await phone.visit(told.append) is None
            assert await phone.visit(told.append) is None

    asyncio.run(visit())
    accepted = [event for event in told if isinstance(event, UpdateAccepted)]
    assert len(accepted) == 2
    assert sum(isinstance(event, Assigned) for event in told) == 2
    assert sum(isinstance(event, Connected) for event in told) == 2


def test_an_interrupted_visit_goes_on_from_its_checkpoint_to_the_same_bits(
    site: Site,
    tmp_path_factory: pytest.TempPathFactory,
    planned: Path,
) -> None:
    """The one that is cut off in the middle hands in what an undisturbed one does, at a coordinator like it."""
    settings = SETTINGS.format(versions=100).replace("epochs = 2", "epochs = 40")
    site.serve(settings)
    seen: list[int] = []

    async def interrupted() -> None:
        async with client(site) as phone:
            stop = asyncio.Event()

            def listener(event: Event) -> None:
                if isinstance(event, Training):
                    seen.append(event.step)
                    if event.step >= event.steps // 2:
                        stop.set()

            work = asyncio.create_task(phone.visit(listener))
            await stop.wait()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def again() -> list[Event]:
        told: list[Event] = []
        async with client(site) as phone:
            await phone.visit(told.append)
        return told

    asyncio.run(interrupted())
    told = asyncio.run(again())
    steps = [event.step for event in told if isinstance(event, Training)]
    assert steps[0] > 1, "it began anew"
    assert any(isinstance(event, UpdateAccepted) for event in told)

    async def undisturbed(twin: Site) -> None:
        async with client(twin) as phone:
            await phone.visit()

    twin = Site(tmp_path_factory.mktemp("twin"), planned)
    try:
        twin.serve(settings)
        asyncio.run(undisturbed(twin))
        hashes = [each.query("SELECT sha256 FROM updates ORDER BY arrival LIMIT 1") for each in (site, twin)]
    finally:
        twin.close()
    assert hashes[0] == hashes[1] != []


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (Conditions(charging=False, unmetered=True), "the device is not charging"),
        (Conditions(charging=True, unmetered=False), "the network is metered, or there is none"),
    ],
)
def test_a_visit_that_may_not_train_ends_without_a_connection(site: Site, conditions: Conditions, reason: str) -> None:
    told: list[Event] = []

    async def visit() -> None:
        async with client(
            site, policy=Policy.for_phones(), surroundings=Surroundings(conditions=fixed(conditions))
        ) as phone:
            assert await phone.visit(told.append) is None

    asyncio.run(visit())
    assert [event.reason for event in told if isinstance(event, Paused)] == [reason]
    assert len(told) == 1


def test_a_visit_gives_up_on_a_coordinator_that_is_not_there(site: Site) -> None:
    told: list[Event] = []

    async def visit() -> None:
        async with client(site) as phone:
            assert await phone.visit(told.append, tries=2) is None

    asyncio.run(visit())
    assert [type(event) for event in told] == [Disconnected, Disconnected]


def test_a_link_that_breaks_after_training_costs_no_second_training(site: Site) -> None:
    site.serve(SETTINGS.format(versions=100))
    told: list[Event] = []
    opened = 0

    @contextlib.asynccontextmanager
    async def unreliable() -> AsyncIterator[Connection]:
        nonlocal opened
        opened += 1
        async with websocket(site.url)() as connection:
            if opened > 1:
                yield connection
                return

            class Breaking:
                async def send(self, frame: str | bytes) -> None:
                    if any(isinstance(event, Training) for event in told):
                        raise ConnectionLost("the phone left the house")
                    await connection.send(frame)

                async def receive(self) -> str | bytes:
                    return await connection.receive()

                async def close(self, reason: str = "") -> None:
                    await connection.close(reason)

            yield Breaking()

    async def visit() -> None:
        async with client(site, url=unreliable) as phone:
            await phone.visit(told.append)

    asyncio.run(visit())
    assert sum(isinstance(event, Assigned) for event in told) == 1
    assert sum(isinstance(event, UpdateAccepted) for event in told) == 1
    assert opened == 2


def test_a_device_whose_patience_ends_leaves_and_comes_back(tmp_path: Path) -> None:
    """No open connection, and so no pings, while there is no work."""
    left: list[bool] = []
    told: list[Event] = []

    async def main() -> None:
        twice = asyncio.Event()

        async def silent(connection: ServerConnection) -> None:
            await connection.wait_closed()
            left.append(True)
            if len(left) == 2:
                twice.set()

        async with serve(silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            policy = Policy(patience_seconds=0.2, away_seconds=0.2)
            async with Client(
                f"ws://127.0.0.1:{port}",
                run="digits",
                key="0" * 64,
                dataset=part(0, of=4),
                storage=tmp_path / "phone",
                policy=policy,
                surroundings=Surroundings(conditions=fixed(PHONE)),
            ) as phone:
                work = asyncio.create_task(phone.run(told.append))
                await asyncio.wait_for(twice.wait(), 60)
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work

    asyncio.run(main())
    assert [event.reason for event in told if isinstance(event, Postponed)][:2] == [
        "the coordinator gave no work within 0.2 s"
    ] * 2


def test_a_coordinator_that_says_nothing_is_left_by_a_visit(site: Site) -> None:
    """It accepts the connection and never speaks; the caller's own time limit is not needed."""

    async def silent(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def visit() -> None:
        async with serve(silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            policy = Policy(patience_seconds=0.3)
            async with client(
                site, url=f"ws://127.0.0.1:{port}", policy=policy, surroundings=Surroundings(conditions=fixed(PHONE))
            ) as phone:
                assert await phone.visit(tries=1) is None

    asyncio.run(asyncio.wait_for(visit(), 20))
