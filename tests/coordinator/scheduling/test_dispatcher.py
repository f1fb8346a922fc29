"""From a device's wish for work to an assignment that is written down before the device hears of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import Expelled, StoreError, StoreUnavailable
from coordinator.programs.tiers import Tier
from coordinator.run_state import RunState
from coordinator.scheduling.dispatcher import Dispatcher
from coordinator.scheduling.stall_notices import StallNotices
from coordinator.simulation.virtual_time import START, VirtualClock, offload, run
from coordinator.store.records import SetAside
from mobile_sdk.clock import Offload
from mobile_sdk.errors import Refused
from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.protocol.messages import ArtifactRef, Assign, Evaluate, Hex, Name, Ready

from ..small_run import SmallRun, accept_update, make_run, open_work


@dataclasses.dataclass
class Guest:
    """A connected device; keeps what it was told."""

    device: str
    told: list[Any] = dataclasses.field(default_factory=list)
    expected: list[Sequence[ArtifactRef]] = dataclasses.field(default_factory=list)
    busy: bool = False  # whatever it is told has to wait

    async def assign(self, message: Assign, tier: Tier) -> None:
        self.told.append(message)

    def assign_at_once(self, message: Assign, tier: Tier) -> bool:
        if not self.busy:
            self.told.append(message)
        return not self.busy

    def expect(self, weights: Sequence[ArtifactRef]) -> None:
        if self.told:
            raise ValueError("it was told before")
        self.expected.append(weights)

    async def evaluate(self, message: Evaluate, tier: Tier) -> None:
        self.told.append(message)

    async def postpone(self, seconds: float, reason: str) -> None:
        self.told.append((seconds, reason))

    async def wait(self, reason: str) -> None:
        self.told.append(reason)

    async def fail(self, code: str, message: str) -> None:
        self.told.append((code, message))


class Desk:
    """A running run with its dispatcher."""

    def __init__(self, small: SmallRun, through: Offload = offload) -> None:
        self.small = small
        self.state: RunState = small.state(through)
        self.state.phase = "running"
        self.woken = 0
        self.dispatcher = Dispatcher(self.state, self._woken)

    def _woken(self) -> None:
        self.woken += 1

    async def ask(self, *names: str, budget: int = 0, busy: bool = False) -> list[Guest]:
        """Devices that have enrolled ask for work, at the same time."""
        guests = [Guest(name, busy=busy) for name in names]
        for guest in guests:
            self.state.store.devices.enrol(guest.device, b"s" * 32, 0.0)
            ready = Ready(budget, 10, Name("native"), EXECUTORCH_VERSION, 0, 1, False)
            await self.dispatcher.ask(guest, ready)
        await asyncio.sleep(0.001)
        return guests

    def publish(self) -> None:
        """A new version."""
        versions = self.state.versions
        self.state.published(versions.commit(versions.vector, {}, {}, [], [], 0.0))
        self.dispatcher.dispatch()


def test_a_device_gets_the_newest_version_in_the_largest_program_that_fits(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, training={"learning_rate": 0.5}, payload={"update": "int8"}))
        desk.publish()
        (guest,) = await desk.ask("phone-1", budget=1999)
        (assign,) = guest.told
        assert (assign.assignment, assign.version, assign.seed) == ("a00000001", 1, 1)
        assert assign.manifest == desk.small.tiers[0].record.manifest
        assert assign.weights == desk.state.versions.newest.weights
        assert guest.expected == [assign.weights], "while the assignment was written down"
        assert assign.settings["learning_rate"] == 0.5
        assert assign.payload["dtype"] == "int8"
        record = open_work(desk.state.store, "phone-1")
        assert record == desk.dispatcher.assignment("phone-1")
        assert record is not None
        assert (record.version, record.tier) == (1, "small")
        assert record.deadline == record.issued_at + 1800

    run(main())


def test_a_connection_that_cannot_prepare_takes_nobody_the_work(tmp_path: Path) -> None:
    class Clumsy(Guest):
        def expect(self, weights: Sequence[ArtifactRef]) -> None:
            raise RuntimeError("it cannot")

    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        desk.state.store.devices.enrol("phone-1", b"s" * 32, 0.0)
        clumsy = Clumsy("phone-1")
        await desk.dispatcher.ask(clumsy, Ready(0, 10, Name("native"), EXECUTORCH_VERSION, 0, 1, False))
        (guest,) = await desk.ask("phone-2")
        assert [len(each.told) for each in (clumsy, guest)] == [1, 1]

    run(main())


def test_nothing_that_fits_is_said_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(Refused, match="too small"):
            await Desk(make_run(tmp_path)).ask("phone-1", budget=1)

    run(main())


@pytest.mark.parametrize("phase", ["created", "paused", "draining"])
def test_a_run_that_does_not_run_gives_no_work(tmp_path: Path, phase: Any) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        desk.state.phase = phase
        (guest,) = await desk.ask("phone-1")
        assert guest.told == [(30.0, f"the run is {phase}")]

    run(main())


@pytest.mark.parametrize("seconds", [-86_400.0, 86_400.0])
def test_a_wall_clock_that_is_set_takes_no_device_its_work_or_its_place(tmp_path: Path, seconds: float) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, scheduling={"concurrency": 1}))
        (first,) = await desk.ask("phone-1")
        desk.state.clock = VirtualClock(asyncio.get_running_loop(), START + seconds)
        (second,) = await desk.ask("phone-2")
        assert not any(isinstance(each, Assign) for each in second.told)
        (again,) = await desk.ask("phone-1")
        assert [each.assignment for each in again.told] == [each.assignment for each in first.told]

    run(main())


def test_devices_that_ask_while_others_are_written_down_are_written_down_together(tmp_path: Path) -> None:
    async def main() -> None:
        groups: list[int] = []
        small = make_run(tmp_path)

        async def slow(function: Callable[..., Any], *args: Any) -> Any:
            if function == small.store.assignments.assign:
                groups.append(len(args[0]))
                await asyncio.sleep(0.01)
            return await offload(function, *args)

        desk = Desk(small, slow)
        guests = await desk.ask("d0")  # it is being written down
        guests += await desk.ask(*(f"d{number}" for number in range(1, 5)))
        desk.dispatcher.dispatch()  # whatever happens meanwhile: one hand writes
        await asyncio.sleep(0.1)
        assert sorted(guest.told[0].assignment for guest in guests) == [f"a{n:08d}" for n in range(1, 6)]
        assert groups == [1, 4]

    run(main())


def test_when_a_place_becomes_free_the_next_gets_it(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, scheduling={"concurrency": 1, "coverage": 0}))
        first, second = await desk.ask("d0", "d1")
        assert (len(first.told), len(second.told)) == (1, 0)
        desk.dispatcher.ended("d0")
        await asyncio.sleep(0.001)
        assert isinstance(second.told[0], Assign)
        assert desk.woken == 1

    run(main())


def test_beyond_the_waiting_room_a_device_hears_when_to_come_back_and_why(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, scheduling={"concurrency": 1, "coverage": 0, "waiting": 1, "retry_seconds": 7}))
        _, waiting, late = await desk.ask("d0", "d1", "d2")
        assert waiting.told == []
        assert late.told == [(14.0, "there are more devices than work just now")]

    run(main())


def test_the_place_of_who_left_is_free_long_before_its_deadline(tmp_path: Path) -> None:
    async def main() -> None:
        section = {"concurrency": 1, "coverage": 0, "liveness_seconds": 100, "deadline_seconds": 5000}
        desk = Desk(make_run(tmp_path, scheduling=section))
        await desk.ask("d0")
        (second,) = await desk.ask("d1")
        desk.dispatcher.left("d0")
        await asyncio.sleep(99)
        assert second.told == []
        assert desk.woken == 0
        await asyncio.sleep(2)
        assert isinstance(second.told[0], Assign)
        assert desk.woken == 1

    run(main())


def test_who_comes_back_with_its_work_undone_goes_on_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        (first,) = await desk.ask("phone-1")
        desk.dispatcher.left("phone-1")
        desk.publish()
        (again,) = await desk.ask("phone-1")
        assert again.told == first.told
        for _ in range(21):
            desk.publish()
        (late,) = await desk.ask("phone-1")
        assert late.told[0].version == 22, "by now it would be too stale"
        (other,) = await desk.ask("phone-1", budget=1000)
        assert other.told[0].manifest != late.told[0].manifest, "it has less memory than it had"

    run(main())


def test_open_assignments_have_their_places_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, scheduling={"concurrency": 1, "coverage": 0, "liveness_seconds": 100})
        desk = Desk(small)
        (first,) = await desk.ask("d0")
        again = Desk(small)
        assert [record.id for record in again.dispatcher.open] == [first.told[0].assignment]
        (second,) = await again.ask("d1")
        assert second.told == []
        await asyncio.sleep(101)
        assert isinstance(second.told[0], Assign), "the first has not come back in time"
        assert again.state.device("d0").failures == 1
        device = small.store.devices.find("d0")
        assert device is not None
        assert device.failures == 1

    run(main())


def test_a_full_disk_sends_devices_away_and_their_places_are_free(tmp_path: Path) -> None:
    async def main() -> None:
        full = True
        small = make_run(tmp_path, scheduling={"concurrency": 1})

        async def disk(function: Callable[..., Any], *args: Any) -> Any:
            if full and function == small.store.assignments.assign:
                raise StoreUnavailable("the disk is full")
            return await offload(function, *args)

        desk = Desk(small, disk)
        (guest,) = await desk.ask("phone-1")
        assert guest.told == [("unavailable", "the coordinator cannot write to its disk")]
        assert desk.dispatcher.scheduler.working == {}
        full = False
        (again,) = await desk.ask("phone-1")
        assert isinstance(again.told[0], Assign)

    run(main())


def test_work_that_became_void_is_not_given(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)

        async def slow(function: Callable[..., Any], *args: Any) -> Any:
            if function == small.store.assignments.assign and args[0][0].device == "phone-2":
                desk.dispatcher.void(["phone-1"])
            return await offload(function, *args)

        desk = Desk(small, slow)
        (guest,) = await desk.ask("phone-1")
        desk.dispatcher.left("phone-1")
        again, other = await desk.ask("phone-1", "phone-2")  # it would go on with the same work
        assert [type(message) for message in (*guest.told, *other.told)] == [Assign, Assign]
        assert again.told == [("unavailable", "the assignment became void: come again")]

    run(main())


def test_stopping_sends_away_who_waits_and_who_comes(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, scheduling={"concurrency": 1, "coverage": 0}))
        _, waiting = await desk.ask("d0", "d1")
        desk.dispatcher.stop("the coordinator restarts")
        (late,) = await desk.ask("d2")
        assert waiting.told == late.told == [(30.0, "the coordinator restarts")]
        desk.dispatcher.ended("d0")
        await asyncio.sleep(0.001)
        assert desk.dispatcher.scheduler.working == {}

    run(main())


def test_a_device_beyond_its_bytes_of_a_day_is_sent_away_until_the_day_is_over(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, limits={"bytes_per_day": 1000}))
        await desk.ask("phone-1")
        desk.dispatcher.ended("phone-1")
        desk.state.device("phone-1").earlier.down = 1000
        await asyncio.sleep(3600)
        (guest,) = await desk.ask("phone-1")
        ((seconds, reason),) = guest.told
        assert seconds == pytest.approx(23 * 3600, abs=1)
        assert "as many bytes as it may" in reason

    run(main())


def test_who_leaves_the_queue_and_comes_back_to_the_same_stall_hears_of_it_again(tmp_path: Path) -> None:
    async def main() -> None:
        notices = StallNotices(state := make_run(tmp_path, merge={"buffer": 3}, scheduling={"repeat": False}).state())
        state.phase, state.exhausted = "running", True
        guest = Guest("phone-1")
        (tier, *_) = state.tiers
        for _ in range(2):  # told once while it waits
            notices.look({"phone-1": (guest, tier)})
            await asyncio.sleep(0.001)
        assert len(guest.told) == 1
        notices.forget("phone-1")
        notices.look({"phone-1": (guest, tier)})
        await asyncio.sleep(0.001)
        assert len(guest.told) == 2

    run(main())


def test_a_device_that_takes_nothing_at_once_is_told_of_its_work_while_others_are_served(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        ready = Ready(0, 10, Name("native"), EXECUTORCH_VERSION, 0, 1, False)
        guests = [Guest("phone-1", busy=True), Guest("phone-2")]
        for guest in guests:
            desk.state.store.devices.enrol(guest.device, b"s" * 32, 0.0)
            await desk.dispatcher.ask(guest, ready)
        await asyncio.sleep(0.001)
        assert [[type(message) for message in guest.told] for guest in guests] == [[Assign], [Assign]]

    run(main())


@pytest.mark.parametrize("leaves", [False, True])
def test_closing_stops_the_timer_and_there_is_one_alone(tmp_path: Path, leaves: bool) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, scheduling={"deadline_seconds": 10}))
        await desk.ask("phone-1")
        if leaves:
            desk.dispatcher.left("phone-1")  # which sets it anew
        desk.dispatcher.close()
        await asyncio.sleep(100)
        assert desk.state.device("phone-1").failures == 0

    run(main())


def test_a_run_that_its_devices_cannot_bring_on_says_so_to_those_that_wait_and_once_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, merge={"buffer": 3}, scheduling={"repeat": False}))
        (guest,) = await desk.ask("phone-1")
        desk.dispatcher.ended("phone-1")
        ready = Ready(0, 10, Name("native"), EXECUTORCH_VERSION, 0, 1, False)
        for _ in range(2):  # it has lost its connection meanwhile, and hears it again
            await desk.dispatcher.ask(guest, ready)
            await asyncio.sleep(0.001)
            desk.dispatcher.dispatch()
            desk.dispatcher.left("phone-1")
        words = (
            "updates of 3 more devices: every device that is here has trained version 0, and scheduling.repeat is false"
        )
        assert guest.told[1:] == [words, words]
        desk.dispatcher.dispatch()
        assert caplog.messages.count(f"version 1 waits for {words}") == 2
        desk.publish()
        await desk.dispatcher.ask(guest, ready)
        await asyncio.sleep(0.001)
        assert isinstance(guest.told[-1], Assign), "there is something to train again"

    run(main())


@pytest.mark.parametrize("pruned", [False, True])
def test_a_device_goes_on_with_its_work_as_long_as_the_version_has_its_files(tmp_path: Path, pruned: bool) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        (guest,) = await desk.ask("phone-1")
        desk.publish()
        if pruned:
            desk.state.versions.forget([0])
        desk.dispatcher.left("phone-1")
        (again,) = await desk.ask("phone-1")
        assert (again.told[0].assignment == guest.told[0].assignment) is not pruned
        assert again.told[0].version == (1 if pruned else 0)

    run(main())


def test_a_device_whose_metrics_are_wanted_gives_them_before_it_gets_work(tmp_path: Path) -> None:
    async def main() -> None:
        section = {"federated_devices": 1, "federated_every": 1}
        desk = Desk(make_run(tmp_path, evaluation=section))
        newest = desk.state.versions.newest
        desk.state.federated.begin(newest, ["phone-1"])
        first, other = await desk.ask("phone-1", "phone-2")
        (evaluate,) = first.told
        tier = desk.small.tiers[-1]
        assert evaluate == Evaluate(
            Name("e00000000"), 0, tier.record.manifest, Hex(tier.record.signature), tier.program, newest.weights
        )
        assert isinstance(other.told[0], Assign)
        assert desk.dispatcher.scheduler.working.keys() == {"phone-2"}
        (again,) = await desk.ask("phone-1")
        assert isinstance(again.told[0], Assign)

    run(main())


def test_nobody_is_told_anything_once_the_run_is_finished(tmp_path: Path) -> None:
    """The end is announced to everybody in a moment."""

    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        desk.state.phase = "finished"
        (guest,) = await desk.ask("phone-1")
        assert guest.told == []

    run(main())


def test_who_is_released_stays_connected_without_work_and_hears_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, scheduling={"concurrency": 1, "coverage": 0}))
        _, waiting = await desk.ask("d0", "d1")
        desk.dispatcher.release()
        assert desk.dispatcher.scheduler.waiting == {}
        desk.dispatcher.ended("d0")
        await asyncio.sleep(0.001)
        assert waiting.told == []
        (again,) = await desk.ask("d1")
        assert isinstance(again.told[0], Assign)

    run(main())


def test_the_place_of_work_that_became_void_is_another_devices_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, scheduling={"concurrency": 1, "coverage": 0}))
        _, waiting = await desk.ask("d0", "d1")
        desk.dispatcher.void(["d0"])
        assert desk.dispatcher.assignment("d0") is None
        await asyncio.sleep(0.001)
        assert isinstance(waiting.told[0], Assign)

    run(main())


def test_who_leaves_while_others_wait_hears_the_reason_again_when_it_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, merge={"buffer": 5}, scheduling={"repeat": False}))
        await desk.ask("d0", "d1")
        for device in ("d0", "d1"):
            desk.dispatcher.ended(device)
        first, second = await desk.ask("d0", "d1")
        desk.dispatcher.left("d0")
        (again,) = await desk.ask("d0")
        assert [len(guest.told) for guest in (first, second, again)] == [1, 1, 1]

    run(main())


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (Expelled("d1 was revoked"), ("revoked", "the operator has revoked this device")),
        (StoreError("odd"), ("unavailable", "the coordinator has a problem of its own: try again later")),
    ],
)
def test_a_device_whose_assignment_cannot_be_written_down_does_not_keep_the_others_from_theirs(
    tmp_path: Path, error: Exception, answer: tuple[str, str]
) -> None:
    async def main() -> None:
        small = make_run(tmp_path)

        async def picky(function: Callable[..., Any], *args: Any) -> Any:
            if function == small.store.assignments.assign and any(request.device == "d1" for request in args[0]):
                raise error
            return await offload(function, *args)

        desk = Desk(small, picky)
        first, faulty, last = await desk.ask("d0", "d1", "d2")
        assert faulty.told == [answer]
        assert [guest.told[0].assignment for guest in (first, last)] == ["a00000001", "a00000002"]
        assert desk.dispatcher.scheduler.working.keys() == {"d0", "d2"}

    run(main())


@pytest.mark.parametrize(("maximum", "lag"), [(None, 20), (100, 20), (3, 3)])
def test_work_is_gone_on_with_while_it_is_not_too_stale(tmp_path: Path, maximum: int | None, lag: int) -> None:
    async def main() -> None:
        staleness = {"staleness": {} if maximum is None else {"maximum": maximum}}
        desk = Desk(make_run(tmp_path, merge=staleness))
        await desk.ask("phone-1")
        for _ in range(lag):
            desk.publish()
        (again,) = await desk.ask("phone-1")
        assert again.told[0].version == 0
        desk.publish()
        (fresh,) = await desk.ask("phone-1")
        assert fresh.told[0].version == lag + 1

    run(main())


def test_a_task_that_is_due_sooner_than_the_others_is_looked_at_in_time(tmp_path: Path) -> None:
    """The first of two devices has shown that it returns and has half an hour; a newcomer has less."""

    async def main() -> None:
        section = {"coverage": 0, "deadline_seconds": 1800, "retry_seconds": 1}
        desk = Desk(make_run(tmp_path, scheduling=section))
        for _ in range(11):
            await desk.ask("known")
            desk.dispatcher.ended("known")
        await desk.ask("known")
        await asyncio.sleep(10)
        await desk.ask("newcomer")
        assert desk.dispatcher.scheduler.working.keys() == {"known", "newcomer"}
        await asyncio.sleep(25)
        assert desk.dispatcher.scheduler.working.keys() == {"known"}

    run(main())


def test_a_device_that_is_set_aside_is_sent_away_until_that_is_over(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        desk.state.aside["phone-1"] = SetAside(desk.state.clock.wall() + 100.0, "odd", "its updates were odd")
        (guest,) = await desk.ask("phone-1")
        ((seconds, reason),) = guest.told
        assert seconds == pytest.approx(100.0)
        assert reason == "the device's updates were out of line: the operator sees why"
        await asyncio.sleep(100)
        (again,) = await desk.ask("phone-1")
        assert isinstance(again.told[0], Assign)

    run(main())


def test_who_comes_back_in_time_keeps_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        section = {"concurrency": 1, "coverage": 0, "liveness_seconds": 100, "deadline_seconds": 5000}
        desk = Desk(make_run(tmp_path, scheduling=section))
        _, second = await desk.ask("d0", "d1")
        desk.dispatcher.left("d0")
        await asyncio.sleep(99)
        desk.dispatcher.came("d0")
        await asyncio.sleep(1000)
        assert second.told == []

    run(main())


def test_who_got_work_meanwhile_hears_the_reason_again_when_it_waits_again(tmp_path: Path) -> None:
    async def main() -> None:
        merge = {"buffer": 2, "min_contributors": 2}
        desk = Desk(make_run(tmp_path, merge=merge, scheduling={"concurrency": 1, "coverage": 0}))
        for _ in range(2):
            accept_update(desk.state, "phone-0")
        told = []
        for _ in range(2):
            _, guest = await desk.ask("d0", "d1")
            desk.dispatcher.ended("d0")
            await asyncio.sleep(0.001)
            desk.dispatcher.ended("d1")
            told.append([type(word) for word in guest.told])
        assert told == [[str, Assign], [str, Assign]]

    run(main())


def test_a_run_is_exhausted_while_devices_wait_and_none_works(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path, scheduling={"repeat": False}))
        shown = [desk.state.exhausted]
        await desk.ask("d0")
        shown.append(desk.state.exhausted)
        desk.dispatcher.ended("d0")
        shown.append(desk.state.exhausted)
        await desk.ask("d0")
        shown.append(desk.state.exhausted)
        await desk.ask("d1")
        shown.append(desk.state.exhausted)
        assert shown == [False, False, False, True, False]

    run(main())


def test_who_comes_back_after_a_restart_and_does_nothing_is_overdue_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, scheduling={"deadline_seconds": 100, "liveness_seconds": 10})
        await Desk(small).ask("d0")
        again = Desk(small)
        again.dispatcher.came("d0")
        await asyncio.sleep(99)
        assert again.state.device("d0").failures == 0
        await asyncio.sleep(2)
        assert again.state.device("d0").failures == 1

    run(main())


def test_work_of_a_version_that_is_not_among_the_newest_is_gone_on_with_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        (guest,) = await desk.ask("phone-1")
        desk.publish()
        desk.state._history.popleft()  # as after many versions
        desk.dispatcher.left("phone-1")
        (again,) = await desk.ask("phone-1")
        assert again.told == guest.told

    run(main())
