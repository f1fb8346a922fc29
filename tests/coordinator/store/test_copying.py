"""A run moves into PostgreSQL and back: every row and every byte as it was, and nothing is overwritten."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from coordinator.cli.main import main
from coordinator.config import load_config
from coordinator.errors import StoreError
from coordinator.programs.run_key import RunKey
from coordinator.store import copying, postgres_backup
from coordinator.store.copying import copy_in, copy_out
from coordinator.store.interface import Store
from coordinator.store.open import open_postgres, open_store
from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.postgres.updates import LARGE_BYTES
from coordinator.store.postgres_backup import backup_postgres
from coordinator.store.records import SetAside, TokenRecord, UpdateRecord
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import FileEntry

from ...postgres_server import PostgresServer
from .assigning import assign
from .crash_worker import accept, begin, merge
from .filled import RUN, TIER, version

LARGE = b"large" * (LARGE_BYTES // 4)


def fill_all(store: SqliteStore) -> None:
    """Something in every table: merged, waiting and large updates, devices of every kind."""
    begin(store)
    store.tokens.add(TokenRecord("t", "d" * 64, 3, 99.5, 1.0, note="a note"), by="anna")
    store.devices.enrol("phone-x", b"x" * 32, 1.25, token="d" * 64)
    for _ in range(3):
        accept(store)
        merge(store)
    for content in (LARGE, LARGE[:LARGE_BYTES]):
        store.updates.accept([update_of(store, "phone-x", content)])
    store.devices.seen("phone-x", 6.0, {"model": "Pixel 8"})
    store.devices.seen("phone-0", 7.0, {"model": "a\0b", "cores": 2})
    store.devices.set_aside("phone-1", SetAside(9.0, "norm", "too long"), 8.0)
    store.devices.revoke("phone-2", 8.0, by="anna")
    store.versions.prune(lambda versions: {2}, since=99.0)
    store.set_phase("paused", "to be moved", 9.0, by="anna")
    store.started_at(2.0)
    # The rows of the highest numbers are gone: no row says that these were used.
    store.devices.enrol("phone-y", b"y" * 32, 1.5)
    store.updates.accept([update_of(store, "phone-y")])
    assert store.devices.withdraw("phone-y", 9.5, by="anna")


def update_of(store: Store, device: str, content: bytes = b"content") -> tuple[UpdateRecord, bytes]:
    """An update for new work of a device, and its bytes."""
    work = assign(store, device, 0, "small", 3.0)
    return UpdateRecord(work.id, device, 0, "small", FileEntry.of(content), {"loss": 0.1, "of": "é\0"}, 4.5), content


def everything(store: Any) -> dict[str, Any]:
    """What a store says of its run."""
    return {
        "run": store.run(),
        "phase": store.phase(),
        "tiers": store.tiers(),
        "versions": store.versions.all(),
        "points": store.versions.points(),
        "devices": store.devices.all(),
        "secrets": [store.devices.secret(device.id) for device in store.devices.all()],
        "tokens": store.tokens.all(),
        "open": store.assignments.open(),
        "merged": store.updates.merged(),
        "trips": store.updates.trips(1_000),
        "waiting": [(update, store.updates.content(update.assignment)) for update in store.updates.buffered()],
        "audit": store.audit.entries(),
        "next": store.versions.next_number(),
    }


@pytest.fixture
def filled(tmp_path: Path) -> SqliteStore:
    store = SqliteStore(tmp_path / "state")
    fill_all(store)
    return store


def test_a_run_that_went_into_a_database_and_back_is_the_same(
    filled: SqliteStore, postgres_database: str, tmp_path: Path
) -> None:
    before = everything(filled)
    database = PostgresStore(Address(postgres_database), tmp_path.name, tmp_path / "machine")
    try:
        said, steps = list[str](), ["copying artifacts", "copying rows", "comparing"]
        rows = copy_in(filled, database, said.append)
        assert said == steps
        assert everything(database) == before == everything(filled)
        assert sorted(path.name for path in tmp_path.rglob("objects/updates/*")) == [
            f"{name}.{digest}"
            for name, digest in database.database.rows("SELECT assignment, sha256 FROM updates WHERE size > 262144")
        ], "an update that is not larger is in a row"
        assert database.devices.page("pixel 8", "id", descending=False, offset=0, limit=9)[0] == 1
        with pytest.raises(StoreError, match="holds a run already, and nothing is overwritten"):
            copy_in(filled, database)
        assert copy_out(database, tmp_path / "back", said.append) == rows
        assert said == steps * 2
        back = SqliteStore(tmp_path / "back")
        assert everything(back) == before
        used = []
        for store in (filled, database, back):
            record, content = update_of(store, "phone-0")
            store.updates.accept([(record, content)])
            used.append((record.assignment, store.updates.arrived(0)[-1][0]))
        assert len(set(used)) == 1, "no number is used again"
        back.close()
        with pytest.raises(StoreError, match="is not empty, and nothing is overwritten"):
            copy_out(database, tmp_path / "back")
    finally:
        database.close()
        filled.close()


def test_a_damaged_file_is_no_part_of_a_copy(filled: SqliteStore, postgres_database: str, tmp_path: Path) -> None:
    (ref,) = filled.versions.latest().weights
    filled.artifacts.path(ref.sha256).write_bytes(b"damaged")
    database = PostgresStore(Address(postgres_database), tmp_path.name, tmp_path / "machine")
    try:
        with pytest.raises(StoreError, match="is damaged"):
            copy_in(filled, database)
        assert database.run() is None
    finally:
        database.close()
        filled.close()


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("tokens", "NEW.note = 'b'", r"the table tokens came out different \(([0-9a-f]{16}), ([0-9a-f]{16})\)"),
        ("tokens", "NEW.note = 'a'", r"the table tokens came out different \(([0-9a-f]{16}), ([0-9a-f]{16})\)"),
        ("contents", "NEW.content = 'another'", r"the accepted update of a\d{8} is damaged in the database"),
    ],
    ids=["a row", "another row", "an update"],
)
def test_a_copy_that_the_database_changed_is_not_to_be_used(
    filled: SqliteStore, postgres_database: str, tmp_path: Path, table: str, change: str, words: str
) -> None:
    database = PostgresStore(Address(postgres_database), tmp_path.name, tmp_path / "machine")
    statements = (
        f"CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {change}; RETURN NEW; END $$",
        f"CREATE TRIGGER change BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION change()",
    )
    before = filled.read_rows()
    try:
        for statement in statements:
            database.database.transact(functools.partial(asyncpg.Connection.execute, query=statement))
        with pytest.raises(StoreError, match=words) as raised:
            copy_in(filled, database)
        assert filled.read_rows() == before
    finally:
        database.close()
        filled.close()
    found = re.search(words, str(raised.value))
    assert found is not None
    assert len(set(found.groups())) == len(found.groups()), "the digest of each"


@pytest.fixture
def copied(filled: SqliteStore, postgres_database: str, tmp_path: Path) -> Iterator[PostgresStore]:
    """A database with all that ``filled`` has."""
    address = Address(postgres_database)
    with contextlib.closing(PostgresStore(address, tmp_path.name, tmp_path / "machine", grace_seconds=0.0)) as store:
        with contextlib.closing(filled):
            copy_in(filled, store)
        yield store


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("artifacts/*", "is damaged: restore the state directory from a backup"),
        ("updates/*", r"the accepted update of a\d{8} is damaged on the disk"),
        ("state.sqlite", "the table run came out different"),
    ],
)
def test_a_copy_that_the_disk_changed_is_not_to_be_used(
    copied: PostgresStore, tmp_path: Path, what: str, words: str
) -> None:
    def damage(step: str) -> None:
        if step == "comparing":
            path = next((tmp_path / "back").glob(what))
            if path.suffix == ".sqlite":
                with sqlite3.connect(path) as database:
                    database.execute("UPDATE run SET reason = 'another'")
                database.close()
            else:
                path.write_bytes(b"?" + path.read_bytes()[1:])

    with pytest.raises(StoreError, match=words):
        copy_out(copied, tmp_path / "back", damage)


def test_an_artifact_that_came_out_different_in_the_database_is_no_part_of_a_copy(
    filled: SqliteStore, postgres_database: str, tmp_path: Path
) -> None:
    def damage(step: str) -> None:
        if step == "comparing":
            next((tmp_path / "machine" / "artifacts").iterdir()).write_bytes(b"?")

    address = Address(postgres_database)
    with (
        contextlib.closing(PostgresStore(address, tmp_path.name, tmp_path / "machine")) as database,
        contextlib.closing(filled),
        pytest.raises(StoreError, match="is damaged: restore"),
    ):
        copy_in(filled, database, damage)


def test_while_a_run_is_copied_nothing_that_it_names_goes_however_long_it_takes(
    copied: PostgresStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobodys, synced, collected = tmp_path / "machine" / "artifacts" / ("ab" * 32), list[Path](), list[int]()
    nobodys.write_bytes(b"nobody names it")

    execute, statements = asyncpg.Connection.execute, list[str]()

    async def hear(connection: Any, statement: str, *arguments: Any, **options: Any) -> Any:
        statements.append(statement)
        return await execute(connection, statement, *arguments, **options)

    def say(step: str) -> None:
        if step == "copying rows":
            collected.append(copied.collect())

    monkeypatch.setattr(asyncpg.Connection, "execute", hear)
    monkeypatch.setattr(copying, "sync_folder", synced.append)
    copy_out(copied, tmp_path / "back", say)
    assert "SET LOCAL idle_in_transaction_session_timeout = 0" in statements, "20 s otherwise"
    assert collected == [0]
    assert synced == [tmp_path / "back"]
    assert nobodys.exists()
    assert copied.collect() == 1


def test_where_there_is_no_run_none_is_copied_and_a_run_that_has_only_begun_is(
    postgres_database: str, tmp_path: Path
) -> None:
    with (
        contextlib.closing(PostgresStore(Address(postgres_database), tmp_path.name, tmp_path / "machine")) as database,
        contextlib.closing(SqliteStore(tmp_path / "state")) as store,
    ):
        with pytest.raises(StoreError, match="the state directory holds no run: begin one first"):
            copy_in(store, database)
        with pytest.raises(StoreError, match=r"schema .* of .* holds no run: begin one first"):
            copy_out(database, tmp_path / "back")
        begin(store)
        given = assign(store, "phone-0", 0, "small", 1.0)
        copy_in(store, database)
        assert database.assignments.open() == [given]
        next_one = update_of(database, "phone-1")
        database.updates.accept([next_one])
        assert (next_one[0].assignment, database.updates.arrived(0)[0][0]) == ("a00000002", 1)


def test_a_database_with_a_device_or_a_run_takes_no_other(postgres_database: str, tmp_path: Path) -> None:
    with contextlib.closing(SqliteStore(tmp_path / "state")) as store:
        begin(store)
        for number, fill_a_little in enumerate((lambda to: to.devices.enrol("phone-1", b"s" * 32, 1.0), fill_the_run)):
            address, run = Address(postgres_database), f"{tmp_path.name}-{number}"
            with contextlib.closing(PostgresStore(address, run, tmp_path / str(number))) as database:
                fill_a_little(database)
                with pytest.raises(StoreError, match="holds a run already, and nothing is overwritten"):
                    copy_in(store, database)


def fill_the_run(store: Store) -> None:
    store.create(RUN, [TIER], version(0))


@pytest.fixture
def run_file(postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run file whose run is in a database of its own, of which the environment has the address."""
    monkeypatch.setenv("FTTE_TEST_DATABASE", postgres_server.database())
    path = tmp_path / "run.toml"
    path.write_text(
        '[run]\nname = "digits"\ntask = "a.b:c"\n[budgets]\nall = "1MB"\n[store]\npostgres = "$FTTE_TEST_DATABASE"\n'
    )
    return path


def test_the_command_moves_a_run_there_and_back_and_the_old_state_is_not_served(
    filled: SqliteStore, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(filled)
    filled.close()
    RunKey.load_or_create(tmp_path / "state" / "run.key")
    assert main(["migrate", str(run_file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "schema ftte_digits" in said["to"]
    config = load_config(run_file)
    store = open_store(config)
    after = everything(store)
    assert after.pop("audit")[:-1] == before.pop("audit")
    assert after == before
    store.close()
    alone = config.model_copy(update={"store": type(config.store)()})
    with pytest.raises(StoreError, match=r"was moved to PostgreSQL, .* and goes on there"):
        open_store(alone)
    assert main(["migrate", str(run_file)]) == 1
    assert "was moved before" in capsys.readouterr().err
    assert main(["migrate", str(run_file), "--back", str(tmp_path / "back"), "--json"]) == 0
    assert (tmp_path / "back" / "run.key").read_bytes() == (tmp_path / "state" / "run.key").read_bytes()
    back = SqliteStore(tmp_path / "back")
    assert [line.action for line in back.audit.entries()][-2:] == ["migrated", "migrated"]
    back.close()


def test_a_backup_of_a_database_is_taken_while_it_is_used_and_restores_into_either(
    filled: SqliteStore,
    run_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filled.close()
    with pytest.raises(StoreError, match=r"state has no run\.key: make the backup on a machine that has the run's key"):
        backup_postgres(load_config(run_file), tmp_path / "backup.tar")
    RunKey.load_or_create(tmp_path / "state" / "run.key")
    assert main(["migrate", str(run_file)]) == 0
    store = open_postgres(load_config(run_file))
    before, threads = everything(store), set(threading.enumerate())
    assert main(["backup", str(run_file), str(tmp_path / "backup.tar")]) == 0
    assert set(threading.enumerate()) == threads, "what was begun is ended"
    assert main(["restore", str(tmp_path / "backup.tar"), str(run_file)]) == 1, "it is used, and has a key"
    store.close()
    synced = list[list[str]]()

    def sync(folder: Path) -> None:
        synced.append([path.name for path in folder.glob("run.key")])

    monkeypatch.setattr(postgres_backup, "sync_folder", sync)

    def same(opened: Callable[[], Any]) -> None:
        again = opened()
        after = everything(again)
        again.close()
        assert after.pop("next") > before["next"]
        assert after.pop("audit")[:-1] == before["audit"]
        assert after == {name: value for name, value in before.items() if name not in ("next", "audit")}

    assert main(["restore", str(tmp_path / "backup.tar"), str(tmp_path / "directory")]) == 0
    same(lambda: SqliteStore(tmp_path / "directory"))
    moved = tmp_path / "moved.toml"
    moved.write_text(run_file.read_text().replace('name = "digits"', 'name = "again"\nstate = "again"'))
    assert main(["restore", str(tmp_path / "backup.tar"), str(moved)]) == 0, capsys.readouterr().err
    key = tmp_path / "again" / "run.key"
    assert key.read_bytes() == (tmp_path / "state" / "run.key").read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert synced == [["run.key"]], "a power cut takes no key"
    assert sorted(path.name for path in (tmp_path / "again").glob(".*")) == []
    same(lambda: open_postgres(load_config(moved)))
