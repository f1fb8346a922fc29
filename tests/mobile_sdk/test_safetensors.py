"""Our safetensors reader and writer against the reference implementation, and against hostile bytes."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy as reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from mobile_sdk.errors import PayloadError
from mobile_sdk.safetensors import dumps, loads, parse_header

dtypes = st.sampled_from(["f4", "f2", "f8", "i8", "i4", "i2", "i1", "u1", "bool"])
some_arrays = st.dictionaries(
    st.text("abc.0_ü", min_size=1, max_size=8),
    dtypes.flatmap(lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=3, max_side=4))),
    max_size=4,
)


def same(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(some_arrays)
def test_the_reference_implementation_reads_what_we_write(arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    read = reference.load(dumps(arrays, {"version": "3"}))
    assert read.keys() == arrays.keys()
    assert all(same(read[name], arrays[name]) for name in arrays)


@given(some_arrays)
def test_we_read_what_the_reference_implementation_writes(arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    read, metadata = loads(reference.save(arrays, {"version": "3"}))
    assert read.keys() == arrays.keys()
    assert all(same(read[name], arrays[name]) for name in arrays)
    assert metadata == {"version": "3"}


@given(some_arrays)
def test_equal_arrays_give_equal_bytes(arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    assert dumps(arrays) == dumps({name: array.copy() for name, array in arrays.items()})


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused_cleanly(content: bytes) -> None:
    try:
        loads(content)
    except PayloadError:
        return
    assert reference.load(content) is not None


@given(st.data())
def test_a_damaged_file_is_refused_or_still_a_file(data: st.DataObject) -> None:
    content = bytearray(dumps({"a": np.arange(6, dtype=np.float32), "b": np.zeros((2, 2), np.int64)}))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    try:
        arrays, _ = loads(bytes(content))
    except PayloadError:
        return
    assert sum(array.nbytes for array in arrays.values()) == 6 * 4 + 4 * 8


def header(text: object, tail: bytes = b"") -> bytes:
    encoded = json.dumps(text).encode()
    return len(encoded).to_bytes(8, "little") + encoded + tail


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        header([1, 2]),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(5)),
        header(
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            },
            bytes(4),
        ),
    ],
)
def test_a_malformed_file_is_refused(content: bytes) -> None:
    with pytest.raises(PayloadError):
        loads(content)


def test_a_shape_that_would_take_minutes_to_multiply_out_is_refused_at_once() -> None:
    shape = ",".join(["9" * 4000] * 2000)
    header = f'{{"a":{{"dtype":"I8","shape":[{shape}],"data_offsets":[0,0]}}}}'.encode()
    with pytest.raises(PayloadError, match="no list of at most 64 axes"):
        parse_header(header)
