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
