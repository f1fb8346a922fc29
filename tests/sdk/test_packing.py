"""Programs are packed for their way: nothing is lost, and nothing unpacks to more than it promised."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_sdk.errors import PayloadError
from mobile_sdk.payload import pack, unpack
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


@pytest.mark.parametrize("promised", [99, 101])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_another_size_than_promised_is_refused(encoding: str, promised: int) -> None:
    packed = bytes(100) if encoding == "identity" else zlib.compress(bytes(100))
    with pytest.raises(PayloadError, match="another size"):
        unpack(packed, encoding, promised)


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(PayloadError, match="another size"):
        unpack(zlib.compress(bytes(300_000_000), 9), "zlib", 1000)


@pytest.mark.parametrize("packed", [b"", b"nonsense", zlib.compress(b"four")[:-3]])
def test_damage_is_refused(packed: bytes) -> None:
    with pytest.raises(PayloadError):
        unpack(packed, "zlib", 4)


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(PayloadError, match="'rot13'"):
        unpack(b"", "rot13", 0)
