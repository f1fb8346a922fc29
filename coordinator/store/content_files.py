"""Files addressed by the SHA-256 of their content, in one folder."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mobile_sdk.manifest import FileEntry
from mobile_sdk.system.syncs import sync_file, sync_folder

from ..errors import StoreError
from .crash_points import step

__all__ = ["ContentFiles"]

_UNFINISHED = ".new"

# An unfinished file that is older was left by a process that ended.
ABANDONED_SECONDS = 3_600.0


class ContentFiles:
    """
    Writes files so that they survive a power cut before anyone is told of them.

    Each file is synced, then renamed to its hash, then the folder is synced; the folder once for many
    files. A file that is there already is complete: it got its name only after it was synced.

    Args:
        folder: created if missing.
        alone: no other process uses the folder; else unfinished files of the last hour may be another's.

    """

    def __init__(self, folder: Path, *, alone: bool = True) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        # Two processes may write the same file at once.
        self._unfinished = _UNFINISHED if alone else f".{secrets.token_hex(4)}{_UNFINISHED}"
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{_UNFINISHED}"):
            with contextlib.suppress(FileNotFoundError):
                if alone or time.time() - leftover.stat().st_mtime > ABANDONED_SECONDS:
                    leftover.unlink()

    def put(self, contents: Iterable[bytes]) -> list[FileEntry]:
        """Keep files; they are durable when this returns."""
        with self._lock:
            return self._put(contents)

    def _put(self, contents: Iterable[bytes]) -> list[FileEntry]:
        entries = []
        for content in contents:
            entry = FileEntry.of(content)
            path = self._folder / entry.sha256
            if not path.exists():
                temporary = path.with_name(path.name + self._unfinished)
                try:
                    with temporary.open("wb") as file:
                        file.write(content)
                        file.flush()
                        step("artifact: written")
                        sync_file(file.fileno())
                    step("artifact: synced")
                    temporary.replace(path)
                    step("artifact: named")
                except OSError:
                    temporary.unlink(missing_ok=True)  # a full disk is not to stay full of halves
                    raise
            entries.append(entry)
        # Even if every file was there: whoever wrote it may not have come to this point.
        sync_folder(self._folder)
        return entries

    def path(self, sha256: str) -> Path:
        """
        The file with this hash.

        Raises:
            StoreError: if there is none.

        """
        path = self._folder / sha256
        if not path.exists():
            raise StoreError(f"the file {path} is missing: restore the state directory from a backup")
        return path

    def verified(self, sha256: str) -> Path:
        """
        The file with this hash, after reading it.

        Raises:
            StoreError: if there is none, or its content has another hash.

        """
        path = self.path(sha256)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise StoreError(f"the file {path} is damaged: restore the state directory from a backup")
        return path

    def remove_unless(self, wanted: Callable[[str], bool]) -> int:
        """Remove files, by their hashes; how many."""
        removed = 0
        with self._lock:
            for path in self._folder.iterdir():
                if not path.name.endswith(_UNFINISHED) and not wanted(path.name):
                    path.unlink()
                    removed += 1
                    step("collect: one file")
            if removed:
                sync_folder(self._folder)
        return removed
