"""A run sizes its buffer and its concurrency by itself, and goes on with the same after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import parse_config
from coordinator.errors import ConfigError
from coordinator.run_state import RunState
from coordinator.simulation.virtual_time import START, run
from coordinator.store.records import MergedUpdate

from .small_run import accept_update, make_run

GOOD = {"run": {"name": "r", "task": "a:b"}, "budgets": {"small": "1MB"}}


def test_what_is_not_set_is_adaptive() -> None:
    config = parse_config(GOOD, Path())
    assert (config.merge.buffer, config.scheduling.concurrency) == ("auto", "auto")
    assert config.merge.smallest == 10


def test_a_merge_of_many_contributors_makes_the_smallest_buffer_as_large() -> None:
    config = parse_config(GOOD | {"merge": {"min_contributors": 25}}, Path())
    assert config.merge.smallest == 25
    assert config.merge.most(config.merge.smallest) == 100


def test_a_number_stays_what_it_is() -> None:
    config = parse_config(GOOD | {"merge": {"buffer": 3, "least": 20}}, Path())
    assert config.merge.smallest == 3


@pytest.mark.parametrize("merge", [{"limit": 5}, {"min_contributors_per_coordinate": 11}])
def test_what_the_smallest_buffer_cannot_hold_is_refused(merge: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="buffer of 10"):
        parse_config(GOOD | {"merge": merge}, Path())


def test_a_run_that_is_taken_up_again_goes_on_with_the_same_sizes(tmp_path: Path) -> None:
    small = make_run(tmp_path)

    async def merges(state: RunState) -> None:
        for number in range(35):
            updates = [accept_update(state, f"phone-{device}") for device in range(number, number + 10)]
            merged = [MergedUpdate(u.record.assignment, min(number, 9), 1.0) for u in updates]
            state.versions.commit(state.versions.vector, {}, {}, merged, [], START + number)
            state.buffer.remove(updates)
            state.merged(merged)

    def facts(state: RunState) -> tuple[object, ...]:
        size = state.buffer_size
        return size.size, size.concurrency, size.margin, size.mean_staleness, state.updates_merged

    async def scenario() -> None:
        first = small.state()
        await merges(first)
        assert first.buffer_size.size > 10
        assert facts(small.state()) == facts(first)

    run(scenario())
    small.store.close()


def test_a_buffer_is_no_larger_than_the_devices_that_are_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = make_run(tmp_path).state()
        state.resize_buffer({"phone-1", "phone-2", "phone-3"})
        assert state.buffer.capacity == 3
        accept_update(state, "phone-4")
        state.resize_buffer({"phone-1", "phone-2", "phone-3"})
        assert state.buffer.capacity == 4, "who has just sent one is there, too"
        state.resize_buffer({f"phone-{number}" for number in range(50)})
        assert state.buffer.capacity == 10
        state.resize_buffer(set())
        assert state.buffer.capacity == 1

    run(scenario())


@pytest.mark.parametrize(
    ("scheduling", "present", "expected"),
    [({}, 30, 10), ({}, 45, 15), ({}, 3, 10), ({}, 900, 20), ({"cohort": 50}, 900, 0), ({"concurrency": 7}, 900, 7)],
)
def test_most_of_a_large_fleet_waits(tmp_path: Path, scheduling: dict[str, int], present: int, expected: int) -> None:
    async def scenario() -> None:
        assert make_run(tmp_path, scheduling=scheduling).state().concurrency(present) == expected

    run(scenario())
