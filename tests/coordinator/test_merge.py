"""The merge rules, against a dense reference and their invariants."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.merge.rules import Contribution, Rule, merge
from mobile_sdk.layout import Vector

SIZE = 12
rules = pytest.mark.parametrize("rule", ["holders", "fixed-K"])
values = st.floats(-10, 10, width=32)


@st.composite
def contributions(draw: st.DrawFn, every: bool = False) -> list[Contribution]:
    result = []
    for number in range(draw(st.integers(1, 6))):
        held = list(range(SIZE)) if every else sorted(draw(st.sets(st.integers(0, SIZE - 1))))
        delta = np.array(draw(st.lists(values, min_size=len(held), max_size=len(held))), np.float32)
        result.append(
            Contribution(
                id=f"a{number:08d}",
                positions=np.array(held, np.int64),
                delta=delta,
                examples=draw(st.integers(1, 1000)),
                staleness_weight=draw(st.floats(0.01, 1)),
            )
        )
    return result


def reference(weights: Vector, given: list[Contribution], rule: Rule, min_holders: float, rate: float) -> list[float]:
    """DESIGN's formula, coordinate by coordinate."""
    mean = sum(c.examples for c in given) / len(given)
    result = [float(w) for w in weights]
    for position in range(len(weights)):
        holders = [(c, list(c.positions).index(position)) for c in given if position in c.positions]
        if holders:
            total = sum(c.staleness_weight * c.examples * float(c.delta[i]) for c, i in holders)
            held = sum(c.examples for c, _ in holders)
            result[position] += (
                rate * total / (max(held, min_holders * mean) if rule == "holders" else len(given) * mean)
            )
    return result


WEIGHTS = np.linspace(-3, 3, SIZE, dtype=np.float32)


@rules
@given(given=contributions(), min_holders=st.floats(0, 4), rate=st.floats(0.1, 2))
def test_merging_agrees_with_a_dense_reference(
    rule: Rule, given: list[Contribution], min_holders: float, rate: float
) -> None:
    merged = merge(WEIGHTS, given, rule=rule, min_holders=min_holders, learning_rate=rate)
    assert np.allclose(merged, reference(WEIGHTS, given, rule, min_holders, rate), rtol=1e-5, atol=1e-6)


@rules
@given(given=contributions(), seed=st.integers(0, 1000))
def test_the_order_of_arrival_does_not_matter_bit_for_bit(rule: Rule, given: list[Contribution], seed: int) -> None:
    shuffled = random.Random(seed).sample(given, len(given))
    assert np.array_equal(merge(WEIGHTS, given, rule=rule), merge(WEIGHTS, shuffled, rule=rule))


@rules
@given(given=contributions())
def test_coordinates_that_nobody_holds_keep_their_value_bit_for_bit(rule: Rule, given: list[Contribution]) -> None:
    held = {int(position) for c in given for position in c.positions}
    alone = [position for position in range(SIZE) if position not in held]
    merged = merge(WEIGHTS, given, rule=rule)
    assert merged[alone].tobytes() == WEIGHTS[alone].tobytes()


@given(given=contributions(every=True))
def test_with_equal_subsets_both_rules_are_fedbuff(given: list[Contribution]) -> None:
    given = [dataclasses.replace(c, examples=3.0) for c in given]
    fedbuff = WEIGHTS + sum(c.staleness_weight * c.delta.astype(np.float64) for c in given) / len(given)
    for rule in ("holders", "fixed-K"):
        assert np.allclose(merge(WEIGHTS, given, rule=rule), fedbuff, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]


def contribution(number: int, positions: list[int], delta: float, examples: float, weight: float = 1.0) -> Contribution:
    array = np.full(len(positions), delta, np.float32)
    return Contribution(f"a{number:08d}", np.array(positions, np.int64), array, examples, weight)


def test_two_small_holders_beside_two_large_non_holders_move_a_coordinate_by_the_holders_mean() -> None:
    given = [
        contribution(1, [0], 1.0, 10),
        contribution(2, [0], 3.0, 10),
        contribution(3, [1], 9.0, 1000),
        contribution(4, [1], 9.0, 1000),
    ]
    merged = merge(np.zeros(2, np.float32), given)
    assert merged.tolist() == pytest.approx([2.0, 9.0])


def test_a_single_stale_holder_is_still_discounted() -> None:
    given = [contribution(1, [0], 1.0, 10, weight=0.5), contribution(2, [1], 1.0, 10)]
    assert merge(np.zeros(2, np.float32), given).tolist() == pytest.approx([0.5, 1.0])


def test_a_coordinate_with_fewer_holders_than_wanted_is_damped() -> None:
    given = [contribution(1, [0, 1], 1.0, 10), contribution(2, [1], 1.0, 10)]
    assert merge(np.zeros(2, np.float32), given, min_holders=2).tolist() == pytest.approx([0.5, 1.0])


def test_the_weights_that_are_merged_into_are_not_changed() -> None:
    weights = WEIGHTS.copy()
    merge(weights, [contribution(1, [0, 1], 1.0, 10)])
    assert np.array_equal(weights, WEIGHTS)
