"""One bad update cannot do more than its share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.merge.contribution import Contribution
from coordinator.merge.merger import Merger
from coordinator.merge.regions import WeightRegion
from coordinator.merge.robust import clip_norms, outliers

from .test_merger import at, buffers


def crowd(count: int, seed: int = 0, size: int = 50) -> list[Contribution]:
    random = np.random.default_rng(seed)
    direction = random.standard_normal(size)
    region = WeightRegion(np.arange(size))
    return [
        Contribution(
            f"a{n:08d}",
            region,
            (direction + random.standard_normal(size)).astype(np.float32),
            10.0,
            device=f"phone-{n}",
        )
        for n in range(count)
    ]


@given(buffers(), st.floats(0.1, 10))
def test_no_update_is_longer_than_the_clipping_norm(given: list[Contribution], norm: float) -> None:
    for before, after in zip(given, clip_norms(given, norm), strict=True):
        length = float(np.linalg.norm(before.values()))
        assert np.linalg.norm(after.values()) <= norm * (1 + 1e-5)
        if length <= norm:
            assert after is before
        else:
            assert np.allclose(after.values() * length, before.values() * norm, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_an_outlier_is_left_out_and_nobody_else(seed: int) -> None:
    given = crowd(8, seed)
    given[3] = dataclasses.replace(given[3], delta=given[3].values() * np.float32(-20))
    assert outliers(given, 3.0) == {"a00000003"}
    merged = Merger(outlier_factor=3.0)(np.zeros(50, np.float32), {}, given, at)
    assert merged.outliers == {"a00000003"}
    without = [c for c in given if c.id != "a00000003"]
    assert merged.weights.tobytes() == Merger()(np.zeros(50, np.float32), {}, without, at).weights.tobytes()


@pytest.mark.parametrize("held", [50, 25])
def test_an_update_as_long_as_the_others_that_points_the_other_way_is_an_outlier(held: int) -> None:
    given = [dataclasses.replace(c, delta=c.values() * np.float32(0.1) + np.float32(1)) for c in crowd(8)]
    against = dataclasses.replace(given[3], region=WeightRegion(np.arange(held)), delta=-given[3].values()[:held])
    assert outliers([*given[:3], against, *given[4:]], 3.0) == {against.id}


def test_an_honest_crowd_has_no_outliers() -> None:
    assert outliers(crowd(12), 3.0) == set()


@given(buffers(), st.floats(1, 5))
def test_at_least_half_of_a_buffer_stays(given: list[Contribution], factor: float) -> None:
    assert 2 * len(outliers(given, factor)) <= len(given)


def test_updates_of_different_subsets_are_compared_where_they_overlap() -> None:
    given = crowd(6)
    half = WeightRegion(np.arange(25))
    given[1] = dataclasses.replace(given[1], region=half, delta=given[1].values()[:25])
    given[2] = dataclasses.replace(given[2], region=half, delta=given[2].values()[:25] * np.float32(30))
    assert outliers(given, 3.0) == {"a00000002"}


def test_three_have_no_majority_and_four_have_one() -> None:
    for count, found in ((3, set()), (4, {"a00000000"})):
        given = crowd(count)
        given[0] = dataclasses.replace(given[0], delta=given[0].values() * np.float32(100))
        assert outliers(given, 2.0) == found


def test_one_that_shares_no_coordinate_with_any_other_is_no_outlier() -> None:
    given = crowd(5)
    apart = WeightRegion(np.arange(50, 100))
    given[0] = dataclasses.replace(given[0], region=apart, delta=given[0].values() * np.float32(100))
    assert outliers(given, 3.0) == set()
