"""
Bytes that PostgreSQL keeps for a device and for a merged update, and those of its log.

    python -m benchmarks.server.row_bytes

A run of some thousand devices and updates of 10 KB in a server of its own, merged as they come; then every table's size
on the disk, indices included, per row, after a ``VACUUM``. Figures for ``benchmarks/server/extrapolation.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from pathlib import Path

import asyncpg

from benchmarks.server.store import begin, measure
from coordinator.store.postgres import Address, PostgresStore
from tests.postgres_server import open_server


async def ask(address: str, statement: str) -> int:
    """One number of the database."""
    connection = await asyncpg.connect(address)
    try:
        return int(await connection.fetchval(statement) or 0)
    finally:
        await connection.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Bytes of PostgreSQL per device and per update.")
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    content = random.Random(1).randbytes(10_000)
    with tempfile.TemporaryDirectory() as folder, open_server() as server:
        address = server.database()

        def number(statement: str) -> int:
            return asyncio.run(ask(address, statement))

        log = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
        store = PostgresStore(Address(address), "bench", Path(folder))
        ref = begin(store, options.devices)
        before = number(log)
        measure(store, ref, content, group=256, buffer=1024, devices=options.devices, seconds=options.seconds)
        written = number(log) - before
        store.close()
        for table in ("devices", "assignments", "updates"):
            number(f"VACUUM ftte_bench.{table}")
            rows = number(f"SELECT count(*) FROM ftte_bench.{table}")
            size = number(f"SELECT pg_total_relation_size('ftte_bench.{table}')")
            print(f"{table}: {rows:,} rows, {size:,} bytes, {size / max(rows, 1):,.0f} each")
        updates = number("SELECT count(*) FROM ftte_bench.updates")
        print(f"write-ahead log: {written / updates:,.0f} bytes per update")


if __name__ == "__main__":
    main()
