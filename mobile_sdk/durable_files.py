"""Files that survive a kill at any instant and a power cut, and files that are mapped."""

from __future__ import annotations

import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .system.syncs import sync_file, sync_folder

__all__ = ["MappedFile", "located", "map_file", "remove_leftovers", "reserve_space", "write_durably"]

# Bytes that are written at a time where a system cannot reserve them.
_PIECE = 65_536


def write_durably(path: Path, *content: bytes | memoryview) -> None:
    """
    Replace ``path`` atomically: after this returns, a power cut leaves the new content, before it the old.

    ``content`` is written piece by piece.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.writelines(content)
            file.flush()
            sync_file(file.fileno())
        temporary.replace(path)
    except OSError:
        # On a full disk what was written so far would keep everything else from fitting.
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what :func:`write_durably` and the like had not finished in ``folder`` when they were killed."""
    for path in folder.glob("*.new"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def reserve_space(path: Path, size: int) -> None:
    """
    Make ``path`` a file that takes ``size`` bytes of the disk; removing it makes room for as many.

    Raises:
        OSError: if there is no room; then there is no such file.

    """
    if path.exists() and path.stat().st_size == size:
        return
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate") and size:
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                for start in range(0, size, _PIECE):
                    file.write(bytes(min(_PIECE, size - start)))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, f"there is no room for {size} bytes", str(path)) from error


class MappedFile(mmap.mmap):
    """A mapped file that knows its ``path`` and the ``address`` where it lies."""

    path: Path
    address: int


def map_file(path: Path) -> memoryview:
    """A file's content, read-only, mapped rather than read: many can share it, and the kernel can drop it."""
    with path.open("rb") as file:
        mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.path = path
    mapped.address = np.frombuffer(mapped, np.uint8).ctypes.data
    return memoryview(mapped)


def located(array: npt.NDArray[Any]) -> tuple[MappedFile, int] | None:
    """
    The mapped file that a contiguous ``array`` lies in, and its offset there; none if it lies elsewhere.

    Args:
        array: any shape and dtype, C-contiguous.

    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if not isinstance(base, MappedFile) or not array.flags.c_contiguous:
        return None
    return base, array.ctypes.data - base.address
