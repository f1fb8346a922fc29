"""The files that rows name, and those that no row names yet."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

from mobile_sdk.manifest import FileEntry

from .content_files import ContentFiles
from .disk_errors import disk_error

__all__ = ["Artifacts", "disk_available"]


@contextlib.contextmanager
def disk_available() -> Iterator[None]:
    """
    A full disk, a read-only one and the like as one error.

    Raises:
        StoreUnavailable: in place of the system's errors.

    """
    try:
        yield
    except OSError as error:
        raise disk_error(error) from error


class Artifacts:
    """
    The :class:`~coordinator.store.interface.ArtifactStore` in a folder; created if missing.

    A file that was put is not collected before a row names it. ``alone``: no other process uses the folder.
    """

    def __init__(self, folder: Path, *, alone: bool = True) -> None:
        self._files = ContentFiles(folder, alone=alone)
        # By their hash.
        self._unnamed: set[str] = set()

    def put(self, *contents: bytes) -> list[FileEntry]:
        with disk_available():  # others write to the database meanwhile
            self._unnamed.update(hashlib.sha256(content).hexdigest() for content in contents)
            return self._files.put(contents)

    def path(self, sha256: str) -> Path:
        return self._files.path(sha256)

    def verified(self, sha256: str) -> Path:
        with disk_available():
            return self._files.verified(sha256)

    @property
    def unnamed(self) -> frozenset[str]:
        """The hashes of the files that wait to be named."""
        return frozenset(self._unnamed)

    def forget(self, sha256: str) -> None:
        """Remove a file, if it is there."""
        with disk_available():
            self._files.remove_unless(lambda name: name != sha256)

    def named(self, hashes: Collection[str]) -> None:
        """Rows name these files now: they last as long as the rows do."""
        self._unnamed.difference_update(hashes)

    def collect(self, wanted: Collection[str]) -> int:
        """Remove every file that is neither ``wanted`` nor waits to be named; how many."""
        return self._files.remove_unless(lambda name: name in wanted or name in self._unnamed)
