"""
Make what was written survive a power cut.

Linux's ``fsync`` waits until the disk has it. macOS's does not: it hands the bytes to the disk, whose cache a power cut
empties; ``F_FULLFSYNC`` waits (fcntl(2) there). Windows flushes files, has no ``fdatasync``, and cannot open a folder:
NTFS keeps a renamed file's name in its own journal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["make_folder", "sync_data", "sync_file", "sync_folder"]

if sys.platform == "darwin":
    import fcntl

    def sync_file(descriptor: int) -> None:
        """Wait until content and metadata of an open file are on the disk."""
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError:  # a file system that knows no such request, a network's for example
            os.fsync(descriptor)

    def sync_data(descriptor: int) -> None:
        """Wait until an open file's content, and what is needed to read it, is on the disk."""
        sync_file(descriptor)

elif sys.platform == "win32":

    def sync_file(descriptor: int) -> None:
        """Wait until content and metadata of an open file are on the disk."""
        os.fsync(descriptor)

    def sync_data(descriptor: int) -> None:
        """Wait until an open file's content, and what is needed to read it, is on the disk."""
        os.fsync(descriptor)

else:

    def sync_file(descriptor: int) -> None:
        """Wait until content and metadata of an open file are on the disk."""
        os.fsync(descriptor)

    def sync_data(descriptor: int) -> None:
        """Wait until an open file's content, and what is needed to read it, is on the disk."""
        os.fdatasync(descriptor)


if sys.platform == "win32":

    def sync_folder(folder: Path) -> None:
        """Make the names in ``folder`` survive a power cut."""

else:

    def sync_folder(folder: Path) -> None:
        """Make the names in ``folder`` survive a power cut."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            sync_file(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """
    Make a folder, and those above it that are missing; the names of all survive a power cut.

    The folder above is synced even where there was nothing to make: a process before may have been killed in between.

    Args:
        folder: may be there already.
        mode: of the folder itself, as :func:`os.mkdir` takes it.

    Raises:
        OSError: if a folder cannot be made.

    """
    made = [each for each in folder.parents if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
    for each in (folder, *made):
        with contextlib.suppress(PermissionError):  # the folder above may be one that only its owner may read
            sync_folder(each.parent)
