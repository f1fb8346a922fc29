"""What an app does with the SDK: take part, be told, predict, stop; against a real coordinator."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from exporters.zoo.digits_data import held_out, part
from mobile_sdk import BlockingClient, Client, SampleStore
from mobile_sdk.errors import DataError, NoModel, Refused
from mobile_sdk.events import (
    Announced,
    Assigned,
    Connected,
    Downloading,
    Event,
    Merged,
    RunFinished,
    Training,
    UpdateAccepted,
    Uploading,
    from_json,
    to_json,
)
from mobile_sdk.participation.surroundings import Surroundings
from mobile_sdk.training.train import TrainingResult, train_in_thread

from .conftest import Site

SETTINGS = """
[training]
epochs = 2
learning_rate = 0.05
momentum = 0.5
[merge]
buffer = 1
[stop]
versions = {versions}
"""


def options(site: Site, name: str, **more: Any) -> dict[str, Any]:
    return {"run": "digits", "key": site.key, "storage": site.folder / name, "name": name} | more


def test_an_app_hears_of_every_stage_in_order(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=4))
    told: list[Event] = []

    async def take_part() -> float:
        async with Client(site.url, dataset=part(0, of=4), **options(site, "phone-1")) as client:
            async for event in client.events():
                told.append(event)
            return float(np.mean(client.predict(held_out()[0]).argmax(1) == held_out()[1]))

    accuracy = asyncio.run(take_part())
    assert server.wait() == 0

    kinds = [type(event) for event in told if not isinstance(event, Downloading | Training | Uploading)]
    assert kinds[:3] == [Connected, Assigned, UpdateAccepted]
    assert kinds[-1] is RunFinished
    downloads = [event for event in told if isinstance(event, Downloading)]
    assert any(event.received == event.size for event in downloads)
    steps = [event for event in told if isinstance(event, Training)]
    first = steps[: steps[0].steps]
    assert [event.step for event in first] == list(range(1, first[0].steps + 1))
    assert np.mean([event.loss for event in first[-5:]]) < np.mean([event.loss for event in first[:5]])
    merged = [event for event in told if isinstance(event, Merged)]
    # Weights are counted in 1024ths.
    assert all(event.weight == pytest.approx((1 + event.staleness) ** -0.5, abs=1 / 1024) for event in merged)
    announced = [event.version for event in told if isinstance(event, Announced)]
    assert [event.version for event in merged][:3] == announced[:3] == [1, 2, 3]
    assert [from_json(to_json(event)) for event in told] == told
    assert accuracy > 0.4

    # Every byte is some update's: the sum is what the coordinator counted at its socket, framing aside.
    costs = [event.cost for event in told if isinstance(event, UpdateAccepted)]
    assert all(cost.cpu_seconds > 0 and cost.energy_joules_estimate > 0 for cost in costs)
    up = sum(cost.bytes_up for cost in costs)
    assert 0.97 * site.summary()["bytes_up"] < up < site.summary()["bytes_up"]


def test_a_blocking_client_runs_in_its_own_thread_and_predicts_offline(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1000))
    x, y = held_out()
    accepted = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, UpdateAccepted):
            accepted.set()

    with BlockingClient(site.url, dataset=part(1, of=4), **options(site, "phone-1")) as client:
        with pytest.raises(NoModel, match="take part in the run until"):
            client.predict(x)
        client.start(listen)
        with pytest.raises(RuntimeError, match="is running"):
            client.start()
        assert accepted.wait(60)
        while_training = client.predict(x)
        client.cancel()
        assert not client.running
        assert client.wait() is None
        client.check((x, y))
        bad = x.copy()
        bad[3] = np.nan
        with pytest.raises(DataError, match="sample 3 has an x"):
            client.check((bad, y))
        with pytest.raises(DataError, match=r"x has the shape \(1, 8, 8\); the task takes \(n, 1, 8, 8\)"):
            client.predict(x[0])
        with pytest.raises(DataError, match="x is text"):
            client.predict(x.astype(str))
        assert client.contract.labels == tuple("0123456789")
        latest = client.predict(x)
    server.kill()
    assert while_training.shape == latest.shape == (len(x), 10)

    # Nobody answers any more: the weights that came last are still here.
    with BlockingClient(site.url, dataset=part(1, of=4), **options(site, "phone-1")) as client:
        np.testing.assert_array_equal(client.predict(x), latest)
        assert client.predict(x[:0]).shape == (0, 10)
        for event in client.events():
            assert "cannot reach" in getattr(event, "reason", "")
            break


def test_cancelling_from_the_listener_stops_the_client(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1000))
    client = BlockingClient(site.url, dataset=part(2, of=4), **options(site, "phone-1"))

    def listen(event: Event) -> None:
        if isinstance(event, Training):
            client.cancel()

    assert client.run(listen) is None
    client.close()
    server.stop()


def test_a_training_that_was_cut_short_goes_on_where_it_stopped(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1).replace("epochs = 2", "epochs = 50"))
    before, after = list[int](), list[Training]()

    client = BlockingClient(site.url, dataset=part(2, of=4), **options(site, "phone-1"))

    def cut(event: Event) -> None:
        if isinstance(event, Training):
            before.append(event.step)
            if event.step == 3:
                client.cancel()

    assert client.run(cut) is None
    client.close()
    kept = site.folder / "phone-1" / "training.safetensors"
    assert kept.exists()

    def listen(event: Event) -> None:
        if isinstance(event, Training):
            after.append(event)

    with BlockingClient(site.url, dataset=part(2, of=4), **options(site, "phone-1")) as again:
        assert isinstance(again.run(listen), RunFinished)
    assert server.wait() == 0
    assert before[:3] == [1, 2, 3]
    assert not kept.exists(), "the run has ended"
    first, steps = after[0].step, after[0].steps
    assert first > before[-1]
    assert [event.step for event in after][: steps - first + 1] == list(range(first, steps + 1))


def test_an_error_of_the_listener_reaches_whoever_waits(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1000))

    def listen(event: Event) -> None:
        raise ZeroDivisionError("mine")

    with (
        BlockingClient(site.url, dataset=part(2, of=4), **options(site, "phone-1")) as client,
        pytest.raises(ZeroDivisionError, match="mine"),
    ):
        client.run(listen)
    server.stop()


def test_a_refusal_says_what_to_do(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1))
    with (
        BlockingClient(site.url, dataset=part(0, of=4), **options(site, "p", budget=1000)) as client,
        pytest.raises(Refused, match="the smallest tier, small, needs"),
    ):
        client.run()
    server.stop()


def test_samples_that_come_while_it_trains_are_trained_on_next(site: Site, tmp_path: Path) -> None:
    server = site.serve(SETTINGS.format(versions=3))
    x, y = part(0, of=4)
    with SampleStore(tmp_path / "samples", max_samples=40) as store:
        for i in range(20):
            store.append(x[i], y[i])

        def listen(event: Event) -> None:
            if isinstance(event, UpdateAccepted):
                for i in range(20, 60):
                    store.append(x[i], y[i])

        with BlockingClient(site.url, dataset=store, **options(site, "phone-1")) as client:
            assert isinstance(client.run(listen), RunFinished)
    assert server.wait() == 0
    samples = [row[0] for row in site.query("SELECT json_extract(report, '$.samples') FROM updates ORDER BY arrival")]
    assert samples[:2] == [20, 40]


def test_nothing_is_told_after_the_end_of_the_run_though_a_step_was_still_under_way(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1))
    told: list[Event] = []

    async def one_more_step(*work: Any) -> TrainingResult:
        progress = work[-1]
        try:
            await train_in_thread(*work)
            return await asyncio.Future()
        except asyncio.CancelledError:
            progress(3, 10, 0.5)
            raise

    async def take_part() -> None:
        slow = options(site, "slow", surroundings=Surroundings(execute=one_more_step))
        async with Client(site.url, dataset=part(0, of=4), **slow) as client:
            trains = asyncio.Event()

            def listen(event: Event) -> None:
                told.append(event)
                if isinstance(event, Training):
                    trains.set()

            running = asyncio.create_task(client.run(listen))
            await trains.wait()
            async with Client(site.url, dataset=part(1, of=4), **options(site, "quick")) as quick:
                await quick.run()
            await running

    asyncio.run(asyncio.wait_for(take_part(), 60))
    assert server.wait() == 0
    assert isinstance(told[-1], RunFinished)


def test_importing_the_sdk_loads_neither_numpy_nor_websockets() -> None:
    code = "import sys, mobile_sdk; print([m for m in ('numpy', 'websockets', 'asyncio', 'ssl') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_asyncio_apps_can_cancel_at_any_time(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1000))

    async def take_part() -> None:
        async with Client(site.url, dataset=part(0, of=4), **options(site, "phone-1")) as client:
            seen = asyncio.Event()
            running = asyncio.create_task(client.run(lambda event: seen.set() if isinstance(event, Training) else None))
            await seen.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(take_part())
    server.stop()


# Versions of the protocol: a clear answer on both sides, over real sockets.


def test_an_sdk_of_another_protocol_version_is_told_so_and_not_left_waiting(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1))

    async def greet() -> dict[str, Any]:
        async with connect(site.url) as socket:
            hello = {"type": "hello", "protocol": 7, "sdk": "3.1.0", "something": ["new"]}
            await socket.send(json.dumps(hello))
            answer: dict[str, Any] = json.loads(await socket.recv())
            await socket.wait_closed()
            return answer

    answer = asyncio.run(asyncio.wait_for(greet(), 20))
    assert (answer["type"], answer["code"]) == ("error", "version")
    assert "speaks protocol 7 (version 3.1.0), this one 1: update the older one" in answer["message"]
    server.stop()


@pytest.mark.parametrize(
    "answer",
    [
        {"type": "challenge", "protocol": 2, "nonce": "00", "puzzle": 3},
        {"type": "error", "code": "version", "message": "this one speaks protocol 2: update the older one"},
    ],
)
def test_a_coordinator_of_another_protocol_version_ends_the_client_with_the_reason(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    async def reply(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps(answer))
        await socket.wait_closed()

    async def take_part() -> None:
        async with serve(reply, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with Client(url, run="r", key="ab" * 32, dataset=part(0, of=4), storage=tmp_path) as client:
                await client.run()

    with pytest.raises(Refused, match=r"protocol 2.*update the older one") as refusal:
        asyncio.run(asyncio.wait_for(take_part(), 20))
    assert refusal.value.code == "version"
