"""A run moves into PostgreSQL and back: every row and every byte as it was, and nothing is overwritten."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from coordinator.cli.main import main
from coordinator.config import load_config
from coordinator.errors import StoreError
from coordinator.programs.run_key import RunKey
from coordinator.store.copying import copy_in, copy_out
from coordinator.store.interface import Store
from coordinator.store.open import open_postgres, open_store
from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.postgres.updates import LARGE_BYTES
from coordinator.store.records import SetAside, TokenRecord, UpdateRecord
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import FileEntry

from ...postgres_server import PostgresServer
from .assigning import assign
from .crash_worker import accept, begin, merge

LARGE = b"large" * (LARGE_BYTES // 4)


def fill_all(store: SqliteStore) -> None:
    """Something in every table: merged, waiting and large updates, devices of every kind."""
    begin(store)
    store.tokens.add(TokenRecord("t", "d" * 64, 3, 99.5, 1.0, note="a note"), by="anna")
    store.devices.enrol("phone-x", b"x" * 32, 1.25, token="d" * 64)
    for _ in range(3):
        accept(store)
        merge(store)
    store.updates.accept([update_of(store, "phone-x", LARGE)])
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
        rows = copy_in(filled, database)
        assert everything(database) == before == everything(filled)
        with pytest.raises(StoreError, match="holds a run already, and nothing is overwritten"):
            copy_in(filled, database)
        assert copy_out(database, tmp_path / "back") == rows
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
        ("tokens", "NEW.note = 'another'", r"the table tokens came out different \(([0-9a-f]{16}), ([0-9a-f]{16})\)"),
        ("contents", "NEW.content = 'another'", r"the accepted update of a\d{8} is damaged in the database"),
    ],
    ids=["a row", "an update"],
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
    filled: SqliteStore, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.close()
    RunKey.load_or_create(tmp_path / "state" / "run.key")
    assert main(["migrate", str(run_file)]) == 0
    store = open_postgres(load_config(run_file))
    before = everything(store)
    assert main(["backup", str(run_file), str(tmp_path / "backup.tar")]) == 0
    assert main(["restore", str(tmp_path / "backup.tar"), str(run_file)]) == 1, "it is used, and has a key"
    store.close()

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
    same(lambda: open_postgres(load_config(moved)))
