"""A gateway's copies of a run's files, named by their hashes: never out of date, and no more than there is room for."""

from __future__ import annotations

import collections
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StoreUnavailable
from ..store.artifacts import disk_available

__all__ = ["Copies"]

# Copies are removed, those first that were not used for longest, while there are more bytes than this; but some stay.
MOST_BYTES = 2_000_000_000
LEAST_FILES = 16


class Copies:
    """
    Files that were fetched once, on this machine's disk. Methods block; several threads may call them.

    Args:
        folder: where they are; created if missing. What is in it already is used after its hash was checked.
        most_bytes: how many bytes they take at the most, unless the newest few are larger.

    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._sizes: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._looking = threading.Lock()  # held for no longer than a look takes
        self._fetching: dict[str, threading.Lock] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, sha256: str, fetch: Callable[[str], Iterator[bytes]]) -> Path:
        """
        A file's copy; it is fetched if there is none, once for all who ask meanwhile.

        Args:
            sha256: its hash, hex.
            fetch: gives its content, piece by piece.

        Raises:
            StoreUnavailable: if it could not be fetched whole, or the disk is full.

        """
        path = self._folder / sha256
        with self._looking:
            if sha256 in self._sizes and path.exists():
                self._sizes.move_to_end(sha256)
                return path
            lock = self._fetching.setdefault(sha256, threading.Lock())
        with lock:
            if not self._known(sha256, path):
                with disk_available():
                    self._fetch(path, fetch(sha256))
            with self._looking:
                self._sizes[sha256] = path.stat().st_size
                self._sizes.move_to_end(sha256)
                self._fetching.pop(sha256, None)
                self._shrink()
        return path

    def _known(self, sha256: str, path: Path) -> bool:
        """Whether another has just fetched it, or an earlier gateway left it here whole."""
        with self._looking:
            if sha256 in self._sizes and path.exists():
                return True
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256

    def _fetch(self, path: Path, pieces: Iterator[bytes]) -> None:
        digest = hashlib.sha256()
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        try:
            with temporary.open("xb") as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != path.name:
                raise StoreUnavailable(f"the file {path.name} came with another hash: it is fetched again")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _shrink(self) -> None:
        while len(self._sizes) > LEAST_FILES and sum(self._sizes.values()) > self._most_bytes:
            oldest, _ = self._sizes.popitem(last=False)
            (self._folder / oldest).unlink(missing_ok=True)  # whoever has it open goes on reading it
