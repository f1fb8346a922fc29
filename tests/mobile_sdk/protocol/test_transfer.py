"""Artifacts arrive whole over any link, in chunks that follow its speed."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_sdk.errors import ProtocolError
from mobile_sdk.protocol.frames import MAX_CHUNK_BYTES, Chunk
from mobile_sdk.protocol.transfer import CHUNKS_IN_FLIGHT, MIN_CHUNK_BYTES, Incoming, Outgoing

SHA = "ab" * 32


def transmit(
    content: bytes, offset: int, bytes_per_second: float, stop_after: int | None = None
) -> tuple[bytes, list[int]]:
    """Move ``content`` over a link in virtual time; what arrived, and the sizes of the chunks."""
    outgoing, incoming = Outgoing(SHA, memoryview(content), offset), Incoming(SHA, len(content), offset)
    link: collections.deque[Chunk] = collections.deque(outgoing.chunks(0.0))
    now, arrived, sizes = 0.0, b"", []
    while link and (stop_after is None or len(sizes) < stop_after):
        assert len(link) <= CHUNKS_IN_FLIGHT
        chunk = link.popleft()
        incoming.receive(chunk)
        arrived += chunk.data
        sizes.append(len(chunk.data))
        now += len(chunk.data) / bytes_per_second
        outgoing.acknowledge(incoming.received, now)
        link.extend(outgoing.chunks(now))
    return arrived, sizes


@given(st.integers(1, 300_000), st.lists(st.integers(1, 6), max_size=4), st.floats(1e3, 1e9))
def test_a_transfer_that_breaks_anywhere_goes_on_where_it_stopped(size: int, breaks: list[int], speed: float) -> None:
    content = bytes(i * 7 % 251 for i in range(size))
    arrived = b""
    for chunks in breaks:
        if len(arrived) < size:
            arrived += transmit(content, len(arrived), speed, chunks)[0]
    if len(arrived) < size:
        arrived += transmit(content, len(arrived), speed)[0]
    assert arrived == content


def test_chunks_grow_on_a_fast_link_to_a_mebibyte() -> None:
    _, sizes = transmit(bytes(30_000_000), 0, 100e6)
    assert sizes[0] == MIN_CHUNK_BYTES
    assert max(sizes) == MAX_CHUNK_BYTES


def test_chunks_stay_small_on_a_slow_link() -> None:
    _, sizes = transmit(bytes(400_000), 0, 20e3)
    assert max(sizes) == MIN_CHUNK_BYTES


def test_a_chunk_out_of_order_or_beyond_the_end_is_refused() -> None:
    with pytest.raises(ProtocolError, match="offset 5 came where 0 was due"):
        Incoming(SHA, 10, 0).receive(Chunk(SHA, 5, b"x"))
    with pytest.raises(ProtocolError, match="the artifact has 10 bytes"):
        Incoming(SHA, 10, 8).receive(Chunk(SHA, 8, b"xyz"))


def test_bytes_that_were_never_sent_cannot_be_acknowledged() -> None:
    outgoing = Outgoing(SHA, memoryview(bytes(100)), 0)
    list(outgoing.chunks(0.0))
    outgoing.acknowledge(100, 1.0)
    assert outgoing.done
    for offset in (50, 101):
        with pytest.raises(ProtocolError, match=f"offset {offset} was acknowledged"):
            outgoing.acknowledge(offset, 2.0)


def test_an_offset_beyond_the_end_is_refused() -> None:
    with pytest.raises(ProtocolError, match="offset 11"):
        Outgoing(SHA, memoryview(bytes(10)), 11)
