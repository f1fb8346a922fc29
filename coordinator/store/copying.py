"""A run's state, copied between a state directory and PostgreSQL: every row as it is, every file by its hash."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobile_sdk.system.syncs import sync_folder

from ..errors import StoreError
from .interface import ArtifactStore
from .postgres.connection import Connection
from .postgres.devices import device_model
from .postgres.store import PostgresStore
from .postgres.updates import LARGE_BYTES, WAITING, object_key
from .sqlite import SqliteStore
from .tables import FLAGS, TABLES, named_files

__all__ = ["copy_in", "copy_out"]

Rows = Mapping[str, Sequence[tuple[Any, ...]]]

# The sequences of numbers that are never used again: SQLite's table, PostgreSQL's name.
_SEQUENCES = {"assignments": "assignment_numbers", "updates": "arrivals"}


def copy_in(source: SqliteStore, target: PostgresStore, say: Callable[[str], None] = lambda text: None) -> int:
    """
    Copy a run from a state directory into PostgreSQL, whole or not at all, and compare what is there then.

    Args:
        source: stays as it is.
        target: holds no run.
        say: called with a sentence about what is done next.

    Returns:
        How many rows there are.

    Raises:
        StoreError: if ``target`` holds a run, or a file of ``source`` is damaged.

    """
    if target.run() is not None or target.devices.all():
        raise StoreError(
            f"schema {target.database.schema} of {target.database.address} holds a run already, and nothing is "
            "overwritten: give another database, or drop that schema"
        )
    rows = source.read_rows()
    if not rows["run"]:
        raise StoreError("the state directory holds no run: begin one first")
    say("copying artifacts")
    _copy_files(named_files(rows), source.artifacts, target.artifacts)
    say("copying rows")
    contents = {update.assignment: source.updates.content(update.assignment) for update in source.updates.buffered()}
    hashes = {update.assignment: update.artifact.sha256 for update in source.updates.buffered()}
    keys = {name: object_key(name, hashes[name]) for name, bytes_ in contents.items() if len(bytes_) > LARGE_BYTES}
    target.updates.keep_objects([(key, contents[name]) for name, key in keys.items()])
    sequences = source.read_sequences()
    target.database.transact(lambda connection: _write(connection, rows, contents, keys, sequences))
    say("comparing")
    _compare(rows, target.database.run(_read_all(target)))
    for name in contents:  # what is read back is held against its hash
        target.updates.content(name)
    for sha256 in named_files(rows):
        target.artifacts.verified(sha256)
    return sum(map(len, rows.values()))


def copy_out(source: PostgresStore, folder: Path, say: Callable[[str], None] = lambda text: None) -> int:
    """
    Copy a run from PostgreSQL, as it is at this moment, into a new state directory, and compare what is there then.

    Args:
        source: stays as it is; others may use it meanwhile.
        folder: does not exist, or is empty.
        say: called with a sentence about what is done next.

    Returns:
        How many rows there are.

    Raises:
        StoreError: if there is anything in ``folder``, or something of ``source`` is damaged.

    """
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty, and nothing is overwritten: give another folder, or move it away")
    target = SqliteStore(folder)
    try:
        rows = source.database.run(_copy_out(source, target, say))
        say("comparing")
        _compare(rows, target.read_rows())
        for update in target.updates.buffered():
            target.updates.content(update.assignment)
        for sha256 in named_files(rows):
            target.artifacts.verified(sha256)
    finally:
        target.close()
    sync_folder(folder)
    return sum(map(len, rows.values()))


async def _copy_out(source: PostgresStore, target: SqliteStore, say: Callable[[str], None]) -> Rows:
    database = source.database
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        # For as long as this lasts nobody removes what rows name.
        await connection.execute("SELECT pg_advisory_xact_lock_shared($1::oid::int4, 1)", source.updates.lock)
        rows = await _read(connection)
        if not rows["run"]:
            raise StoreError(f"schema {database.schema} of {database.address} holds no run: begin one first")
        contents = {row[0]: row[1] for row in await connection.fetch("SELECT assignment, content FROM contents")}
        objects = await connection.fetch(
            f"SELECT assignment, object FROM updates WHERE {WAITING} AND object IS NOT NULL"
        )
        sequences = {
            table: await connection.fetchval(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {name}")
            for table, name in _SEQUENCES.items()
        }

        def write() -> None:
            for name, key in ((row[0], row[1]) for row in objects):
                contents[name] = source.updates.read_object(key)
            say("copying artifacts")
            _copy_files(named_files(rows), source.artifacts, target.artifacts)
            say("copying rows")
            target.write_rows(rows, contents, sequences)

        await asyncio.to_thread(write)
    return rows


def _copy_files(hashes: Sequence[str], source: ArtifactStore, target: ArtifactStore) -> None:
    for sha256 in hashes:
        target.put(source.verified(sha256).read_bytes())


async def _read_all(store: PostgresStore) -> Rows:
    async with store.database.connection() as connection:
        return await _read(connection)


async def _read(connection: Connection) -> Rows:
    rows = {}
    for table, columns in TABLES.items():
        found = await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY {columns.partition(',')[0]}")
        rows[table] = [tuple(int(value) if isinstance(value, bool) else value for value in row) for row in found]
    return rows


async def _write(
    connection: Connection,
    rows: Rows,
    contents: Mapping[str, bytes],
    keys: Mapping[str, str],
    sequences: Mapping[str, int],
) -> None:
    for table, columns in TABLES.items():
        names = columns.split(", ")
        records: Sequence[tuple[Any, ...]] = [
            tuple(bool(value) if name in FLAGS else value for name, value in zip(names, row, strict=True))
            for row in rows[table]
        ]
        if table == "devices":
            profile = names.index("profile")
            records = [(*row, device_model(json.loads(row[profile]))) for row in records]
            names.append("model")
        if table == "updates":
            assignment = names.index("assignment")
            records = [(*row, keys.get(row[assignment])) for row in records]
            names.append("object")
        await connection.copy_records_to_table(table, columns=names, records=records)
    small = [(name, content) for name, content in contents.items() if name not in keys]
    await connection.copy_records_to_table("contents", columns=("assignment", "content"), records=small)
    for table, sequence in _SEQUENCES.items():
        if sequences.get(table, 0) > 0:
            await connection.execute("SELECT setval($1::text::regclass, $2)", sequence, sequences[table])


def _compare(rows: Rows, copied: Rows) -> None:
    for table in TABLES:
        if list(rows[table]) != list(copied[table]):
            digests = [hashlib.sha256(repr(list(each[table])).encode()).hexdigest()[:16] for each in (rows, copied)]
            raise StoreError(
                f"the table {table} came out different ({digests[0]}, {digests[1]}): the copy is not to be used"
            )
