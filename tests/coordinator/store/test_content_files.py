"""Files by their hash: whole or not there, over power cuts, full disks and two processes at once."""

from __future__ import annotations

import hashlib
import os
import resource
import time
from pathlib import Path

import pytest

from coordinator.errors import StoreError
from coordinator.store import content_files as module
from coordinator.store.content_files import ContentFiles


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_found_by_its_hash_and_what_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    files = ContentFiles(tmp_path / "deep" / "files")
    entries = files.put([b"one", b"two", b"one"])
    assert [(entry.sha256, entry.size) for entry in entries] == [(digest(c), 3) for c in (b"one", b"two", b"one")]
    assert files.verified(digest(b"two")).read_bytes() == b"two"
    assert sorted(path.name for path in (tmp_path / "deep" / "files").iterdir()) == sorted(
        {digest(b"one"), digest(b"two")}
    )
    with pytest.raises(StoreError, match="is missing: restore"):
        files.path("ab" * 32)


def test_a_damaged_file_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    files = ContentFiles(tmp_path)
    files.put([b"one"])
    for damaged in (b"One", b"on", b"", b"ones", b"one\0", b"eno", b"two", b"three"):  # of higher and lower hashes
        (tmp_path / digest(b"one")).write_bytes(damaged)
        assert files.path(digest(b"one")).exists()
        with pytest.raises(StoreError, match="is damaged: restore"):
            files.verified(digest(b"one"))


def test_a_file_is_synced_and_then_its_name_even_if_it_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(module, "sync_file", lambda descriptor: steps.append(f"file of {os.fstat(descriptor).st_size}"))
    monkeypatch.setattr(module, "sync_folder", lambda folder: steps.append("folder"))
    files = ContentFiles(tmp_path)
    files.put([b"one", b"three"])
    assert steps == ["file of 3", "file of 5", "folder"]
    files.put([b"one"])
    assert steps[3:] == ["folder"], "whoever wrote it may not have come to this point"
    assert files.remove_unless(lambda sha256: True) == 0
    assert steps[4:] == []
    assert files.remove_unless(lambda sha256: sha256 == digest(b"one")) == 1
    assert steps[4:] == ["folder"]


def test_a_full_disk_is_not_left_full_of_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        ContentFiles(tmp_path).put([b"one"])
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_write_one_file_write_each_its_own_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def sync(descriptor: int) -> None:
        names.extend(path.name for path in tmp_path.glob("*.new"))
        if len(names) == 1:
            ContentFiles(tmp_path, alone=False).put([b"one"])

    monkeypatch.setattr(module, "sync_file", sync)
    ContentFiles(tmp_path, alone=False).put([b"one"])
    assert len(names) == 3
    assert len(set(names)) == 2
    assert [len(name) for name in names] == [len(f"{digest(b'one')}.01234567.new")] * 3
    assert [path.name for path in tmp_path.iterdir()] == [digest(b"one")]


def test_a_process_that_may_open_no_more_files_hears_so(tmp_path: Path) -> None:
    files = ContentFiles(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "last").open("wb") as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1, before[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                files.put([b"one"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("alone", "left"), [(True, []), (False, ["young.new"])])
def test_what_a_process_left_unfinished_is_removed_unless_it_may_be_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool, left: list[str]
) -> None:
    monkeypatch.setattr(time, "time", lambda: 10_000.0)
    for name, age in (("young.new", 3_600), ("old.new", 3_601)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    files = ContentFiles(tmp_path, alone=alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    (tmp_path / "now.new").touch()
    files.put([b"one"])
    assert files.remove_unless(lambda sha256: False) == 1, "what is being written is nobody's to remove"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["now.new", *left])
