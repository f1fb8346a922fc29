"""A backup is the state at one moment, whatever goes on meanwhile; a restore is that state, or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sqlite3
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from coordinator.cli.main import main
from coordinator.errors import StoreError
from coordinator.store.sqlite import SqliteStore, backup, restore

from .assigning import assign
from .crash_worker import SIZE, accept, begin, content, merge, values


def state_at(folder: Path, rounds: int) -> SqliteStore:
    store = SqliteStore(folder)
    (folder / "run.key").write_bytes(b"k" * 32)
    begin(store)
    for _ in range(rounds):
        accept(store)
        merge(store)
    return store


def is_whole(store: SqliteStore) -> None:
    merged = [update.assignment for update in store.updates.merged()]
    weights = np.frombuffer(store.artifacts.verified(store.versions.latest().weights[0].sha256).read_bytes())
    assert weights.tolist() == sum((values(content(name)) for name in merged), np.zeros(SIZE)).tolist()
    for update in store.updates.buffered():
        assert store.updates.content(update.assignment) == content(update.assignment)


def test_a_restored_run_is_what_it_was_and_never_uses_a_number_again(tmp_path: Path) -> None:
    store = state_at(tmp_path / "state", 4)
    backup(tmp_path / "state", tmp_path / "backup.tar")
    then = (
        store.versions.all(),
        store.updates.buffered(),
        store.updates.merged(),
        store.devices.all(),
        store.audit.entries(),
    )
    accept(store)
    merge(store)
    used = assign(store, "phone-0", 0, "small", 9.0).number
    number = store.versions.next_number()
    store.close()

    restore(tmp_path / "backup.tar", tmp_path / "again", 10.0, by="anna")
    assert stat.S_IMODE((tmp_path / "again").stat().st_mode) == 0o700  # it has the run's key
    again = SqliteStore(tmp_path / "again")
    assert (again.versions.all(), again.updates.buffered(), again.updates.merged(), again.devices.all()) == then[:4]
    assert again.audit.entries()[:-1] == then[4]
    assert (again.audit.entries()[-1].actor, again.audit.entries()[-1].action) == ("anna", "restored")
    assert (tmp_path / "again" / "run.key").read_bytes() == b"k" * 32
    is_whole(again)
    assert assign(again, "phone-0", 0, "small", 11.0).number > used + 1000
    assert again.versions.next_number() > number
    accept(again)
    merge(again)
    is_whole(again)
    again.close()


def test_a_backup_that_is_restored_twice_uses_no_number_of_the_first_time_again(tmp_path: Path) -> None:
    state_at(tmp_path / "state", 4).close()
    backup(tmp_path / "state", tmp_path / "backup.tar")
    used = []
    for at, name in ((1000.0, "first"), (1060.0, "second")):
        restore(tmp_path / "backup.tar", tmp_path / name, at, by="anna")
        store = SqliteStore(tmp_path / name)
        work = [assign(store, "phone-0", 0, "small", at).number for _ in range(20)]
        number = store.versions.next_number()
        used.append({*work, *range(number, number + 500)})  # what it may have come to in a minute
        store.close()
    assert not used[0] & used[1]


def test_a_backup_under_load_is_whole(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "tests.coordinator.store.crash_worker", str(state), "150"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        while not worker.stdout.readline().startswith("merged"):
            pass
        (state / "run.key").write_bytes(b"k" * 32)
        taken = 0
        while taken < 3 or (worker.poll() is None and taken < 20):
            backup(state, tmp_path / f"{taken}.tar")
            taken += 1
        worker.stdout.read()
        assert worker.wait() == 0
    versions = []
    for number in range(taken):
        restore(tmp_path / f"{number}.tar", tmp_path / str(number), 1.0, by="anna")
        store = SqliteStore(tmp_path / str(number))
        is_whole(store)
        versions.append(store.versions.latest().version)
        store.close()
    assert versions == sorted(versions)
    store = SqliteStore(state)
    is_whole(store)
    merge(store)
    left = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert not [u.assignment for u in store.updates.merged() if content(u.assignment)[:200] in left], (
        "erasure was only put off"
    )
    store.close()


def test_a_damaged_archive_restores_nothing(tmp_path: Path) -> None:
    state_at(tmp_path / "state", 2).close()
    archive = tmp_path / "backup.tar"
    backup(tmp_path / "state", archive)
    whole = archive.read_bytes()
    with tarfile.open(archive) as tar:
        middle = next(entry.offset_data for entry in tar if entry.name.startswith("artifacts/"))
    for broken in (whole[:middle], whole[: middle + 1] + b"?" + whole[middle + 2 :], b"no archive at all"):
        archive.write_bytes(broken)
        with pytest.raises(StoreError, match=r"backup\.tar"):
            restore(archive, tmp_path / "again", 1.0, by="anna")
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("again")] == []


def forged(source: Path, target: Path, changes: dict[str, bytes | None], *, honest: bool = True) -> Path:
    """A backup with other files, or without some; its list of contents fits, unless that is changed itself."""
    with tarfile.open(source) as tar:
        files = {entry.name: (tar.extractfile(entry) or io.BytesIO()).read() for entry in tar}
    files.pop("contents.json")
    files = {name: content for name, content in (files | changes).items() if content is not None}
    if honest:
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        files["contents.json"] = json.dumps({"format": 1, "files": hashes}).encode()
    with tarfile.open(target, "w:") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target


def database(source: Path, folder: Path, statement: str) -> bytes:
    """The database of a backup after a statement."""
    with tarfile.open(source) as tar:
        (folder / "copy.sqlite").write_bytes((tar.extractfile("state.sqlite") or io.BytesIO()).read())
    with contextlib.closing(sqlite3.connect(folder / "copy.sqlite", isolation_level=None)) as opened:
        opened.execute("PRAGMA foreign_keys = OFF")
        opened.execute(statement)
    return (folder / "copy.sqlite").read_bytes()


@pytest.mark.parametrize("listed", [b"[]", b"null", b"7", b'{"files": []}', b"[" * 100_000, b"\xff", b'{"format": 9}'])
def test_a_list_of_contents_that_is_none_is_refused(listed: bytes, tmp_path: Path) -> None:
    state_at(tmp_path / "state", 1).close()
    backup(tmp_path / "state", tmp_path / "backup.tar")
    bad = forged(tmp_path / "backup.tar", tmp_path / "bad.tar", {"contents.json": listed}, honest=False)
    with pytest.raises(StoreError, match=r"contents\.json lists no files"):
        restore(bad, tmp_path / "again", 10.0, by="anna")
    assert not (tmp_path / "again").exists()


def test_a_backup_whose_parts_do_not_make_a_run_is_refused(tmp_path: Path) -> None:
    state_at(tmp_path / "state", 2).close()
    source = tmp_path / "backup.tar"
    backup(tmp_path / "state", source)
    with tarfile.open(source) as tar:
        artifact = next(name for name in tar.getnames() if name.startswith("artifacts/"))
    cases: list[tuple[dict[str, bytes | None], str]] = [
        ({"run.key": None}, "has no run.key"),
        ({"state.sqlite": None}, "has no state.sqlite"),
        ({artifact: None}, "lacks the artifact"),
        ({artifact: b"another"}, "has another hash than its name"),
        ({"state.sqlite": database(source, tmp_path, "DELETE FROM versions")}, "holds no versions"),
        ({"state.sqlite": b"no database"}, "cannot restore"),
    ]
    for changes, words in cases:
        bad = forged(source, tmp_path / "bad.tar", changes)
        with pytest.raises(StoreError, match=words):
            restore(bad, tmp_path / "again", 10.0, by="anna")
        assert not (tmp_path / "again").exists()
    restore(forged(source, tmp_path / "good.tar", {}), tmp_path / "again", 10.0, by="anna")


def test_a_sparse_file_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("state.sqlite")
    entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(2**40)}
    entry.pax_headers |= {"GNU.sparse.map": "0,512", "GNU.sparse.numblocks": "1"}
    entry.size = 512
    with tarfile.open(tmp_path / "bad.tar", "w:", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO(bytes(512)))
    with tarfile.open(tmp_path / "bad.tar") as tar:
        assert next(iter(tar)).issparse()
    with pytest.raises(StoreError, match="it is not a backup of FTTE"):
        restore(tmp_path / "bad.tar", tmp_path / "again", 10.0, by="anna")


def test_an_archive_cannot_write_outside_the_state_directory(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    (tmp_path / "evil").write_bytes(b"x")
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "evil", "artifacts/../../escaped")
    with pytest.raises(StoreError, match="not a backup of FTTE"):
        restore(archive, tmp_path / "again", 1.0, by="anna")
    assert not (tmp_path / "escaped").exists()


def test_a_restore_never_overwrites(tmp_path: Path) -> None:
    state_at(tmp_path / "state", 1).close()
    backup(tmp_path / "state", tmp_path / "backup.tar")
    with pytest.raises(StoreError, match="not empty"):
        restore(tmp_path / "backup.tar", tmp_path / "state", 1.0, by="anna")


def test_the_commands_save_and_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state_at(tmp_path / "state", 2).close()
    assert main(["backup", str(tmp_path / "state"), str(tmp_path / "b.tar")]) == 0
    assert main(["restore", str(tmp_path / "b.tar"), str(tmp_path / "again")]) == 0
    store = SqliteStore(tmp_path / "again")
    is_whole(store)
    store.close()
    assert main(["restore", str(tmp_path / "b.tar"), str(tmp_path / "again")]) == 1
    assert "never overwrites" in capsys.readouterr().err


def test_what_is_no_state_directory_cannot_be_backed_up(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no state\.sqlite"):
        backup(tmp_path, tmp_path / "backup.tar")


def test_an_earlier_backup_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.sqlite").touch()
    archive = tmp_path / "backup.tar"
    archive.write_text("the only copy")
    with pytest.raises(StoreError, match=r"backup\.tar is there already"):
        backup(tmp_path / "state", archive)
    assert archive.read_text() == "the only copy"
