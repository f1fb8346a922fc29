"""The bytes of updates that nobody wants any more are overwritten, not during a backup."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from ...errors import StoreUnavailable
from ..crash_points import step
from ..segments import Location, Segments
from .backup import backup_runs, remove_leftovers
from .database import Database

__all__ = ["WAITING", "Erasure"]

log = logging.getLogger(__name__)

# The rows of updates whose bytes are wanted.
WAITING = "merged_into IS NULL AND discarded IS NULL"


class Erasure:
    """
    Erases updates that were merged or discarded.

    Args:
        database: its rows say which updates wait to be merged.
        segments: hold the bytes.
        folder: the state directory. What is to go while a backup reads it goes later.

    """

    def __init__(self, database: Database, segments: Segments, folder: Path) -> None:
        self._database = database
        self._segments = segments
        self._folder = folder
        self._gone: list[Location] = []
        self._forget = False

    def erase(self, gone: Sequence[Location], *, forget: bool = False) -> None:
        """
        Erase updates whose rows say that nobody wants them any more; the caller is the only one who writes.

        It is called after the rows were committed, so it raises nothing: a caller would take the error for a
        transaction that did not happen. What cannot be erased now is erased the next time, or at the next start.

        Args:
            gone: where the bytes are.
            forget: empty the write-ahead log as well, which holds rows as they were before a deletion.

        """
        self._gone += gone
        self._forget |= forget
        try:
            self._erase()
        except (OSError, sqlite3.Error, StoreUnavailable) as error:
            log.error("updates that nobody wants any more are erased later: %s", error)
        step("erase: done")

    def _erase(self) -> None:
        with backup_runs(self._folder) as reading:
            if reading:
                return  # with the next merge, then
            live = self._database.rows(f"SELECT segment, count(*) FROM updates WHERE {WAITING} GROUP BY segment")
            self._segments.erase(self._gone, dict(live))
            self._gone = []
        if self._forget:
            self._database.forget()
            self._forget = False

    def erase_leftovers(self) -> None:
        """Erase what an earlier process left: it may have been killed between a merge and its erasure."""
        rows = self._database.rows(f"SELECT segment, start, size FROM updates WHERE {WAITING}")
        with backup_runs(self._folder) as reading:
            if not reading:
                self._segments.erase_all_but(Location(*row) for row in rows)
                remove_leftovers(self._folder)
