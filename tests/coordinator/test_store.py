"""The store keeps what it acknowledged, once, through restarts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.errors import StoreError
from coordinator.store.base import MergedUpdate, RunRecord, TierRecord, UpdateRecord, VersionRecord
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

REF = ArtifactRef(Sha256("ab" * 32), 10)
RUN = RunRecord("digits", {"task": "t"}, "", 1.0)
TIER = TierRecord("small", 1, 1000, REF, "00", REF)


def version(number: int) -> VersionRecord:
    return VersionRecord(number, number - 1, (REF,), {"accuracy": number / 10}, 2.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state")
    store.create(RUN, [TIER], version(0))
    store.enrol("phone-1", b"s" * 32, 1.0)
    yield store
    store.close()


def reopened(store: SqliteStore, tmp_path: Path) -> SqliteStore:
    store.close()
    return SqliteStore(tmp_path / "state")


def update(store: SqliteStore, content: bytes = b"content") -> tuple[UpdateRecord, bytes]:
    assignment = store.assign("phone-1", 0, "small", 3.0)
    return (
        UpdateRecord(assignment.id, "phone-1", 0, "small", FileEntry.of(content), {"samples": 4}, 5.0),
        content,
    )


def test_everything_survives_a_restart(store: SqliteStore, tmp_path: Path) -> None:
    accepted = update(store)
    store.accept([accepted])
    store.add_traffic("phone-1", 7, 9)
    again = reopened(store, tmp_path)
    assert again.run() == RUN
    assert again.tiers() == [TIER]
    assert again.versions() == [version(0)]
    assert again.buffered() == [accepted[0]]
    assert again.content(accepted[0].assignment) == b"content"
    assert again.secret("phone-1") == b"s" * 32
    (device,) = again.devices()
    assert (device.bytes_up, device.bytes_down, device.updates, device.report) == (7, 9, 1, {"samples": 4})
    again.close()


def test_an_update_is_accepted_once(store: SqliteStore) -> None:
    accepted = update(store)
    assert store.accept([accepted, accepted]) == {accepted[0].assignment}
    assert store.accept([accepted]) == set()
    assert len(store.buffered()) == 1
    assert store.devices()[0].updates == 1


def test_an_update_is_merged_once(store: SqliteStore) -> None:
    accepted = update(store)[0], b"content"
    store.accept([accepted])
    merged = [MergedUpdate(accepted[0].assignment, 2, 0.5)]
    store.commit(version(1), merged)
    with pytest.raises(StoreError, match="merged before"):
        store.commit(version(2), merged)
    assert store.latest() == version(1)
    assert store.merged() == merged
    assert store.buffered() == []


def test_a_merge_of_an_update_that_was_never_accepted_changes_nothing(store: SqliteStore) -> None:
    first = update(store)
    store.accept([first])
    with pytest.raises(StoreError, match="never accepted"):
        store.commit(version(1), [MergedUpdate(first[0].assignment, 0, 1.0), MergedUpdate("a00000099", 0, 1.0)])
    assert store.latest() == version(0)
    assert len(store.buffered()) == 1


def test_a_version_number_is_never_used_again(store: SqliteStore) -> None:
    store.commit(version(1), [])
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(version(1), [])


def test_a_device_has_one_open_assignment(store: SqliteStore) -> None:
    first = store.assign("phone-1", 0, "small", 1.0)
    second = store.assign("phone-1", 0, "small", 2.0)
    assert first.id < second.id
    assert store.open_assignment("phone-1") == second
    found = store.assignment(first.id)
    assert found is not None
    assert not found.open
    store.close_assignment(second.id)
    assert store.open_assignment("phone-1") is None


@pytest.mark.parametrize("name", ["a1", "a0000000x", "", "b00000001", "a00000002", "a" + "9" * 40, "1"])
def test_only_the_name_that_was_given_out_finds_an_assignment(store: SqliteStore, name: str) -> None:
    assert store.assign("phone-1", 0, "small", 1.0).id == "a00000001"
    assert store.assignment(name) is None


def test_a_name_belongs_to_the_first_secret_that_took_it(store: SqliteStore) -> None:
    assert store.enrol("phone-1", b"s" * 32, 9.0) == "enrolled"
    assert store.enrol("phone-1", b"t" * 32, 9.0) == "taken"
    assert store.secret("phone-1") == b"s" * 32


def test_two_coordinators_cannot_use_one_state_directory(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another coordinator"):
        SqliteStore(tmp_path / "state")


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
        again.artifact("cd" * 32)
    again.close()
