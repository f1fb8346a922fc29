"""What the store of one directory promises of its files."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.errors import StoreError
from coordinator.store.records import (
    DiscardedUpdate,
    MergedUpdate,
    UpdateRecord,
)
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import FileEntry

from .assigning import assign
from .filled import fill, update, version


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state")
    fill(store)
    yield store
    store.close()


def reopened(store: SqliteStore, tmp_path: Path) -> SqliteStore:
    store.close()
    return SqliteStore(tmp_path / "state")


def test_two_coordinators_cannot_use_one_state_directory(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another coordinator"):
        SqliteStore(tmp_path / "state")


def test_a_directory_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"a file")
    with pytest.raises(StoreError, match=r"cannot use the state directory .*state: (File exists|Not a directory)"):
        SqliteStore(tmp_path / "state")


def test_the_first_lease_of_a_process_is_the_first(store: SqliteStore) -> None:
    assert store.lease.take("one", 60.0) == 1
    assert not store.lease.lost


def test_a_merge_does_not_write_the_whole_log_anew_and_a_withdrawal_does(store: SqliteStore, tmp_path: Path) -> None:
    accepted = update(store)
    store.updates.accept([accepted])
    store.versions.commit(version(1), [MergedUpdate(accepted[0].assignment, 0, 1.0)])
    log = tmp_path / "state" / "state.sqlite-wal"
    assert log.stat().st_size > 0
    store.devices.withdraw("phone-1", 6.0, by="anna")
    assert log.stat().st_size == 0


def test_a_file_that_is_not_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"state\.sqlite cannot be used"):
        SqliteStore(tmp_path / "state")


def test_a_state_directory_of_another_version_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    store.close()
    database = sqlite3.connect(tmp_path / "state" / "state.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match="schema 99"):
        SqliteStore(tmp_path / "state")


def test_a_half_written_file_is_no_artifact(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "state" / "artifacts" / ("cd" * 32 + ".new")).write_bytes(b"half")
    again = reopened(store, tmp_path)
    assert list((tmp_path / "state" / "artifacts").glob("*.new")) == []
    with pytest.raises(StoreError, match="missing"):
        again.artifacts.path("cd" * 32)
    again.close()


def holds(folder: Path, needle: bytes) -> list[str]:
    """The files under ``folder`` in which ``needle`` can be found."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


def test_an_update_is_erased_once_its_merge_is_durable(store: SqliteStore, tmp_path: Path) -> None:
    merged, waiting = update(store, b"what one phone learnt"), update(store, b"what another learnt")
    store.updates.accept([merged, waiting])
    assert holds(tmp_path, b"what one phone learnt")
    store.versions.commit(version(1), [MergedUpdate(merged[0].assignment, 0, 1.0)])
    assert holds(tmp_path, b"what one phone learnt") == []
    assert store.updates.content(waiting[0].assignment) == b"what another learnt"
    store.versions.commit(version(2), [MergedUpdate(waiting[0].assignment, 0, 1.0)])
    assert list((tmp_path / "state" / "updates").iterdir()) == [], "a segment without updates is removed"


def test_a_discarded_update_is_erased(store: SqliteStore, tmp_path: Path) -> None:
    accepted = update(store, b"an outlier")
    store.updates.accept([accepted])
    assert holds(tmp_path, b"an outlier")
    store.updates.discard([DiscardedUpdate(accepted[0].assignment, "outlier")])
    assert holds(tmp_path, b"an outlier") == []


def test_a_damaged_update_is_told_from_a_good_one(store: SqliteStore, tmp_path: Path) -> None:
    first, last = update(store, b"the first"), update(store, b"the last")
    store.updates.accept([first, last])
    (segment,) = (tmp_path / "state" / "updates").iterdir()
    whole = segment.read_bytes()
    for end in (b"", b"a", b"asT", b"est", b"???", b"ass", b"xst", b"\0\0\0"):  # of higher and lower hashes
        segment.write_bytes(whole[:-3] + end)
        assert store.updates.content(first[0].assignment) == b"the first"
        with pytest.raises(StoreError, match="damaged"):
            store.updates.content(last[0].assignment)


def test_what_a_crash_left_behind_the_last_row_is_erased_at_the_next_start(store: SqliteStore, tmp_path: Path) -> None:
    accepted = update(store, b"acknowledged")
    store.updates.accept([accepted])
    (segment,) = (tmp_path / "state" / "updates").iterdir()
    segment.write_bytes(segment.read_bytes() + b"never acknowledged")
    again = reopened(store, tmp_path)
    assert again.updates.content(accepted[0].assignment) == b"acknowledged"
    assert holds(tmp_path, b"never acknowledged") == []
    again.close()


def test_no_file_has_a_trace_of_a_device_that_withdrew(store: SqliteStore, tmp_path: Path) -> None:
    secret = b"a secret of thirty-two bytes ..."
    store.devices.enrol("withdrawn-phone", secret, 1.0)
    done = assign(store, "withdrawn-phone", 0, "small", 2.0)
    merged = UpdateRecord(done.id, "withdrawn-phone", 0, "small", FileEntry.of(b"old"), {"samples": 4_242_424_242}, 3.0)
    store.updates.accept([(merged, b"old")])
    store.versions.commit(version(1), [MergedUpdate(done.id, 0, 1.0)])
    pending = assign(store, "withdrawn-phone", 1, "small", 4.0)
    waiting = UpdateRecord(pending.id, "withdrawn-phone", 1, "small", FileEntry.of(b"pending bytes"), {}, 5.0)
    store.updates.accept([(waiting, b"pending bytes")])
    assert store.devices.withdraw("withdrawn-phone", 6.0, by="anna") == [pending.id]
    for trace in (b"withdrawn-phone", secret, b"pending bytes", b"4242424242", merged.artifact.sha256.encode()):
        assert holds(tmp_path, trace) == [], trace


def test_the_audit_log_cannot_be_changed_unnoticed(store: SqliteStore, tmp_path: Path) -> None:
    store.audit.write(7.0, "anna", "exported", "version 0", {"format": "safetensors"})
    entries = store.audit.entries()
    assert [entry.action for entry in entries] == ["created", "signed", "enrolled", "exported"]
    assert entries[-1].actor == "anna"
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "state.sqlite")) as database:
        for attack in ("UPDATE audit SET actor = 'eve'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(attack)
        for name in ("eve", "mallory", "trudy", "oscar", "craig", "walter"):  # of higher and lower hashes
            database.executescript(
                f"DROP TRIGGER IF EXISTS audit_is_not_changed; UPDATE audit SET actor = '{name}' WHERE number = 2;"
            )
            with pytest.raises(StoreError, match="line 2 of the audit log"):
                store.audit.entries()


def test_a_checkpoint_is_verified_by_its_hash_when_read(store: SqliteStore) -> None:
    (entry,) = store.artifacts.put(b"weights")
    store.artifacts.path(entry.sha256).write_bytes(b"weighty")
    with pytest.raises(StoreError, match="damaged: restore"):
        store.artifacts.verified(entry.sha256)


def test_a_transaction_that_failed_holds_nothing_up(store: SqliteStore) -> None:
    def fail() -> None:
        with store._database.transaction() as writer:
            writer.execute("DELETE FROM devices")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not store._database._writer.in_transaction
    assert [device.id for device in store.devices.all()] == ["phone-1"]
