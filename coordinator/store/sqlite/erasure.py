"""The bytes of updates that nobody wants any more are overwritten, not during a backup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..crash_points import step
from ..segments import Location, Segments
from .backup import backup_runs, remove_leftovers
from .database import Database

__all__ = ["WAITING", "Erasure"]

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

    def erase(self, gone: Sequence[Location]) -> None:
        """Erase updates whose rows say that nobody wants them any more; the caller is the only one who writes."""
        self._gone += gone
        with backup_runs(self._folder) as reading:
            if reading:
                return  # with the next merge, then
            live = self._database.rows(f"SELECT segment, count(*) FROM updates WHERE {WAITING} GROUP BY segment")
            self._segments.erase(self._gone, dict(live))
            self._gone = []
        step("erase: done")

    def erase_leftovers(self) -> None:
        """Erase what an earlier process left: it may have been killed between a merge and its erasure."""
        rows = self._database.rows(f"SELECT segment, start, size FROM updates WHERE {WAITING}")
        with backup_runs(self._folder) as reading:
            if not reading:
                self._segments.erase_all_but(Location(*row) for row in rows)
                remove_leftovers(self._folder)
