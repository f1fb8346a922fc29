"""Every way to ask for a parameter's integers gives the same ones, whatever its shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mobile_sdk.errors import PayloadError
from mobile_sdk.payload import Grid

shapes = st.one_of(
    st.just((1,)),
    st.just((7,)),
    st.just((1, 6)),
    st.tuples(st.integers(1, 4), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
)


@given(
    shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(-4, 4, width=32))),
    st.integers(0, 10),
    st.integers(0, 40),
)
def test_a_part_of_a_parameter_has_the_integers_that_it_has_in_the_whole(
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]], start: int, count: int
) -> None:
    grid = Grid.of({"w": weights})
    snapped = grid.snap("w", weights)
    whole = grid.integers("w", snapped).reshape(-1)
    stop = min(start + count, weights.size)
    start = min(start, stop)
    part = grid.integers_within("w", snapped.reshape(-1)[start:stop], start)
    np.testing.assert_array_equal(part, whole[start:stop])
    np.testing.assert_array_equal(grid.weights_within("w", part, start), snapped.reshape(-1)[start:stop])


@given(shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(-4, 4, width=32))))
def test_a_grid_survives_its_text(weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    grid = Grid.of({"w": weights})
    again = Grid.from_text([("w", weights.shape)], grid.to_text())
    np.testing.assert_array_equal(again.snap("w", weights), grid.snap("w", weights))


def test_a_text_of_other_shapes_is_no_grid() -> None:
    grid = Grid.of({"w": np.ones((3, 2), np.float32)})
    with pytest.raises(PayloadError):
        Grid.from_text([("w", (4, 2))], grid.to_text())
    with pytest.raises(PayloadError, match="not a grid"):
        Grid.from_text([("w", (3, 2))], "?")


def test_the_steps_follow_from_the_largest_weight_of_a_channel_at_the_start() -> None:
    grid = Grid.of(
        {
            "matrix": np.array([[1.0, -0.3], [0.0, 0.0], [0.2, -5.0]], np.float32),
            "bias": np.zeros(3, np.float32),
            "vector": np.array([0.25, -0.3], np.float32),
            "none": np.zeros((2, 0), np.float32),
            "extreme": np.array([[1e-38], [3e38]], np.float32),
        }
    )
    # Of channels of zeros: as the whole parameter, or 2 to the power of -3 where that is all zeros, too.
    assert grid.exponents.tolist() == [-11, -9, -9, -15, -13, -15, -15, -120, 100]
    assert Grid.of({"w": np.ones(1, np.float32)}, bits=4).exponents.tolist() == [-3]


def test_what_lies_on_no_grid_is_refused() -> None:
    grid = Grid([("w", (2,))], np.array([0], np.int8))
    assert grid.integers("w", np.array([2.0, -3.0], np.float32)).tolist() == [2, -3]
    assert grid.integers("w", np.array([2.0**61, 0], np.float32)).tolist() == [2**61, 0]
    for odd in (0.5, 2.0**62):
        with pytest.raises(PayloadError, match="'w' does not lie on the grid"):
            grid.integers("w", np.array([1.0, odd], np.float32))
    for odd in (np.inf, np.nan):
        with pytest.raises(PayloadError, match="infinite or not a number"):
            grid.integers("w", np.array([1.0, odd], np.float32))


def test_weights_beyond_float32_are_refused() -> None:
    grid = Grid([("w", (1,))], np.array([100], np.int8))
    assert grid.weights("w", np.array([2**27])).tolist() == [2.0**127]
    with pytest.raises(PayloadError, match="too large for float32"):
        grid.weights("w", np.array([2**28]))


def test_there_are_as_many_steps_as_channels() -> None:
    with pytest.raises(PayloadError, match="the grid has 2 steps for 3 channels"):
        Grid([("w", (2, 5)), ("b", (2,))], np.zeros(2, np.int8))
