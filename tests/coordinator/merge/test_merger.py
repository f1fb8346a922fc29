"""The merge rules, against a dense reference and their invariants."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.merge.contribution import Contribution
from coordinator.merge.merger import Merger, trained_region
from coordinator.merge.optimisers import ServerAdam, ServerMomentum, ServerOptimiser, ServerSgd, State
from coordinator.merge.regions import MIN_RUN, WeightRegion
from coordinator.merge.robust_rules import ROBUST_RULES, RobustRule
from coordinator.merge.rules import (
    MAX_EXAMPLES,
    MAX_STALENESS_WEIGHT,
    RESOLUTION,
    Rule,
    combine,
    fixed_examples,
    fixed_weight,
)
from coordinator.merge.staleness import (
    AgeVariance,
    BufferView,
    Constant,
    Distance,
    Exponential,
    Hinge,
    Polynomial,
    StalenessPolicy,
    Weights,
)
from coordinator.merge.sums import BLOCK, STEP, exact_values, stays_small, to_steps
from mobile_sdk.layout import Vector

SIZE = 12
RULES: list[Rule] = ["holders", "fixed-K"]
POLICIES: list[StalenessPolicy] = [Constant(), Polynomial(), Hinge(), Exponential(), AgeVariance(), Distance()]
OPTIMISERS: list[ServerOptimiser] = [ServerSgd(), ServerMomentum(), ServerAdam()]
WEIGHTS = np.linspace(-3, 3, SIZE, dtype=np.float32)

rules = st.sampled_from(RULES)
values = st.floats(-10, 10, width=32)
mergers = st.builds(
    Merger,
    policy=st.sampled_from(POLICIES),
    rule=rules,
    min_holders=st.sampled_from([0.0, 2.0]),
    min_contributors=st.sampled_from([1, 2]),
    optimiser=st.sampled_from(OPTIMISERS),
    clip_norm=st.sampled_from([None, 1.0]),
    outlier_factor=st.sampled_from([None, 3.0]),
    difference=st.sampled_from(["base", "current"]),
)


def at(version: int) -> Vector:
    """The weights of earlier versions."""
    return WEIGHTS - np.float32(version)


@st.composite
def buffers(draw: st.DrawFn, every: bool = False, fresh: bool = False) -> list[Contribution]:
    result = []
    for number in range(draw(st.integers(1, 6))):
        held = list(range(SIZE)) if every else sorted(draw(st.sets(st.integers(0, SIZE - 1))))
        tau = 0 if fresh else draw(st.integers(0, 20))
        result.append(
            Contribution(
                id=f"a{number:08d}",
                region=WeightRegion(np.array(held, np.int64)),
                delta=np.array(draw(st.lists(values, min_size=len(held), max_size=len(held))), np.float32),
                examples=draw(st.integers(1, 1000)),
                staleness=tau,
                base=tau,
                device=f"phone-{draw(st.integers(0, 3))}",
            )
        )
    return result


@st.composite
def states(draw: st.DrawFn, optimiser: ServerOptimiser) -> State:
    """What an earlier merge may have left."""
    before = draw(buffers())
    return Merger(optimiser=optimiser)(WEIGHTS, {}, before, at).state


def reference(
    given: list[Contribution], weights: list[float], rule: Rule, min_holders: float, min_contributors: int
) -> list[float]:
    """DESIGN's formula, coordinate by coordinate."""
    mean = sum(c.examples for c in given) / len(given)
    result = [0.0] * SIZE
    for position in range(SIZE):
        holders = [
            (c, s, list(c.region.positions).index(position))
            for c, s in zip(given, weights, strict=True)
            if position in c.region.positions
        ]
        if holders and len({c.device for c, _, _ in holders}) >= min_contributors:
            total = sum(s * c.examples * float(c.values()[i]) for c, s, i in holders)
            held = sum(c.examples for c, _, _ in holders)
            result[position] = total / (max(held, min_holders * mean) if rule == "holders" else len(given) * mean)
    return result


def dense(merged: Vector) -> Vector:
    return merged - WEIGHTS


@given(st.data(), buffers(), rules, st.floats(0, 4), st.integers(1, 3))
def test_merging_agrees_with_a_dense_reference(
    data: st.DataObject, given: list[Contribution], rule: Rule, min_holders: float, min_contributors: int
) -> None:
    weights = [k / 1024 for k in data.draw(st.lists(st.integers(1, 1024), min_size=len(given), max_size=len(given)))]
    direction = combine(SIZE, given, weights, rule=rule, min_holders=min_holders, min_contributors=min_contributors)
    moved = np.zeros(SIZE)
    direction.region.scatter(direction.values, moved)
    expected = reference(given, weights, rule, min_holders, min_contributors)
    assert np.allclose(moved, expected, rtol=1e-5, atol=1e-5)


@given(mergers, buffers(), st.integers(0, 1000))
def test_the_order_of_arrival_does_not_matter_bit_for_bit(merger: Merger, given: list[Contribution], seed: int) -> None:
    shuffled = random.Random(seed).sample(given, len(given))
    one, other = merger(WEIGHTS, {}, given, at), merger(WEIGHTS, {}, shuffled, at)
    assert one.weights.tobytes() == other.weights.tobytes()
    assert {name: array.tobytes() for name, array in one.state.items()} == {
        name: array.tobytes() for name, array in other.state.items()
    }
    assert one.counted == other.counted


@given(st.data(), mergers, buffers())
def test_coordinates_that_nobody_holds_keep_value_and_optimiser_state_bit_for_bit(
    data: st.DataObject, merger: Merger, given: list[Contribution]
) -> None:
    state = data.draw(states(merger.optimiser))
    held = {int(position) for c in given for position in c.region.positions}
    alone = [position for position in range(SIZE) if position not in held]
    merged = merger(WEIGHTS, state, given, at)
    assert merged.weights[alone].tobytes() == WEIGHTS[alone].tobytes()
    for name, array in state.items():
        assert merged.state[name][alone].tobytes() == array[alone].tobytes()


@given(buffers(every=True))
def test_with_equal_subsets_both_rules_are_exactly_fedbuff(given: list[Contribution]) -> None:
    taus = np.array([c.staleness for c in given])
    # FedBuff (Nguyen et al. 2022, algorithm 1): the server adds the staleness-weighted updates and divides by K.
    # Here in the numbers that the coordinator works with: deltas in steps, staleness weights in 1,024ths.
    steps = [np.rint(c.values().astype(np.float64) / STEP) for c in given]
    total = sum(s * step for s, step in zip(np.rint(1024 * (1.0 + taus) ** -0.5), steps, strict=True))
    fedbuff = (WEIGHTS + total * STEP / (1024 * len(given))).astype(np.float32)
    alike = [dataclasses.replace(c, examples=1.0) for c in given]
    for rule in RULES:
        merged = Merger(rule=rule)(WEIGHTS, {}, alike, at)
        assert merged.weights.tobytes() == fedbuff.tobytes()


@given(mergers, buffers())
def test_merging_twice_gives_the_same(merger: Merger, given: list[Contribution]) -> None:
    weights = WEIGHTS.copy()
    first, second = merger(weights, {}, given, at), merger(weights, {}, given, at)
    assert weights.tobytes() == WEIGHTS.tobytes(), "what is merged into is not changed"
    assert first.weights.tobytes() == second.weights.tobytes()
    assert first.counted == second.counted


@given(mergers, buffers())
def test_an_update_that_holds_nothing_moves_nothing_that_the_others_do_not(
    merger: Merger, given: list[Contribution]
) -> None:
    empty = Contribution("a99999999", WeightRegion(np.empty(0, np.int64)), np.empty(0, np.float32), 1.0)
    merged = merger(WEIGHTS, {}, [*given, empty], at)
    held = {int(position) for c in given for position in c.region.positions}
    alone = [position for position in range(SIZE) if position not in held]
    assert merged.weights[alone].tobytes() == WEIGHTS[alone].tobytes()


@given(mergers, buffers())
def test_earlier_versions_are_looked_at_only_by_a_merger_that_says_so(
    merger: Merger, given: list[Contribution]
) -> None:
    looked_at = set()

    def seen(version: int) -> Vector:
        looked_at.add(version)
        return at(version)

    merger(WEIGHTS, {}, given, seen)
    assert looked_at <= ({c.base for c in given} if merger.needs_base else set())


@pytest.mark.parametrize(
    ("merger", "needs_base"),
    [
        (Merger(), False),
        (Merger(policy=AgeVariance(), optimiser=ServerAdam(), clip_norm=1.0, outlier_factor=3.0), False),
        (Merger(policy=Distance()), True),
        (Merger(difference="current"), True),
        (Merger(policy=Distance(), difference="current"), True),
    ],
)
def test_a_merger_asks_for_earlier_versions_where_a_setting_needs_them(merger: Merger, needs_base: bool) -> None:
    assert merger.needs_base is needs_base  # or updates of versions that are gone would be discarded as stale


@pytest.mark.parametrize(
    ("merger", "known"),
    [
        (Merger(), True),
        (Merger(rule="fixed-K", policy=Constant(), min_holders=2.0, optimiser=ServerAdam()), True),
        (Merger(policy=AgeVariance()), False),
        (Merger(policy=Distance()), False),
        (Merger(rule="median"), False),
        (Merger(clip_norm=1.0), False),
        (Merger(outlier_factor=3.0), False),
        (Merger(difference="current"), False),
    ],
)
def test_the_weights_of_a_sum_are_known_beforehand_where_they_follow_from_ages_alone(
    merger: Merger, known: bool
) -> None:
    assert (merger.weigh([contribution(1, [0], 1.0, 10, 3)]) is not None) is known


def test_those_weights_are_staleness_weights_times_examples_in_1024ths() -> None:
    late = dataclasses.replace(contribution(2, [0], 1.0, 7, 3), factor=0.5)
    assert Merger().weigh([contribution(1, [0], 1.0, 10), late]) == [10 * 1024, 7 * 256]


class ForgetsOne(Constant):
    """A policy with a weight too few."""

    def weights(self, buffer: BufferView) -> Weights:
        return super().weights(buffer)[1:]


@pytest.mark.parametrize("rule", [*RULES, *ROBUST_RULES])
def test_an_update_without_a_weight_of_its_own_is_an_error_and_not_left_out(rule: Rule | RobustRule) -> None:
    given = [contribution(number, [0, 1], 1.0, 10) for number in range(5)]
    with pytest.raises(ValueError, match="zip"):
        Merger(policy=ForgetsOne(), rule=rule)(np.zeros(2, np.float32), {}, given, at)


def test_a_sum_of_more_arrays_than_weights_is_an_error() -> None:
    arrays = [to_steps(np.ones(3, np.float32))] * 2
    given = [contribution(number, [0, 1], 1.0, 10) for number in range(2)]
    with pytest.raises(ValueError, match="zip"):
        combine(2, given, [1.0])
    with pytest.raises(ValueError, match="zip"):
        exact_values(arrays, [1], [1.0, 1.0])
    with pytest.raises(ValueError, match="zip"):
        stays_small([1], [1.0, 1.0])


def contribution(
    number: int, positions: list[int], delta: float, examples: float, tau: int = 0, device: str = ""
) -> Contribution:
    array = np.full(len(positions), delta, np.float32)
    region = WeightRegion(np.array(positions, np.int64))
    return Contribution(f"a{number:08d}", region, array, examples, tau, tau, device or f"phone-{number}")


def merged(given: list[Contribution], **settings: float) -> list[float]:
    return Merger(**settings)(np.zeros(2, np.float32), {}, given, at).weights.tolist()  # type: ignore[arg-type]


def test_two_small_holders_beside_two_large_non_holders_move_a_coordinate_by_the_holders_mean() -> None:
    given = [
        contribution(1, [0], 1.0, 10),
        contribution(2, [0], 3.0, 10),
        contribution(3, [1], 9.0, 1000),
        contribution(4, [1], 9.0, 1000),
    ]
    assert merged(given) == pytest.approx([2.0, 9.0])


def test_a_single_stale_holder_is_still_discounted() -> None:
    assert merged([contribution(1, [0], 1.0, 10, tau=3), contribution(2, [1], 1.0, 10)]) == pytest.approx([0.5, 1.0])


def test_a_coordinate_with_fewer_holders_than_wanted_is_damped() -> None:
    given = [contribution(1, [0, 1], 1.0, 10), contribution(2, [1], 1.0, 10)]
    assert merged(given, min_holders=2) == pytest.approx([0.5, 1.0])


def test_where_all_hold_the_same_few_holders_are_damped_as_well() -> None:
    alike = [contribution(1, [0, 1], 1.0, 10), contribution(2, [0, 1], 3.0, 30)]
    assert merged(alike) == pytest.approx([2.5, 2.5])
    assert merged(alike, min_holders=2) == pytest.approx([2.5, 2.5])
    assert merged(alike, min_holders=4) == pytest.approx([1.25, 1.25])
    assert combine(2, alike, [1.0, 1.0], rule="fixed-K", min_holders=4).values == pytest.approx([2.5, 2.5])


def test_what_is_huge_and_cancels_leaves_exactly_what_is_small_also_between_subsets() -> None:
    huge = 2.0**20
    given = [
        contribution(1, [0, 1], huge, MAX_EXAMPLES),
        contribution(2, [1], STEP, 1),
        contribution(3, [1, 2], -huge, MAX_EXAMPLES),
    ]
    direction = combine(3, given, [MAX_STALENESS_WEIGHT, 1 / RESOLUTION, MAX_STALENESS_WEIGHT], rule="fixed-K")
    assert direction.values[1] == STEP / ((2 * MAX_EXAMPLES + 1) * RESOLUTION)


def test_weights_are_whole_numbers_within_their_limits() -> None:
    weights = {0.0: 0, 1e-9: 1, 1 / 1024: 1, 0.5: 512, 1.0: 1024, 16.0: 16 * 1024, 17.0: 16 * 1024}
    assert {weight: fixed_weight(weight) for weight in weights} == weights
    examples = {0.2: 1, 1.0: 1, 2.6: 3, 65_536.0: 65_536, 65_537.0: 65_536, 1e9: 65_536}
    assert {count: fixed_examples(count) for count in examples} == examples


def test_a_coordinate_is_released_only_when_enough_distinct_devices_hold_it() -> None:
    given = [
        contribution(1, [0, 1], 1.0, 10, device="phone-1"),
        contribution(2, [1], 1.0, 10, device="phone-2"),
        contribution(3, [0], 1.0, 10, device="phone-1"),  # of another subset, but still the same phone
    ]
    assert merged(given, min_contributors=2) == pytest.approx([0.0, 1.0])
    alone = [contribution(n, [0, 1], 1.0, 10, device="phone-1") for n in range(3)]
    assert merged(alone, min_contributors=2) == [0.0, 0.0]


def test_fedasync_pulls_towards_where_the_device_ended() -> None:
    """``w + alpha s (w_k - w)``: with difference = current and a buffer of one, to the letter."""
    alpha, tau = 0.6, 3
    region = WeightRegion(np.arange(SIZE))
    delta = np.full(SIZE, 0.25, np.float32)
    ended = at(tau) + delta
    one = Contribution("a1", region, delta, 10.0, tau, tau)
    merger = Merger(policy=Polynomial(0.5), optimiser=ServerSgd(alpha), difference="current")
    expected = WEIGHTS + alpha * 0.5 * (ended - WEIGHTS)
    assert np.allclose(merger(WEIGHTS, {}, [one], at).weights, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("held", [SIZE, 3])
def test_how_far_weights_have_moved_is_measured_where_the_update_holds_them(held: int) -> None:
    """AsyncFedED: ``gamma = ||w_t - w_(t - tau)|| / ||delta||``, of which ``at`` makes 3 per coordinate."""
    given = [contribution(1, list(range(held)), 2.0, 10, tau=3), contribution(2, [0], 2.0, 10)]
    counted = Merger(policy=Distance(0.5))(WEIGHTS, {}, given, at).counted
    assert counted == pytest.approx({given[0].id: 1 / (1 + 3 / 2 / 0.5), given[1].id: 1.0}, abs=1 / RESOLUTION)


@given(st.lists(st.integers(1, 3 * MIN_RUN), min_size=1, max_size=5), st.integers(0, 1000))
def test_a_region_reaches_the_same_elements_by_slices_and_by_indices(runs: list[int], seed: int) -> None:
    random_ = np.random.default_rng(seed)
    parts, first = [], 0
    for run in runs:
        first += int(random_.integers(1, 4))
        parts.append(np.arange(first, first + run))
        first += run
    positions = np.concatenate(parts)
    region = WeightRegion(positions)
    vector = random_.standard_normal(first + 2).astype(np.float32)
    assert np.array_equal(region.gather(vector), vector[positions])
    target = np.zeros_like(vector)
    region.scatter(vector[positions], target)
    region.add(vector[positions], target)
    expected = np.zeros_like(vector)
    expected[positions] = 2 * vector[positions]
    assert np.array_equal(target, expected)


def test_long_runs_of_a_region_are_slices_and_what_lies_between_are_indices() -> None:
    positions = [0, 2, *range(10, 10 + MIN_RUN), 20_000, *range(30_000, 30_000 + MIN_RUN), 40_000]
    pieces = WeightRegion(np.array(positions)).pieces
    assert [piece.where if isinstance(piece.where, slice) else piece.where.tolist() for piece in pieces] == [
        [0, 2],
        slice(10, 10 + MIN_RUN),
        [20_000],
        slice(30_000, 30_000 + MIN_RUN),
        [40_000],
    ]
    assert [(piece.start, piece.stop) for piece in pieces] == [
        (0, 2),
        (2, 2 + MIN_RUN),
        (2 + MIN_RUN, 3 + MIN_RUN),
        (3 + MIN_RUN, 3 + 2 * MIN_RUN),
        (3 + 2 * MIN_RUN, 4 + 2 * MIN_RUN),
    ]
    assert WeightRegion(np.empty(0, np.int64)).pieces == ()


def test_trained_coordinates_are_the_union_of_all_subsets() -> None:
    a, b = WeightRegion(np.array([5, 6, 9])), WeightRegion(np.array([6, 7]))
    trained = trained_region([a, b])
    assert trained.positions.tolist() == [5, 6, 7, 9]
    assert a.within(trained).positions.tolist() == [0, 1, 3]
    assert b.within(trained).positions.tolist() == [1, 2]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 32])
def test_a_sum_is_as_good_as_its_steps(count: int) -> None:
    random_ = np.random.default_rng(3)
    arrays = [random_.standard_normal(2 * BLOCK + 5).astype(np.float32) for _ in range(count)]
    weights = random_.integers(1, 1000, count).tolist()
    exact = sum(w * a.astype(np.float64) for w, a in zip(weights, arrays, strict=True))
    assert np.all(
        np.abs(exact_values([to_steps(a) for a in arrays], weights, [8.0] * count) - exact) <= sum(weights) * STEP
    )
