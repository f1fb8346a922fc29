"""A version that would ruin the model is not published; who did it is found, left out, and shown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import numpy as np
import pytest

from coordinator.admin.metrics import metrics_text
from coordinator.admin.operations import Operations
from coordinator.config import EvaluationSection, ServerSection
from coordinator.evaluation.metric_watch import MetricWatch
from coordinator.loop.proposals import EvaluateWeights
from coordinator.merge.defence import REASONS
from coordinator.net.admission import ConnectionLimits
from coordinator.runs.served_run import ServedRun
from coordinator.runs.service import Service
from coordinator.simulation.virtual_time import run
from coordinator.store.records import SetAside, VersionRecord
from mobile_sdk.layout import Vector
from mobile_sdk.protocol.messages import Later

from ..small_run import Device, accept_update, added, give_work, make_run


def loss(vector: Vector) -> dict[str, float]:
    """Best where 10 was added to every trained weight."""
    return {"loss": float(np.mean((added(vector)[3:] - 10) ** 2))}


@pytest.mark.parametrize("first", [True, False], ids=["from the start", "late"])
@pytest.mark.parametrize("bad", [1e6, -1e6, -300.0])
def test_one_device_of_four_cannot_ruin_the_model_and_is_named(
    tmp_path: Path, bad: float, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 4, "defence": True})
        coordinator = small.coordinator(loss)
        state = coordinator.state
        running = ServedRun(small.config, small.store, coordinator, None)
        if not first:
            state.versions.commit(state.versions.vector, {}, loss(state.versions.vector), [], [], 0.0)
        running.start()
        await asyncio.sleep(0.1)
        for number in range(8):
            for device in range(3):
                accept_update(state, f"honest-{device}", value=1.0 + 0.1 * device, tier="large")
            if state.aside_seconds("mallory") == 0:
                accept_update(state, "mallory", value=bad, tier="large")
            else:
                accept_update(state, f"honest-{number % 3}", tier="large")
            await asyncio.sleep(1)
        assert not running.failed
        assert list(state.aside) == ["mallory"]
        assert state.versions.newest.version >= 4
        assert loss(state.versions.vector)["loss"] < 40, "100 at the start"
        shown = {device["id"]: device["set_aside"] for device in await Operations(running, "anna").devices()}
        assert shown["mallory"]
        assert not any(why for name, why in shown.items() if name != "mallory")
        (entry,) = [entry for entry in small.store.audit.entries() if entry.action == "set aside"]
        assert entry.actor == "coordinator"
        assert entry.details["why"] == shown["mallory"]
        assert entry.details["reason"] in REASONS
        mallory = Device(small, "mallory")
        async with mallory.connected(coordinator.serve):
            await mallory.join()
            await mallory.ask()
            later = await mallory.expect(Later)
            assert later.seconds > 80_000, "it gets no work for a day"
        await running.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    assert any("mallory is set aside" in message for message in caplog.messages)
    assert not any("honest" in message for message in caplog.messages)


def test_who_points_against_all_others_stays_unless_held_out_data_say_that_it_hinders(tmp_path: Path) -> None:
    """Four devices pull one way, one the other: it has samples that nobody else has, or it is hostile."""

    def prefers(value: float) -> EvaluateWeights:
        return lambda vector: {"loss": float(np.mean((added(vector)[3:] - value) ** 2))}

    def has_been_better(vector: Vector) -> dict[str, float]:
        """The others' direction is the better one, and still no version is as good as the first two."""
        change = added(vector)[3:]
        return {"loss": float(np.mean((change - 10.0) ** 2)) + (500.0 if change.max() > 0.15 else 400.0)}

    def fails_later(vector: Vector) -> dict[str, float]:
        return {"loss": 1.0} if added(vector)[3:].max() < 0.15 else {}

    async def main(folder: Path, evaluate: EvaluateWeights | None) -> set[str]:
        small = make_run(folder, merge={"buffer": 5, "defence": True})
        coordinator = small.coordinator(evaluate)
        task = asyncio.create_task(coordinator.run())
        await asyncio.sleep(0.1)
        for _ in range(8):
            for device in range(4):
                accept_update(coordinator.state, f"honest-{device}", value=0.1, tier="large")
            accept_update(coordinator.state, "odd", value=-0.1, tier="large")
            await asyncio.sleep(1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        coordinator.close()
        return set(coordinator.state.aside)

    assert run(main(tmp_path / "helps", prefers(-10.0))) == set()
    assert run(main(tmp_path / "harms", prefers(10.0))) == {"odd"}
    assert run(main(tmp_path / "learns nothing new", has_been_better)) == set()
    assert run(main(tmp_path / "fails", fails_later)) == set()
    assert run(main(tmp_path / "unknown", None)) == {"odd"}


def test_who_was_set_aside_is_so_after_a_restart_until_its_time_is_over(tmp_path: Path) -> None:
    async def first() -> None:
        small = make_run(tmp_path)
        coordinator = small.coordinator()
        for device in ("mallory", "anna", "old"):
            small.store.devices.enrol(device, b"s" * 32, 0.0)
        give_work(small.store, "mallory")
        await coordinator.version_maker.screening.set_aside("mallory", "length", "an update is 1e+06 times as long")
        small.store.devices.set_aside("old", SetAside(coordinator.state.clock.wall() - 1, "nothing", "over"), 0.0)
        coordinator.close()
        small.store.close()

    async def second() -> None:
        small = make_run(tmp_path)
        coordinator = small.coordinator()
        state, running = coordinator.state, ServedRun(small.config, small.store, coordinator, None)
        assert set(state.aside) == {"mallory"}
        assert state.aside_seconds("mallory") > 80_000
        assert coordinator.dispatcher.open == []
        shown = {device["id"]: device for device in await Operations(running, "anna").devices()}
        assert shown["mallory"]["set_aside"] == "an update is 1e+06 times as long"
        assert shown["mallory"]["set_aside_reason"] == "length"
        assert shown["anna"]["set_aside"] == shown["old"]["set_aside"] == ""
        service = Service(ServerSection())
        service._runs["small"] = running
        lines = metrics_text(service, ConnectionLimits(1, 1, 1)).splitlines()
        assert 'ftte_devices_set_aside{reason="length",run="small"} 1.0' in lines
        await Operations(running, "anna").withdraw("mallory")
        assert state.aside == {}
        coordinator.close()
        small.store.close()

    run(first())
    run(second())


def test_who_harms_once_is_left_out_once_and_takes_part_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "defence": True})
        coordinator = small.coordinator(loss)
        state = coordinator.state
        state.versions.commit(state.versions.vector, {}, loss(state.versions.vector), [], [], 0.0)
        task = asyncio.create_task(coordinator.run())
        await asyncio.sleep(0.1)
        for value in (-100.0, 1.0, 1.0):
            accept_update(state, "unlucky", value=value, tier="large")
            accept_update(state, "other", value=1.0, tier="large")
            await asyncio.sleep(1)
        assert state.aside == {}
        merged = {update.assignment for update in small.store.updates.merged()}
        assert len(merged) == 5, "all but the first of one device"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        coordinator.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    assert any("an update of unlucky is left out" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("before", "after", "collapsed"),
    [
        ({"accuracy": 0.39, "loss": 2.19}, {"accuracy": 0.23, "loss": 2.25}, False),  # the first versions leap
        ({"accuracy": 0.90, "loss": 0.40}, {"accuracy": 0.40, "loss": 1.90}, True),
        ({"accuracy": 0.90, "loss": 0.40}, {"accuracy": 0.40, "loss": 0.60}, False),  # the loss knows nothing of it
        ({"accuracy": 0.90, "loss": 0.40}, {"accuracy": 0.60, "loss": 1.00}, False),
        ({"accuracy": 0.90, "loss": 0.40}, {"accuracy": 0.90, "loss": 9.00}, True),
        ({"accuracy": 0.90, "loss": 0.40}, {}, True),
        ({"accuracy": 0.90}, {"accuracy": 0.20}, True),
    ],
)
def test_a_collapse_is_more_than_a_version_that_is_worse(
    before: dict[str, float], after: dict[str, float], collapsed: bool
) -> None:
    first = VersionRecord(0, -1, (), {"accuracy": 0.1, "loss": 2.32}, 0.0, "initial")
    watch = MetricWatch(EvaluationSection(), [first])
    assert (watch.collapse(after, VersionRecord(1, 0, (), before, 0.0)) is not None) == collapsed


def test_a_collapse_by_no_single_device_is_refused_three_times_and_then_the_operators_to_judge(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "defence": True})
        coordinator = small.coordinator(loss)
        state = coordinator.state
        state.versions.commit(state.versions.vector, {}, loss(state.versions.vector), [], [], 0.0)
        task = asyncio.create_task(coordinator.run())
        await asyncio.sleep(0.1)
        published = []
        for _ in range(4):
            for device in range(2):
                accept_update(state, f"d{device}", value=-100.0, tier="large")
            await asyncio.sleep(1)
            published.append(state.versions.newest.version)
        assert published == [1, 1, 1, 2]
        assert state.aside == {}
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        coordinator.close()

    run(main())


def test_without_the_defence_every_version_is_published(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1, "defence": False})
        coordinator = small.coordinator(loss)
        state = coordinator.state
        state.versions.commit(state.versions.vector, {}, loss(state.versions.vector), [], [], 0.0)
        task = asyncio.create_task(coordinator.run())
        await asyncio.sleep(0.1)
        accept_update(state, "d0", value=1e6, tier="large")
        await asyncio.sleep(1)
        assert state.versions.newest.version == 2
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        coordinator.close()

    run(main())


def test_a_version_that_nobody_evaluates_is_published(tmp_path: Path) -> None:
    """A simulation evaluates some of the versions only; no number at all is no collapse, unlike a loss that is none."""

    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 3, "defence": True})
        evaluated = [True, False, False, True]
        coordinator = small.coordinator(lambda vector: loss(vector) if evaluated.pop(0) else {})
        state = coordinator.state
        running = ServedRun(small.config, small.store, coordinator, None)
        running.start()
        await asyncio.sleep(0.1)
        for number in range(1, 5):
            for device in range(3):
                accept_update(state, f"honest-{device}", tier="large")
            await asyncio.sleep(1)
            assert state.versions.newest.version == number
        assert state.updates_merged == 12
        await running.close()

    run(main())
