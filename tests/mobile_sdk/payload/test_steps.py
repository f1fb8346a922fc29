"""Updates of integers lie on public steps: unbiased where they fit, cut off and counted where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobile_sdk import safetensors as ours
from mobile_sdk.errors import PayloadError, ProtocolError
from mobile_sdk.layout import Layout, Parameter, Slice, Subset
from mobile_sdk.payload import (
    SteppedVector,
    Steps,
    UpdateFormat,
    check_packing,
    decode_update,
    decode_vector,
    encode_update,
)
from mobile_sdk.payload.feedback import carried_over, left_out
from mobile_sdk.payload.quantise import round_to_steps
from mobile_sdk.payload.steps import BITS, COARSEST, FINEST, MOST_STEPS, OPEN, largest_integer

LAYOUT = Layout([Parameter("conv", (6, 4, 3, 3)), Parameter("bias", (6,)), Parameter("head", (4, 6))])
SUBSET = Subset(LAYOUT, {"conv": Slice(0, (0, 2, 5)), "bias": None, "head": None})
SHAPES = [SUBSET.shape(name) for name in SUBSET]
DTYPES = ["int4", "int8", "int16"]
# Three output channels of 36 elements; the other parameters have one step each.
CHANNELS = 5


def given_steps(*exponents: int) -> Steps:
    return Steps(SHAPES, np.array(exponents, np.int8))


def packing(dtype: str, steps: Steps, top_k: float = 1.0) -> UpdateFormat:
    return UpdateFormat(dtype, top_k, steps.to_text())


def update(seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.standard_normal(SUBSET.shape(name))).astype(np.float32) for name in SUBSET}


def flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([array.reshape(-1) for array in arrays.values()])


def sent(arrays: dict[str, np.ndarray], how: UpdateFormat, seed: int = 0) -> tuple[SteppedVector, dict[str, str]]:
    """Over the wire and back."""
    content = ours.dumps(*encode_update(arrays, how, seed))
    assert safetensors.numpy.load(content).keys() == ours.loads(content)[0].keys()
    vector = decode_vector(*ours.loads(content), SUBSET)
    assert vector is not None
    np.testing.assert_array_equal(flat(dict(decode_update(*ours.loads(content), SUBSET))), vector.values())
    return vector, dict(ours.loads(content)[1])


@pytest.mark.parametrize("top_k", [1.0, 0.3])
def test_only_an_update_with_every_element_is_whole(top_k: float) -> None:
    vector, _ = sent(update(), packing("int8", given_steps(*[-8] * CHANNELS), top_k))
    assert vector.whole == (top_k == 1.0)


def test_channels_that_are_large_have_steps_of_their_own() -> None:
    steps = Steps.open(SHAPES)
    assert steps.lengths.tolist() == [36, 36, 36, 6, 24]
    assert steps.starts.tolist() == [0, 36, 72, 108, 114]
    assert [len(part) for part in steps.parts()] == [3, 1, 1]


def test_steps_fit_into_a_message_whatever_the_model() -> None:
    shapes = [(40_000, 64), (30_000, 16), (10,), (0, 5), (), (7, 0)]
    steps = Steps.open(shapes)
    assert len(steps.exponents) <= MOST_STEPS
    assert steps.lengths.sum() == 40_000 * 64 + 30_000 * 16 + 10 + 1
    noisy = np.random.default_rng(0).integers(FINEST, COARSEST, len(steps.exponents)).astype(np.int8)
    text = Steps(shapes, noisy).to_text()
    assert len(text) < 32_768
    np.testing.assert_array_equal(Steps.from_text(shapes, text).exponents, noisy)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_lies_on_the_steps_comes_back_as_it_is(dtype: str, data: st.DataObject) -> None:
    most = largest_integer(dtype)
    exponents = data.draw(hnp.arrays(np.int8, CHANNELS, elements=st.integers(FINEST, COARSEST - 8)))
    integers = data.draw(hnp.arrays(np.int16, SUBSET.size, elements=st.integers(-most, most)))
    steps = Steps(SHAPES, exponents)
    values = np.ldexp(integers.astype(np.float32), np.repeat(steps.exponents, steps.lengths).astype(np.int32)).astype(
        np.float32
    )
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in SHAPES])[:-1]
    parts = {name: part.reshape(SUBSET.shape(name)) for name, part in zip(SUBSET, np.split(values, ends), strict=True)}
    vector, metadata = sent(parts, packing(dtype, steps), seed=data.draw(st.integers(0, 2**31)))
    np.testing.assert_array_equal(vector.integers, integers)
    np.testing.assert_array_equal(vector.values(), values)
    np.testing.assert_array_equal(vector.values(slice(7, 60)), values[7:60])
    assert metadata["saturated"] == "0"
    assert vector.steps.answers(steps)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=15, deadline=None)
@given(
    values=hnp.arrays(np.float32, 24, elements=st.floats(-1, 1, width=32)),
    exponent=st.integers(-3, 3),
    seed=st.integers(0, 2**31),
)
def test_rounding_is_unbiased_where_nothing_is_cut_off(
    dtype: str, values: np.ndarray, exponent: int, seed: int
) -> None:
    """
    The mean of many roundings approaches the value at the rate of an unbiased estimator.

    An element lies within one step s, so the mean of n roundings has a standard deviation of at most s / (2 sqrt(n)).
    Six of them are exceeded by chance once in five hundred million elements.
    """
    trials = 400
    layout = Layout([Parameter("w", (4, 6, trials))])  # every value so many times: roundings of one update
    arrays = {"w": np.repeat(values.reshape(4, 6, 1) * np.float32(largest_integer(dtype) * 2.0**exponent), trials, 2)}
    steps = Steps([(4, 6, trials)], np.full(4, exponent, np.int8))
    rounded = dict(decode_update(*encode_update(arrays, packing(dtype, steps), seed), Subset.whole(layout)))["w"]
    off = rounded.mean(axis=2, dtype=np.float64) - arrays["w"][:, :, 0]
    assert (np.abs(off) <= 6 * 2.0**exponent / (2 * np.sqrt(trials))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(values=hnp.arrays(np.float32, 24, elements=st.floats(-1e6, 1e6, width=32)), exponent=st.integers(-20, 4))
def test_what_does_not_fit_is_cut_off_and_counted(dtype: str, values: np.ndarray, exponent: int) -> None:
    arrays = {name: np.zeros(SUBSET.shape(name), np.float32) for name in SUBSET}
    arrays["head"] = values.reshape(4, 6)
    end = largest_integer(dtype) * 2.0**exponent
    vector, metadata = sent(arrays, packing(dtype, given_steps(0, 0, 0, 0, exponent)))
    found = vector.values()[-24:]
    beyond = np.abs(values.astype(np.float64)) > end
    assert int(metadata["saturated"]) == beyond.sum()
    np.testing.assert_array_equal(found[beyond], np.sign(values[beyond]) * np.float32(end))
    assert (np.abs(found - values)[~beyond] <= 2.0**exponent).all()
    assert (np.abs(vector.integers) <= largest_integer(dtype)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_open_step_is_the_smallest_that_the_update_fits(dtype: str) -> None:
    arrays = update(scale=0.01)
    arrays["bias"][:] = 0
    arrays["conv"][1] *= np.float32(0.1)
    arrays["conv"][1, 0, 0, 0] = np.float32(largest_integer(dtype) * 2.0**-9)  # exactly at the end of a step
    vector, metadata = sent(arrays, packing(dtype, given_steps(OPEN, OPEN, -8, OPEN, OPEN)))
    assert metadata["saturated"] == "0"
    exponents = vector.steps.exponents
    assert exponents[1] == -9
    assert exponents[2] == -8, "those that are given are kept"
    assert exponents[3] == FINEST, "of zeros"
    for channel in (0, 4):
        start, length = vector.steps.starts[channel], vector.steps.lengths[channel]
        largest = np.abs(flat(arrays)[start : start + length]).max()
        end = largest_integer(dtype) * 2.0 ** float(exponents[channel])
        assert end / 2 < largest <= end
    assert vector.steps.answers(given_steps(OPEN, OPEN, -8, OPEN, OPEN))
    assert not vector.steps.answers(given_steps(OPEN, OPEN, -7, OPEN, OPEN))


@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_of_extreme_size_are_packed_all_the_same(dtype: str) -> None:
    for scale in (1e-30, 1e30):
        vector, metadata = sent(update(scale=scale), packing(dtype, Steps.open(SHAPES)))
        assert (int(metadata["saturated"]) > 0) == (scale > 1)
        assert np.isfinite(vector.values()).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_error_feedback_carries_what_was_cut_off_into_the_next_update(dtype: str) -> None:
    """With top-k, what saturated is sent by and by, as is all else."""
    how = packing(dtype, given_steps(-8, -8, -8, -8, -8), 0.4)
    arrays = update(3, scale=0.5 * largest_integer(dtype) * 2.0**-8)
    residual, total, saturated = b"", np.zeros(SUBSET.size, np.float64), 0
    for number in range(60):
        one = carried_over(arrays if number < 20 else {n: 0 * a for n, a in arrays.items()}, residual)
        coded, metadata = encode_update(one, how, number)
        residual = left_out(one, coded, metadata)
        saturated += int(metadata["saturated"])
        vector = decode_vector(coded, metadata, SUBSET)
        assert vector is not None
        total += vector.values()
    assert saturated > 0
    left = flat({n: a for n, a in ours.loads(residual)[0].items()})
    np.testing.assert_allclose(total + left, 20 * flat(arrays), atol=1e-3 * np.abs(total).max())
    assert np.abs(left).max() < 2.0**-7


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_take_no_more_than_scales_did(dtype: str) -> None:
    layout = Layout([Parameter("w", (64, 256))])
    arrays = {"w": np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)}
    coded, metadata = encode_update(arrays, packing_of([(64, 256)], dtype), 0)
    assert len(ours.dumps(coded, metadata)) < 64 * 256 * (BITS[dtype] + 1) / 8
    assert decode_vector(coded, metadata, Subset.whole(layout)) is not None


def packing_of(shapes: list[tuple[int, ...]], dtype: str) -> UpdateFormat:
    return UpdateFormat(dtype, 1.0, Steps.open(shapes).to_text())


def _without(metadata: dict[str, str], name: str) -> None:
    del metadata[name]


DAMAGES = {
    "steps that are no text of ours": lambda a, m: m.__setitem__("steps", "?"),
    "steps of another model": lambda a, m: m.__setitem__("steps", Steps.open([(3,)]).to_text()),
    "open steps": lambda a, m: m.__setitem__("steps", Steps.open(SHAPES).to_text()),
    "steps out of range": lambda a, m: m.__setitem__("steps", "f39/f38="),
    "no steps": lambda a, m: _without(m, "steps"),
    "scales as well": lambda a, m: a.__setitem__("head:scale", np.ones(1, np.float32)),
    "an integer that no rounding gives": lambda a, m: (
        a.pop("bias:zlib", None),
        a.__setitem__("bias", np.full(6, -128, np.int8)),
    ),
    "another dtype": lambda a, m: m.__setitem__("format", "int16"),
    "floats": lambda a, m: m.__setitem__("format", "float32"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_update_that_is_not_one_is_refused(damage: Any) -> None:
    arrays, metadata = encode_update(update(), packing("int8", given_steps(-5, -5, -5, -5, -5)), 0)
    damage(arrays, metadata)
    with pytest.raises(PayloadError):
        dict(decode_update(arrays, metadata, SUBSET))
    with pytest.raises(PayloadError):
        assert decode_vector(arrays, metadata, SUBSET) is not None or dict(decode_update(arrays, metadata, SUBSET))


def test_a_device_refuses_steps_that_are_none_before_it_trains() -> None:
    check_packing(packing("int8", Steps.open(SHAPES)), SUBSET)
    check_packing(UpdateFormat("int8"), SUBSET)
    with pytest.raises(ProtocolError, match="steps cannot be used"):
        check_packing(UpdateFormat("int8", 1.0, Steps.open([(3, 40)]).to_text()), SUBSET)
    with pytest.raises(ProtocolError, match="steps are no text"):
        UpdateFormat.from_json({"dtype": "int8", "steps": [1]})


def test_a_packing_says_its_steps_where_it_has_some() -> None:
    how = packing("int4", Steps.open(SHAPES))
    assert UpdateFormat.from_json(how.to_json()) == how
    assert UpdateFormat("int4").to_json() == {"dtype": "int4", "top_k": 1.0}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_parameter_that_is_one_number_travels_too(dtype: str) -> None:
    subset = Subset.whole(Layout([Parameter("one", ())]))
    arrays, metadata = encode_update(
        {"one": np.array(0.5, np.float32)}, packing(dtype, Steps([()], np.array([-3], np.int8))), 0
    )
    assert {name: float(value) for name, value in decode_update(arrays, metadata, subset)} == {"one": 0.5}


@pytest.mark.parametrize("exponent", [-26, 20, OPEN])
def test_the_finest_and_the_coarsest_step_are_steps_and_what_lies_beyond_is_none(exponent: int) -> None:
    assert Steps([(2,)], np.array([exponent], np.int8)).exponents.tolist() == [exponent]
    if exponent != OPEN:
        with pytest.raises(PayloadError, match="the power of -26 to 20, or open"):
            Steps([(2,)], np.array([exponent + (1 if exponent > 0 else -1)], np.int8))


def test_equal_steps_of_the_same_shapes_have_one_key_and_others_have_others() -> None:
    steps = [
        Steps([(2,), (3,)], np.array([1, 2], np.int8)),
        Steps([(2,), (3,)], np.array([1, 3], np.int8)),
        Steps([(3,), (2,)], np.array([1, 2], np.int8)),
    ]
    assert len({one.key for one in steps}) == 3
    assert steps[0].key == Steps([(2,), (3,)], np.array([1, 2], np.int8)).key


def test_each_channel_counts_its_own_integers() -> None:
    integers = np.zeros(SUBSET.size, np.int8)
    integers[[0, 1, 35]] = 7, -7, 3
    integers[[72, 108]] = -5, 7
    vector = SteppedVector(integers, given_steps(0, 0, 0, 0, 0), BITS["int4"])
    assert vector.largest.tolist() == [7, 0, 5, 7, 0]
    assert vector.at_the_end.tolist() == [2, 0, 0, 1, 0]
    assert vector.nonzero.tolist() == [3, 0, 1, 1, 0]


def test_a_parameter_without_elements_has_no_step() -> None:
    steps = Steps([(0, 5), (3,), (7, 0)], np.array([4], np.int8))
    assert [len(part) for part in steps.parts()] == [0, 1, 0]
    assert (steps.lengths.tolist(), steps.starts.tolist()) == ([3], [0])
    nothing = SteppedVector(np.zeros(0, np.int8), Steps([(0,)], np.zeros(0, np.int8)), BITS["int8"])
    assert [len(part) for part in (nothing.largest, nothing.at_the_end, nothing.nonzero)] == [0, 0, 0]


def test_a_parameter_has_a_step_per_channel_from_sixteen_elements_on() -> None:
    assert Steps.open([(3, 16), (3, 15), (48,)]).lengths.tolist() == [16, 16, 16, 45, 48]


def test_steps_that_were_given_are_answered_by_the_same_ones_and_open_ones_by_any() -> None:
    given = given_steps(1, OPEN, 3, 4, 5)
    assert given_steps(1, 2, 3, 4, 5).answers(given)
    assert not given_steps(0, 2, 3, 4, 5).answers(given)
    assert not given.answers(given), "none may be left open"
    assert not Steps([(2,)], np.array([1], np.int8)).answers(Steps([(3,)], np.array([1], np.int8)))


def test_the_largest_integers_of_int16_are_rounded_without_bias_too() -> None:
    """A float32 next to them would be drawn in 512 parts, and be off by half of one: 0.001."""
    value = np.float32(30_000 + 77 / 256)
    values = np.full(2**23, value)
    rounded, saturated = round_to_steps(values, np.zeros(len(values), np.int8), 2**15 - 1, np.random.default_rng(0))
    assert saturated == 0
    assert rounded.dtype == np.int16
    assert abs(rounded.mean() - value) < 0.0005, "three standard deviations"
