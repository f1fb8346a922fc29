"""Files on their way down, addressed by the SHA-256 of their content: whole ones, and what has come of others."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from ..durable_files import map_file
from ..errors import PayloadError
from ..payload import apply_difference
from ..protocol.messages import ArtifactRef
from ..system.syncs import sync_file, sync_folder

__all__ = ["Artifacts"]


class Artifacts:
    """The folder ``artifacts`` of a device: ``HASH`` is a whole file, ``HASH.part`` what has come so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, sha256: str) -> Path | None:
        """The complete file, if it is here."""
        path = self._path(sha256)
        return path if path.exists() else None

    def has(self, sha256: str) -> bool:
        """Whether the complete file is here and still what it was; a damaged one is removed."""
        path = self.find(sha256)
        if path is None:
            return False
        with path.open("rb") as file:
            good = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        if not good:
            path.unlink()
        return good

    def partial_size(self, ref: ArtifactRef) -> int:
        """How many bytes have come; a part that is too long to be right is thrown away."""
        path = self._part(ref.sha256)
        size = path.stat().st_size if path.exists() else 0
        if size > ref.size:
            path.unlink()
            return 0
        return size

    def append(self, sha256: str, offset: int, data: bytes) -> None:
        """
        Write a chunk at ``offset``, the end of what has come.

        Args:
            sha256: the artifact's name.
            offset: what lies behind it is cut off.
            data: the chunk.

        """
        with self._part(sha256).open("ab") as file:
            file.truncate(offset)
            file.write(data)

    def complete(self, sha256: str) -> bool:
        """Check the part's hash and make it an artifact; false, and the part is gone, if its hash is another."""
        part = self._part(sha256)
        with part.open("rb") as file:
            good = hashlib.file_digest(file, "sha256").hexdigest() == sha256
            if good:
                sync_file(file.fileno())
        if not good:
            part.unlink()
            return False
        part.replace(self._path(sha256))
        sync_folder(self._folder)
        return True

    def rebuild(self, base: str, difference: str, ref: ArtifactRef) -> bool:
        """
        Make the artifact ``ref`` of the artifact ``base`` (empty: of nothing) and a difference; false if it is another.

        The difference is not needed any more, either way.

        Args:
            base: SHA-256 of the artifact to start from; empty to start from nothing.
            difference: SHA-256 of the downloaded difference; deleted in both cases.
            ref: name and size of the result.

        Returns:
            Whether the result's SHA-256 is that of ``ref``.

        """
        part = self._part(ref.sha256)
        try:
            with part.open("wb") as output:
                old = map_file(self._path(base)) if base else None
                apply_difference(old, map_file(self._path(difference)), ref.size, output)
            good = self.complete(ref.sha256)
        except (PayloadError, FileNotFoundError):
            part.unlink(missing_ok=True)
            good = False
        self._path(difference).unlink(missing_ok=True)
        return good

    def keep(self, wanted: Collection[str]) -> None:
        """Remove files and parts that are not among the hashes ``wanted``."""
        for path in self._folder.iterdir():
            if path.name.removesuffix(".part") not in wanted:
                path.unlink()

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"
