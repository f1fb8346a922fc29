"""Bytes, and the names of their files, are on the disk before a row that names them commits."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.store.objects.folder import FolderObjects
from coordinator.store.records import MergedUpdate, RunRecord, TierRecord, UpdateRecord, VersionRecord
from coordinator.store.sqlite import SqliteStore, backup, restore
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from .assigning import assign


class Disk:
    """What was synced, by its path in the state directory, and ``COMMIT`` where SQLite was told to commit."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.events: list[str] = []
        self.sizes: dict[str, int] = {}
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._recorded(getattr(os, name)))

    def _recorded(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def record(descriptor: int) -> None:
            name = os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), self.folder)
            self.events.append(name)
            self.sizes[name] = os.fstat(descriptor).st_size
            sync(descriptor)

        return record

    def watch(self, store: SqliteStore) -> None:
        store._database._writer.set_trace_callback(
            lambda statement: self.events.append("COMMIT") if statement == "COMMIT" else None
        )

    def since(self) -> list[str]:
        """The events since the last call."""
        events, self.events = self.events, []
        return events


def put(store: SqliteStore, content: bytes) -> ArtifactRef:
    (entry,) = store.artifacts.put(content)
    return ArtifactRef(Sha256(entry.sha256), entry.size)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "state", monkeypatch)


@pytest.fixture
def store(disk: Disk) -> Iterator[SqliteStore]:
    store = SqliteStore(disk.folder)
    ref = put(store, b"program")
    first = VersionRecord(0, -1, (ref,), {}, 0.0, kind="initial")
    store.create(RunRecord("digits", {}, "", 0.0), [TierRecord("small", 1, 1, ref, "", ref, None)], first)
    store.devices.enrol("phone-1", b"s" * 32, 0.0)
    disk.watch(store)
    yield store
    store.close()


def update(store: SqliteStore, content: bytes) -> tuple[UpdateRecord, bytes]:
    record = assign(store, "phone-1", 0, "small", 0.0)
    return UpdateRecord(record.id, "phone-1", 0, "small", FileEntry.of(content), {}, 0.0), content


def test_the_folder_of_a_new_segment_and_its_bytes_are_synced_before_the_row_commits(
    disk: Disk, store: SqliteStore
) -> None:
    sent = update(store, b"learnt")
    disk.since()
    store.updates.accept([sent])
    assert disk.since() == ["updates", "updates/00000001.updates", "COMMIT"]


def test_many_updates_cost_one_sync_and_one_commit(disk: Disk, store: SqliteStore) -> None:
    store.updates.accept([update(store, b"the first opens the segment")])
    sent = [update(store, bytes([number])) for number in range(5)]
    disk.since()
    store.updates.accept(sent)
    assert disk.since() == ["updates/00000001.updates", "COMMIT"]


def test_a_segment_that_leaves_is_gone_from_its_folder_when_the_merge_returns(disk: Disk, store: SqliteStore) -> None:
    sent = update(store, b"learnt")
    store.updates.accept([sent])
    record = VersionRecord(1, 0, (put(store, b"weights"),), {}, 0.0)
    disk.since()
    store.versions.commit(record, [MergedUpdate(sent[0].assignment, 0, 1.0)])
    assert disk.since() == ["COMMIT", "updates"]


def test_what_is_erased_within_a_segment_is_overwritten_on_the_disk_when_the_merge_returns(
    disk: Disk, store: SqliteStore
) -> None:
    gone, stays = update(store, b"gone"), update(store, b"stays")
    store.updates.accept([gone, stays])
    record = VersionRecord(1, 0, (put(store, b"weights"),), {}, 0.0)
    disk.since()
    store.versions.commit(record, [MergedUpdate(gone[0].assignment, 0, 1.0)])
    assert disk.since() == ["COMMIT", "updates/00000001.updates"]


def test_an_artifact_is_synced_under_a_temporary_name_and_then_its_folder(disk: Disk, store: SqliteStore) -> None:
    disk.since()
    (entry,) = store.artifacts.put(b"weights")
    assert disk.since() == [f"artifacts/{entry.sha256}.new", "artifacts"]
    store.artifacts.put(b"weights")
    assert disk.since() == ["artifacts"], "whoever wrote it may not have synced the folder"


def test_an_artifact_that_is_collected_is_gone_from_its_folder_for_good(disk: Disk, store: SqliteStore) -> None:
    (store.artifacts.path(store.tiers()[0].program.sha256).parent / ("ab" * 32)).write_bytes(b"nobody names it")
    disk.since()
    assert store.collect() == 1
    assert disk.since() == ["artifacts"]


def test_opening_a_state_directory_syncs_its_names(disk: Disk) -> None:
    SqliteStore(disk.folder).close()
    assert disk.since()[-1] == "."


def test_a_restored_directory_is_on_the_disk_as_a_whole_before_it_has_its_name(
    disk: Disk, store: SqliteStore, tmp_path: Path
) -> None:
    store.updates.accept([update(store, b"learnt")])
    (program,) = {tier.program.sha256 for tier in store.tiers()}
    (disk.folder / "run.key").write_bytes(b"k" * 32)
    backup(disk.folder, tmp_path / "backup.tar")
    disk.since()
    restore(tmp_path / "backup.tar", tmp_path / "again", 1.0, by="anna")
    synced = disk.since()
    making, made = "../again.restoring", ".."
    assert {f"{making}/state.sqlite", f"{making}/artifacts/{program}", f"{making}/updates/00000001.updates"} <= {
        *synced
    }
    assert synced.index(f"{making}/artifacts/{program}") < synced.index(f"{making}/artifacts")
    assert synced[-3:] == [f"{making}/artifacts", making, made]


def test_a_backup_is_on_the_disk_before_it_has_its_name(disk: Disk, store: SqliteStore, tmp_path: Path) -> None:
    disk.since()
    size = backup(disk.folder, tmp_path / "backup.tar")
    assert disk.since()[-2:] == ["../backup.tar.new", ".."]
    assert disk.sizes["../backup.tar.new"] == size, "all of it"


def test_an_object_is_on_the_disk_before_it_has_its_name_and_so_is_its_name_before_anyone_hears(
    disk: Disk, tmp_path: Path
) -> None:
    objects = FolderObjects(tmp_path / "objects")
    assert objects.put_if_absent("artifacts/a", b"content")
    written, named = disk.since()
    assert re.fullmatch(r"\.\./objects/artifacts/a\.[0-9a-f]{8}\.new", written)
    assert disk.sizes[written] == len(b"content")
    assert named == "../objects/artifacts"
    assert not objects.put_if_absent("artifacts/a", b"other")
    assert disk.since() == ["../objects/artifacts"], "whoever wrote it may not have come to this point"
    assert [path.name for path in (tmp_path / "objects" / "artifacts").iterdir()] == ["a"]
    assert stat.S_IMODE((tmp_path / "objects" / "artifacts").stat().st_mode) == 0o700
