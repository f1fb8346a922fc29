"""Frames that the coordinator makes and takes itself are what the library makes and takes."""

from __future__ import annotations

import random

import pytest
from websockets.frames import Frame, Opcode

from coordinator.net.frames import FrameCutter, ReceivedFrame, whole_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_the_one_that_the_library_makes(size: int) -> None:
    text, content = "\u00e4" * (size // 2) + "a" * (size % 2), bytes(size)
    assert whole_frame(text) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
    assert whole_frame(content) == Frame(Opcode.BINARY, content).serialize(mask=False)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
def test_a_frame_of_a_client_is_the_message_in_it(size: int) -> None:
    for message, opcode in (("\u00e4" * size, Opcode.TEXT), (b"\x01" * size, Opcode.BINARY)):
        content = message.encode() if isinstance(message, str) else message
        (frame,) = FrameCutter(None).cut(Frame(opcode, content).serialize(mask=True))
        assert frame.message() == message


@pytest.mark.parametrize("seed", range(20))
def test_a_stream_is_cut_at_its_frames_however_it_comes(seed: int) -> None:
    chance = random.Random(seed)
    kinds = [(Opcode.TEXT, True), (Opcode.BINARY, True), (Opcode.TEXT, False), (Opcode.CONT, True), (Opcode.PING, True)]
    frames = []
    for _ in range(30):
        opcode, fin = chance.choice(kinds)
        size = chance.choice([0, 1, 125] if opcode is Opcode.PING else [0, 1, 125, 126, 5_000, 70_000])
        frames.append(Frame(opcode, chance.randbytes(size).hex().encode()[:size], fin).serialize(mask=True))
    stream, cutter, found = b"".join(frames), FrameCutter(None), list[ReceivedFrame]()
    while stream:
        count = chance.choice([1, 2, 3, 7, 1_000, 100_000])
        found += cutter.cut(stream[:count])
        stream = stream[count:]
    assert [bytes(frame.content) for frame in found] == frames


@pytest.mark.parametrize(
    ("opcode", "content", "fin"),
    [
        (Opcode.TEXT, b"\xff", True),
        (Opcode.TEXT, b"half", False),
        (Opcode.CONT, b"half", True),
        (Opcode.PING, b"", True),
        (Opcode.CLOSE, b"\x03\xe8", True),
    ],
    ids=["text that is none", "a part", "the rest", "a ping", "the end"],
)
def test_only_a_whole_message_is_unpacked(opcode: Opcode, content: bytes, fin: bool) -> None:
    (frame,) = FrameCutter(None).cut(Frame(opcode, content, fin).serialize(mask=True))
    assert frame.message() is None


def test_what_no_client_may_send_is_given_on_at_once_and_so_is_all_that_follows() -> None:
    unmasked, masked = Frame(Opcode.TEXT, b"x").serialize(mask=False), Frame(Opcode.TEXT, b"x").serialize(mask=True)
    long = Frame(Opcode.BINARY, bytes(101)).serialize(mask=True)
    for first in (unmasked, long[:8]):
        cutter = FrameCutter(100)
        found = [frame for data in (first, masked) for frame in cutter.cut(data)]
        assert [bytes(frame.content) for frame in found] == [first, masked]
        assert [frame.message() for frame in found] == [None, None]
