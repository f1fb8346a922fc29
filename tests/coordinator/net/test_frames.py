"""Frames that the coordinator makes itself are what the library makes."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from coordinator.net.frames import whole_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_the_one_that_the_library_makes(size: int) -> None:
    text, content = "\u00e4" * (size // 2) + "a" * (size % 2), bytes(size)
    assert whole_frame(text) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
    assert whole_frame(content) == Frame(Opcode.BINARY, content).serialize(mask=False)
