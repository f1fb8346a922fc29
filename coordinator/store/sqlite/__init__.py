"""The store in one directory: SQLite for rows, content-addressed files for artifacts, segments for updates."""

from .store import SqliteStore

__all__ = ["SqliteStore"]
