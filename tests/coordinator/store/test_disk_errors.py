"""A disk that refuses says what to do."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from pathlib import Path

import pytest

from coordinator.errors import StoreUnavailable
from coordinator.store.artifacts import disk_available
from coordinator.store.sqlite.database import available

FREE = r"the state directory cannot be used just now: .*full; free some space there, and whatever waits goes on by"


def test_a_full_disk_asks_for_space() -> None:
    words = FREE.replace("full", "No space left on device")
    with pytest.raises(StoreUnavailable, match=words), disk_available():
        raise OSError(errno.ENOSPC, "No space left on device", "state/artifacts/a")


def test_a_full_database_asks_for_space(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as database:
        database.execute("CREATE TABLE a (b)")
        database.execute("PRAGMA max_page_count = 2")
        with pytest.raises(StoreUnavailable, match=FREE), available():
            database.execute("INSERT INTO a VALUES (zeroblob(100000))")


def test_a_database_that_may_not_be_written_asks_for_the_right(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE a (b)")
    with (
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
        pytest.raises(StoreUnavailable, match=r"readonly database; make it and its files writable"),
        available(),
    ):
        database.execute("INSERT INTO a VALUES (1)")


def test_other_errors_keep_their_words() -> None:
    with pytest.raises(StoreUnavailable, match=r"just now: no such table: a$"), available():
        sqlite3.connect(":memory:").execute("SELECT * FROM a")
