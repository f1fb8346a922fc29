"""Artifacts arrive whole over any link, in chunks that follow its speed."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_sdk.errors import ProtocolError
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.transfer import Incoming, Outgoing

SHA = "ab" * 32

# As written down in docs/reference/protocol.md: peers of other releases go by these.
LEAST_CHUNK_BYTES, MIN_CHUNK_BYTES, MAX_CHUNK_BYTES = 1024, 16_384, 2**20
CHUNK_SECONDS, CHUNKS_IN_FLIGHT = 0.25, 4


def transmit(
    content: bytes, offset: int, bytes_per_second: float, stop_after: int | None = None
) -> tuple[bytes, list[int]]:
    """Move ``content`` over a link in virtual time; what arrived, and the sizes of the chunks."""
    outgoing, incoming = Outgoing(SHA, memoryview(content), offset), Incoming(SHA, len(content), offset)
    link: collections.deque[Chunk] = collections.deque(outgoing.chunks(0.0))
    now, arrived = 0.0, b""
    sizes: list[int] = []
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


def test_a_chunk_takes_a_quarter_of_a_second_at_the_most_once_the_links_speed_is_known() -> None:
    """At four times 64 KB a second chunks of 64 KB do, and smaller ones take an eighth at the least."""
    _, sizes = transmit(bytes(2_000_000), 0, 4 * 65_536)
    assert set(sizes[20:-1]) == {65_536}


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


def test_an_offset_at_the_end_is_a_transfer_that_is_done() -> None:
    outgoing = Outgoing(SHA, memoryview(bytes(10)), 10)
    assert outgoing.done
    assert list(outgoing.chunks(0.0)) == []
    assert (outgoing.size, outgoing.acknowledged) == (10, 10)


@pytest.mark.parametrize(("size", "taken"), [(LEAST_CHUNK_BYTES - 1, False), (LEAST_CHUNK_BYTES, True)])
def test_a_chunk_before_the_last_has_at_least_a_kilobyte(size: int, taken: bool) -> None:
    incoming = Incoming(SHA, 5000, 0)
    chunk = Chunk(SHA, 0, bytes(size))
    if not taken:
        with pytest.raises(ProtocolError, match="all but an artifact's last have at least 1024"):
            incoming.receive(chunk)
        return
    incoming.receive(chunk)
    assert (incoming.received, incoming.done) == (size, False)


def test_the_last_chunk_may_be_short_and_ends_the_artifact() -> None:
    incoming = Incoming(SHA, 2001, 2000)
    incoming.receive(Chunk(SHA, 2000, b"x"))
    assert incoming.done
    with pytest.raises(ProtocolError, match="a chunk ends at 2002"):
        Incoming(SHA, 2001, 2000).receive(Chunk(SHA, 2000, b"xy"))


def test_a_chunk_doubles_where_twice_as_much_fits_its_time_and_halves_below_it() -> None:
    def after(bytes_per_second: float, begins_with: int) -> int:
        outgoing = Outgoing(SHA, memoryview(bytes(1_000_000)), 0, begins_with)
        (first, *_) = outgoing.chunks(0.0)
        outgoing.acknowledge(len(first.data), len(first.data) / bytes_per_second)
        return outgoing.chunk_bytes

    begun = 2 * MIN_CHUNK_BYTES
    assert after(2 * begun / CHUNK_SECONDS, begun) == 2 * begun
    assert after(1.99 * begun / CHUNK_SECONDS, begun) == begun
    assert after(begun / CHUNK_SECONDS, begun) == begun
    assert after(0.99 * begun / CHUNK_SECONDS, begun) == MIN_CHUNK_BYTES
    assert after(0.1 * begun / CHUNK_SECONDS, MIN_CHUNK_BYTES) == MIN_CHUNK_BYTES


def test_a_sender_keeps_four_chunks_in_flight_and_no_more() -> None:
    outgoing = Outgoing(SHA, memoryview(bytes(10 * MIN_CHUNK_BYTES)), 0)
    assert [chunk.offset // MIN_CHUNK_BYTES for chunk in outgoing.chunks(0.0)] == [0, 1, 2, 3]
    assert list(outgoing.chunks(0.0)) == []
    outgoing.acknowledge(2 * MIN_CHUNK_BYTES, 2 * CHUNK_SECONDS)
    assert [chunk.offset // MIN_CHUNK_BYTES for chunk in outgoing.chunks(1.0)] == [4, 5]
