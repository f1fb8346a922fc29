"""Robust rules: what hostile devices can do to a coordinate is bounded by what honest ones say."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config import parse_config
from coordinator.errors import ConfigError
from coordinator.merge import robust_rules
from coordinator.merge.contribution import Contribution
from coordinator.merge.from_config import merger
from coordinator.merge.merger import Merger
from coordinator.merge.regions import WeightRegion
from coordinator.merge.robust_rules import ROBUST_RULES, RobustRule, _distance, far_devices
from coordinator.merge.staleness import AgeVariance, Constant, Polynomial
from coordinator.merge.sums import STEP
from coordinator.merge.votes import Vote
from mobile_sdk.layout import Vector

from .test_merger import SIZE, WEIGHTS, at, buffers

ZERO = np.zeros(SIZE, np.float32)
WHOLE = WeightRegion(np.arange(SIZE))

rules = st.sampled_from(ROBUST_RULES)
coordinates = st.lists(st.floats(-1, 1, width=32), min_size=SIZE, max_size=SIZE)


def update(device: str, delta: Vector, number: int = 0, region: WeightRegion = WHOLE, tau: int = 0) -> Contribution:
    return Contribution(f"{device}-{number}", region, delta, 10.0, tau, tau, device)


def merged(rule: RobustRule, contributions: list[Contribution], hostile: int = 1, **options: object) -> Vector:
    built = Merger(policy=Constant(), rule=rule, hostile=hostile)
    return dataclasses.replace(built, **options)(ZERO, {}, contributions, at).weights  # type: ignore[arg-type]


@given(st.data(), rules, buffers(), st.sampled_from([Constant(), Polynomial(), AgeVariance()]), st.integers(1, 2))
def test_the_order_of_arrival_does_not_matter_to_a_bit(
    data: st.DataObject, rule: RobustRule, given: list[Contribution], policy: Polynomial, hostile: int
) -> None:
    built = Merger(policy=policy, rule=rule, hostile=hostile)
    shuffled = data.draw(st.permutations(given))
    one, other = built(WEIGHTS, {}, given, at), built(WEIGHTS, {}, shuffled, at)
    assert one.weights.tobytes() == other.weights.tobytes()
    assert one.counted == other.counted
    assert one.outliers == other.outliers


@given(rules, coordinates, st.integers(1, 8), st.integers(1, 3))
def test_where_all_agree_every_rule_is_the_mean(
    rule: RobustRule, delta: list[float], devices: int, hostile: int
) -> None:
    agreed = np.round(np.array(delta, np.float32) / np.float32(STEP)) * np.float32(STEP)
    contributions = [update(f"d{number}", agreed) for number in range(devices)]
    np.testing.assert_allclose(merged(rule, contributions, hostile), agreed, atol=STEP)


@given(
    st.sampled_from(["trimmed-mean", "median"]),
    st.lists(coordinates, min_size=1, max_size=5),
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=SIZE, max_size=SIZE), max_size=4),
)
def test_a_trimmed_coordinate_stays_between_what_honest_devices_say(
    rule: RobustRule, honest: list[list[float]], hostile: list[list[float]]
) -> None:
    hostile = hostile[: len(honest) - 1]
    rows = [np.array(row, np.float32) for row in (*honest, *hostile)]
    contributions = [update(f"d{number}", row) for number, row in enumerate(rows)]
    found = merged(rule, contributions, max(len(hostile), 1))
    said = np.array(honest, np.float32)
    assert (found >= said.min(axis=0) - STEP).all()
    assert (found <= said.max(axis=0) + STEP).all()


@given(st.integers(1, 3), st.floats(2, 1e6), st.integers(0, 1000), st.sampled_from(["multi-krum", "centred-clipping"]))
def test_far_votes_leave_a_merge_within_reach_of_the_honest_ones(
    hostile: int, distance: float, seed: int, rule: RobustRule
) -> None:
    rng = np.random.default_rng(seed)
    honest = rng.uniform(-1, 1, (hostile + 4, SIZE)).astype(np.float32)
    away = rng.standard_normal(SIZE)
    far = (distance * SIZE * away / np.linalg.norm(away)).astype(np.float32)
    rows = [*honest, *(far for _ in range(hostile))]
    contributions = [update(f"d{number}", row) for number, row in enumerate(rows)]
    found = merged(rule, contributions, hostile)
    # Within the spread of the honest votes about their mean, whatever the distance of the others.
    spread = max(float(np.linalg.norm(row - honest.mean(axis=0))) for row in honest)
    assert float(np.linalg.norm(found - honest.mean(axis=0))) <= 1.5 * spread


@pytest.mark.parametrize("rule", ROBUST_RULES)
def test_one_device_is_one_voice_however_many_updates_it_sends(rule: RobustRule) -> None:
    honest = [update(f"d{number}", np.full(SIZE, 1 + number / 100, np.float32)) for number in range(6)]
    flood = [update("mallory", np.full(SIZE, -1e5, np.float32), number) for number in range(20)]
    found = merged(rule, [*honest, *flood])
    assert 0.9 < found.min() <= found.max() < 1.1


def dense_trimmed(given: list[Contribution], hostile: int | None) -> list[float]:
    """The definition, coordinate by coordinate, without staleness."""
    result = [0.0] * SIZE
    for position in range(SIZE):
        own: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
        for c in given:
            if position in c.region.positions:
                own[c.device].append((float(c.values()[list(c.region.positions).index(position)]), c.examples))
        said = sorted(sum(v * a for v, a in mine) / sum(a for _, a in mine) for mine in own.values())
        if said:
            most = (len(said) - 1) // 2
            cut = most if hostile is None else min(hostile, most)
            kept = said[cut : len(said) - cut]
            result[position] = sum(kept) / len(kept)
    return result


@given(buffers(), st.sampled_from([None, 1, 2]))
def test_trimming_agrees_with_a_dense_reference_on_partial_coordinates(
    given: list[Contribution], hostile: int | None
) -> None:
    rule: RobustRule = "median" if hostile is None else "trimmed-mean"
    found = merged(rule, given, hostile or 1)
    np.testing.assert_allclose(found, dense_trimmed(given, hostile), atol=1e-6)


@given(buffers(), st.integers(1, 2))
def test_blocks_make_no_difference(given: list[Contribution], hostile: int) -> None:
    whole = merged("trimmed-mean", given, hostile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust_rules, "BLOCK", 5)
        assert merged("trimmed-mean", given, hostile).tobytes() == whole.tobytes()


@pytest.mark.parametrize("rule", ROBUST_RULES)
def test_coordinates_that_few_devices_hold_stay_where_that_is_wanted(rule: RobustRule) -> None:
    head = WeightRegion(np.arange(3))
    contributions = [
        *(update(f"d{number}", np.ones(3, np.float32), region=head) for number in range(5)),
        update("d9", np.ones(SIZE, np.float32)),
    ]
    found = merged(rule, contributions, min_contributors=2)
    np.testing.assert_array_equal(found, [1.0] * 3 + [0.0] * (SIZE - 3))


@pytest.mark.parametrize("rule", ["trimmed-mean", "median", "centred-clipping"])
def test_a_stale_vote_says_move_less(rule: RobustRule) -> None:
    contributions = [update(f"d{number}", np.ones(SIZE, np.float32), tau=3) for number in range(3)]
    found = merged(rule, contributions, policy=Polynomial())
    np.testing.assert_allclose(found, np.full(SIZE, 0.5), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_multi_krum_leaves_out_who_is_far_and_takes_the_mean_of_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(SIZE)
    given = [update(f"d{n}", (direction + 0.1 * rng.standard_normal(SIZE)).astype(np.float32)) for n in range(6)]
    bad = [update("mallory", (-direction).astype(np.float32), number) for number in range(2)]
    result = Merger(policy=Constant(), rule="multi-krum")(ZERO, {}, [*given, *bad], at)
    assert result.outliers == {"mallory-0", "mallory-1"}
    np.testing.assert_allclose(result.weights, np.mean([c.values() for c in given], axis=0), atol=1e-6)


@pytest.mark.parametrize("rule", ROBUST_RULES)
def test_samples_that_a_device_claims_give_it_no_weight(rule: RobustRule) -> None:
    honest = [update(f"d{number}", np.full(SIZE, 1 + number / 100, np.float32)) for number in range(6)]
    greedy = dataclasses.replace(update("mallory", ZERO), examples=1e8)
    assert merged(rule, [*honest, greedy]).tobytes() == merged(rule, [*honest, update("mallory", ZERO)]).tobytes()
    assert merged(rule, [*honest, greedy]).min() > 0.8


def config(**section: object) -> object:
    run = {"run": {"name": "r", "task": "a.b:c"}, "budgets": {"small": 1000}, "merge": section}
    return parse_config(run, Path()).merge


@pytest.mark.parametrize(("rule", "needed"), [("trimmed-mean", 5), ("median", 5), ("multi-krum", 7)])
def test_a_rule_that_could_not_bear_so_many_is_refused_with_the_remedy(rule: str, needed: int) -> None:
    with pytest.raises(ConfigError, match=f"set min_contributors = {needed}"):
        config(rule=rule, hostile=2, min_contributors=needed - 1)
    section = config(rule=rule, hostile=2, min_contributors=needed)
    built = merger(section)  # type: ignore[arg-type]
    assert (built.rule, built.hostile) == (rule, 2)


def test_two_votes_are_compared_where_both_vote_wherever_that_lies_in_each() -> None:
    def vote(device: str, positions: list[int], values: list[float]) -> Vote:
        region = WeightRegion(np.array(positions))
        contribution = Contribution(device, region, np.array(values, np.float32), 1.0, device=device)
        return Vote(device, [contribution], [1], [1], 1)

    one, other = vote("a", [0, 1, 2, 3], [9, 9, 1, 2]), vote("b", [2, 3, 4, 5], [1, 4, 9, 9])
    assert _distance(one, one.values(), other, {}) == (2.0 - 4.0) ** 2 / 2
    assert _distance(one, one.values(), vote("c", [7], [1]), {}) is None


def test_a_vote_on_coordinates_in_any_order_is_told_in_ascending_order() -> None:
    region = WeightRegion(np.array([5, 2, 9]))
    contribution = Contribution("a", region, np.array([50, 20, 90], np.float32), 2.0, device="a")
    vote = Vote("a", [contribution], [1], [2], 1)
    assert vote.region.positions.tolist() == [2, 5, 9]
    assert vote.values().tolist() == [20.0, 50.0, 90.0]
    assert vote.values(slice(1, 3)).tolist() == [50.0, 90.0]


def test_fewer_than_two_for_each_hostile_and_three_are_too_few_to_leave_any_out() -> None:
    def ballot(count: int) -> list[Vote]:
        far = [100.0, -90.0] + [float(n) for n in range(count - 2)]
        updates = [update(f"d{n}", np.full(SIZE, value, np.float32)) for n, value in enumerate(far)]
        return [Vote(c.device, [c], [1], [1], 1) for c in updates]

    assert far_devices(ballot(6), 2) == set()
    assert far_devices(ballot(7), 2) == {"d0", "d1"}
    assert far_devices(ballot(7), 1) == {"d0"}
