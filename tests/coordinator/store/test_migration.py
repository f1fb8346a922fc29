"""State that the release before this one wrote is brought up to date, with nothing lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from coordinator.errors import StoreError
from coordinator.store import sqlite
from coordinator.store.sqlite import SqliteStore

from .assigning import assign

CONTENTS = [b"merged long ago", b"waits", b"waits, too"]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory as FTTE 0.1 left it: schema 1, updates as files among the artifacts."""
    folder = tmp_path / "state"
    (folder / "artifacts").mkdir(parents=True)
    weights = b"weights"
    for content in (*CONTENTS, weights, b"manifest", b"program"):
        (folder / "artifacts" / digest(content)).write_bytes(content)

    def ref(content: bytes) -> str:
        return json.dumps({"sha256": digest(content), "size": len(content), "encoding": "identity"})

    script = (Path(sqlite.__file__).with_name("migrations") / "0001.sql").read_text()
    with contextlib.closing(sqlite3.connect(folder / "state.sqlite")) as database:
        database.executescript("PRAGMA journal_mode = WAL;" + script + "PRAGMA user_version = 1;")
        database.execute("INSERT INTO run VALUES (1, 'digits', '{}', '', 1.0)")
        database.execute("INSERT INTO tiers VALUES ('small', 1, 10, ?, '00', ?)", (ref(b"manifest"), ref(b"program")))
        database.execute("INSERT INTO devices (id, secret, enrolled_at) VALUES ('phone-1', x'00', 1.0)")
        for number in (0, 1):
            database.execute(
                "INSERT INTO versions VALUES (?, ?, ?, '{}', 2.0)", (number, number - 1, f"[{ref(weights)}]")
            )
        for number, content in enumerate(CONTENTS, 1):
            database.execute(
                "INSERT INTO assignments (device, version, tier, issued_at, open) "
                "VALUES ('phone-1', 0, 'small', 1.0, 0)"
            )
            database.execute(
                "INSERT INTO updates (assignment, device, version, tier, sha256, size, report, received_at, "
                "merged_into, staleness, weight) VALUES (?, 'phone-1', 0, 'small', ?, ?, '{}', 3.0, ?, ?, ?)",
                (f"a{number:08d}", digest(content), len(content), *((1, 0, 1.0) if number == 1 else (None,) * 3)),
            )
        database.commit()
    return folder


def test_everything_of_the_release_before_is_there_after_the_migration(state: Path) -> None:
    for _ in range(2):  # the second time there is nothing left to do
        store = SqliteStore(state)
        assert [store.updates.content(update.assignment) for update in store.updates.buffered()] == CONTENTS[1:]
        assert [update.assignment for update in store.updates.merged()] == ["a00000001"]
        assert [(v.version, v.kind) for v in store.versions.all()] == [(0, "initial"), (1, "merge")]
        assert store.artifacts.verified(digest(b"weights"))
        assert store.artifacts.verified(digest(b"program"))
        (device,) = store.devices.all()
        assert device.alias
        assert assign(store, "phone-1", 1, "small", 4.0).id > "a00000003", "numbers go on"
        store.close()


def test_updates_that_lie_in_segments_already_stay_where_they_are(state: Path) -> None:
    SqliteStore(state).close()
    segments = {path.name: path.read_bytes() for path in (state / "updates").iterdir()}
    with contextlib.closing(sqlite3.connect(state / "state.sqlite")) as database:  # back to schema 2
        for table, column in (
            ("tiers", "graph"),
            ("devices", "aside_until"),
            ("devices", "aside_reason"),
            ("devices", "aside_why"),
        ):
            database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 2")
    with contextlib.closing(SqliteStore(state)) as store:
        assert [store.updates.content(update.assignment) for update in store.updates.buffered()] == CONTENTS[1:]
        assert {path.name: path.read_bytes() for path in (state / "updates").iterdir()} == segments


def test_updates_that_were_merged_before_are_erased(state: Path) -> None:
    SqliteStore(state).close()
    assert not (state / "artifacts" / digest(CONTENTS[0])).exists()
    assert not (state / "artifacts" / digest(CONTENTS[1])).exists(), "it waits in a segment now"


def test_a_migration_that_fails_changes_nothing(state: Path) -> None:
    path = state / "artifacts" / digest(CONTENTS[2])
    aside = shutil.copy(path, state / "aside")
    path.write_bytes(b"damaged")
    with pytest.raises(StoreError, match="damaged: restore"):
        SqliteStore(state)
    with contextlib.closing(sqlite3.connect(state / "state.sqlite")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
    shutil.move(aside, path)
    SqliteStore(state).close()


def test_state_of_a_later_release_is_refused_in_a_sentence(state: Path) -> None:
    with contextlib.closing(sqlite3.connect(state / "state.sqlite")) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match="schema 7, this coordinator knows up to 4: run the FTTE version that made it"):
        SqliteStore(state)
