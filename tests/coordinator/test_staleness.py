"""Staleness weights: pure functions of the buffer, 1 for what is fresh."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.merge.staleness import Constant, Exponential, Hinge, Polynomial, StalenessPolicy

POLICIES: list[StalenessPolicy] = [Constant(), Polynomial(0.5), Hinge(10.0, 4), Exponential(0.1)]
policies = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
buffers = st.lists(st.integers(0, 10_000), min_size=1, max_size=20)


@policies
@given(size=st.integers(1, 50))
def test_a_fresh_buffer_counts_in_full(policy: StalenessPolicy, size: int) -> None:
    assert np.array_equal(policy.weights([0] * size), np.ones(size))


@policies
@given(staleness=buffers)
def test_weights_fall_with_staleness_and_never_reach_zero(policy: StalenessPolicy, staleness: list[int]) -> None:
    staleness = [min(tau, 5_000) for tau in sorted(staleness)]
    weights = policy.weights(staleness)
    assert (np.diff(weights) <= 0).all()
    assert (weights > 0).all()
    assert (weights <= 1).all()


@policies
@given(staleness=buffers)
def test_the_same_buffer_gives_the_same_weights(policy: StalenessPolicy, staleness: list[int]) -> None:
    first = policy.weights(staleness)
    policy.weights([7, 7])
    assert np.array_equal(first, policy.weights(staleness))


def test_polynomial_with_one_half_is_that_of_fedbuff() -> None:
    weights = Polynomial(0.5).weights([0, 1, 2, 4, 8, 16, 32])
    assert weights.round(3).tolist() == [1.0, 0.707, 0.577, 0.447, 0.333, 0.243, 0.174]


def test_hinge_has_no_jump_at_its_threshold() -> None:
    weights = Hinge(10.0, 4).weights([4, 5, 6])
    assert weights.tolist() == pytest.approx([1.0, 1 / 11, 1 / 21])


def test_exponential_falls_by_the_same_factor_per_version() -> None:
    weights = Exponential(0.1).weights([0, 1, 2])
    assert weights[1] / weights[0] == pytest.approx(weights[2] / weights[1])
    assert weights[1] == pytest.approx(0.9048, abs=1e-4)
