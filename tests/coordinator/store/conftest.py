"""Every kind of store, for tests of what all of them promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.store.interface import Store
from coordinator.store.sqlite import SqliteStore

from .filled import fill
from .places import KINDS, Place


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place for a run, of each kind in turn."""
    if request.param == "sqlite":
        place = Place("sqlite", lambda: SqliteStore(tmp_path / "state"))
    else:
        from coordinator.store.postgres import Address, PostgresStore

        address = Address(request.getfixturevalue("postgres_database"))
        place = Place("postgres", lambda: PostgresStore(address, str(tmp_path.name), tmp_path / "state"))
    yield place
    place.close()


@pytest.fixture
def store(place: Place) -> Store:
    """A store with a run of one tier and one device."""
    store = place.open()
    fill(store)
    return store
