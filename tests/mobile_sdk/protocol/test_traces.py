"""Both sides derive the same trace of a trip."""

from __future__ import annotations

import hashlib

import pytest

from mobile_sdk.protocol.traces import TripTrace


def test_a_trace_is_what_the_protocols_page_says() -> None:
    digest = hashlib.sha256(b"trip ab a00000001").digest()
    trace = TripTrace.of("ab", "a00000001")
    assert (bytes.fromhex(trace.trace), bytes.fromhex(trace.span)) == (digest[:16], digest[16:24])


def test_a_traceparent_is_read_as_it_is_written() -> None:
    trace = TripTrace.of("ab", "a00000001")
    assert TripTrace.parse(trace.parent) == trace
    assert trace != TripTrace.of("ac", "a00000001")
    for wrong in ("", "00-12-34-01", "00-" + "z" * 32 + "-" + "0" * 16 + "-01"):
        with pytest.raises(ValueError, match=r"traceparent|invalid literal"):
            TripTrace.parse(wrong)
