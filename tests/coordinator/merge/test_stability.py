"""The critical gain is where the recursion that it is about begins to oscillate without dying out."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from coordinator.merge.stability import MAX_AGE, critical_gain


def at_age(age: int) -> npt.NDArray[np.float64]:
    shares = np.zeros(age + 1)
    shares[age] = 1.0
    return shares


def last_size(shares: npt.NDArray[np.float64], gain: float, steps: int = 6000) -> float:
    """How large the error is after so many merges that follow ``x(t+1) = x(t) - gain sum_l c_l x(t - l)``."""
    x = np.ones(len(shares))  # the newest last
    for _ in range(steps):
        x = np.append(x[1:], x[-1] - gain * float(shares @ x[::-1]))
    return float(np.abs(x).max())


@pytest.mark.parametrize("age", [0, 1, 2, 5, 20, 100])
def test_updates_of_one_age_have_the_gain_of_the_closed_formula(age: int) -> None:
    assert critical_gain(at_age(age)) == pytest.approx(2 * math.sin(math.pi / (2 * (2 * age + 1))), rel=2e-3)


@pytest.mark.parametrize("seed", range(8))
def test_below_the_gain_the_error_dies_out_and_above_it_grows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ages = rng.exponential(4.0, 60).astype(int) if seed % 2 else rng.integers(2, 6, 60)
    shares = np.bincount(ages) / len(ages) * (1.0 + np.arange(ages.max() + 1)) ** -0.5
    gain = critical_gain(shares)
    assert last_size(shares, 0.97 * gain) < 0.1
    assert last_size(shares, 1.03 * gain) > 10.0


def test_ages_that_differ_leave_more_room_than_equal_ones_of_the_same_mean() -> None:
    spread = np.bincount([0] * 5 + [16] * 5) / 10.0
    assert critical_gain(spread) > 2 * critical_gain(at_age(8))


def test_where_nothing_counts_nothing_oscillates() -> None:
    assert critical_gain(np.zeros(MAX_AGE + 1)) == math.inf
