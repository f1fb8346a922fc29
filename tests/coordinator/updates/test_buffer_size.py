"""An adaptive buffer is as small as it can be without merges that oscillate."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.config import MergeSection
from coordinator.merge.from_config import safe_gain
from coordinator.merge.stability import critical_gain
from coordinator.merge.staleness import Polynomial
from coordinator.updates.buffer_size import LOOKED_BACK_ON, MARGIN, MOST, AdaptiveSize, _grid, _means_around


def adaptive(gain: float = 1.0, least: int = 10) -> AdaptiveSize:
    return AdaptiveSize(Polynomial().by_age, gain, least)


def fleet(size: AdaptiveSize, seconds: npt.NDArray[np.float64], updates: int) -> list[int]:
    """Let devices train for so many seconds each, again and again; the sizes of the merges."""
    ends = seconds.copy()
    started = np.zeros(len(seconds), int)
    merges: list[int] = []
    buffer: list[int] = []
    for _ in range(updates):
        device = int(ends.argmin())
        buffer.append(len(merges) - started[device])
        ends[device] += seconds[device]
        if len(buffer) >= size.size:
            merges.append(len(buffer))
            size.merged(buffer)
            buffer = []
        started[device] = len(merges)
    return merges


def crowd(size: AdaptiveSize, seconds: Callable[[], float], updates: int) -> list[int]:
    """Let as many devices of a large crowd work as ``size`` says; how many that was, after each merge."""
    started = [(seconds(), 0) for _ in range(size.concurrency)]  # when each ends, and from which merge on
    heapq.heapify(started)
    limits: list[int] = []
    buffer: list[int] = []
    for _ in range(updates):
        now, began = heapq.heappop(started)
        buffer.append(len(limits) - began)
        if len(buffer) >= size.size:
            size.merged(buffer)
            limits.append(size.concurrency)
            buffer = []
        while len(started) < size.concurrency:
            heapq.heappush(started, (now + seconds(), len(limits)))
    return limits


def test_of_a_crowd_of_equal_devices_few_work_at_a_time_from_the_start() -> None:
    rng = np.random.default_rng(0)
    limits = crowd(adaptive(), lambda: float(rng.uniform(0.95, 1.05)), 1500)
    assert max(limits) <= 40, "what the start looks like is not what the fleet is like"
    assert {*limits[30:]} <= {*range(14, 21)}


def test_of_a_crowd_of_stragglers_as_many_work_as_may_after_a_few_hundred_updates() -> None:
    rng = np.random.default_rng(0)
    limits = crowd(adaptive(), lambda: 0.5 + abs(rng.normal(0, 12)) if rng.random() < 0.9 else 1.0, 1500)
    assert min(limits[50:]) >= 90


def test_no_more_than_twice_as_many_work_as_did() -> None:
    """Fresh and old updates by turns would bear a hundred devices; but an update is 15 updates old on average."""
    size = adaptive()
    for _ in range(40):
        size.merged([0, 0, 0, 0, 0, 3, 3, 3, 3, 3])
    assert 30 <= size.concurrency <= 36


def test_equal_devices_need_a_buffer_of_more_than_half_of_them_or_few_at_a_time() -> None:
    size = adaptive()
    fleet(size, np.random.default_rng(0).uniform(0.95, 1.05, 100), 2000)
    assert 50 <= size.size <= 75
    assert size.mean_staleness == pytest.approx(100 / size.size, abs=0.5)
    assert size.margin is not None
    assert MARGIN <= size.margin < MARGIN + 0.3
    assert 10 <= size.concurrency <= 20, "few equal devices at a time keep merges of ten stable"


def test_devices_of_very_different_speed_need_no_more_than_the_least() -> None:
    size = adaptive()
    late = np.arange(100) < 90
    seconds = np.where(late, np.abs(np.random.default_rng(0).normal(0, 12, 100)) + 0.5, 1.0)
    fleet(size, seconds, 2000)
    assert size.size <= 14
    assert size.concurrency == MOST * 10
    assert size.mean_staleness is not None
    assert size.mean_staleness > 5, "old ones are in it, and do no harm"


def test_it_settles_and_does_not_chase_its_own_effect() -> None:
    size = adaptive()
    merges = fleet(size, np.random.default_rng(1).uniform(0.9, 1.1, 60), 4000)
    late = merges[-20:]
    assert max(late) - min(late) <= 0.25 * max(late)


def test_a_smaller_fleet_makes_it_shrink_again() -> None:
    size = adaptive()
    fleet(size, np.random.default_rng(0).uniform(0.95, 1.05, 100), 2000)
    fleet(size, np.random.default_rng(0).uniform(0.95, 1.05, 12), 2000)
    assert size.size == 10


def test_a_larger_server_rate_needs_a_larger_buffer() -> None:
    careful, bold = adaptive(), adaptive(gain=1.5)
    for each in (careful, bold):
        fleet(each, np.random.default_rng(0).uniform(0.95, 1.05, 50), 2000)
    assert bold.size > careful.size


def test_the_same_merges_give_the_same_size_whenever_one_looks() -> None:
    watched, restored = adaptive(), adaptive()
    rng = np.random.default_rng(2)
    for _ in range(200):
        merge = rng.integers(0, 9, rng.integers(5, 30)).tolist()
        watched.merged(merge)
        assert watched.size >= 10  # one looks after every merge
        restored.merged(merge)  # and the other never
    assert (watched.size, watched.margin) == (restored.size, restored.margin)
    assert watched.concurrency == restored.concurrency


def test_a_size_is_looked_for_after_every_32_updates() -> None:
    size = adaptive(least=1)
    for _ in range(31):
        size.merged([0])
    assert size.margin is None
    size.merged([0])
    assert size.margin is not None
    # Old updates come: they count from the next look on.
    before = size.margin
    assert before is not None
    for _ in range(31):
        size.merged([20])
    assert size.margin == before
    size.merged([20])
    assert size.margin != before


def test_an_updates_age_is_what_was_merged_since_it_began() -> None:
    """Merges of 4: one merge old and the first of its buffer means 4 updates, less half a buffer."""
    size = adaptive(least=4)
    for _ in range(8):
        size.merged([0, 1, 0, 2])
    assert list(size._ages)[-4:] == [0.0, 3.0, 0.0, 9.0]


def test_ages_beyond_every_limit_do_not_end_it() -> None:
    size = adaptive()
    for _ in range(20):
        size.merged([100_000] * 10)
    assert size.size >= 10


def test_pulling_towards_where_devices_ended_needs_no_larger_buffer() -> None:
    assert safe_gain(MergeSection(difference="current", learning_rate=0.6)) == 0.0
    assert safe_gain(MergeSection(learning_rate=0.6)) == 0.6
    size = adaptive(gain=0.0)
    fleet(size, np.full(100, 1.0), 1000)
    assert (size.size, size.margin) == (10, None)


def test_a_run_begins_with_the_least_and_with_twice_as_many_devices() -> None:
    size = adaptive(least=7)
    assert (size.size, size.margin, size.concurrency, size.mean_staleness) == (7, None, 14, None)


def test_sizes_are_tried_five_percent_apart_and_never_less_than_one() -> None:
    assert _grid(3, 3) == [3]
    assert _grid(18, 23) == [18, 19, 20, 21, 22, 23]
    assert _grid(100, 120) == [100, 105, 110, 115, 120]
    assert _grid(100, 112) == [100, 105, 110, 112]


def test_the_last_256_updates_are_looked_back_on() -> None:
    size = adaptive()
    size.merged([7] * 32)
    for _ in range(8):
        assert size.mean_staleness != 0.0
        size.merged([0] * 32)
    assert size.mean_staleness == 0.0
    assert len(size._ages) == 256


def test_an_age_between_two_merges_counts_for_both_in_proportion() -> None:
    """Ages of 15 updates are one and a half merges of ten: the critical gain of half of each."""
    size = adaptive()
    weights = Polynomial().by_age(np.arange(3))
    expected = critical_gain(np.array([0.0, 0.5, 0.5]) * weights)
    assert size._critical(np.full(4, 15.0), 10) == pytest.approx(expected)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_the_margin_is_the_critical_gain_in_server_rates(gain: float) -> None:
    size = adaptive(gain=gain)
    for _ in range(4):
        size.merged([3] * 10)
    ages = np.array(size._ages)
    means = _means_around(ages)  # each age counts beside those of its time, at the newest ones' level
    now = ages / np.maximum(means, 1.0) * means[-1]
    assert size.margin == pytest.approx(size._critical(now, size.size) / gain)


@settings(max_examples=25)
@given(st.integers(0, 60), st.integers(1, 40), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_a_run_that_is_taken_up_again_needs_the_newest_stalenesses_only(
    count: int, most: int, oldest: int, seed: int
) -> None:
    """Also where the oldest that is known came in the middle of a merge, and when the run goes on."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most, count, endpoint=True).tolist()
    merges = [rng.integers(0, oldest, size, endpoint=True).tolist() for size in sizes]
    whole, again = adaptive(), adaptive()
    for merge in merges:
        whole.merged(merge)
    again.take_up(sizes, [tau for merge in merges for tau in merge][-LOOKED_BACK_ON:])
    for _ in range(2):
        assert (again.size, again.margin, again.concurrency) == (whole.size, whole.margin, whole.concurrency)
        assert again.mean_staleness == whole.mean_staleness
        # A size is found from many ages, and hardly changes with one.
        assert (again._ages, again._sizes, again._new) == (whole._ages, whole._sizes, whole._new)
        np.testing.assert_equal(again._looked_at, whole._looked_at)
        for one in (again, whole):
            one.merged([oldest, 0, 1] * 7)
