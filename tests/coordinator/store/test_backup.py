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


def artifacts(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "artifacts").iterdir())


def is_whole(store: SqliteStore) -> None:
    merged = [update.assignment for update in store.updates.merged()]
    weights = np.frombuffer(store.artifacts.verified(store.versions.latest().weights[0].sha256).read_bytes())
    assert weights.tolist() == sum((values(content(name)) for name in merged), np.zeros(SIZE)).tolist()
    for update in store.updates.buffered():
        assert store.updates.content(update.assignment) == content(update.assignment)


def test_a_restored_run_is_what_it_was_and_never_uses_a_number_again(tmp_path: Path) -> None:
    store = state_at(tmp_path / "state", 4)
    backup(tmp_path / "state", tmp_path / "backup.tar")
    files = artifacts(tmp_path / "state")
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
    assert artifacts(tmp_path / "again") == files
    assert stat.S_IMODE((tmp_path / "again").stat().st_mode) == 0o700  # it has the run's key
    assert stat.S_IMODE((tmp_path / "backup.tar").stat().st_mode) == 0o600
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


@pytest.mark.parametrize(("at", "seconds"), [(7.5, 3), (5.0, 0), (1.0, 0)], ids=["later", "at once", "by a slow clock"])
def test_a_restored_run_skips_as_many_numbers_as_may_have_been_used_since(
    tmp_path: Path, at: float, seconds: int
) -> None:
    store = state_at(tmp_path / "state", 0)
    newest = assign(store, "phone-0", 0, "small", 2.0).number
    store.set_phase("paused", "", 5.0, by="anna")
    backup(tmp_path / "state", tmp_path / "backup.tar")
    store.close()
    restore(tmp_path / "backup.tar", tmp_path / "deep" / "again", at, by="anna")
    with contextlib.closing(SqliteStore(tmp_path / "deep" / "again")) as again:
        assert assign(again, "phone-0", 0, "small", 8.0).number == newest + 1_000_000 + 10_000 * seconds + 1
        assert again.versions.next_number() == 1_000 + 10 * seconds
        assert again.audit.entries()[-1].details == {"backup": "backup.tar", "version": 0}


def test_a_backup_says_how_far_it_is_and_others_may_be_taken_meanwhile(tmp_path: Path) -> None:
    store = state_at(tmp_path / "state", 1)
    (tmp_path / "state" / "succession.json").write_bytes(b"{}")
    accept(store)
    told: list[tuple[int, int]] = []
    others: list[Path] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if not others:
            others.append(tmp_path / "other.tar")
            backup(tmp_path / "state", others[0])

    size = backup(tmp_path / "state", tmp_path / "backup.tar", progress)
    # Database, two keys, three artifacts, six updates, the list of contents; and that it is done.
    assert told == [(done, 13) for done in (*range(1, 14), 13)]
    assert (tmp_path / "backup.tar").stat().st_size == size == others[0].stat().st_size
    told.clear()
    restore(tmp_path / "backup.tar", tmp_path / "again", 1.0, by="anna", progress=progress)
    with tarfile.open(tmp_path / "backup.tar") as tar:
        assert told == [(entry.offset_data + entry.size, size) for entry in tar]
    store.close()


def test_a_backup_that_cannot_be_whole_is_none(tmp_path: Path) -> None:
    store = state_at(tmp_path / "state", 1)
    accept(store)
    state, archive = tmp_path / "state", tmp_path / "backup.tar"
    (segment,) = (state / "updates").iterdir()
    whole = segment.read_bytes()
    for number in range(4):
        segment.write_bytes(whole[:-1] + bytes([number + 2]))
        backup(state, tmp_path / f"{number}.tar")
        with tarfile.open(tmp_path / f"{number}.tar") as tar:
            updates = [name for name in tar.getnames() if name.startswith("updates/")]
        assert updates == [f"updates/a0000000{name}" for name in range(1, 6)], "what is damaged here is in no backup"
    program = state / "artifacts" / hashlib.sha256(b"program").hexdigest()
    for damaged in (*(bytes([number]) for number in range(4)), None):
        program.unlink()
        if damaged is not None:
            program.write_bytes(damaged)
        with pytest.raises(StoreError, match=f"{program.name} is damaged or missing: this state cannot be backed up"):
            backup(state, archive)
    with pytest.raises(StoreError, match=r"cannot write the backup .*nowhere.*: No such file"):
        backup(state, tmp_path / "nowhere" / "backup.tar")
    store.close()
    for schema in (3, 5):
        with contextlib.closing(sqlite3.connect(state / "state.sqlite")) as database:
            database.execute(f"PRAGMA user_version = {schema}")
        with pytest.raises(StoreError, match=f"has schema {schema}, not 4: start its coordinator once first"):
            backup(state, archive)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("backup.tar")] == []
    assert list(state.glob(".backup-*")) == []


def test_what_a_backup_left_that_was_killed_is_removed_at_the_next_start(tmp_path: Path) -> None:
    state_at(tmp_path / "state", 1).close()
    (tmp_path / "state" / ".backup-x").mkdir()
    (tmp_path / "state" / ".backup-x" / "state.sqlite").write_bytes(b"half a copy")
    SqliteStore(tmp_path / "state").close()
    assert not (tmp_path / "state" / ".backup-x").exists()


def test_nothing_is_collected_during_a_backup(tmp_path: Path) -> None:
    with contextlib.closing(state_at(tmp_path / "state", 0)) as store:
        nobodys = tmp_path / "state" / "artifacts" / ("ab" * 32)
        nobodys.write_bytes(b"nobody names it")
        found: list[int] = []
        backup(tmp_path / "state", tmp_path / "backup.tar", lambda done, total: found.append(store.collect()))
        assert set(found) == {0}
        assert nobodys.exists()
        assert store.collect() == 1


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


def forged(
    source: Path, target: Path, changes: dict[str, bytes | None], *, honest: bool = True, number: int = 1
) -> Path:
    """A backup with other files, or without some; its list of contents fits, unless that is changed itself."""
    with tarfile.open(source) as tar:
        files = {entry.name: (tar.extractfile(entry) or io.BytesIO()).read() for entry in tar}
    files.pop("contents.json")
    files = {name: content for name, content in (files | changes).items() if content is not None}
    if honest:
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        files["contents.json"] = json.dumps({"format": number, "files": hashes}).encode()
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
    for no_weights in ("?", "[{}]", "7"):
        forgery = database(source, tmp_path, f"UPDATE versions SET weights = '{no_weights}'")
        cases.append(({"state.sqlite": forgery}, "cannot restore"))
    for changes, words in cases:
        bad = forged(source, tmp_path / "bad.tar", changes)
        with pytest.raises(StoreError, match=words):
            restore(bad, tmp_path / "again", 10.0, by="anna")
        assert not (tmp_path / "again").exists()
    for number in (0, 2):
        with pytest.raises(StoreError, match=r"contents\.json lists no files of format 1"):
            restore(forged(source, tmp_path / "bad.tar", {}, number=number), tmp_path / "again", 10.0, by="anna")
    (tmp_path / "again").mkdir()
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


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_no_part_of_a_backup(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("run.key")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "bad.tar", "w:") as tar:
        tar.addfile(entry)
    with pytest.raises(StoreError, match=r"holds 'run\.key': it is not a backup of FTTE"):
        restore(tmp_path / "bad.tar", tmp_path / "again", 1.0, by="anna")


def test_a_restore_never_overwrites(tmp_path: Path) -> None:
    state_at(tmp_path / "state", 1).close()
    backup(tmp_path / "state", tmp_path / "backup.tar")
    with pytest.raises(StoreError, match="not empty"):
        restore(tmp_path / "backup.tar", tmp_path / "state", 1.0, by="anna")
    (tmp_path / "again.restoring").mkdir()
    with pytest.raises(StoreError, match=r"again\.restoring is left from a restore that broke off: remove it first"):
        restore(tmp_path / "backup.tar", tmp_path / "again", 1.0, by="anna")
    assert (tmp_path / "again.restoring").exists()


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
