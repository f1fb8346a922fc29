"""Deadlines, liveness, flushes, rollbacks, federated evaluation: with real sockets and peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.protocol.messages import (
    Accepted,
    Announce,
    ArtifactRef,
    Assign,
    Evaluate,
    Later,
    Name,
    Ready,
    Rejected,
    Sha256,
    Welcome,
)
from mobile_sdk.protocol.session import FetchRequested

from .conftest import Operator, Peer, Site, payload

OpenPeer = Callable[[str], contextlib.AbstractAsyncContextManager[Peer]]


def ask(peer: Peer) -> None:
    """Ask for work without waiting for it."""
    peer.session.ready(Ready(0, 10, Name("native"), EXECUTORCH_VERSION, 0, 0, False))


def test_a_task_that_is_overdue_is_given_to_another_and_taken_all_the_same_when_it_comes(
    site: Site, peer: OpenPeer
) -> None:
    server = site.serve("[merge]\nbuffer = 5\n[scheduling]\nconcurrency = 1\ndeadline_seconds = 1\n")

    async def main() -> None:
        async with peer("sleeper") as sleeper, peer("waiter") as waiter:
            late = await sleeper.join()
            content = payload(await sleeper.zeros(late))
            given = await waiter.join()  # waits, connected, until the sleeper's time is over
            assert given.assignment != late.assignment
            assert isinstance(await sleeper.offer(late, content), Accepted)
            assert isinstance(await waiter.offer(given, content), Accepted)

    asyncio.run(main())
    assert "has not handed version 0 in: its place is given to another" in server.output
    assert site.query("SELECT failures FROM devices WHERE id = 'sleeper'") == [(1,)]


def test_a_device_that_has_gone_loses_its_place(site: Site, peer: OpenPeer) -> None:
    site.serve("[scheduling]\nconcurrency = 1\nliveness_seconds = 1\n")

    async def main() -> None:
        async with peer("goner") as goner:
            await goner.join()
        async with peer("waiter") as waiter:
            await waiter.join()

    asyncio.run(main())


def test_a_coordinator_that_restarts_gives_its_devices_time_to_come_back(site: Site, peer: OpenPeer) -> None:
    settings = "[scheduling]\nconcurrency = 1\nliveness_seconds = 1\n"
    server = site.serve(settings)

    async def begin() -> Assign:
        async with peer("worker") as worker:
            return await worker.join()

    async def go_on(before: Assign) -> None:
        async with peer("worker") as worker, peer("waiter") as waiter:
            await waiter.next(Welcome)
            ask(waiter)
            await waiter.flush()
            assert (await worker.join()).assignment == before.assignment  # its place was kept
            assert isinstance(await worker.offer(before, payload(await worker.zeros(before))), Accepted)
            await waiter.next(Assign)

    before = asyncio.run(begin())
    server.kill()
    site.serve(settings)
    asyncio.run(go_on(before))


def test_a_buffer_that_the_pool_cannot_fill_is_merged_after_a_while(site: Site, peer: OpenPeer) -> None:
    server = site.serve("[merge]\nbuffer = 5\nflush_seconds = 0.5\n[scheduling]\nrepeat = false\n")

    async def main() -> None:
        async with peer("only-one") as only:
            assign = await only.join()
            assert isinstance(await only.offer(assign, payload(await only.zeros(assign))), Accepted)
            ask(only)  # it may train each version once, so it waits for the next
            assert (await only.next(Announce)).version == 1
            following = await only.next(Assign)
            assert following.version == 1

    asyncio.run(main())
    assert "merging 1 of 5 updates" in server.output


def test_the_same_device_connecting_again_replaces_its_older_connection(site: Site, peer: OpenPeer) -> None:
    site.serve("[scheduling]\nconcurrency = 1\n")

    async def main() -> None:
        async with peer("phone") as older:
            assign = await older.join()
            async with peer("phone") as newer:
                assert (await newer.join()).assignment == assign.assignment
                with pytest.raises(AssertionError, match="connected again"):
                    await older.next(Assign)
                assert isinstance(await newer.offer(assign, payload(await newer.zeros(assign))), Accepted)
                await newer.work()  # the older connection's end has cost it nothing

    asyncio.run(main())


def test_updates_of_versions_that_were_rolled_back_are_void(site: Site, peer: OpenPeer, operator: Operator) -> None:
    site.serve("[merge]\nbuffer = 1\n")

    async def main() -> None:
        async with peer("hare") as hare, peer("tortoise") as tortoise:
            first = await hare.join()
            content = payload(await hare.zeros(first))
            early = await tortoise.join()
            assert isinstance(await hare.offer(first, content), Accepted)
            await hare.next(Announce)
            second = await hare.work()
            assert (early.version, second.version) == (0, 1)
            await asyncio.to_thread(operator, "rollback", "0")
            answer = await hare.offer(second, content)
            assert isinstance(answer, Rejected)
            assert answer.code == "rolled-back"
            assert "version 1 was rolled back" in answer.message
            assert (await hare.work()).version == 2
            # What was based on an ancestor is good; nothing was merged since.
            assert await tortoise.offer(early, content) == Accepted(early.assignment, 0, False)

    asyncio.run(main())
    assert site.query("SELECT version, parent, kind FROM versions ORDER BY version")[:3] == [
        (0, -1, "initial"),
        (1, 0, "merge"),
        (2, 0, "rollback"),
    ]


def test_merges_that_hurt_are_rolled_back_and_after_three_the_operator_is_called(
    site: Site, peer: OpenPeer, operator: Operator
) -> None:
    server = site.serve(
        "[merge]\nbuffer = 1\ndefence = false\n[scheduling]\nretry_seconds = 0.2\n"
        '[evaluation]\nmetric = "loss"\nminimise = true\nguard = 0.5\n'
    )

    async def main() -> dict[str, Any]:
        async with peer("vandal") as vandal:
            await vandal.next(Welcome)
            for _ in range(3):
                assign = await vandal.work()
                noise = np.random.default_rng(1)
                arrays = await vandal.zeros(assign)
                content = payload({n: noise.normal(0, 50, a.shape).astype(np.float32) for n, a in arrays.items()})
                assert isinstance(await vandal.offer(assign, content), Accepted)
                await vandal.next(Announce)
                await vandal.next(Announce)  # and the rollback
            overview = await asyncio.to_thread(operator.wait_until, lambda run: run["phase"] == "paused")
            ask(vandal)
            assert "paused" in (await vandal.next(Later)).reason
        return overview

    overview = asyncio.run(main())
    assert "rolling back did not help: loss went from" in overview["reason"]
    assert [row[0] for row in site.query("SELECT kind FROM versions ORDER BY version")] == [
        "initial",
        *["merge", "rollback"] * 3,
    ]
    weights = site.query("SELECT weights FROM versions WHERE kind != 'merge'")
    assert len(set(weights)) == 1
    assert server.output.count("rolled back to version") == 3


def test_devices_evaluate_on_their_own_samples(site: Site, operator: Operator) -> None:
    site.serve(
        "[training]\nlearning_rate = 0.02\n[merge]\nbuffer = 2\n"
        "[evaluation]\nfederated_devices = 2\nfederated_every = 2\nfederated_minimum = 2\n"
    )
    devices = [site.device(f"phone-{part}", part) for part in range(2)]
    overview = operator.wait_until(lambda run: bool(run["federated"]))
    for device in devices:
        device.wait_for(r"e\d+: evaluating version")
    (result,) = overview["federated"]
    assert result["version"] % 2 == 0
    assert result["devices"] == 2
    assert result["samples"] > 100
    assert set(result["metrics"]) == {"loss", "accuracy"}
    assert 0 <= result["metrics"]["accuracy"] <= 1
    assert 'ftte_federated_metric{metric="accuracy",run="digits"}' in operator("metrics")


def test_an_evaluation_that_no_device_can_do_does_not_stop_its_training(site: Site, peer: OpenPeer) -> None:
    site.serve("[merge]\nbuffer = 1\n[evaluation]\nfederated_devices = 1\nfederated_every = 1\nfederated_minimum = 1\n")

    async def main() -> None:
        async with peer("phone") as phone:
            assign = await phone.join()
            content = payload(await phone.zeros(assign))
            assert isinstance(await phone.offer(assign, content), Accepted)
            await phone.next(Announce)
            ask(phone)
            evaluate = await phone.next(Evaluate)
            assert evaluate.version == 1
            phone.session.decline(evaluate.evaluation, "evaluation", "out of memory")
            assert (await phone.work()).version == 1

    asyncio.run(main())
    assert site.query("SELECT failures FROM devices") == [(0,)]


def test_a_shutdown_lets_an_upload_arrive(site: Site, peer: OpenPeer) -> None:
    server = site.serve(server="drain_seconds = 60\n")

    async def main() -> None:
        async with peer("phone") as phone, peer("idler") as idler:
            assign = await phone.join()
            await idler.next(Welcome)
            content = payload(await phone.zeros(assign))
            ref = ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))
            phone.session.offer(assign.assignment, ref, {"version": assign.version, "samples": 10})
            event = await phone.next(FetchRequested)
            server.signal()
            await asyncio.to_thread(server.wait_for, "Stopping digits at version 0")
            ask(idler)
            assert "restarts" in (await idler.next(Later)).reason
            phone.session.send_artifact(event.sha256, memoryview(content), event.offset, time.monotonic())
            assert await phone.next(Accepted) == Accepted(assign.assignment, 0, False)
            with pytest.raises((AssertionError, ConnectionClosed), match=r"restarts|closed"):
                await phone.next(Assign)

    asyncio.run(main())
    assert server.wait() == 0
    assert site.query("SELECT count(*) FROM updates") == [(1,)]


def test_an_evaluation_process_that_dies_costs_a_run_nothing(site: Site, peer: OpenPeer) -> None:
    server = site.serve("[merge]\nbuffer = 1\n")

    async def main() -> None:
        async with peer("phone") as phone:
            await phone.next(Welcome)
            for version in (1, 2):
                assign = await phone.work()
                assert isinstance(await phone.offer(assign, payload(await phone.zeros(assign))), Accepted)
                announced: Any = await phone.next(Announce)
                assert announced.version == version
                assert "accuracy" in announced.metrics
                server.kill_child("spawn_main")

    asyncio.run(main())
    assert "the evaluation process has died" in server.output
