"""Each table works with a database alone; what is erased goes through one object that all of them are given."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.errors import StoreError
from coordinator.store.artifacts import Artifacts
from coordinator.store.records import (
    AssignmentRecord,
    AssignmentRequest,
    DiscardedUpdate,
    MergedUpdate,
    TokenRecord,
    UpdateRecord,
    VersionRecord,
)
from coordinator.store.rows import version_files
from coordinator.store.segments import Segments
from coordinator.store.sqlite.assignments import AssignmentTable
from coordinator.store.sqlite.audit import AuditTable
from coordinator.store.sqlite.backup import BACKUP_LOCK
from coordinator.store.sqlite.database import Database
from coordinator.store.sqlite.devices import DeviceTable
from coordinator.store.sqlite.erasure import Erasure
from coordinator.store.sqlite.tokens import TokenTable
from coordinator.store.sqlite.updates import UpdateTable
from coordinator.store.sqlite.versions import VersionTable
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef, Sha256


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.sqlite")
    database.migrate({})
    yield database
    database.close()


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[Segments]:
    segments = Segments(tmp_path / "updates")
    yield segments
    segments.close()


@pytest.fixture
def erasure(database: Database, segments: Segments, tmp_path: Path) -> Erasure:
    return Erasure(database, segments, tmp_path)


def record(assignment: str, content: bytes) -> UpdateRecord:
    return UpdateRecord(assignment, "phone-1", 0, "small", FileEntry.of(content), {"samples": 4}, 5.0)


def give(database: Database, devices: DeviceTable, count: int) -> list[str]:
    """Open assignments of ``count`` devices."""
    with database.transaction() as rows:
        for name in ("small", "large"):
            rows.execute("INSERT INTO tiers VALUES (?, 1, 1, '', '', '', NULL)", (name,))
    VersionTable(database, Artifacts(database.path.parent / "artifacts"), devices._erasure).commit(
        VersionRecord(0, -1, (), {}, 0.0, kind="initial"), []
    )
    names = [f"phone-{number + 1}" for number in range(count)]
    for name in names:
        assert devices.enrol(name, b"s" * 32, 1.0) == "enrolled"
    given = AssignmentTable(database).assign([AssignmentRequest(name, 0, "small", 2.0) for name in names])
    return [assignment.id for assignment in given]


def test_assignments_are_given_in_the_order_of_requests_and_found_by_name_alone(
    database: Database, erasure: Erasure
) -> None:
    table = AssignmentTable(database)
    first, second = give(database, DeviceTable(database, erasure), 2)
    assert [record.id for record in table.open()] == [first, second]
    again, other = table.assign(
        [AssignmentRequest("phone-2", 0, "large", 7.0, 9.5), AssignmentRequest("phone-1", 0, "small", 7.0)]
    )
    assert again == AssignmentRecord(3, "phone-2", 0, "large", 7.0, True, 9.5)
    assert table.open() == [again, other], "a device has one open assignment"
    closed = table.find(first)
    assert closed is not None
    assert not closed.open
    table.close(again.id)
    assert table.open() == [other]


def test_a_discarded_update_is_overwritten_and_only_that(
    database: Database, erasure: Erasure, segments: Segments
) -> None:
    table = UpdateTable(database, segments, erasure)
    names = give(database, DeviceTable(database, erasure), 2)
    contents = {name: f"content of {name}".encode() for name in names}
    assert table.accept([(record(name, contents[name]), contents[name]) for name in names]) == set(names)
    table.discard([DiscardedUpdate(names[0], "stale")])
    (file,) = segments.files()
    assert contents[names[0]] not in file.read_bytes()
    assert [waiting.assignment for waiting in table.buffered()] == [names[1]]
    assert table.content(names[1]) == contents[names[1]]
    with pytest.raises(StoreError, match=f"no update of {names[0]} waits"):
        table.content(names[0])
    table.discard([DiscardedUpdate(names[1], "stale")])
    assert segments.files() == []


def test_an_update_that_cannot_be_written_down_leaves_neither_a_row_nor_bytes(
    database: Database, erasure: Erasure, segments: Segments
) -> None:
    table = UpdateTable(database, segments, erasure)
    (name,) = give(database, DeviceTable(database, erasure), 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        table.accept([(UpdateRecord(name, "phone-1", 0, "small", FileEntry.of(b"x"), {"samples": {1}}, 5.0), b"x")])
    assert not table.is_accepted(name)
    assert segments.files() == []
    assert table.accept([(record(name, b"x"), b"x")]) == {name}


def test_nothing_is_erased_during_a_backup_and_everything_after_it(
    database: Database, erasure: Erasure, segments: Segments, tmp_path: Path
) -> None:
    table = UpdateTable(database, segments, erasure)
    names = give(database, DeviceTable(database, erasure), 3)
    table.accept([(record(name, name.encode()), name.encode()) for name in names])
    with (tmp_path / BACKUP_LOCK).open("ab") as reading:
        fcntl.flock(reading, fcntl.LOCK_SH)
        table.discard([DiscardedUpdate(names[0], "stale")])
        (file,) = segments.files()
        assert names[0].encode() in file.read_bytes()
    table.discard([DiscardedUpdate(names[1], "stale")])
    left = file.read_bytes()
    assert [name for name in names if name.encode() in left] == [names[2]]


def test_a_withdrawal_erases_the_updates_of_that_device_alone(
    database: Database, erasure: Erasure, segments: Segments
) -> None:
    devices = DeviceTable(database, erasure)
    updates = UpdateTable(database, segments, erasure)
    first, second = give(database, devices, 2)
    updates.accept([(record(first, b"first"), b"first")])
    other = UpdateRecord(second, "phone-2", 0, "small", FileEntry.of(b"second"), {}, 5.0)
    updates.accept([(other, b"second")])
    assert devices.withdraw("phone-1", 6.0, by="anna") == [first]
    (file,) = segments.files()
    assert b"first" not in file.read_bytes()
    assert updates.content(second) == b"second"
    assert devices.find("phone-1") is None
    (left,) = devices.all()
    assert (left.id, left.updates, left.failures) == ("phone-2", 1, 0)


def test_failures_and_traffic_are_added_up_by_device(database: Database, erasure: Erasure) -> None:
    devices = DeviceTable(database, erasure)
    for name in ("a", "b"):
        devices.enrol(name, b"s" * 32, 1.0)
    devices.add_failure("a")
    devices.add_failure("a")
    devices.add_traffic("b", 3, 5)
    devices.add_traffic("b", 30, 50)
    devices.seen("b", 9.0, {"cores": 2})
    devices.seen("b", 10.0)
    a, b = devices.all()
    assert (a.failures, a.bytes_up, a.bytes_down, a.last_seen) == (2, 0, 0, None)
    assert (b.failures, b.bytes_up, b.bytes_down, b.last_seen, b.profile) == (0, 33, 55, 10.0, {"cores": 2})


def test_a_token_serves_until_the_second_it_expires_and_no_longer(database: Database, erasure: Erasure) -> None:
    tokens = TokenTable(database)
    devices = DeviceTable(database, erasure)
    tokens.add(TokenRecord("t", "d" * 64, 2, 10.0, 1.0), by="anna")
    assert devices.enrol("a", b"s" * 32, 9.999, token="d" * 64) == "enrolled"
    assert devices.enrol("b", b"s" * 32, 10.0, token="d" * 64) == "token"
    assert tokens.all()[0].uses_left == 1
    assert not tokens.revoke("u", 2.0, by="anna")
    assert tokens.revoke("t", 2.0, by="anna")
    assert tokens.revoke("t", 3.0, by="anna"), "it is known"
    assert tokens.all()[0].revoked_at == 2.0
    assert [entry.action for entry in AuditTable(database).entries()] == [
        "token created",
        "enrolled",
        "token revoked",
        "token revoked",
    ]


def test_a_version_names_its_files_and_consumes_its_updates_at_once(
    database: Database, erasure: Erasure, segments: Segments, tmp_path: Path
) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    versions = VersionTable(database, artifacts, erasure)
    updates = UpdateTable(database, segments, erasure)
    (name,) = give(database, DeviceTable(database, erasure), 1)
    updates.accept([(record(name, b"learnt"), b"learnt")])
    weights, state = (ArtifactRef(Sha256(e.sha256), e.size) for e in artifacts.put(b"weights", b"optimiser"))
    version = VersionRecord(1, 0, (weights,), {"loss": 0.5}, 3.0, private={"optimiser": state})
    assert artifacts.collect([]) == 0, "no row names them yet"
    versions.commit(version, [MergedUpdate(name, 2, 0.5)])
    assert versions.get(1) == versions.latest() == version
    assert versions.all() == versions.with_files() == [versions.get(0), version]
    assert version_files(version) == {weights.sha256, state.sha256}
    assert artifacts.collect(version_files(version)) == 0
    assert artifacts.collect([weights.sha256]) == 1, "they are named: who wants them says so"
    assert updates.merged() == [MergedUpdate(name, 2, 0.5)]
    assert segments.files() == []
    with pytest.raises(StoreError, match="no version 2"):
        versions.get(2)


def test_sqlite_syncs_every_commit_overwrites_what_is_deleted_and_checks_what_rows_refer_to(
    database: Database, erasure: Erasure
) -> None:
    pragmas = ("synchronous", "journal_mode", "secure_delete", "foreign_keys")
    assert [database._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas] == [2, "wal", 1, 1]
    give(database, DeviceTable(database, erasure), 1)
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        AssignmentTable(database).assign([AssignmentRequest("phone-1", 0, "no such tier", 2.0)])


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(database: Database) -> None:
    tokens = TokenTable(database)
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as rows:
        rows.executemany("INSERT INTO tiers VALUES (?, 1, 1, '', '', '', NULL)", [("small",), ("small",)])
    assert database.rows("SELECT name FROM tiers") == []
    tokens.add(TokenRecord("t", "d" * 64, None, None, 1.0), by="anna")
    assert len(tokens.all()) == 1
