"""A device's connection from hello to the end; whatever goes wrong ends this connection alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import StoreUnavailable
from coordinator.net.traffic import Traffic
from coordinator.run_state import RunState
from coordinator.scheduling.dispatcher import Dispatcher
from coordinator.sessions.device_connection import DeviceConnection
from coordinator.simulation.virtual_time import run
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.protocol.messages import (
    Accepted,
    Announce,
    Evaluate,
    Fetch,
    Finished,
    Later,
    MergedMessage,
    Name,
    encode,
)

from ..small_run import Device, SmallRun, Wire, make_run, update_bytes


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
        self.connection = DeviceConnection(self.state, wire, traffic, self, self._proven)
        await self.connection.serve()
        await self.connection.leave()

    def _proven(self) -> None:
        self.proven += 1


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
            assert isinstance(await device.upload(assign, update_bytes("large")), Accepted)
            await device.wire.close()
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
        small = make_run(tmp_path, server={"handshake_seconds": 5})
        office = Office(small)
        async with Device(small).connected(office.serve) as device:
            await device.join()
            await asyncio.sleep(1000)
            await device.work()

    run(main())


def test_more_messages_than_a_device_may_send_end_its_connection(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, limits={"messages_per_second": 10})
        office = Office(small)
        async with Device(small).connected(office.serve) as device:
            await device.join()
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
        small = make_run(tmp_path)
        office = Office(small)
        async with Device(small).connected(office.serve) as device:
            await device.join()
            connection = office.connection
            assert connection is not None
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

    run(main())


def test_a_device_is_told_what_became_of_its_update_and_of_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        async with Device(small).connected(office.serve) as device:
            await device.join()
            connection = office.connection
            assert connection is not None
            connection.tell(MergedMessage(Name("a00000001"), 1, 0, 1.0))
            assert (await device.expect(MergedMessage)).version == 1
            office.state.finish("enough", {})
            await device.ask()
            assert (await device.expect(Finished)).reason == "enough"

    run(main())


def test_telling_a_device_that_has_left_is_no_error(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        async with Device(small).connected(office.serve) as device:
            await device.join()
        connection = office.connection
        assert connection is not None
        connection.push(Announce(1, {}))
        connection.tell(MergedMessage(Name("a00000001"), 1, 0, 1.0))
        with pytest.raises(ConnectionLost):
            await connection.postpone(1.0, "later")
        await connection.fail("unavailable", "the coordinator restarts")

    run(main())


def test_a_device_that_declines_gets_its_work_taken_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        office = Office(small)
        async with Device(small).connected(office.serve) as device:
            await device.join()
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


def test_a_device_with_few_samples_passes_over_them_more_often(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(small := make_run(tmp_path, training={"epochs": "auto"}))
        async with Device(small).connected(office.serve) as device:
            await device.join()
            assert (await device.work()).settings["epochs"] == 5, "it has ten samples, a batch"

    run(main())


def test_a_device_evaluates_a_version_on_its_own_samples(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, evaluation={"federated_devices": 1, "federated_minimum": 1, "federated_every": 1})
        office = Office(small)
        async with Device(small).connected(office.serve) as device:
            await device.join()
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
