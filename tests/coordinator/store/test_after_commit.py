"""Whatever fails after a commit, the caller hears that the transaction happened; the rest is made up for later."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from coordinator.errors import StoreError, StoreUnavailable
from coordinator.store.interface import Store
from coordinator.store.records import DiscardedUpdate, MergedUpdate, UpdateRecord, VersionRecord
from coordinator.store.segments import Segments
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import FileEntry

from .assigning import assign
from .crash_worker import begin

CANARY = b"the update of one device" * 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state")
    begin(store)
    yield store
    store.close()


def accept(store: Store, device: str = "phone-0") -> UpdateRecord:
    work = assign(store, device, store.versions.latest().version, "small", 0.0)
    record = UpdateRecord(work.id, device, work.version, "small", FileEntry.of(CANARY), {"samples": 1}, 0.0)
    store.updates.accept([(record, CANARY)])
    return record


def merge(store: Store, update: UpdateRecord) -> None:
    number = store.versions.next_number()
    version = VersionRecord(number, number - 1, store.versions.latest().weights, {}, 0.0)
    store.versions.commit(version, [MergedUpdate(update.assignment, 0, 1.0)])


def roll_back(store: Store, update: UpdateRecord) -> None:
    number = store.versions.next_number()
    version = VersionRecord(number, 0, store.versions.latest().weights, {}, 0.0, kind="rollback")
    discarded = [DiscardedUpdate(update.assignment, "rolled-back")]
    store.versions.rollback(version, discarded, [], by="anna", why="worse")


OPERATIONS: dict[str, Callable[[Store, UpdateRecord], Any]] = {
    "merge": merge,
    "rollback": roll_back,
    "discard": lambda store, update: store.updates.discard([DiscardedUpdate(update.assignment, "stale")]),
    "withdraw": lambda store, update: store.devices.withdraw(update.device, 0.0, by="anna"),
}


FAILURES = {
    "full": OSError(errno.ENOSPC, "injected"),
    "broken": OSError(errno.EIO, "injected"),
    "busy": StoreUnavailable("injected"),
    "locked": sqlite3.OperationalError("injected"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_erasure_that_fails_is_done_with_the_next(
    store: SqliteStore, name: str, failure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    update = accept(store)

    def fail(*arguments: Any) -> None:
        raise FAILURES[failure]

    with monkeypatch.context() as patch:
        patch.setattr(Segments, "erase", fail)
        OPERATIONS[name](store, update)
    assert store.updates.buffered() == [], "it happened"
    with pytest.raises(StoreError, match="was merged before, or was never accepted"):
        merge(store, update)
    assert left(tmp_path)
    merge(store, accept(store, "phone-1"))
    assert not left(tmp_path)


def left(folder: Path) -> bool:
    """Whether the update's bytes are anywhere."""
    return any(CANARY in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_transaction_that_could_not_even_be_rolled_back_stops_no_later_one(store: SqliteStore) -> None:
    database = store._database
    writer = database._writer

    class Failing:
        """A connection whose disk fails in the middle of a transaction."""

        def execute(self, sql: str, *rest: Any) -> Any:
            if sql in ("COMMIT", "ROLLBACK"):
                raise sqlite3.OperationalError("disk I/O error")
            return writer.execute(sql, *rest)

        def __getattr__(self, name: str) -> Any:
            return getattr(writer, name)

    database._writer = cast(sqlite3.Connection, Failing())
    with pytest.raises(StoreError, match="disk I/O error"):
        store.set_phase("paused", "", 0.0, by="anna")
    database._writer = writer
    store.set_phase("paused", "", 1.0, by="anna")
    assert store.phase()[0] == "paused"
    assert [entry.action for entry in store.audit.entries()].count("paused") == 1
