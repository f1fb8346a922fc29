"""Artifacts in objects that many machines share, with a copy of each on this one's disk."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection
from pathlib import Path

from mobile_sdk.manifest import FileEntry

from ...errors import StoreError
from ..artifacts import Artifacts
from .kept_objects import KeptObjects

__all__ = ["SharedArtifacts"]

_PREFIX = "artifacts/"


class SharedArtifacts:
    """
    The :class:`~coordinator.store.interface.ArtifactStore` of several machines.

    Their names are hashes of their content, so a copy is never out of date.

    Args:
        objects: hold them.
        copies: on this machine.

    """

    def __init__(self, objects: KeptObjects, copies: Artifacts) -> None:
        self._objects = objects
        self._copies = copies

    def put(self, *contents: bytes) -> list[FileEntry]:
        entries = self._copies.put(*contents)
        items = [(_PREFIX + entry.sha256, content) for entry, content in zip(entries, contents, strict=True)]
        self._objects.put(items)
        return entries

    def path(self, sha256: str) -> Path:
        with contextlib.suppress(StoreError):
            return self._copies.path(sha256)
        return self._fetch(sha256)

    def verified(self, sha256: str) -> Path:
        with contextlib.suppress(StoreError):
            return self._copies.verified(sha256)
        return self._fetch(sha256)

    def _fetch(self, sha256: str) -> Path:
        content = self._objects.get(_PREFIX + sha256)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StoreError(f"the object {_PREFIX}{sha256} is damaged: restore it from a backup")
        self._copies.forget(sha256)  # a damaged copy
        self._copies.put(content)
        self._copies.named([sha256])
        return self._copies.path(sha256)

    def named(self, hashes: Collection[str]) -> None:
        """Rows name these files now: they last as long as the rows do."""
        self._copies.named(hashes)

    def collect_copies(self, wanted: Collection[str]) -> int:
        """Remove this machine's copies of what is not ``wanted``; how many."""
        return self._copies.collect(wanted)

    def collect(self, wanted: Collection[str]) -> int:
        """Remove every file that is neither ``wanted`` nor waits to be named; how many."""
        removed = self.collect_copies(wanted)
        kept = {*wanted, *self._copies.unnamed}
        return max(removed, self._objects.collect([_PREFIX + sha256 for sha256 in kept], _PREFIX))
