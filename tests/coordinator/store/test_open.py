"""A run file says where a run's state is, and an error says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.config import Config, parse_config
from coordinator.errors import ConfigError, StoreError
from coordinator.store.open import MOVED, in_postgres, mark_moved, open_postgres, open_store


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
