"""
Lock files: one process at a time.

The system lets go of a lock when its process ends, however it ends; a lock file that lies about holds nothing.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["Locked", "hold_lock", "take_lock"]

if sys.platform == "win32":
    import msvcrt
    import os

    def _lock(file: IO[bytes], shared: bool, wait: bool) -> None:
        # Windows locks ranges of bytes, and knows no shared locks here: a reader excludes other readers, too.
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes], shared: bool, wait: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


class Locked(Exception):
    """Another process holds the lock."""


def take_lock(path: Path, *, shared: bool = False, wait: bool = False) -> IO[bytes]:
    """
    Lock the file ``path``, made if missing, until the returned file is closed.

    Args:
        path: the lock file. Its content means nothing.
        shared: let others hold it as well that ask for it shared.
        wait: wait until it is free (Windows: ten seconds at the most), which blocks the thread.

    Raises:
        Locked: if another process, or another caller in this one, holds it.
        OSError: if the file cannot be opened.

    """
    file = path.open("ab")
    try:
        _lock(file, shared, wait)
    except OSError as error:
        file.close()
        raise Locked(f"{path} is locked by another process") from error
    return file


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """
    Hold the lock ``path`` for as long as the context lasts; gives whether it was free.

    Raises:
        OSError: if the file cannot be opened.

    """
    try:
        file = take_lock(path)
    except Locked:
        yield False
        return
    with file:
        yield True
