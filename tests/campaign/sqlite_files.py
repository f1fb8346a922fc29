"""
SQLite on a simulated disk.

Each statement can be the last, or fail. In write-ahead mode with ``synchronous = FULL`` all that a transaction changes
is written and synced by its ``COMMIT``; so a cut between statements leaves the files as they are, and one within a
commit leaves them as before, as after, or with the new part of the log torn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .disk import Disk

__all__ = ["SimulatedConnection"]

PAGE = 512


class SimulatedConnection(sqlite3.Connection):
    """A connection of a machine that may end at any statement."""

    _disk: Disk
    _path: Path
    _syncs = True
    _hook: Callable[[str], None] = staticmethod(lambda kind: None)

    def place(self, disk: Disk, path: Path, hook: Callable[[str], None]) -> None:
        """Say where the database lies, and what is to be called before each statement."""
        self._disk, self._path, self._hook = disk, path, hook

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT":
            return self._commit()
        self._before("query" if sql.startswith(("SELECT", "PRAGMA")) else "sql")
        if sql.startswith("PRAGMA synchronous"):
            self._syncs = sql.endswith("FULL")
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self._before("sql")
        return super().executemany(sql, parameters)

    def backup(self, target: sqlite3.Connection, **options: Any) -> None:
        self._before("query")
        super().backup(target, **options)

    def _before(self, kind: str) -> None:
        try:
            self._hook(kind)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error

    def _commit(self) -> sqlite3.Cursor:
        try:
            self._before("commit")
        except BaseException as error:
            if self._disk.commit_fate is None:
                raise
            fate, self._disk.commit_fate = self._disk.commit_fate, None
            if fate >= 0.4:
                self._cut_within(fate)
            raise error
        if not self._syncs and self._disk.unsynced is None:
            self._disk.unsynced = self._files()
        return super().execute("COMMIT")

    def _files(self) -> dict[str, bytes]:
        """The database and its log."""
        with self._disk.untouched():
            paths = [self._path, self._path.with_name(self._path.name + "-wal")]
            return {str(path): path.read_bytes() for path in paths if path.exists()}

    def _cut_within(self, fate: float) -> None:
        """The machine ends within the commit: the log is whole, or a part of what is new in it."""
        log = self._path.with_name(self._path.name + "-wal")
        with self._disk.untouched():
            before, pages = log.read_bytes() if log.exists() else b"", self._path.read_bytes()
            super().execute("COMMIT")
            after = log.read_bytes()
            if fate < 0.7 or self._path.read_bytes() != pages:  # moved into the database: it had been synced before
                return
        torn = bytearray(before)
        for start in range(0, len(after), PAGE):
            new = after[start : start + PAGE]
            if before[start : start + PAGE] != new and self._disk.rng.random() < 0.6:
                torn.extend(bytes(max(start + len(new) - len(torn), 0)))
                torn[start : start + len(new)] = new
        self._disk.torn[str(log)] = bytes(torn)
        # As long as the log is whole: closing the connections will move all of it into the database.
        self._disk.torn[str(self._path)] = pages
