"""The SQLite file: opened, brought up to date, and used in whole transactions."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ..disk_errors import disk_error

__all__ = ["SCHEMA_VERSION", "Database", "available", "taking_part"]

SCHEMA_VERSION = 4

_MIGRATIONS = Path(__file__).with_name("migrations")


class Database:
    """
    One writer and one reader, each with a connection of its own: who reads does not wait for a sync.

    Offloaded calls come from several threads, so each connection has a lock.

    Args:
        path: the file; created if missing.

    Raises:
        StoreError: if it is not a database, or of a newer schema.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.RLock()
        self._reading = threading.Lock()
        try:
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")
            # What is deleted is overwritten: a withdrawn device is not to be found in free pages.
            self._writer.execute("PRAGMA secure_delete = ON")
            (self.found,) = self._writer.execute("PRAGMA user_version").fetchone()
            if self.found > SCHEMA_VERSION:
                raise StoreError(
                    f"{path} has schema {self.found}, this coordinator knows up to {SCHEMA_VERSION}: "
                    "run the FTTE version that made it, or a newer one"
                )
            self._reader = self._connect()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path} cannot be used: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def migrate(self, steps: Mapping[int, Callable[[sqlite3.Connection], None]]) -> None:
        """
        Bring the schema up to date, in one transaction.

        Args:
            steps: what is to be done, beside the SQL of ``migrations``, to come to a schema version from the last.

        """
        if self.found == SCHEMA_VERSION:
            return
        with self.transaction() as writer:
            for number in range(self.found + 1, SCHEMA_VERSION + 1):
                # One by one: `executescript` would commit in between.
                for statement in _statements((_MIGRATIONS / f"{number:04d}.sql").read_text()):
                    writer.execute(statement)
                if self.found and number in steps:
                    steps[number](writer)
            writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close both connections."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else writes, here or to the files beside, for as long as this lasts."""
        with self._writing, available():
            yield

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it, durably, or nothing."""
        with self._writing, available():
            if self._writer.in_transaction:  # the last one could not even be rolled back: its disk failed
                self._writer.execute("ROLLBACK")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # SQLite itself rolls back on some errors
                    self._writer.execute("ROLLBACK")
                raise

    def rows(self, query: str, *arguments: Any) -> list[Any]:
        """What a query finds in what is committed."""
        with self._reading, available():
            return self._reader.execute(query, arguments).fetchall()

    def forget(self) -> None:
        """Move the write-ahead log into the file and empty it: it holds pages as they were before a deletion."""
        with self._writing, self._reading, available():
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def taking_part(database: sqlite3.Connection, devices: Iterable[str]) -> set[str]:
    """Those of ``devices`` that are in the run: neither unknown, withdrawn nor revoked."""
    query = "SELECT id FROM devices WHERE id IN (SELECT value FROM json_each(?)) AND revoked_at IS NULL"
    return {name for (name,) in database.execute(query, (json.dumps(list(devices)),))}


@contextlib.contextmanager
def available() -> Iterator[None]:
    """
    A full disk, a read-only one and the like as one error, which says that nothing happened.

    Raises:
        StoreUnavailable: in place of the errors of SQLite and of the system that mean it.

    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise disk_error(error) from error


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
