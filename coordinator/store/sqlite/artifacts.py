"""The files that rows name, and those that no row names yet."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from mobile_sdk.manifest import FileEntry

from ..content_files import ContentFiles
from .database import available

__all__ = ["Artifacts"]


class Artifacts:
    """
    The :class:`~coordinator.store.interface.ArtifactStore` in a folder; created if missing.

    A file that was put is not collected before a row names it.
    """

    def __init__(self, folder: Path) -> None:
        self._files = ContentFiles(folder)
        # By their hash.
        self._unnamed: set[str] = set()

    def put(self, *contents: bytes) -> list[FileEntry]:
        with available():  # others write to the database meanwhile
            self._unnamed.update(hashlib.sha256(content).hexdigest() for content in contents)
            return self._files.put(contents)

    def path(self, sha256: str) -> Path:
        return self._files.path(sha256)

    def verified(self, sha256: str) -> Path:
        with available():
            return self._files.verified(sha256)

    def named(self, hashes: Collection[str]) -> None:
        """Rows name these files now: they last as long as the rows do."""
        self._unnamed.difference_update(hashes)

    def collect(self, wanted: Collection[str]) -> int:
        """Remove every file that is neither ``wanted`` nor waits to be named; how many."""
        return self._files.remove_unless(lambda name: name in wanted or name in self._unnamed)
