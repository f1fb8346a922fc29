"""Writing at a place of an open file."""

from __future__ import annotations

import os
import sys

__all__ = ["write_at"]

if sys.platform == "win32":

    def _write_some(descriptor: int, content: memoryview, at: int) -> int:
        os.lseek(descriptor, at, os.SEEK_SET)
        return os.write(descriptor, content)

else:

    def _write_some(descriptor: int, content: memoryview, at: int) -> int:
        # Leaves the file's position alone, so that threads can write at different places at a time.
        return os.pwrite(descriptor, content, at)


def write_at(descriptor: int, content: bytes | memoryview, at: int) -> None:
    """
    Write all of ``content`` at byte ``at``: one system call may write less, on a disk that is nearly full.

    Args:
        descriptor: of a file that is open for writing.
        content: the bytes.
        at: place of the first one in the file.

    Raises:
        OSError: if the disk is full.

    """
    rest = memoryview(content)
    while rest:
        written = _write_some(descriptor, rest, at)
        rest, at = rest[written:], at + written
