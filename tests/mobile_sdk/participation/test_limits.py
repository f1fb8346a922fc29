"""What a coordinator announces is held against limits before a byte is fetched, unpacked or believed."""

from __future__ import annotations

import io
import zlib

import pytest

from mobile_sdk.errors import PayloadError, ProtocolError
from mobile_sdk.participation.download import MAX_ARTIFACT_BYTES, MAX_TOTAL_BYTES, check_sizes
from mobile_sdk.participation.visit import LONGEST_LATER_SECONDS, LONGEST_UNPROVEN_SECONDS, ComeBack
from mobile_sdk.payload import apply_difference
from mobile_sdk.protocol.messages import ArtifactRef, Later, Sha256


def ref(size: int) -> ArtifactRef:
    return ArtifactRef(Sha256("ab" * 32), size)


def test_artifacts_have_a_limit_each_and_one_together() -> None:
    check_sizes([ref(MAX_ARTIFACT_BYTES)] * 2)
    with pytest.raises(ProtocolError, match=f"artifact of {2**40} bytes was announced"):
        check_sizes([ref(1), ref(2**40)])
    with pytest.raises(ProtocolError, match=f"the limit is {MAX_TOTAL_BYTES}"):
        check_sizes([ref(MAX_TOTAL_BYTES // 4)] * 4 + [ref(1)])


def test_a_difference_that_claims_a_huge_header_takes_no_memory_for_it() -> None:
    packed = zlib.compress((3 * 10**9).to_bytes(8, "little") + bytes(1000))
    with pytest.raises(PayloadError, match="header of 3000000000 bytes"):
        apply_difference(None, packed, 10**12, io.BytesIO())


def test_nobody_keeps_a_device_away_for_ever_and_a_stranger_not_for_long() -> None:
    later = Later(2_147_483_647.0, "come back some day")
    assert ComeBack(later).seconds == LONGEST_LATER_SECONDS
    assert ComeBack(later, welcomed=False).seconds == LONGEST_UNPROVEN_SECONDS
    assert ComeBack(Later(30.0, "busy"), welcomed=False).seconds == 30.0
