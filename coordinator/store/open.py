"""From a run file to the store that it names."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_sdk.durable_files import write_durably

from ..config import Config
from ..errors import ConfigError, StoreError
from .interface import Store
from .objects.open import open_objects
from .sqlite import SqliteStore

if TYPE_CHECKING:
    from .postgres import Address, PostgresStore

__all__ = ["MOVED", "find_leader", "in_postgres", "mark_moved", "open_postgres", "open_store"]

# What says that the run of a state directory goes on in a database.
MOVED = "moved.json"

_NO_DATABASE = 'the run file names no database: write postgres = "postgresql://..." below [store]'
_NO_DRIVER = "store.postgres needs asyncpg: install it with `pip install 'ftte[postgres]'`"


def open_store(
    config: Config,
    *,
    leading: bool = True,
    standby: threading.Event | None = None,
    waits: Callable[[], None] = lambda: None,
    stands_by: Callable[[], None] = lambda: None,
) -> Store:
    """
    Open a run's store.

    Args:
        config: the run file.
        leading: this process alone leads the run, until it closes the store. A state directory is always for one
            process alone.
        standby: where another process leads a run in a database, wait to take over, until this is set.
        waits: called once when another process leads.
        stands_by: called once when it has led for some seconds.

    Raises:
        ConfigError: if ``[store]`` cannot be used, or what it needs is not installed.
        StoreError: if the store cannot be used, another process leads the run, or the run goes on elsewhere.

    """
    if in_postgres(config):
        return open_postgres(config, leading=leading, standby=standby, waits=waits, stands_by=stands_by)
    moved = config.run.state / MOVED
    if moved.exists():
        where = json.loads(moved.read_text()).get("to", "a database")
        raise StoreError(
            f"the run in {config.run.state} was moved to {where} and goes on there: give [store] postgres in the run "
            f"file; to go on from this older state after all, remove {moved}"
        )
    return SqliteStore(config.run.state)


def in_postgres(config: Config) -> bool:
    """Whether the run's state is in a database."""
    return config.store.postgres is not None


def open_postgres(
    config: Config,
    *,
    leading: bool = True,
    standby: threading.Event | None = None,
    waits: Callable[[], None] = lambda: None,
    stands_by: Callable[[], None] = lambda: None,
) -> PostgresStore:
    """
    Open the store of a run whose run file names a database; arguments and errors as of :func:`open_store`.

    Raises:
        ConfigError: also where it names none.

    """
    address = _database(config)
    from .postgres import PostgresStore

    place = config.store.objects
    objects = None if place is None else open_objects(_from_environment("objects", place))
    return PostgresStore(
        address,
        config.run.name,
        config.run.state,
        objects,
        leading=leading,
        standby=standby,
        waits=waits,
        stands_by=stands_by,
    )


def find_leader(config: Config) -> Callable[[], Awaitable[str]]:
    """
    What gives the address at which the leader of a run waits for gateways; the run's file names a database.

    Raises:
        ConfigError: if it names none that can be used.

    """
    address = _database(config)
    from .postgres.leader import LeaderAddress

    return LeaderAddress(address, config.run.name).find


def _database(config: Config) -> Address:
    if config.store.postgres is None:
        raise ConfigError(_NO_DATABASE)
    try:
        from .postgres import Address
    except ImportError as error:
        raise ConfigError(_NO_DRIVER) from error
    return Address(_from_environment("postgres", config.store.postgres.get_secret_value()))


def mark_moved(state: Path, where: str) -> None:
    """Write into a state directory that its run goes on at ``where``."""
    write_durably(state / MOVED, json.dumps({"to": where}).encode() + b"\n")


def _from_environment(key: str, value: str) -> str:
    if not value.startswith("$"):
        return value
    found = os.environ.get(value[1:], "")
    if not found:
        raise ConfigError(f"store.{key} = {value!r}: the environment has no variable {value[1:]}; set it")
    return found
