"""Sums of squares are those of integers: exact whatever the order."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from coordinator.merge.squares import PIECE, SIDE_BY_SIDE, norm, square_sum
from mobile_sdk.payload import SteppedVector, Steps


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, 3 * PIECE + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sum_of_squares_is_that_of_the_rounded_elements(size: int, dtype: type[np.floating]) -> None:
    values: npt.NDArray[np.floating] = (np.random.default_rng(size).standard_normal(size) * 1e-3).astype(dtype)
    step = Fraction(2) ** (math.frexp(float(np.abs(values).max()))[1] - 20)
    rounded = [round(Fraction(float(value)) / step) for value in values]
    assert square_sum(values) == float(sum(n * n for n in rounded) * step**2)
    assert norm(values) == pytest.approx(float(np.linalg.norm(values.astype(np.float64))), rel=1e-5)


def test_the_order_is_not_in_a_sum_of_squares() -> None:
    values = np.random.default_rng(1).standard_normal(50_000).astype(np.float32)
    assert square_sum(values) == square_sum(values[::-1]) == square_sum(np.sort(values))


def test_the_largest_elements_that_there_can_be_are_still_summed_exactly() -> None:
    """A full piece of them adds up to what float64 just holds."""
    values = np.full(PIECE, np.nextafter(np.float32(2), np.float32(0)))
    assert square_sum(values) == PIECE * 4.0


@pytest.mark.parametrize("values", [[], [0.0, -0.0]])
def test_nothing_has_the_length_0(values: list[float]) -> None:
    assert norm(np.array(values, np.float32)) == 0.0


@pytest.mark.parametrize("bits", [3, 7, 15])
@pytest.mark.parametrize(
    "shapes",
    [
        [(1,)],
        [(40, 250), (40,), (3, 17), (3,)],
        [(2, 2 * PIECE + 3), (5, 64)],
        [(SIDE_BY_SIDE // 16 + 7, 16)],
        [(0,), (70,), (4, 0), (20, 16)],
    ],
)
@pytest.mark.parametrize("lowest", [-12, -26])
def test_the_norm_of_integers_is_that_of_their_values_bit_for_bit(
    bits: int, shapes: list[tuple[int, ...]], lowest: int
) -> None:
    """Steps that are much finer than the largest element are rounded to the same grid, whole channels of them to 0."""
    rng = np.random.default_rng(bits)
    channels = len(Steps.open(shapes).exponents)
    steps = Steps(shapes, rng.integers(lowest, 5, channels).astype(np.int8))
    integers = rng.integers(-(2**bits) + 1, 2**bits, sum(math.prod(shape) for shape in shapes))
    vector = SteppedVector(integers.astype(np.int16) if bits > 7 else integers.astype(np.int8), steps, bits)
    assert norm(vector) == norm(vector.values()) > 0


def test_integers_that_are_all_0_have_the_length_0() -> None:
    assert norm(SteppedVector(np.zeros(32, np.int8), Steps([(2, 16)], np.full(2, -9, np.int8)), 7)) == 0.0
    assert norm(SteppedVector(np.zeros(0, np.int8), Steps([(0,)], np.zeros(0, np.int8)), 7)) == 0.0
