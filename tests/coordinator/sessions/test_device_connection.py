"""A device's connection from hello to the end; whatever goes wrong ends this connection alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import StoreUnavailable
from coordinator.net.traffic import Traffic
from coordinator.run_state import RunState
from coordinator.scheduling.dispatcher import Dispatcher
from coordinator.sessions.device_connection import NEWS_SECONDS, DeviceConnection
from coordinator.simulation.virtual_time import run
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.protocol.encoding import encode
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.messages import (
    Accepted,
    Announce,
    Assign,
    Evaluate,
    Fetch,
    Finished,
    Hex,
    Later,
    MergedMessage,
    Name,
    Sha256,
    Wait,
)
from mobile_sdk.protocol.session import FetchRequested

from ..small_run import Device, SmallRun, Wire, make_run, open_work, update_bytes

FEDERATED = {"federated_devices": 1, "federated_minimum": 1, "federated_every": 1}


class Office:
    """What a coordinator is to a connection."""

    def __init__(self, small: SmallRun, state: RunState | None = None) -> None:
        self.state = state or small.state()
        self.state.phase = "running"
        self.dispatcher = Dispatcher(self.state)
        self.greeted: list[str] = []
        self.proven = 0
        self.connection: DeviceConnection | None = None

    async def greet(self, session: DeviceConnection) -> None:
        self.greeted.append(session.device)
        self.dispatcher.came(session.device)

    async def serve(self, wire: Wire, traffic: Traffic, proven: Any) -> None:
        self.connection = connection = DeviceConnection(self.state, wire, traffic, self, self._proven)
        await connection.serve()
        await connection.leave()

    def _proven(self) -> None:
        self.proven += 1


@contextlib.asynccontextmanager
async def let_in(tmp_path: Path, **sections: dict[str, Any]) -> AsyncIterator[tuple[Device, DeviceConnection, Office]]:
    """A device that is in a small run, whose sections are ``sections`` where they are given."""
    small = make_run(tmp_path, **sections)
    office = Office(small)
    async with Device(small).connected(office.serve) as device:
        await device.join()
        assert office.connection is not None
        yield device, office.connection, office


def test_a_device_is_let_in_trains_and_hands_in(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        async with Device(small).connected(office.serve, Traffic(up=7, down=9)) as device:
            assert (await device.join()).version == 0
            assert (office.greeted, office.proven) == (["phone-1"], 1)
            assign = await device.work()
            assert office.state.device("phone-1").state == "training"
            assert office.state.device("phone-1").tier == "large"
            for ref in (assign.manifest, *assign.weights):
                assert await device.download(ref) == small.store.artifacts.path(ref.sha256).read_bytes()
            await asyncio.sleep(1)  # the last acknowledgement arrives
            assert office.state.device("phone-1").state == "training"
            await asyncio.sleep(2)
            assert isinstance(await device.upload(assign, update_bytes("large")), Accepted)
            await device.wire.close()
        (accepted,) = small.store.updates.buffered()
        assert accepted.report["trip"] == {"waiting": 0.0, "download": 0.0, "away": 3.0, "upload": 0.0}
        record = small.store.devices.find("phone-1")
        assert record is not None
        assert (record.bytes_up, record.bytes_down) == (7, 9)
        assert record.last_seen is not None
        assert record.profile["samples"] == 10
        assert office.state.device("phone-1").state == "offline"

    run(main())


def test_a_peer_that_does_not_prove_itself_in_time_is_sent_away(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, server={"handshake_seconds": 5})
        office = Office(small)
        device = Device(small)
        async with device.connected(office.serve):
            await device.served()
        assert device.heard == [
            {"type": "error", "code": "unavailable", "message": "the handshake took more than 5 s: try again"}
        ]
        assert asyncio.get_running_loop().time() == 5.0
        assert office.greeted == []

    run(main())


def test_who_is_in_may_be_silent_for_as_long_as_the_link_lasts(tmp_path: Path) -> None:
    async def main() -> None:
        async with let_in(tmp_path, server={"handshake_seconds": 5}) as (device, _, _):
            await asyncio.sleep(1000)
            await device.work()

    run(main())


def test_more_messages_than_a_device_may_send_end_its_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with let_in(tmp_path, limits={"messages_per_second": 10}) as (device, _, _):
            for _ in range(50):
                await device.ask()
            with contextlib.suppress(ConnectionLost):
                while True:
                    await device.wire.receive()
        error = device.heard[-1]
        assert error["code"] == "rate"
        assert error["message"] == "the device sends more than 10 messages per second: update the SDK"

    run(main())


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("{", "is not JSON"),
        ('{"type":"made-up"}', "unknown message type 'made-up'"),
        (b"\0" * 50, "a binary frame is of kind 0"),
    ],
)
def test_a_broken_protocol_is_told_to_the_peer_and_ends_the_connection(
    tmp_path: Path, frame: str | bytes, words: str
) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        device = Device(small)
        async with device.connected(office.serve):
            await device.wire.send(frame)
            await device.served()
        (error,) = device.heard
        assert (error["type"], error["code"]) == ("error", "protocol")
        assert words in error["message"]

    run(main())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StoreUnavailable("the disk is full"), "the coordinator cannot write to its disk: try again later"),
        (KeyError("odd"), "the coordinator has a problem of its own: try again later"),
    ],
)
def test_a_fault_of_ours_asks_the_device_to_come_again(tmp_path: Path, error: Exception, words: str) -> None:
    async def main() -> None:
        small = make_run(tmp_path)

        async def broken(function: Any, *args: Any) -> Any:
            raise error

        office = Office(small, small.state(broken))
        device = Device(small)
        async with device.connected(lambda wire, traffic, proven: guarded(office, wire)):
            await device.flush()
            await device.served()
        assert device.heard == [{"type": "error", "code": "unavailable", "message": words}]

    async def guarded(office: Office, wire: Wire) -> None:
        await DeviceConnection(office.state, wire, Traffic(), office, lambda: None).serve()

    run(main())


def test_news_of_which_a_slow_link_has_not_taken_the_first_are_told_once_and_newest(tmp_path: Path) -> None:
    async def main() -> None:
        async with let_in(tmp_path) as (device, connection, _):
            open_again = asyncio.Event()
            send = device.server.send

            async def stuck(frame: str | bytes) -> None:
                await open_again.wait()
                await send(frame)

            device.server.send = stuck  # type: ignore[method-assign]
            for number in (1, 2, 3):
                connection.push(Announce(number, {}))
                await asyncio.sleep(1)
            open_again.set()
            await asyncio.sleep(1)
            assert [message["version"] for message in device.heard if message["type"] == "announce"] == [1, 3]
            connection.push(Announce(4, {}))
            await asyncio.sleep(1)
            assert [message["version"] for message in device.heard if message["type"] == "announce"] == [1, 3, 4]

    run(main())


def test_a_device_is_told_what_became_of_its_update_and_of_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with let_in(tmp_path) as (device, connection, office):
            connection.tell(MergedMessage(Name("a00000001"), 1, 0, 1.0))
            assert (await device.expect(MergedMessage)).version == 1
            office.state.finish("enough", {})
            await device.ask()
            assert (await device.expect(Finished)).reason == "enough"

    run(main())


def test_news_go_with_what_is_sent_next(tmp_path: Path) -> None:
    async def main() -> None:
        async with let_in(tmp_path) as (device, connection, _):
            connection.tell(MergedMessage(Name("a00000001"), 1, 0, 1.0))
            connection.push(Announce(2, {}))
            before = asyncio.get_running_loop().time()
            await connection.wait("a merge")
            await device.expect(Wait)
            assert asyncio.get_running_loop().time() < before + NEWS_SECONDS
            assert [message["type"] for message in device.heard][-3:] == ["merged", "announce", "wait"]
            connection.push(Announce(3, {}))
            assert (await device.expect(Announce)).version == 3, "and alone where nothing else is sent"
            assert asyncio.get_running_loop().time() >= before + NEWS_SECONDS

    run(main())


def test_telling_a_device_that_has_left_is_no_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with let_in(tmp_path) as (_, connection, _):
            pass
        connection.push(Announce(1, {}))
        connection.tell(MergedMessage(Name("a00000001"), 1, 0, 1.0))
        with pytest.raises(ConnectionLost):
            await connection.postpone(1.0, "later")
        await connection.fail("unavailable", "the coordinator restarts")

    run(main())


def test_a_device_that_declines_gets_its_work_taken_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with let_in(tmp_path) as (device, _, office):
            first = await device.work()
            device.session.decline(first.assignment, "memory", "too little memory")
            await device.flush()
            second = await device.work()
            assert second.assignment != first.assignment
            words = "an update: 1 device gave work back, phone-1 because too little memory"
            assert office.state.status().waits_for == words
            assert isinstance(await device.upload(second, update_bytes("large")), Accepted)
            assert office.state.status().waits_for == ""
        assert office.state.device("phone-1").failures == 1

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "phone-1 gave a00000001 back: too little memory" in caplog.messages


def test_what_is_said_outside_of_an_answer_is_sent_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        tier, newest = small.tiers[0], office.state.versions.newest
        program = (tier.record.manifest, Hex(tier.record.signature), tier.program, newest.weights)
        async with Device(small).connected(office.serve) as device:
            await device.join()
            status = office.state.device("phone-1")
            states = [status.state]
            connection = office.connection
            assert connection is not None
            await connection.wait("other devices")
            assert await device.expect(Wait) == Wait("other devices")
            await connection.assign(Assign(Name("a00000001"), 0, *program, {}, 1), tier)
            assert (await device.expect(Assign)).assignment == "a00000001"
            states.append(status.state)
            assert status.tier == "small"
            await connection.evaluate(Evaluate(Name("e00000000"), 0, *program), tier)
            assert (await device.expect(Evaluate)).evaluation == "e00000000"
            states.append(status.state)
            await connection.postpone(5.0, "later")
            assert await device.expect(Later) == Later(5.0, "later")
            states.append(status.state)
            assert connection.assign_at_once(Assign(Name("a00000002"), 0, *program, {}, 1), tier)
            assert (await device.expect(Assign)).assignment == "a00000002"
            assert [*states, status.state] == ["idle", "training", "evaluating", "idle", "training"]

    run(main())


def test_a_device_that_connects_again_replaces_its_older_connection(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        old = Device(small)
        async with old.connected(office.serve, Traffic(up=1, down=2)):
            await old.join()
            before = office.connection
            assert before is not None
            async with Device(small, enrolled=True).connected(office.serve, Traffic(up=10, down=20)) as new:
                await new.join()
                await before.replace()
                await old.served()
                status = office.state.device("phone-1")
                states = [status.state]  # the newer connection is there
                assert (status.bytes_up, status.bytes_down) == (11, 22)
            assert [*states, status.state] == ["idle", "offline"]
            assert (status.bytes_up, status.bytes_down) == (11, 22)
        assert old.heard[-1] == {
            "type": "error",
            "code": "replaced",
            "message": "the device has connected again",
        }

    run(main())


def test_a_device_that_was_sent_away_is_not_blamed_for_what_it_sent_before_it_heard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        device = Device(small)
        async with device.connected(office.serve):
            await device.join()
            connection = office.connection
            assert connection is not None
            await device.wire.send("{")
            await connection.fail("unavailable", "the coordinator restarts")
            await device.served()
        assert [message["code"] for message in device.heard if message["type"] == "error"] == ["unavailable"]

    with caplog.at_level(logging.WARNING):
        run(main())
    assert not [line for line in caplog.messages if "broke the protocol" in line]


@pytest.mark.parametrize(("code", "left"), [("revoked", 0), ("unavailable", 1)])
def test_part_of_an_update_is_kept_for_the_next_connection_but_not_of_a_revoked_device(
    tmp_path: Path, code: str, left: int
) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        device = Device(small)
        content = bytes(3000)
        async with device.connected(office.serve):
            await device.join()
            assign = await device.work()
            await device.offer(assign, content)
            await device.expect(FetchRequested)
            name = Sha256(hashlib.sha256(content).hexdigest())
            await device.wire.send(Chunk(name, 0, memoryview(content)[:1024]).to_bytes())
            await asyncio.sleep(1)
            connection = office.connection
            assert connection is not None
            await connection.fail(code, "go away")
            await device.served()
        parts = list((tmp_path / "state" / "incoming").iterdir())
        assert [path.read_bytes() for path in parts] == [content[:1024]] * left

    run(main())


def test_a_device_whose_runtime_fails_a_self_check_is_shown_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with let_in(tmp_path) as (device, _, office):
            assign = await device.work()
            device.session.decline(assign.assignment, "self-check", "sums differ")
            await device.flush()
            await device.work()
            status = office.state.device("phone-1")
            assert (status.gave_back, status.failures) == ("sums differ", 1)
            assert office.state.self_check_failures == 1
            assert status.self_check == "", "it asked again and did not say so"
            device.session.decline(Name("a00000002"), "self-check", "sums differ")
            await device.flush()
            await asyncio.sleep(1)
            assert status.self_check == "sums differ"
        record = office.state.store.devices.find("phone-1")
        assert record is not None
        assert record.profile["self_check"] == "sums differ"

    run(main())


@pytest.mark.parametrize("code", ["evaluation", "self-check", "memory"])
def test_a_device_that_cannot_evaluate_keeps_its_work_and_another_is_asked(tmp_path: Path, code: str) -> None:
    async def main() -> None:
        async with let_in(tmp_path, evaluation=FEDERATED) as (device, _, office):
            assign = await device.work()
            federated = office.state.federated
            federated.begin(office.state.versions.newest, ["phone-1"])
            federated.ask("phone-1")
            open_places = federated._open_places
            device.session.decline(assign.assignment, code, "no samples to evaluate on")
            await device.flush()
            await asyncio.sleep(1)
            assert federated._open_places - open_places == (0 if code == "memory" else 1)
            status = office.state.device("phone-1")
            kept = code == "evaluation"
            assert (status.failures, status.gave_back) == ((0, "") if kept else (1, "no samples to evaluate on"))
            assert (open_work(office.state.store, "phone-1") is not None) == kept

    run(main())


def test_a_device_with_few_samples_passes_over_them_more_often(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(small := make_run(tmp_path, training={"epochs": "auto"}))
        async with Device(small).connected(office.serve) as device:
            await device.join()
            assert (await device.work()).settings["epochs"] == 5, "it has ten samples, a batch"

    run(main())


def test_a_device_evaluates_a_version_on_its_own_samples(tmp_path: Path) -> None:
    async def main() -> None:
        async with let_in(tmp_path, evaluation=FEDERATED) as (device, _, office):
            office.state.federated.begin(office.state.versions.newest, ["phone-1"])
            await device.ask()
            question = await device.expect(Evaluate)
            assert office.state.device("phone-1").state == "evaluating"
            device.session.evaluated(question.evaluation, 5, {"accuracy": 0.5})
            assert office.state.federated.results == []
            await device.work()  # answered in order: the answer before it is in
        (result,) = office.state.federated.results
        assert (result.devices, result.samples, result.metrics) == (1, 5, {"accuracy": 0.5})

    run(main())


def test_a_budget_that_nothing_fits_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        device = Device(small)
        async with device.connected(office.serve):
            await device.join()
            await device.ask(budget=999)
            await device.served()
        error = device.heard[-1]
        assert error["code"] == "budget"
        assert "the smallest tier, small, needs 1.00 KB" in error["message"]

    run(main())


def test_a_paused_run_sends_devices_away(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, scheduling={"retry_seconds": 12})
        office = Office(small)
        office.state.phase = "paused"
        async with Device(small).connected(office.serve) as device:
            await device.join()
            await device.ask()
            assert await device.expect(Later) == Later(12.0, "the run is paused")
            assert office.state.device("phone-1").state == "idle"

    run(main())


def test_a_file_beyond_its_end_is_answered_with_an_error_of_the_protocol(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        device = Device(small)
        async with device.connected(office.serve):
            await device.join()
            ref = (await device.work()).manifest
            await device.wire.send(encode(Fetch(ref.sha256, ref.size + 1)))
            await device.served()
        assert device.heard[-1]["code"] == "protocol"
        assert f"offset {ref.size + 1} of an artifact of {ref.size} bytes" in device.heard[-1]["message"]

    run(main())


def test_bytes_of_a_day_are_counted_where_they_flow(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, limits={"bytes_per_day": 10_000})
        office, traffic = Office(small), Traffic()
        device = Device(small)
        async with device.connected(office.serve, traffic):
            await device.join()
            assign = await device.work()
            fetched = 0
            with contextlib.suppress(ConnectionLost):
                while fetched < 100:
                    await device.download(assign.manifest)
                    traffic.down += assign.manifest.size  # as a socket counts them
                    fetched += 1
            assert 10_000 <= fetched * assign.manifest.size <= 10_000 + assign.manifest.size
            await device.served()
        later = device.heard[-1]
        assert (later["type"], later["reason"]) == ("later", "the device has moved as many bytes as it may in a day")
        assert later["seconds"] == pytest.approx(86_400, abs=10)

    run(main())


@pytest.mark.parametrize(
    "frame",
    [
        json.dumps({"type": "x" * 65_000}),
        json.dumps({"type": "later", "seconds": 1, "reason": "", "y" * 60_000: 1}),
        json.dumps({"type": "evaluated", "evaluation": "e1", "samples": 1, "metrics": {"m" * 60_000: "a"}}),
        json.dumps({"type": "evaluated", "evaluation": "e1", "samples": 1, "metrics": {"x\n2026 ERROR\x1b[2J": "a"}}),
        json.dumps({"type": "proof", "mac": "not hexadecimal"}),
    ],
)
def test_what_a_stranger_sends_makes_one_short_line_without_its_control_characters(
    tmp_path: Path, frame: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        device = Device(small)
        async with device.connected(office.serve):
            await device.wire.send(frame)
            await device.served()

    with caplog.at_level(logging.WARNING):
        run(main())
    (line,) = caplog.messages
    assert len(line) < 500
    assert line.isprintable()
    assert "not hexadecimal" not in line, "a MAC is never logged"
