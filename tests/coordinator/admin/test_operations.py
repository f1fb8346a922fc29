"""What operators can do to a run, over real parts; every change is in the audit log with who made it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.admin.operations import Operations
from coordinator.errors import ConflictError, NotFoundError
from coordinator.runs.served_run import ServedRun, open_run
from coordinator.simulation.virtual_time import run
from mobile_sdk import safetensors
from mobile_sdk.invite import Invite
from mobile_sdk.protocol.messages import Assign, Finished, Later

from ..small_run import START_WEIGHTS, Device, SmallRun, accept_update, make_run


@contextlib.asynccontextmanager
async def operated(folder: Path, **sections: Any) -> AsyncIterator[tuple[SmallRun, ServedRun, Operations]]:
    """A run that is served, and what anna can do to it."""
    small = make_run(folder, **sections)
    small.store.close()
    running = open_run(small.config, lambda text: None)
    running.start()
    await asyncio.sleep(0.1)
    try:
        yield small, running, Operations(running, "anna")
    finally:
        await running.close()


def actions(running: ServedRun) -> list[tuple[str, str]]:
    """Who did what, by the audit log."""
    return [(entry.actor, entry.action) for entry in running.store.audit.entries()]


def test_phases_follow_the_operator(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (_, running, anna):
            await anna.pause()
            assert anna.overview()["phase"] == "paused"
            await anna.start()
            await anna.drain()
            await asyncio.sleep(0.1)
            assert (anna.overview()["phase"], anna.overview()["reason"]) == ("paused", "drained")
            await anna.finish()
            await running.ended()
            await anna.start()
            assert (anna.overview()["phase"], anna.overview()["reason"]) == ("running", "started by anna")
            assert [action for actor, action in actions(running) if actor == "anna"] == [
                "paused",
                "running",
                "draining",
                "finished",
                "running",
            ]

    run(main())


def test_a_run_is_not_taken_up_again_at_a_limit_that_it_has_reached(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, merge={"buffer": 1}, stop={"versions": 1}) as (_, running, anna):
            accept_update(running.coordinator.state, "phone-1")
            await running.ended()
            with pytest.raises(ConflictError, match=r"stays finished: version 1 has reached the limit of 1\. Raise"):
                await anna.start()
            with pytest.raises(ConflictError, match="is finished, not paused: `ftte runs start small` takes it up"):
                await anna.resume()
            assert anna.overview()["phase"] == "finished"

    run(main())


def test_a_paused_run_is_resumed_and_one_that_was_not_started_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, run={"name": "small", "task": "a.b:c", "state": "state", "hold": True}) as (
            _,
            _,
            anna,
        ):
            with pytest.raises(ConflictError, match="is created, not paused: `ftte runs start small` begins it"):
                await anna.resume()
            await anna.start()
            await anna.pause()
            await anna.resume()
            assert anna.overview()["phase"] == "running"

    run(main())


def test_a_device_that_was_killed_and_one_whose_run_has_finished_do_not_count_as_working(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (small, running, anna):
            async with Device(small, "phone-2").connected(running.coordinator.serve) as device:
                await device.join()
                async with Device(small).connected(running.coordinator.serve) as killed:
                    await killed.join()
                    await killed.work()
                    assert anna.overview()["working"] == 1
                await asyncio.sleep(0.1)
                assert anna.overview()["working"] == 0
                await device.work()
                await anna.finish()
                await device.expect(Finished)
            await running.ended()
            assert anna.overview()["working"] == 0

    run(main())


def test_an_overview_counts_devices_updates_and_versions(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, merge={"buffer": 2}) as (small, running, anna):
            accept_update(running.coordinator.state, "phone-2")
            async with Device(small).connected(running.coordinator.serve) as device:
                await device.join()
                await device.work()
                seen = anna.overview()
                counts = {name: seen[name] for name in ("version", "buffered", "capacity", "connected", "working")}
                assert counts == {"version": 0, "buffered": 1, "capacity": 2, "connected": 1, "working": 1}
                assert seen["key"] == small.key.public

    run(main())


def test_a_rollback_repeats_an_older_version_and_says_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, merge={"buffer": 1}) as (_, running, anna):
            accept_update(running.coordinator.state, "phone-1")
            await asyncio.sleep(0.1)
            record = await anna.roll_back(0, "it was better")
            assert (record["version"], record["parent"], record["kind"]) == (2, 0, "rollback")
            listed = await anna.versions()
            assert [(v["version"], v["current_line"]) for v in listed] == [(0, True), (1, False), (2, True)]
            last = running.store.audit.entries()[-1]
            assert (last.actor, last.action, last.details["why"]) == ("anna", "rolled back", "it was better")

    run(main())


def test_weights_can_be_exported_of_the_newest_or_of_any_version(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, merge={"buffer": 1}) as (_, running, anna):
            accept_update(running.coordinator.state, "phone-1")
            await asyncio.sleep(0.1)
            number, content = await anna.weights(None)
            arrays, metadata = safetensors.loads(content)
            assert (number, metadata) == (1, {"run": "small", "version": "1"})
            assert np.array_equal(arrays["head"], START_WEIGHTS[7:] + 1)
            assert running.store.audit.entries()[-1].details["sha256"] == hashlib.sha256(content).hexdigest()
            number, content = await anna.weights(0)
            assert np.array_equal(safetensors.loads(content)[0]["head"], START_WEIGHTS[7:])

    run(main())


def test_a_revoked_device_is_sent_away_and_what_it_contributed_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, merge={"buffer": 2}) as (small, running, anna):
            accept_update(running.coordinator.state, "phone-1")
            device = Device(small)
            async with device.connected(running.coordinator.serve):
                await device.join()
                await device.work()
                await anna.revoke("phone-1")
                await device.served()
                assert device.heard[-1]["code"] == "revoked"
            assert len(running.coordinator.state.buffer) == 1
            (shown,) = await anna.devices()
            assert (shown["id"], shown["state"]) == ("phone-1", "revoked")
            assert running.coordinator.dispatcher.open == []
            with pytest.raises(NotFoundError, match="there is no device 'phone-2'"):
                await anna.revoke("phone-2")

    run(main())


def test_a_withdrawn_device_leaves_no_trace_but_what_was_merged(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, merge={"buffer": 3}) as (small, running, anna):
            state = running.coordinator.state
            accept_update(state, "phone-1")
            kept = accept_update(state, "phone-2")
            device = Device(small)
            async with device.connected(running.coordinator.serve):
                await device.join()
                await device.work()
                assert await anna.withdraw("phone-1") == 1
                await device.served()
                assert device.heard[-1]["code"] == "revoked"
            assert [update.record.assignment for update in state.buffer.all()] == [kept.record.assignment]
            assert [shown["id"] for shown in await anna.devices()] == ["phone-2"]
            assert [d.id for d in state.status().devices] == ["phone-2"]
            assert not any("phone-1" in str(entry) for entry in await anna.audit())
            with pytest.raises(NotFoundError):
                await anna.withdraw("phone-1")

    run(main())


def test_a_token_lets_devices_in_until_it_is_revoked(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, server={"open_enrolment": False}) as (small, running, anna):
            token, record = await anna.create_token(2, 3600.0, "for the pilot")
            assert (record["uses_left"], record["note"], record["expires_at"] - record["created_at"]) == (
                2,
                "for the pilot",
                3600.0,
            )
            assert "digest" not in record
            async with Device(small, token=token).connected(running.coordinator.serve) as device:
                await device.join()
            assert [listed["uses_left"] for listed in await anna.tokens()] == [1]
            await anna.revoke_token(record["id"])
            late = Device(small, "phone-2", token=token)
            async with late.connected(running.coordinator.serve):
                with pytest.raises(AssertionError, match="enrolment: the enrolment token is wrong"):
                    await late.join()
            with pytest.raises(NotFoundError, match="there is no token 'made-up'"):
                await anna.revoke_token("made-up")

    run(main())


def test_an_invite_carries_address_run_key_and_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (small, _, anna):
            invite = Invite.parse(anna.invite("ws://127.0.0.1:8765", "secret"))
            assert invite == Invite("ws://127.0.0.1:8765", "small", small.key.public, "secret", "")

    run(main())


def test_after_a_rotation_devices_are_sent_away_and_follow(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (small, running, anna):
            device = Device(small)
            async with device.connected(running.coordinator.serve):
                await device.join()
                key = await anna.rotate_key()
                await device.served()
                assert device.heard[-1]["message"] == "the run has a new key"
            assert key != small.key.public
            async with Device(small).connected(running.coordinator.serve) as again:  # it pins the old key
                await again.join()
                assign = await again.work()
                assert again.session.key == key
                assert assign.signature == running.coordinator.state.tiers[-1].record.signature
            await anna.finish()
            await running.ended()
            with pytest.raises(ConflictError, match="has nothing more to sign"):
                await anna.rotate_key()

    run(main())


def test_devices_that_wait_when_a_run_is_paused_are_told_to_come_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, scheduling={"concurrency": 1, "coverage": 0}) as (small, running, anna):
            serve = running.coordinator.serve
            async with Device(small, "d0").connected(serve) as first, Device(small, "d1").connected(serve) as second:
                for device in (first, second):
                    await device.join()
                assert isinstance(await first.work(), Assign)
                await second.ask()
                await asyncio.sleep(0.1)
                await anna.pause()
                assert (await second.expect(Later)).reason == "the run is paused"

    run(main())
