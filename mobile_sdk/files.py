"""Files that survive a kill at any instant and a power cut, and files that are mapped."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

__all__ = ["map_file", "sync_folder", "write_durably"]


def write_durably(path: Path, content: bytes) -> None:
    """Replace ``path`` atomically: after this returns, a power cut leaves the new content, before it the old."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def map_file(path: Path) -> memoryview:
    """A file's content, read-only, mapped rather than read: many can share it, and the kernel can drop it."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
