"""The store keeps what it acknowledged, once, through restarts."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.errors import StoreError
from coordinator.store.records import (
    DiscardedUpdate,
    MergedUpdate,
    RunRecord,
    TierRecord,
    TokenRecord,
    UpdateRecord,
    VersionRecord,
)
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from .assigning import assign, open_assignment

REF = ArtifactRef(Sha256("ab" * 32), 10)
RUN = RunRecord("digits", {"task": "t"}, "", 1.0)
TIER = TierRecord("small", 1, 1000, REF, "00", REF, REF)


def version(number: int) -> VersionRecord:
    return VersionRecord(number, number - 1, (REF,), {"accuracy": number / 10}, 2.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state")
    store.create(RUN, [TIER], version(0))
    store.devices.enrol("phone-1", b"s" * 32, 1.0)
    yield store
    store.close()


def reopened(store: SqliteStore, tmp_path: Path) -> SqliteStore:
    store.close()
    return SqliteStore(tmp_path / "state")


def update(store: SqliteStore, content: bytes = b"content") -> tuple[UpdateRecord, bytes]:
    assignment = assign(store, "phone-1", 0, "small", 3.0)
    return (
        UpdateRecord(assignment.id, "phone-1", 0, "small", FileEntry.of(content), {"samples": 4}, 5.0),
        content,
    )


def test_everything_survives_a_restart(store: SqliteStore, tmp_path: Path) -> None:
    accepted = update(store)
    store.updates.accept([accepted])
    store.devices.add_traffic("phone-1", 7, 9)
    again = reopened(store, tmp_path)
    assert again.run() == RUN
    assert again.tiers() == [TIER]
    assert again.versions.all() == [version(0)]
    assert again.updates.buffered() == [accepted[0]]
    assert again.updates.content(accepted[0].assignment) == b"content"
    assert again.devices.secret("phone-1") == b"s" * 32
    (device,) = again.devices.all()
    assert (device.bytes_up, device.bytes_down, device.updates, device.report) == (7, 9, 1, {"samples": 4})
    again.close()


def test_an_update_is_accepted_once(store: SqliteStore) -> None:
    accepted = update(store)
    assert store.updates.accept([accepted, accepted]) == {accepted[0].assignment}
    assert store.updates.accept([accepted]) == set()
    assert len(store.updates.buffered()) == 1
    assert store.devices.all()[0].updates == 1


def test_an_update_is_merged_once(store: SqliteStore) -> None:
    accepted = update(store)[0], b"content"
    store.updates.accept([accepted])
    merged = [MergedUpdate(accepted[0].assignment, 2, 0.5)]
    store.versions.commit(version(1), merged)
    with pytest.raises(StoreError, match="merged before"):
        store.versions.commit(version(2), merged)
    assert store.versions.latest() == version(1)
    assert store.updates.merged() == merged
    assert store.updates.buffered() == []


def test_a_merge_of_an_update_that_was_never_accepted_changes_nothing(store: SqliteStore) -> None:
    first = update(store)
    store.updates.accept([first])
    with pytest.raises(StoreError, match="never accepted"):
        store.versions.commit(
            version(1), [MergedUpdate(first[0].assignment, 0, 1.0), MergedUpdate("a00000099", 0, 1.0)]
        )
    assert store.versions.latest() == version(0)
    assert len(store.updates.buffered()) == 1


def test_a_version_number_is_never_used_again(store: SqliteStore) -> None:
    store.versions.commit(version(1), [])
    with pytest.raises(StoreError, match="version 1 was written before"):
        store.versions.commit(version(1), [])


def test_a_device_has_one_open_assignment(store: SqliteStore) -> None:
    first = assign(store, "phone-1", 0, "small", 1.0)
    second = assign(store, "phone-1", 0, "small", 2.0)
    assert first.id < second.id
    assert open_assignment(store, "phone-1") == second
    found = store.assignments.find(first.id)
    assert found is not None
    assert not found.open
    store.assignments.close(second.id)
    assert open_assignment(store, "phone-1") is None


@pytest.mark.parametrize("name", ["a1", "a0000000x", "", "b00000001", "a00000002", "a" + "9" * 40, "1"])
def test_only_the_name_that_was_given_out_finds_an_assignment(store: SqliteStore, name: str) -> None:
    assert assign(store, "phone-1", 0, "small", 1.0).id == "a00000001"
    assert store.assignments.find(name) is None


def test_a_name_belongs_to_the_first_secret_that_took_it(store: SqliteStore) -> None:
    assert store.devices.enrol("phone-1", b"s" * 32, 9.0) == "enrolled"
    assert store.devices.enrol("phone-1", b"t" * 32, 9.0) == "taken"
    assert store.devices.secret("phone-1") == b"s" * 32


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


def test_a_discarded_update_is_erased_and_never_merged(store: SqliteStore, tmp_path: Path) -> None:
    accepted = update(store, b"an outlier")
    store.updates.accept([accepted])
    store.updates.discard([DiscardedUpdate(accepted[0].assignment, "outlier")])
    assert holds(tmp_path, b"an outlier") == []
    assert store.updates.buffered() == []
    assert store.updates.is_accepted(accepted[0].assignment)
    with pytest.raises(StoreError, match="merged before"):
        store.versions.commit(version(1), [MergedUpdate(accepted[0].assignment, 0, 1.0)])


def test_a_damaged_update_is_told_from_a_good_one(store: SqliteStore, tmp_path: Path) -> None:
    first, last = update(store, b"the first"), update(store, b"the last")
    store.updates.accept([first, last])
    (segment,) = (tmp_path / "state" / "updates").iterdir()
    segment.write_bytes(segment.read_bytes()[:-3])
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


def test_withdrawing_a_device_deletes_its_records_and_stops_its_updates(store: SqliteStore, tmp_path: Path) -> None:
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
    assert [device.id for device in store.devices.all()] == ["phone-1"]
    assert store.updates.buffered() == []
    assert store.updates.merged() == [MergedUpdate(done.id, 0, 1.0)], "the history of the model stays"
    assert store.assignments.find(pending.id) is None
    assert store.audit.entries()[-1].action == "withdrawn"
    assert store.devices.withdraw("withdrawn-phone", 7.0, by="anna") is None


def test_a_revoked_device_stays_out_and_its_work_is_closed(store: SqliteStore) -> None:
    assign(store, "phone-1", 0, "small", 1.0)
    assert store.devices.revoke("phone-1", 2.0, by="anna")
    assert open_assignment(store, "phone-1") is None
    assert store.devices.enrol("phone-1", b"s" * 32, 3.0) == "revoked"
    device = store.devices.find("phone-1")
    assert device is not None
    assert device.revoked_at == 2.0
    assert not store.devices.revoke("phone-2", 2.0, by="anna")


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        (TokenRecord("t", "d" * 64, None, None, 1.0), ["enrolled", "enrolled"]),
        (TokenRecord("t", "d" * 64, 1, None, 1.0), ["enrolled", "token"]),
        (TokenRecord("t", "d" * 64, None, 5.0, 1.0), ["token", "token"]),
        (TokenRecord("t", "e" * 64, None, None, 1.0), ["token", "token"]),
    ],
    ids=["group", "one-time", "expired", "unknown"],
)
def test_a_token_lets_in_as_many_as_it_says(store: SqliteStore, token: TokenRecord, outcome: list[str]) -> None:
    store.tokens.add(token, by="anna")
    assert [store.devices.enrol(name, b"s" * 32, 9.0, token="d" * 64) for name in ("a", "b")] == outcome
    # A device that did not hear that it was let in tries again; that costs no use.
    assert store.devices.enrol("a", b"s" * 32, 9.0, token="d" * 64) == outcome[0]


def test_a_revoked_token_lets_nobody_in(store: SqliteStore) -> None:
    store.tokens.add(TokenRecord("t", "d" * 64, None, None, 1.0), by="anna")
    assert store.tokens.revoke("t", 2.0, by="anna")
    assert store.devices.enrol("a", b"s" * 32, 3.0, token="d" * 64) == "token"
    assert store.tokens.all()[0].revoked_at == 2.0


def test_the_audit_log_cannot_be_changed_unnoticed(store: SqliteStore, tmp_path: Path) -> None:
    store.audit.write(7.0, "anna", "exported", "version 0", {"format": "safetensors"})
    entries = store.audit.entries()
    assert [entry.action for entry in entries] == ["created", "signed", "enrolled", "exported"]
    assert entries[-1].actor == "anna"
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "state.sqlite")) as database:
        for attack in ("UPDATE audit SET actor = 'eve'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(attack)
        database.executescript("DROP TRIGGER audit_is_not_changed; UPDATE audit SET actor = 'eve' WHERE number = 2;")
    with pytest.raises(StoreError, match="line 2 of the audit log"):
        store.audit.entries()


def test_a_rollback_is_a_new_version_and_takes_what_built_on_the_others_with_it(store: SqliteStore) -> None:
    store.versions.commit(version(1), [])
    stale, good = update(store), update(store, b"other")
    store.updates.accept([stale, good])
    open_one = assign(store, "phone-1", 1, "small", 3.0)
    record = VersionRecord(2, 0, (REF,), {}, 9.0, kind="rollback")
    store.versions.rollback(
        record, [DiscardedUpdate(stale[0].assignment, "rolled-back")], [open_one.id], by="anna", why="worse"
    )
    assert store.versions.latest() == record
    assert store.versions.next_number() == 3
    assert [u.assignment for u in store.updates.buffered()] == [good[0].assignment]
    assert open_assignment(store, "phone-1") is None
    line = store.audit.entries()[-1]
    assert (line.actor, line.action, line.details["to"]) == ("anna", "rolled back", 0)


def test_pruned_versions_lose_their_files_but_not_those_that_devices_still_hold(store: SqliteStore) -> None:
    def committed(number: int) -> ArtifactRef:
        (entry,) = store.artifacts.put(f"weights {number}".encode())
        ref = ArtifactRef(Sha256(entry.sha256), entry.size)
        store.versions.commit(dataclasses.replace(version(number), weights=(ref,)), [])
        return ref

    refs = {number: committed(number) for number in range(1, 6)}
    assign(store, "phone-1", 2, "small", 3.0)
    assert store.versions.prune(lambda versions: {4}, since=2.0) == [0, 1, 3]
    store.collect()
    for number, ref in refs.items():
        if number in (1, 3):
            with pytest.raises(StoreError, match="missing"):
                store.artifacts.path(ref.sha256)
        else:
            assert store.artifacts.verified(ref.sha256).read_bytes() == f"weights {number}".encode()
    assert [v.version for v in store.versions.all() if v.pruned] == [0, 1, 3]
    assert store.versions.prune(lambda versions: {4}, since=4.0) == [2], "the device is not expected back"


def test_a_file_that_no_row_names_yet_is_not_collected(store: SqliteStore) -> None:
    (entry,) = store.artifacts.put(b"weights of the version that is being merged")
    assert store.collect() == 0
    store.artifacts.path(entry.sha256)


def test_a_checkpoint_is_verified_by_its_hash_when_read(store: SqliteStore) -> None:
    (entry,) = store.artifacts.put(b"weights")
    store.artifacts.path(entry.sha256).write_bytes(b"weighty")
    with pytest.raises(StoreError, match="damaged: restore"):
        store.artifacts.verified(entry.sha256)


def test_a_run_keeps_its_phase_and_when_it_started(store: SqliteStore, tmp_path: Path) -> None:
    assert store.phase() == ("created", "")
    store.set_phase("paused", "holiday", 3.0, by="anna")
    assert store.started_at(10.0) == 10.0
    again = reopened(store, tmp_path)
    assert again.phase() == ("paused", "holiday")
    assert again.started_at(20.0) == 10.0
    again.close()


def test_arrivals_are_counted_and_asked_for_from_the_highest_that_was_seen(store: SqliteStore) -> None:
    first, second = update(store), update(store, b"other")
    store.updates.accept([first])
    ((seen, record),) = store.updates.arrived(0)
    assert record == first[0]
    assert store.updates.arrived(seen) == []
    store.updates.accept([second])
    assert [record for _, record in store.updates.arrived(seen)] == [second[0]]
    store.versions.commit(version(1), [MergedUpdate(first[0].assignment, 0, 1.0)])
    assert [record for _, record in store.updates.arrived(0)] == [second[0]]


def test_one_holder_at_a_time_has_the_lease(store: SqliteStore) -> None:
    assert store.lease.current() is None
    assert not store.lease.renew(60.0), "nobody has taken it"
    epoch = store.lease.take("one", 60.0)
    assert epoch is not None
    assert store.lease.take("two", 60.0) is None
    assert store.lease.renew(60.0)
    holder = store.lease.current()
    assert holder is not None
    assert (holder.holder, holder.epoch) == ("one", epoch)
    store.lease.release()
    assert store.lease.current() is None
    assert store.lease.take("two", 60.0) == epoch + 1
