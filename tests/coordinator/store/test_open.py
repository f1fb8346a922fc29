"""A run file says where a run's state is, and an error says what to change."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import Config, parse_config
from coordinator.errors import ConfigError, StoreError
from coordinator.store.open import MOVED, find_leader, in_postgres, mark_moved, open_postgres, open_store
from coordinator.store.postgres.leader import LeaderAddress


def config(folder: Path, **store: Any) -> Config:
    run = {"name": "small", "task": "a.b:c", "state": "state"}
    return parse_config({"run": run, "budgets": {"small": 1_000}, "store": store}, folder)


def test_without_a_database_the_state_is_in_the_state_directory(tmp_path: Path) -> None:
    here = config(tmp_path)
    assert not in_postgres(here)
    open_store(here).close()
    assert any((tmp_path / "state").iterdir())
    with pytest.raises(ConfigError, match="the run file names no database"):
        open_postgres(here)


def test_a_state_whose_run_was_moved_is_not_opened_until_its_mark_is_removed(tmp_path: Path) -> None:
    here = config(tmp_path)
    open_store(here).close()
    mark_moved(here.run.state, "postgresql://db/ftte")
    with pytest.raises(StoreError, match=r"was moved to postgresql://db/ftte and goes on there.*moved\.json"):
        open_store(here)
    (here.run.state / MOVED).unlink()
    open_store(here).close()


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("FTTE_DATABASE", raising=False)
    if value is not None:
        monkeypatch.setenv("FTTE_DATABASE", value)
    there = config(tmp_path, postgres="$FTTE_DATABASE")
    assert in_postgres(there)
    with pytest.raises(ConfigError, match=r"store\.postgres = '\$FTTE_DATABASE': .* no variable FTTE_DATABASE"):
        open_store(there)
    there = config(tmp_path, postgres="postgresql://localhost/x", objects="$FTTE_OBJECTS")
    monkeypatch.delenv("FTTE_OBJECTS", raising=False)
    with pytest.raises(ConfigError, match=r"store\.objects = '\$FTTE_OBJECTS'"):
        open_store(there)


def test_what_a_database_needs_is_named_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "coordinator.store.postgres", None)
    with pytest.raises(ConfigError, match=r"store\.postgres needs asyncpg: install it with `pip install 'ftte\["):
        open_store(config(tmp_path, postgres="postgresql://localhost/x"))


def test_without_a_word_to_the_contrary_who_opens_a_store_leads_its_run(tmp_path: Path, postgres_database: str) -> None:
    there = config(tmp_path, postgres=postgres_database, objects=str(tmp_path / "objects"))
    for open_it in (open_store, open_postgres):
        store = open_it(there)
        assert store.lease.current() is not None
        store.artifacts.put(b"content")
        store.close()
    assert len(list((tmp_path / "objects" / "artifacts").iterdir())) == 1


def test_a_gateway_asks_the_database_that_the_run_file_names(tmp_path: Path, postgres_database: str) -> None:
    there = config(tmp_path, postgres=postgres_database).model_copy(
        update={"run": config(tmp_path).run.model_copy(update={"name": tmp_path.name})}
    )
    find = find_leader(there)

    async def ask() -> str:
        assert inspect.ismethod(find)
        assert isinstance(find.__self__, LeaderAddress)
        try:
            return await find()
        finally:
            await find.__self__.close()

    with contextlib.closing(open_store(there)) as store:
        store.lease.announce("one:1")
        assert asyncio.run(ask()) == "one:1"
    with pytest.raises(ConfigError, match="the run file names no database"):
        find_leader(config(tmp_path))
