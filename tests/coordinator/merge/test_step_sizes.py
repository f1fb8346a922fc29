"""Steps follow the size of what was merged, change seldom, and no single device decides them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.merge.step_sizes import (
    WINDOW,
    ZERO,
    StepSizes,
    Vote,
    is_due,
    steps_of_ranges,
    wanted_ranges,
)
from mobile_sdk.layout import Layout, Parameter, Subset
from mobile_sdk.payload import SteppedVector, Steps, UpdateFormat, decode_vector, encode_update
from mobile_sdk.payload.steps import BITS, COARSEST, FINEST, OPEN, largest_integer

LAYOUT = Layout([Parameter("w", (4, 100)), Parameter("bias", (4,))])
SHAPES = [p.shape for p in LAYOUT]
CHANNELS = 5


def packed(dtype: str, ranges: np.ndarray, scale: float, seed: int) -> SteppedVector:
    """An update of a device, of this size, as it arrives."""
    rng = np.random.default_rng(seed)
    arrays = {p.name: (scale * rng.standard_normal(p.shape)).astype(np.float32) for p in LAYOUT}
    how = UpdateFormat(dtype, 1.0, steps_of_ranges(SHAPES, ranges, dtype).to_text())
    vector = decode_vector(*encode_update(arrays, how, seed), Subset.whole(LAYOUT))
    assert vector is not None
    return vector


def follow(dtype: str, scales: list[float], ranges: np.ndarray, hostile: float | None = None) -> list[np.ndarray]:
    """The ranges after each merge of eight devices, looked at after each."""
    sizes, found = StepSizes(), []
    for number, scale in enumerate(scales):
        sizes.merged(
            Vote(
                "t",
                f"d{k}",
                wanted_ranges(packed(dtype, ranges, hostile if k == 0 and hostile else scale, 8 * number + k)),
            )
            for k in range(8)
        )
        ranges = sizes.next({"t": ranges})["t"]
        found.append(ranges)
    return found


@pytest.mark.parametrize("dtype", list(BITS))
@pytest.mark.parametrize("scale", [1e-4, 0.01, 3.0])
def test_ranges_fit_what_was_merged(dtype: str, scale: float) -> None:
    (ranges,) = follow(dtype, [scale], np.full(CHANNELS, OPEN, np.int8))
    # The largest of a hundred normal numbers is about 2.5 times their size; of four about 1.
    ends = 2.0 ** ranges.astype(float) / scale
    assert (ends[:4] > 1.9).all()
    assert (ends[:4] < 8).all()
    assert 0.5 < ends[4] < 4


@pytest.mark.parametrize("dtype", list(BITS))
def test_ranges_stay_where_sizes_stay(dtype: str) -> None:
    found = follow(dtype, [0.01] * 12, np.full(CHANNELS, OPEN, np.int8))
    changes = sum((a != b).sum() for a, b in itertools.pairwise(found))
    assert changes <= 8, "of 55"


@pytest.mark.parametrize("dtype", list(BITS))
def test_what_is_cut_off_makes_ranges_grow_until_it_fits_and_small_updates_make_them_shrink(dtype: str) -> None:
    start = np.full(CHANNELS, -8, np.int8)
    large = follow(dtype, [1.0] * 12, start)
    assert (large[0] > -8).all(), "at the first look"
    assert (large[-1][:4] >= 1).all()
    small = follow(dtype, [1e-3] * 12, np.full(CHANNELS, 4, np.int8))
    assert (small[-1] <= -6).all()


def test_one_hostile_device_of_eight_changes_no_step() -> None:
    honest = follow("int8", [0.01] * 6, np.full(CHANNELS, OPEN, np.int8))
    for size in (1e3, 1e-6):
        attacked = follow("int8", [0.01] * 6, np.full(CHANNELS, OPEN, np.int8), hostile=size)
        assert (np.abs(attacked[-1].astype(int) - honest[-1]) <= 1).all()


def test_a_device_has_one_vote_and_old_ones_are_forgotten() -> None:
    sizes = StepSizes()
    sizes.merged(Vote("t", "loud", np.full(1, 10, np.int8)) for _ in range(100))
    sizes.merged(Vote("t", f"d{k}", np.full(1, -5, np.int8)) for k in range(9))
    assert sizes.next({})["t"].tolist() == [-5]
    sizes.merged(Vote("t", f"e{k}", np.full(1, 3, np.int8)) for k in range(WINDOW))
    assert sizes.next({})["t"].tolist() == [3]


def test_a_channel_that_comes_alive_finds_its_range_in_a_few_looks() -> None:
    dead = np.full(CHANNELS, -20, np.int8)
    ranges = follow("int8", [1.0] * 7, dead)
    assert (ranges[-1][:4] >= 1).all()


def test_what_a_sparse_update_leaves_out_says_nothing_of_its_size() -> None:
    integers = np.zeros(404, np.int8)
    integers[3], integers[120] = 127, 20
    steps = Steps(SHAPES, np.full(CHANNELS, -10, np.int8))
    ranges = wanted_ranges(SteppedVector(integers, steps, 7, whole=False))
    assert ranges.tolist() == [-2, -5, OPEN, OPEN, OPEN], "one was cut off"


def test_zeros_count_only_where_there_is_nothing_else() -> None:
    zeros = wanted_ranges(SteppedVector(np.zeros(404, np.int8), Steps(SHAPES, np.full(CHANNELS, -10, np.int8)), 7))
    assert zeros.tolist() == [ZERO] * CHANNELS
    sizes, now = StepSizes(), {"t": np.array([-3] * CHANNELS, np.int8)}
    sizes.merged(Vote("t", f"d{k}", zeros) for k in range(20))
    assert sizes.next(now)["t"].tolist() == [-4] * CHANNELS, "they may be small, and the steps too coarse"
    assert sizes.next({"t": np.full(CHANNELS, OPEN, np.int8)})["t"].tolist() == [OPEN] * CHANNELS
    sizes.merged([Vote("t", "rare", np.full(CHANNELS, -2, np.int8))])
    assert sizes.next(now)["t"].tolist() == [-2] * CHANNELS, "few devices have what this channel is for"


def test_open_votes_say_nothing() -> None:
    sizes = StepSizes()
    sizes.merged([Vote("t", "a", np.array([OPEN, -3], np.int8)), Vote("t", "b", np.array([OPEN, OPEN], np.int8))])
    assert sizes.next({"t": np.array([7, OPEN], np.int8)})["t"].tolist() == [7, -3]
    assert sizes.next({"u": np.array([1], np.int8)})["u"].tolist() == [1], "a tier that nobody trained"


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30), st.integers(-20, 20), st.randoms())
def test_neither_order_nor_processor_is_in_the_ranges(votes: list[int], now: int, rng: object) -> None:
    found = set()
    for _ in range(3):
        rng.shuffle(votes)  # type: ignore[attr-defined]
        sizes = StepSizes()
        sizes.merged(Vote("t", f"d{k}", np.array([vote], np.int8)) for k, vote in enumerate(votes))
        found.add(int(sizes.next({"t": np.array([now], np.int8)})["t"][0]))
    assert len(found) == 1
    assert found.pop() in {*votes, now}


def test_steps_of_a_dtype_follow_from_ranges() -> None:
    ranges = np.array([-4, OPEN, -30, 35, 0], np.int8)
    steps = steps_of_ranges(SHAPES, ranges, "int8")
    assert steps.exponents.tolist() == [-10, OPEN, FINEST, COARSEST, -6], "a bit of room"
    assert steps_of_ranges(SHAPES, ranges, "int8") is steps
    assert steps_of_ranges(SHAPES, ranges, "int4").exponents.tolist() == [-7, OPEN, FINEST, COARSEST, -3]


def test_they_are_looked_at_often_at_first_and_seldom_later() -> None:
    assert [merge for merge in range(1, 70) if is_due(merge)] == [1, 2, 4, 8, 16, 32, 48, 64]


def test_the_range_is_the_least_that_holds_the_largest_integer() -> None:
    for dtype, bits in BITS.items():
        kind: Any = np.int16 if dtype == "int16" else np.int8
        for largest in {1, 2, 3, largest_integer(dtype) // 2, largest_integer(dtype)}:
            integers = np.zeros(404, kind)
            integers[::101] = largest
            vector = SteppedVector(integers, Steps(SHAPES, np.full(CHANNELS, -10, np.int8)), bits)
            held = 2.0 ** (wanted_ranges(vector)[:4].astype(float) + 10)
            assert (held / 2 <= largest).all()
            assert (largest < held).all()
