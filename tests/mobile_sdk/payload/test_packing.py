"""Programs are packed for their way: nothing is lost, and nothing unpacks to more than it promised."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_sdk.errors import PayloadError
from mobile_sdk.payload import pack, pack_text, unpack, unpack_text
from mobile_sdk.payload.coarse import most_bytes, put_back, take_out
from mobile_sdk.protocol.messages import ENCODINGS


@given(st.binary(max_size=500))
def test_what_is_packed_unpacks_to_the_same(content: bytes) -> None:
    packed, encoding = pack(content)
    assert encoding in ENCODINGS
    assert len(packed) <= len(content)
    assert unpack(packed, encoding, len(content)) == content


@given(st.lists(st.integers(0, 1000), min_size=40, max_size=60), st.binary(max_size=3))
def test_words_never_take_more_than_zlib_alone(numbers: list[int], rest: bytes) -> None:
    content = np.array(10 * numbers, "<u4").tobytes() + rest
    packed, encoding = pack(content)
    assert len(packed) <= len(zlib.compress(content, 9))
    assert unpack(packed, encoding, len(content)) == content


@given(
    st.integers(0, 2**32 - 1),
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(-130, 130), st.integers(1, 127), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.binary(max_size=70),
)
def test_floats_on_a_grid_come_back_to_the_bit(
    seed: int, stretches: list[tuple[int, int, int, bool]], rest: bytes
) -> None:
    """Stretches of small integers times powers of two, of whatever exponent, between words of any kind."""
    generator = np.random.default_rng(seed)
    parts = []
    for length, exponent, largest, noise in stretches:
        with np.errstate(over="ignore"):
            grid = np.ldexp(generator.integers(-largest, largest + 1, length).astype(np.float64), exponent)
            parts.append(grid.astype("<f4").tobytes())
        parts.append(generator.bytes(4 * length) if noise else b"")
    content = b"".join(parts) + rest
    words = len(content) // 4
    table, left = take_out(np.frombuffer(content, "<u4", words))
    assert len(table) <= most_bytes(words)
    taken, nothing = put_back(table, words)
    assert nothing == b""
    assert (taken | left).tobytes() == content[: 4 * words]
    packed, encoding = pack(content)
    assert unpack(packed, encoding, len(content)) == content


def test_weights_on_a_grid_take_no_more_than_their_integers() -> None:
    integers = np.random.default_rng(0).normal(0, 15, 20_000).clip(-63, 63).round()
    content = (np.ldexp(integers, -9) + 0.0).astype("<f4").tobytes()
    packed, encoding = pack(content)
    assert encoding == "zlib-integers"
    assert len(packed) < 1.05 * len(zlib.compress(integers.astype(np.int8).tobytes(), 9))
    assert len(packed) < 0.8 * len(zlib.compress(content, 9))


def _table(segments: int, count: int, *entries: tuple[int, int, int]) -> bytes:
    """A table of integers as a peer might send it, all of them 1."""
    columns: Iterable[Any] = zip(*entries, strict=True) if entries else ((), (), ())
    kinds = ("<u4", "<u4", "i1")
    body = b"".join(np.array(column, kind).tobytes() for column, kind in zip(columns, kinds, strict=True))
    return struct.pack("<II", segments, count) + body + b"\1" * count


@pytest.mark.parametrize(
    "table",
    [
        b"short",
        struct.pack("<II", 2**32 - 1, 0),
        struct.pack("<II", 0, 2**32 - 1),
        _table(1, 4, (7, 4, 0)),  # beyond the end
        _table(2, 4, (0, 3, 0), (2, 1, 0)),  # over each other
        _table(2, 4, (4, 2, 0), (0, 2, 0)),  # out of order
        _table(1, 3, (0, 4, 0)),  # fewer integers than promised
    ],
)
def test_a_table_that_is_not_of_the_file_is_refused(table: bytes) -> None:
    with pytest.raises(PayloadError):
        unpack(zlib.compress(table + bytes(40)), "zlib-integers", 40)


@pytest.mark.parametrize("promised", [99, 101])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_another_size_than_promised_is_refused(encoding: str, promised: int) -> None:
    packed = bytes(100) if encoding == "identity" else zlib.compress(bytes(100))
    with pytest.raises(PayloadError, match="another size"):
        unpack(packed, encoding, promised)


@pytest.mark.parametrize("promised", [1000, 1, 0])
def test_a_bomb_is_not_unpacked(promised: int) -> None:
    bomb = zlib.compress(bytes(20_000_000), 1)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match="another size"):
            unpack(bomb, "zlib", promised)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_number_that_differs_from_a_whole_one_by_its_last_bit_stays_as_it_is() -> None:
    words = np.tile(np.arange(1, 51, dtype=np.float32), 2).view("<u4")
    words[50] += 1
    table, left = take_out(words)
    taken, _ = put_back(table, len(words))
    assert np.count_nonzero(left) == 1
    assert (taken | left).tobytes() == words.tobytes()


@pytest.mark.parametrize("packed", [b"", b"nonsense", zlib.compress(b"four")[:-3]])
def test_damage_is_refused(packed: bytes) -> None:
    with pytest.raises(PayloadError):
        unpack(packed, "zlib", 4)


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(PayloadError, match="'rot13'"):
        unpack(b"", "rot13", 0)


@given(st.binary(max_size=300))
def test_a_text_says_itself_how_long_it_is(content: bytes) -> None:
    packed, encoding = pack_text(content)
    assert len(packed) <= len(content)
    assert unpack_text(packed, encoding) == content


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (b"nonsense", "zlib"),
        (zlib.compress(b"a manifest")[:-1], "zlib"),
        (zlib.compress(bytes(20_000_000)), "zlib"),
        (zlib.compress(bytes(100)), "zlib-words"),
    ],
)
def test_what_is_no_text_is_refused(packed: bytes, encoding: str) -> None:
    with pytest.raises(PayloadError):
        unpack_text(packed, encoding)


def taken_out(*numbers: float) -> list[tuple[int, int, int]]:
    """First word, length and exponent of each segment."""
    table, _ = take_out(np.array(numbers, "<f4").view("<u4"))
    segments, _ = struct.unpack_from("<II", table)
    starts, lengths = (np.frombuffer(table, "<u4", segments, 8 + 4 * segments * n).tolist() for n in range(2))
    exponents = np.frombuffer(table, np.int8, segments, 8 + 8 * segments).tolist()
    return list(zip(starts, lengths, exponents, strict=True))


def test_thirty_two_numbers_in_a_row_are_worth_their_entry_in_the_table_and_fewer_are_not() -> None:
    odd = 1 + 2.0**-20
    assert taken_out(*[3.0] * 31) == []
    assert taken_out(*[3.0] * 32) == [(0, 32, 0)]
    assert taken_out(odd, *[0.75] * 32, odd, *[6.0] * 40) == [(1, 32, -2), (34, 40, 1)]


def test_numbers_that_are_mostly_zero_are_left() -> None:
    assert taken_out(*[5.0, 0.0] * 20) == [(0, 40, 0)]
    assert taken_out(*[5.0, 0.0] * 20, 0.0) == []


def test_a_segment_ends_where_its_numbers_are_too_far_apart_for_int8() -> None:
    assert taken_out(*[1.0] * 32, *[64.0] * 32) == [(0, 64, 0)]
    assert taken_out(*[1.0] * 32, *[128.0] * 32) == [(0, 32, 0), (32, 32, 7)]
    assert taken_out(*[127.0] * 32) == [(0, 32, 0)]
    assert taken_out(*[129.0] * 32) == [], "eight bits"


@pytest.mark.parametrize(("power", "found"), [(126, True), (127, False), (-120, True), (-121, False)])
def test_numbers_at_the_ends_of_what_float32_holds_are_left(power: int, found: bool) -> None:
    assert taken_out(*[2.0**power] * 32) == ([(0, 32, power)] if found else [])


def test_the_numbers_of_a_table_are_put_where_it_says() -> None:
    table = _table(2, 4, (0, 3, 0), (3, 1, 3))
    words, left = put_back(table + b"rest", 5)
    assert words.view(np.float32).tolist() == [1.0, 1.0, 1.0, 8.0, 0.0]
    assert left == b"rest"
    words, left = put_back(_table(0, 0), 1)
    assert (words.tolist(), left) == ([0], b"")
    with pytest.raises(PayloadError, match="not one of this file"):
        put_back(table, 3)
    with pytest.raises(PayloadError, match="breaks off"):
        put_back(table[:-1], 5)


def test_numbers_that_float32_does_not_hold_are_refused() -> None:
    largest = _table(1, 1, (0, 1, 127))
    assert put_back(largest, 1)[0].view(np.float32).tolist() == [2.0**127]
    with pytest.raises(PayloadError, match="too large for float32"):
        put_back(largest[:-1] + b"\2", 1)


def test_a_text_of_sixteen_mebibytes_is_unpacked_and_a_longer_one_is_not() -> None:
    most = 16 * 2**20
    assert len(unpack_text(zlib.compress(bytes(most), 1), "zlib")) == most
    with pytest.raises(PayloadError, match=f"longer than {most} bytes"):
        unpack_text(zlib.compress(bytes(most + 1), 1), "zlib")
