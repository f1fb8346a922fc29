"""Staleness weights: pure functions of the buffer, 1 for what is fresh."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.merge.contribution import Contribution
from coordinator.merge.merger import Merger
from coordinator.merge.staleness import (
    AgeVariance,
    BufferView,
    Constant,
    Distance,
    Exponential,
    Hinge,
    Polynomial,
    StalenessPolicy,
    deviations,
)

from .test_merger import POLICIES, SIZE, WEIGHTS, at, buffers, contribution

AGE: list[StalenessPolicy] = [Constant(), Polynomial(), Hinge(), Exponential()]


def view(given: list[Contribution]) -> BufferView:
    def drift(index: int) -> float:
        c = given[index]
        return float(np.linalg.norm(c.region.gather(WEIGHTS) - c.region.gather(at(c.base))))

    return BufferView([c.staleness for c in given], given, SIZE, drift)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@given(given=buffers())
def test_a_policy_called_twice_gives_the_same(policy: StalenessPolicy, given: list[Contribution]) -> None:
    first = policy.weights(view(given))
    assert policy.weights(view(given)).tolist() == first.tolist()
    assert first.shape == (len(given),)
    assert np.all((first >= 0) & np.isfinite(first))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@given(given=buffers(fresh=True))
def test_an_all_fresh_buffer_counts_in_full(policy: StalenessPolicy, given: list[Contribution]) -> None:
    weights = policy.weights(view(given))
    assert np.all(weights > 0)
    assert weights.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_a_fresh_update_alone_weighs_one(policy: StalenessPolicy) -> None:
    assert policy.weights(view([contribution(1, [0, 1], 2.0, 10)])).tolist() == [1.0]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_fresh_updates_that_agree_weigh_one_each(policy: StalenessPolicy) -> None:
    assert policy.weights(view([contribution(n, [0, 1], 2.0, 10) for n in range(3)])).tolist() == [1.0] * 3


@pytest.mark.parametrize("policy", AGE, ids=lambda policy: type(policy).__name__)
@given(taus=st.lists(st.integers(0, 500), min_size=2, max_size=20))
def test_older_never_counts_more(policy: StalenessPolicy, taus: list[int]) -> None:
    weights = policy.weights(BufferView(sorted(taus)))
    assert np.all(np.diff(weights) <= 0)
    assert np.all((weights > 0) & (weights <= 1))


@pytest.mark.parametrize(
    ("policy", "tau", "weight"),
    [
        (Polynomial(), 3, 0.5),
        (Polynomial(1.0), 3, 0.25),
        (Polynomial(), 8, 1 / 3),  # not 1 / (1 + sqrt 8)
        (Hinge(), 4, 1.0),
        (Hinge(), 5, 1 / 11),  # not 1 / 10
        (Exponential(0.5), 2, np.exp(-1.0)),
        (Constant(), 1000, 1.0),
    ],
)
def test_the_formulas_are_those_of_their_papers(policy: StalenessPolicy, tau: int, weight: float) -> None:
    assert policy.weights(BufferView([tau])).tolist() == pytest.approx([weight])


def test_age_variance_moves_weight_from_what_disagrees_to_what_agrees() -> None:
    given = [contribution(n, [0, 1], delta, 10) for n, delta in enumerate([1.0, 1.0, 1.0, 5.0])]
    weights = AgeVariance().weights(view(given))
    # v = 1, 1, 1, 9; their mean 3; c = 3/4, 3/4, 3/4, 1/4; the mean of c 5/8.
    assert weights.tolist() == pytest.approx([1.2, 1.2, 1.2, 0.4])


def test_only_shared_coordinates_are_compared() -> None:
    given = [contribution(1, [0, 1], 1.0, 10), contribution(2, [1, 2], 3.0, 10), contribution(3, [5], 100.0, 10)]
    assert deviations(SIZE, given).tolist() == [1.0, 1.0, 0.0]


def test_distance_is_asyncfededs_formula() -> None:
    c = contribution(1, [0, 1, 2, 3], 1.0, 10, tau=3)
    # The weights moved by 3 in each of 4 coordinates: 6; the update by 1 in each: 2. gamma = 3.
    assert Distance().weights(view([c])).tolist() == pytest.approx([0.25])
    assert Distance(scale=3.0).weights(view([c])).tolist() == pytest.approx([0.5])


def test_no_state_creeps_in_over_a_run() -> None:
    """The mixing weight of an update depends on its buffer alone, not on how many merges there were."""
    merger = Merger(policy=Polynomial())
    given = [contribution(n, [0, 1], 1.0, 10, tau=n) for n in range(3)]
    counted = [merger(WEIGHTS, {}, given, at).counted for _ in range(50)]
    assert all(one == counted[0] for one in counted)
