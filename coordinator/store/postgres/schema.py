"""The tables of a run: made, brought up to date, or refused."""

from __future__ import annotations

from pathlib import Path

from ...errors import StoreError
from .address import Address
from .connection import Connection

__all__ = ["SCHEMA_VERSION", "check_server", "migrate"]

SCHEMA_VERSION = 2

# The oldest PostgreSQL that has what the store uses, and is maintained.
OLDEST_SERVER = 14

_MIGRATIONS = Path(__file__).with_name("migrations")


async def check_server(connection: Connection, address: Address) -> dict[str, str]:
    """
    Settings that connections need, by name, so that what is committed is on the disk.

    Raises:
        StoreError: if the server cannot promise that, is a standby, or too old.

    """
    version = connection.get_server_version()
    if version.major < OLDEST_SERVER:
        raise StoreError(f"the database {address} is PostgreSQL {version.major}: FTTE needs {OLDEST_SERVER} or newer")
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise StoreError(f"the database {address} is a standby, which cannot be written: give the primary's address")
    if await connection.fetchval("SHOW fsync") == "off":
        raise StoreError(
            f"the database {address} has fsync = off: a power cut would lose updates that were acknowledged; "
            "set fsync = on in postgresql.conf"
        )
    # What is stronger, such as remote_apply, stays.
    return {"synchronous_commit": "on"} if await connection.fetchval("SHOW synchronous_commit") == "off" else {}


async def migrate(connection: Connection, schema: str, address: Address) -> None:
    """
    Make the schema, or bring it up to date, in one transaction.

    Raises:
        StoreError: if it is of a newer release, or not FTTE's.

    """
    async with connection.transaction():
        # Two processes may start at once.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"ftte schema {schema}")
        if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema):
            await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
        found = await _found(connection, schema, address)
        if found == SCHEMA_VERSION:
            return
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"schema {schema} of {address} is number {found}, this coordinator knows up to {SCHEMA_VERSION}: "
                "run the FTTE version that made it, or a newer one"
            )
        for number in range(found + 1, SCHEMA_VERSION + 1):
            await connection.execute((_MIGRATIONS / f"{number:04d}.sql").read_text())
        await connection.execute(
            "INSERT INTO schema_version (number) VALUES ($1) ON CONFLICT (single) DO UPDATE SET number = $1",
            SCHEMA_VERSION,
        )


async def _found(connection: Connection, schema: str, address: Address) -> int:
    tables = await connection.fetch(
        "SELECT relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $1", schema
    )
    if not tables:
        return 0
    if "schema_version" not in {table[0] for table in tables}:
        raise StoreError(
            f"schema {schema} of {address} has tables that are not FTTE's: give another database, or another run.name"
        )
    return int(await connection.fetchval("SELECT number FROM schema_version"))


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'
