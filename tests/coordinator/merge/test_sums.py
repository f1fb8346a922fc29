"""Sums are exact: against Python's own integers, in any order, in any split, and after they were written down."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.merge.sums import (
    BLOCK,
    MAX_WEIGHT,
    STEP,
    Elements,
    PartialSum,
    SumOnTheWay,
    exact_sum,
    exact_values,
    largest_magnitude,
    to_steps,
)
from mobile_sdk import safetensors
from mobile_sdk.layout import Vector
from mobile_sdk.payload import SteppedVector, Steps
from mobile_sdk.payload.steps import BITS, FINEST, largest_integer

ordinary = st.floats(-0.5, 0.5, width=32)
wild = st.floats(-(2.0**20), 2.0**20, width=32)
weights = st.integers(0, 300_000) | st.integers(0, MAX_WEIGHT)


def stepped(draw: st.DrawFn, size: int, exponent: int, dtype: str) -> SteppedVector:
    most = largest_integer(dtype)
    integers = draw(st.lists(st.integers(-most, most) | st.sampled_from([-most, most]), min_size=size, max_size=size))
    kind: Any = np.int16 if dtype == "int16" else np.int8
    return SteppedVector(np.array(integers, kind), Steps([(size,)], np.array([exponent], np.int8)), BITS[dtype])


@st.composite
def buffers(draw: st.DrawFn) -> tuple[list[Elements], list[int]]:
    """Floats, integers on the same steps, integers on various ones, or all together."""
    size, count = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    values = st.lists(draw(st.sampled_from([ordinary, wild])), min_size=size, max_size=size)
    kinds = draw(
        st.sampled_from([("float32",), ("int4",), ("int8",), ("int16",), ("float32", "int8", "int4", "int16")])
    )
    exponents = draw(st.sampled_from([st.just(-12), st.integers(FINEST, 4)]))
    arrays: list[Elements] = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        if kind == "float32":
            arrays.append(np.array(draw(values), np.float32))
        else:
            arrays.append(stepped(draw, size, draw(exponents), kind))
    return arrays, [draw(weights) for _ in range(count)]


def floats(array: Elements) -> Vector:
    return array.values() if isinstance(array, SteppedVector) else array


def added(arrays: list[Elements], counts: list[int]) -> PartialSum:
    steps = [array if isinstance(array, SteppedVector) else to_steps(array) for array in arrays]
    bounds = [largest_magnitude(array) for array in steps]
    total = exact_sum(steps, counts, bounds)
    assert exact_values(steps, counts, bounds).tobytes() == total.values().tobytes()
    return total


def integers(total: PartialSum) -> list[int]:
    return [(high << 32) + low for high, low in zip(total.high.tolist(), total.low.tolist(), strict=True)]


def same(one: PartialSum, other: PartialSum) -> bool:
    return (one.high.tobytes(), one.low.tobytes(), one.weight) == (
        other.high.tobytes(),
        other.low.tobytes(),
        other.weight,
    )


@settings(deadline=None)
@given(buffers())
def test_the_sum_is_that_of_integers(buffer: tuple[list[Elements], list[int]]) -> None:
    arrays, counts = buffer
    steps = [[round(float(value) / STEP) for value in floats(array)] for array in arrays]
    expected = [sum(w * row[n] for w, row in zip(counts, steps, strict=True)) for n in range(len(arrays[0]))]
    total = added(arrays, counts)
    assert integers(total) == expected
    assert total.weight == sum(counts)
    assert ((total.low >= 0) & (total.low < 2**32)).all()


@settings(deadline=None)
@given(buffers(), st.integers(0, 2**32 - 1))
def test_any_order_and_any_split_give_the_same_bits(buffer: tuple[list[Elements], list[int]], seed: int) -> None:
    arrays, counts = buffer
    whole = added(arrays, counts)
    rng = random.Random(seed)
    order = list(range(len(arrays)))
    rng.shuffle(order)
    cuts = sorted(rng.choices(range(len(order) + 1), k=3))
    parts = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    rng.shuffle(parts)
    total = PartialSum.nothing(len(arrays[0]))
    for part in parts:
        if part:
            one = added([arrays[k] for k in part], [counts[k] for k in part])
            total += PartialSum.from_arrays(safetensors.loads(safetensors.dumps(one.to_arrays()))[0])
    assert same(total, whole)


@settings(deadline=None)
@given(buffers(), st.integers(0, 16_384))
def test_a_factor_can_be_applied_before_or_after(buffer: tuple[list[Elements], list[int]], factor: int) -> None:
    arrays, counts = buffer
    counts = [count % 65_537 for count in counts]
    assert same(added(arrays, counts).times(factor), added(arrays, [factor * count for count in counts]))


@pytest.mark.parametrize("dtype", ["int4", "int8", "int16"])
def test_integers_come_to_what_their_floats_come_to(dtype: str) -> None:
    """Over several blocks, with more vectors than are added at a time, and the largest weights."""
    rng = np.random.default_rng(2)
    size, most = BLOCK + 1234, largest_integer(dtype)
    steps = Steps([(64, size // 64), (size % 64,)], rng.integers(-20, -10, 65).astype(np.int8))
    kind: Any = np.int16 if dtype == "int16" else np.int8
    arrays: list[Elements] = [
        SteppedVector(rng.integers(-most, most + 1, size).astype(kind), steps, BITS[dtype]) for _ in range(70)
    ]
    for counts in (rng.integers(1, 300, 70).tolist(), [MAX_WEIGHT - k for k in range(70)], [0] * 70):
        assert same(added(arrays, counts), added([floats(array) for array in arrays], counts))


def test_a_bound_that_is_too_high_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    arrays: list[Elements] = [to_steps(rng.normal(0, 3, 3 * BLOCK + 1).astype(np.float32)) for _ in range(40)]
    counts = rng.integers(1, MAX_WEIGHT, 40).tolist()
    assert same(added(arrays, counts), exact_sum(arrays, counts, [100.0 if k % 2 else 1e5 for k in range(40)]))


def test_what_float32_holds_beyond_a_quarter_is_not_rounded() -> None:
    array = np.random.default_rng(1).uniform(0.25, 1e6, 1000).astype(np.float32)
    assert np.array_equal(added([array], [1]).values(), array.astype(np.float64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"low": None}, "needs the array 'low'"),
        ({"low": np.array([-1, 0])}, "32 bits"),
        ({"high": np.zeros(3, np.int64)}, "one length"),
        ({"high": np.zeros(2)}, "int64"),
        ({"weight": np.array([-1])}, "at least 0"),
    ],
)
def test_what_is_no_partial_sum_is_refused(change: dict[str, np.ndarray | None], said: str) -> None:
    arrays = PartialSum.nothing(2).to_arrays()
    arrays |= {name: array for name, array in change.items() if array is not None}
    arrays = {name: array for name, array in arrays.items() if change.get(name, array) is not None}
    with pytest.raises(ValueError, match=said):
        PartialSum.from_arrays(arrays)


@settings(deadline=None)
@given(buffers(), st.lists(st.tuples(st.booleans(), weights), min_size=9, max_size=9))
def test_a_sum_on_the_way_is_that_sum_or_none_whatever_was_looked_at_and_however_weights_came_out(
    buffer: tuple[list[Elements], list[int]], came_out: list[tuple[bool, int]]
) -> None:
    arrays = [array if isinstance(array, SteppedVector) else to_steps(array) for array in buffer[0]]
    taken = SumOnTheWay(arrays[1:], buffer[1][1:]) if len(arrays) > 1 else SumOnTheWay(arrays, buffer[1])
    for array, (seen, _) in zip(arrays, came_out, strict=False):
        if seen:
            (weight,) = taken.row([array])
            taken.add(slice(None), weight * floats(array).astype(np.float64))
    wanted = [came_out[k][1] if k % 5 == 4 else weight for k, weight in enumerate(buffer[1])]
    bounds = [largest_magnitude(array) for array in arrays]
    found = taken.values(arrays, wanted, bounds)
    assert found is None or found.tobytes() == exact_values(arrays, wanted, bounds).tobytes()
    assert taken.values(arrays, wanted, bounds) is None, "it was handed out"


def test_a_sum_on_the_way_is_corrected_for_a_few_and_not_for_many_nor_of_other_arrays() -> None:
    rng = np.random.default_rng(4)
    arrays: list[Elements] = [to_steps(rng.normal(0, 0.1, 50).astype(np.float32)) for _ in range(8)]
    bounds = [largest_magnitude(array) for array in arrays]

    def taken(looked_at: Sequence[Elements]) -> SumOnTheWay:
        total = SumOnTheWay(arrays, [5] * 8)
        total.add(slice(None), total.row(looked_at) @ np.array(looked_at, np.float64))
        return total

    for looked_at, wanted in ((arrays, [5] * 8), (arrays, [5] * 6 + [0, 7]), (arrays[1:], [5] * 7 + [9])):
        found = taken(looked_at).values(arrays, wanted, bounds)
        assert found is not None
        assert found.tobytes() == exact_values(arrays, wanted, bounds).tobytes()
    assert taken(arrays).values(arrays, [5] * 5 + [6] * 3, bounds) is None
    assert taken(arrays).values(arrays[1:], [5] * 7, bounds[1:]) is None
    assert taken(arrays).values(arrays, [5] * 8, [2.0**30] * 8) is None, "it could have been inexact"
    twice = SumOnTheWay([arrays[0]] * 2, [5, 6])
    assert twice.values([arrays[0]] * 2, [5, 6], bounds[:2]) is None
