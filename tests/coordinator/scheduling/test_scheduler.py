"""Who gets work: places, the waiting room, coverage, fair shares, deadlines."""

from __future__ import annotations

import dataclasses
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config import SchedulingSection
from coordinator.scheduling.scheduler import Postpone, Scheduler, ranges


def tier(name: str, positions: list[int]) -> Any:
    """A program that trains these coordinates of ten."""
    layout = SimpleNamespace(size=10)
    return SimpleNamespace(name=name, positions=np.array(positions, np.int64), manifest=SimpleNamespace(layout=layout))


TIERS = [tier("small", [8, 9]), tier("large", [2, 3, 8, 9])]


@dataclasses.dataclass
class Desk:
    """A scheduler with its clock, and devices' contributions."""

    scheduler: Scheduler
    contributions: Counter[str]
    now: float = 0.0

    def ask(self, device: str, tier: str = "small", version: int = 0) -> list[str]:
        """A device asks; who gets work then."""
        self.now += 1
        assert self.scheduler.ask(device, tier, self.now) is None
        return self.choose(version)

    def choose(self, version: int = 0) -> list[str]:
        """Everybody who gets work."""
        chosen = []
        waiting = dict(self.scheduler.waiting)
        while (device := self.scheduler.choose(version)) is not None:
            self.scheduler.begin(device, waiting[device].tier, version, self.now)
            chosen.append(device)
        return chosen

    def hand_in(self, device: str) -> None:
        self.now += 1
        self.contributions[device] += 1
        self.scheduler.end(device, self.now)


def desk(buffered: tuple[str, ...] = (), **section: Any) -> Desk:
    contributions: Counter[str] = Counter()
    scheduler = Scheduler(
        SchedulingSection(**section), TIERS, buffered=lambda: Counter(buffered), contribution=lambda d: contributions[d]
    )
    return Desk(scheduler, contributions)


def test_without_a_limit_everybody_works_at_once() -> None:
    d = desk()
    assert [d.ask(f"d{i}") for i in range(100)] == [[f"d{i}"] for i in range(100)]


def test_no_more_devices_work_than_there_are_places() -> None:
    d = desk(concurrency=2, coverage=0)
    assert d.ask("a") + d.ask("b") + d.ask("c") == ["a", "b"]
    d.hand_in("a")
    assert d.choose() == ["c"]


def test_a_device_may_train_the_same_version_again_and_gets_a_task() -> None:
    d = desk(concurrency=1)
    assert d.ask("a", version=5) == ["a"]
    d.hand_in("a")
    assert d.ask("a", version=5) == ["a"]


def test_where_versions_are_trained_once_a_device_waits_for_the_next_and_holds_no_place() -> None:
    d = desk(concurrency=1, repeat=False)
    assert d.ask("a", version=5) == ["a"]
    d.hand_in("a")
    assert d.ask("a", version=5) == []
    assert d.ask("b", version=5) == ["b"]
    d.hand_in("b")
    assert d.choose(version=6) == ["a"]


def test_who_comes_back_with_its_work_undone_keeps_its_place() -> None:
    d = desk(concurrency=1)
    assert d.ask("a") == ["a"]
    assert d.ask("b") == []
    assert d.ask("a") == ["a"]
    assert len(d.scheduler.working) == 1


def test_beyond_the_waiting_room_devices_are_told_when_to_come_back() -> None:
    d = desk(concurrency=1, waiting=2, retry_seconds=7, coverage=0)
    for name in "abc":
        d.ask(name)
    answer = d.scheduler.ask("d", "small", d.now)
    assert isinstance(answer, Postpone)
    assert answer.seconds >= 7
    crowd = desk(concurrency=1, waiting=50, retry_seconds=7, coverage=0)
    for number in range(51):
        crowd.ask(f"d{number}")
    later = crowd.scheduler.ask("late", "small", crowd.now)
    assert isinstance(later, Postpone)
    assert later.seconds > answer.seconds  # the longer the queue, the later it is worth coming


def test_nobody_is_sent_away_for_more_than_an_hour() -> None:
    d = desk(concurrency=1, waiting=1, retry_seconds=7, coverage=0)
    d.ask("slow")
    d.now += 1e6
    d.hand_in("slow")
    for name in "ab":
        d.ask(name)
    answer = d.scheduler.ask("c", "small", d.now)
    assert isinstance(answer, Postpone)
    assert answer.seconds == 3_600.0


def test_a_device_that_is_forgotten_waits_no_more_and_may_train_anything_again() -> None:
    d = desk(concurrency=1, cohort=1, repeat=False, coverage=0)
    assert d.ask("a") == ["a"]
    assert d.ask("b") == []
    d.scheduler.forget("b")
    assert d.scheduler.waiting == {}
    d.scheduler.forget("a")
    assert d.ask("b") == ["b"], "of one that trains version 0 there is room again"
    d.scheduler.forget("b")
    assert d.ask("a") == ["a"]


def test_who_has_contributed_least_goes_first() -> None:
    d = desk(concurrency=1, coverage=0)
    d.contributions.update(fast=50, slow=2, middling=10)
    d.ask("first")
    for name in ("fast", "middling", "slow"):
        assert d.ask(name) == []
    order = []
    working = "first"
    for _ in range(3):
        d.hand_in(working)
        (working,) = d.choose()
        order.append(working)
    assert order == ["slow", "middling", "fast"]


def test_a_slow_device_has_its_share_beside_fast_ones() -> None:
    """One place, three fast devices that always ask again at once, and one that asks only now and then."""
    d = desk(concurrency=1, coverage=0)
    working = d.ask("fast-0")[0]
    d.ask("fast-1")
    d.ask("fast-2")
    served: Counter[str] = Counter()
    for trip in range(200):
        served[working] += 1
        d.hand_in(working)
        if working != "slow":
            d.scheduler.ask(working, "small", d.now)
        if trip % 4 == 0 and "slow" not in d.scheduler.waiting:
            d.scheduler.ask("slow", "small", d.now)
        (working,) = d.choose()
    assert served["slow"] >= 40


def test_a_range_that_nobody_trains_goes_first() -> None:
    d = desk(concurrency=2)
    d.contributions["strong"] = 1000
    d.ask("a")
    d.ask("b")
    d.ask("c")
    d.ask("strong", "large")
    d.hand_in("a")
    assert d.choose() == ["strong"]


def test_a_buffered_update_covers_its_range() -> None:
    d = desk(buffered=("large",), concurrency=1)
    d.contributions["strong"] = 10
    d.ask("a")
    d.ask("c")
    d.ask("strong", "large")
    d.hand_in("a")
    assert d.choose() == ["c"]


def test_who_is_needed_for_coverage_is_not_sent_away_from_a_full_waiting_room() -> None:
    d = desk(concurrency=1, waiting=1)
    d.ask("a")
    d.ask("b")
    assert d.scheduler.ask("strong", "large", d.now) is None
    assert isinstance(d.scheduler.ask("c", "small", d.now), Postpone)


def test_a_task_that_is_overdue_is_given_to_another() -> None:
    d = desk(concurrency=1, deadline_seconds=10)
    d.ask("a")
    d.ask("b")
    assert d.scheduler.next_expiry() == 11
    assert d.scheduler.expire(10.9) == []
    assert [task.device for task in d.scheduler.expire(11)] == ["a"]
    assert d.scheduler.overdue == 1
    assert d.choose() == ["b"]


def test_a_device_that_has_left_keeps_its_place_for_a_while_only() -> None:
    d = desk(concurrency=1, deadline_seconds=1000, liveness_seconds=30)
    d.ask("a")
    d.ask("b")
    d.scheduler.left("a", 100.0)
    assert d.scheduler.next_expiry() == 130
    d.scheduler.came("a")
    assert d.scheduler.expire(500) == []
    d.scheduler.left("a", 600.0)
    assert [task.device for task in d.scheduler.expire(630)] == ["a"]
    assert d.choose() == ["b"]


def test_ranges_are_what_the_same_tiers_train() -> None:
    assert ranges(TIERS) == [frozenset({"large"}), frozenset({"small", "large"})]
    assert set(ranges([*TIERS, tier("other", [9, 0])])) == {
        frozenset({"large"}),
        frozenset({"small", "large"}),
        frozenset({"small", "large", "other"}),
        frozenset({"other"}),
    }


@given(
    events=st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["ask", "end", "left", "came"])), max_size=60),
    concurrency=st.integers(1, 3),
    repeat=st.booleans(),
)
@pytest.mark.filterwarnings("ignore")
def test_whatever_devices_do_no_place_is_lost_for_ever(events: Any, concurrency: int, repeat: bool) -> None:
    """After any history, once the deadline has passed, as many get work as there are places."""
    d = desk(concurrency=concurrency, repeat=repeat, coverage=0)
    version = 0
    for device, event in events:
        d.now += 1
        match event:
            case "ask":
                d.ask(device, version=version)
            case "end":
                d.scheduler.end(device, d.now)
                version += 1
            case "left":
                d.scheduler.left(device, d.now)
            case "came":
                d.scheduler.came(device)
        assert len(d.scheduler.working) <= concurrency
        d.choose(version)
    d.now += 10_000
    d.scheduler.expire(d.now)
    fresh = [f"fresh-{number}" for number in range(concurrency)]
    waiting = len(d.scheduler.waiting)
    chosen = [device for name in fresh for device in d.ask(name, version=version + 1)]
    assert len(chosen) == min(concurrency, waiting + len(fresh))


def test_a_task_that_ended_leaves_exactly_one_task_fewer_of_its_tier() -> None:
    """Ranges count as covered by the tasks that still run: what ended is taken off once."""
    d = desk(concurrency=2, coverage=1)
    for name in ("l0", "l1"):
        assert d.ask(name, "large") == [name]
    d.contributions["large-one"] = 5
    for name, of in (("small-one", "small"), ("large-one", "large")):
        assert d.ask(name, of) == []
    d.hand_in("l0")
    assert d.choose() == ["small-one"], "l1 still trains both ranges, and small-one has contributed least"


def test_devices_that_take_work_and_never_return_it_leave_the_others_most_of_their_throughput() -> None:
    """Two places, two honest devices, a deadline of three seconds: with six that never hand in, and without."""
    alone, beside = honest_updates(0), honest_updates(6)
    assert beside >= 0.8 * alone


def honest_updates(stallers: int, seconds: float = 120.0) -> int:
    """Updates of two devices that train for half a second each, while others only take."""
    section = SchedulingSection(concurrency=2, coverage=0, deadline_seconds=3.0, retry_seconds=0.25)
    contributions: Counter[str] = Counter()
    scheduler = Scheduler(section, TIERS, contribution=lambda device: contributions[device])
    asks = {name: 0.0 for name in [*(f"stall-{n}" for n in range(stallers)), "honest-0", "honest-1"]}
    done: dict[str, float] = {}
    now = 0.0
    while now < seconds:
        now = round(now + 0.05, 2)
        for task in scheduler.expire(now):
            asks[task.device] = now + 0.05
        for device, at in list(done.items()):
            if at <= now:
                del done[device]
                contributions[device] += 1
                scheduler.end(device, now)
                asks[device] = now + 0.05
        for device, at in list(asks.items()):
            if at <= now:
                del asks[device]
                answer = scheduler.ask(device, "small", now)
                if isinstance(answer, Postpone):
                    asks[device] = now + answer.seconds
        while (chosen := scheduler.choose(0)) is not None:
            scheduler.begin(chosen, "small", 0, now)
            if chosen.startswith("honest"):
                done[chosen] = now + 0.5
    return contributions.total()


def test_a_device_that_lost_its_tasks_gets_another_chance_each_time_later() -> None:
    d = desk(concurrency=1, coverage=0, deadline_seconds=10, retry_seconds=1)
    waits = []
    for lost in range(1, 4):
        assert d.ask("a") == ["a"]
        d.now += 10
        assert [task.device for task in d.scheduler.expire(d.now)] == ["a"]
        assert d.scheduler.lost("a") == lost
        answer = d.scheduler.ask("a", "small", d.now)
        assert isinstance(answer, Postpone)
        assert f"the last {lost} tasks of this device did not come back" in answer.reason
        waits.append(answer.seconds)
        d.now += answer.seconds
    assert waits == [40.0, 640.0, 10_240.0], "four times as long as it held its place, then sixteen times as much"
    assert d.ask("a") == ["a"]
    d.hand_in("a")
    assert d.scheduler.lost("a") == 0
    assert d.ask("a") == ["a"], "one that comes back is as good as any"


def test_what_is_handed_in_late_counts_as_returned() -> None:
    d = desk(concurrency=1, coverage=0, deadline_seconds=10)
    assert d.ask("a") == ["a"]
    d.now += 10
    d.scheduler.expire(d.now)
    d.hand_in("a")
    assert d.scheduler.lost("a") == 0
    assert d.ask("a") == ["a"]


def test_under_an_adaptive_limit_nobody_waits_for_a_straggler() -> None:
    d = desk(concurrency="auto", coverage=0, retry_seconds=1)
    d.scheduler.concurrency = 1
    for _ in range(20):
        d.ask("fast")
        d.hand_in("fast")  # a task takes a second
    assert d.ask("tortoise") == ["tortoise"]
    assert d.ask("hare") == []
    becomes_slow = d.scheduler.next_expiry()
    assert becomes_slow is not None
    assert becomes_slow == pytest.approx(d.now - 1 + 4), "four times as long as tasks take"
    assert d.scheduler.expire(becomes_slow) == [], "its task goes on"
    assert d.choose() == ["hare"]
    assert d.ask("other") == [], "the hare's place is taken"
    d.hand_in("tortoise")
    d.hand_in("hare")
    assert d.choose() == ["other"]


def test_a_newcomer_keeps_its_place_for_a_multiple_of_what_tasks_usually_take() -> None:
    d = desk(concurrency=1, coverage=0, deadline_seconds=1800, retry_seconds=1)
    for _ in range(60):
        assert d.ask("honest") == ["honest"]
        d.hand_in("honest")
    assert d.ask("newcomer") == ["newcomer"]
    expiry = d.scheduler.next_expiry()
    assert expiry == pytest.approx(d.now + 20), "not half an hour: tasks take a second here"
    d.hand_in("newcomer")
    assert d.ask("newcomer") == ["newcomer"]
    assert d.scheduler.next_expiry() == d.now + 1800, "it has shown that it returns"


def test_a_newcomer_has_its_full_deadline_until_ten_tasks_have_shown_how_long_they_take() -> None:
    d = desk(concurrency=1, coverage=0, deadline_seconds=1800, retry_seconds=1)
    patience = []
    for ended in range(11):
        task = d.scheduler.begin(f"newcomer-{ended}", "small", 0, d.now)
        patience.append(task.deadline - task.since)
        d.hand_in(task.device)
    assert patience == [*[1800.0] * 10, pytest.approx(20.0)]


def test_a_device_that_keeps_losing_its_tasks_is_heard_again_within_a_day() -> None:
    d = desk(concurrency=1, coverage=0, deadline_seconds=10_000)
    for _ in range(2):
        d.scheduler.begin("a", "small", 0, d.now)
        d.now += 10_000
        d.scheduler.expire(d.now)
    answer = d.scheduler.ask("a", "small", d.now)
    assert isinstance(answer, Postpone)
    assert answer.seconds == 86_400.0


def test_a_device_that_gives_its_task_back_has_one_free_and_then_waits() -> None:
    d = desk(concurrency=1, coverage=0, retry_seconds=1)
    assert d.scheduler.lost("a") == 0
    waits = []
    for lost in range(1, 3):
        d.scheduler.begin("a", "small", 0, d.now)
        d.now += 10
        d.scheduler.end("a", d.now, returned=False)
        assert d.scheduler.lost("a") == lost
        answer = d.scheduler.ask("a", "small", d.now)
        waits.append(answer.seconds if isinstance(answer, Postpone) else 0.0)
    assert waits == [0.0, 640.0]


def test_the_time_to_come_back_is_about_when_those_who_wait_have_had_their_turn() -> None:
    d = desk(concurrency=2, coverage=0, retry_seconds=10)
    assert d.scheduler.retry_seconds() == 10.0, "as long as nobody waits"
    assert desk(retry_seconds=10).scheduler.retry_seconds() == 10.0, "also where any number may work"
    d.scheduler.begin("a", "small", 0, 0.0)
    d.scheduler.end("a", 110.0)  # tasks are taken to last 20 s: a tenth of the way from 10 to 110
    for name in "abcdef":
        d.ask(name)
    assert len(d.scheduler.waiting) == 4
    assert d.scheduler.retry_seconds() == pytest.approx(20.0 * 5 / 2)


def test_devices_are_counted_by_what_they_do() -> None:
    d = desk(concurrency=2, coverage=0)

    def counts() -> tuple[int, int]:
        return d.scheduler.training, d.scheduler.present

    for name in "abc":
        d.ask(name)
    assert counts() == (2, 3)
    for _ in range(2):  # gone is gone, however often it is said
        d.scheduler.left("a", d.now)
        assert counts() == (1, 2)
    for _ in range(2):
        d.scheduler.came("a")
        assert counts() == (2, 3)
    d.scheduler.left("b", d.now)
    d.scheduler.cancel("b")
    assert counts() == (1, 2)
    assert d.scheduler.disperse() == ["c"]
    assert d.scheduler.waiting == {}
    assert counts() == (1, 1)
    assert d.choose() == [], "nobody waits"


def test_an_adaptive_limit_counts_neither_stragglers_nor_who_is_away_and_nobody_twice() -> None:
    d = desk(concurrency="auto", coverage=0, retry_seconds=1)
    assert d.scheduler.concurrency == 0, "until it is told"
    d.scheduler.concurrency = 2
    assert d.ask("a") + d.ask("b") + d.ask("c") == ["a", "b"]
    d.scheduler.left("a", d.now)
    assert d.choose() == ["c"], "a's place is another's at once"
    d.now += 4
    assert d.scheduler.expire(d.now) == [], "a, b and c are slow by now"
    assert d.ask("d") + d.ask("e") + d.ask("f") == ["d", "e"], "a is both slow and away"
    d.scheduler.came("a")
    assert d.choose() == [], "a is a straggler still"
    d.hand_in("a")
    assert d.choose() == [], "a's place was given to another before"
    d.hand_in("d")
    assert d.choose() == ["f"]


@pytest.mark.parametrize("concurrency", [1, "auto"])
def test_the_first_look_at_a_task_is_when_it_may_be_a_stragglers_and_the_last_at_its_deadline(concurrency: Any) -> None:
    d = desk(concurrency=concurrency, coverage=0, retry_seconds=2, deadline_seconds=100)
    task = d.scheduler.begin("a", "small", 0, 10.0)
    looks = [18.0, 110.0] if concurrency == "auto" else [110.0, 110.0]
    assert [d.scheduler.first_look(task), task.deadline] == looks
    assert d.scheduler.next_expiry() == looks[0]
    assert d.scheduler.expire(18.0) == []
    assert d.scheduler.next_expiry() == 110.0


def test_who_may_not_train_this_version_keeps_its_place_in_the_queue() -> None:
    d = desk(concurrency=1, repeat=False, coverage=0)
    d.contributions.update(c=5, b=9)
    assert d.ask("a", version=5) == ["a"]
    d.hand_in("a")  # it has contributed least, but has trained version 5
    d.scheduler.ask("a", "small", d.now)
    for name in "bc":
        d.scheduler.ask(name, "small", d.now)
    assert d.choose(version=5) == ["c"]
    d.scheduler.ask("c", "small", d.now)
    d.scheduler.end("c", d.now)
    assert d.choose(version=5) == ["b"]
    d.scheduler.end("b", d.now)
    assert d.choose(version=6) == ["a"]
    d.scheduler.end("a", d.now)
    assert d.choose(version=6) == ["c"]


def test_a_cohort_has_room_for_as_many_devices_as_it_says_and_for_those_who_come_back() -> None:
    d = desk(cohort=2, coverage=0, deadline_seconds=10)
    assert d.ask("a") + d.ask("b") + d.ask("c") == ["a", "b"]
    assert d.ask("a") == ["a"], "it is one of them"
    d.hand_in("b")
    assert d.choose() == []
    d.now += 10
    assert [task.device for task in d.scheduler.expire(d.now)] == ["a"]
    assert d.choose() == ["c"], "who was late leaves its place in the cohort"
    assert d.ask("d", version=1) == ["d"], "each version has a cohort of its own"


def test_a_device_is_heard_again_at_the_very_moment_that_it_was_told() -> None:
    d = desk(concurrency=1, coverage=0, deadline_seconds=10, retry_seconds=1)
    d.scheduler.begin("a", "small", 0, 0.0)
    assert [task.device for task in d.scheduler.expire(10.0)] == ["a"]
    early = d.scheduler.ask("a", "small", 49.5)
    assert early == Postpone(1.0, "the last 1 tasks of this device did not come back"), "no sooner than any other"
    assert d.scheduler.ask("a", "small", 50.0) is None


def test_however_often_a_device_loses_its_tasks_its_wait_stops_to_grow() -> None:
    d = desk(concurrency=1, coverage=0, deadline_seconds=2.0**-20, retry_seconds=2.0**-30)
    waits = []
    for _ in range(300):
        d.scheduler.begin("a", "small", 0, 0.0)
        d.scheduler.expire(2.0**-20)
        answer = d.scheduler.ask("a", "small", 2.0**-20)
        assert isinstance(answer, Postpone)
        waits.append(answer.seconds)
    assert waits == [4 * 16.0 ** min(lost, 8) * 2.0**-20 for lost in range(300)]


def test_no_task_is_too_slow_before_a_device_might_come_back_that_was_sent_away() -> None:
    d = desk(concurrency="auto", coverage=0, deadline_seconds=1800, retry_seconds=50)
    for _ in range(200):
        task = d.scheduler.begin("known", "small", 0, d.now)
        d.hand_in("known")  # after a second
    assert (task.slow_at - task.since, task.deadline - task.since) == (50.0, 1800.0)
    task = d.scheduler.begin("newcomer", "small", 0, d.now)
    assert (task.slow_at - task.since, task.deadline - task.since) == (50.0, 50.0)


def test_who_leaves_waits_no_more() -> None:
    d = desk(concurrency=1, coverage=0)
    assert d.ask("a") + d.ask("b") == ["a"]
    d.scheduler.left("b", d.now)
    assert d.scheduler.waiting == {}
    d.hand_in("a")
    assert d.choose() == []


@pytest.mark.parametrize("order", [("small", "large"), ("large", "small")])
def test_among_equals_who_has_waited_longest_goes_first_whatever_it_trains(order: tuple[str, str]) -> None:
    d = desk(concurrency=1, coverage=0)
    d.ask("a")
    for name in order:
        d.ask(name, name)
    d.hand_in("a")
    assert d.choose() == [order[0]]


def test_who_asks_twice_waits_once_and_with_its_newest_wish() -> None:
    d = desk(concurrency=1, coverage=0)
    d.ask("a")
    d.ask("b", "large")
    d.ask("b", "small")
    assert {wait.device: wait.tier for wait in d.scheduler.waiting.values()} == {"b": "small"}
    d.hand_in("a")
    assert d.choose() == ["b"]
    d.hand_in("b")
    assert d.choose() == []


def test_who_is_of_a_full_cohort_may_train_its_version_again() -> None:
    d = desk(cohort=1, coverage=0)
    assert d.ask("a") == ["a"]
    d.hand_in("a")
    assert d.ask("b") == []
    assert d.ask("a") == ["a"]


def test_whoever_begins_anew_trains_its_ranges_once() -> None:
    d = desk(concurrency=2, coverage=2)
    d.contributions["strong"] = 10
    assert [d.ask("a", "large"), d.ask("a", "large"), d.ask("b")] == [["a"], ["a"], ["b"]]
    d.ask("weak")
    d.ask("strong", "large")
    d.hand_in("b")
    assert d.choose() == ["strong"]


def test_a_range_that_two_tasks_are_to_train_is_not_covered_by_one() -> None:
    d = desk(concurrency=2, coverage=2)
    d.contributions["strong"] = 10
    assert d.ask("a", "large") + d.ask("b") == ["a", "b"]
    d.ask("weak")
    d.ask("strong", "large")
    d.hand_in("b")
    assert d.choose() == ["strong"]
