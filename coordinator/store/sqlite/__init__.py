"""The store in one directory: SQLite for rows, content-addressed files for artifacts, segments for updates."""

from .backup import backup, restore
from .store import SqliteStore

__all__ = ["SqliteStore", "backup", "restore"]
