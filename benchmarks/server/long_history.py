"""
A run that has gone on for long: rows of versions and of updates that were merged, made by SQL in either store.

Numbers of versions have no gaps, each merge takes a few updates of other devices than those of the run, and all but the
newest versions are pruned, as in a run that was served.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import asyncpg

__all__ = ["PER_VERSION", "lengthen_postgres", "lengthen_sqlite"]

# Updates of a version, so many devices that they come from, and newest versions that are not pruned.
PER_VERSION = 10
DEVICES = 1_000
KEPT = 5

# What a device says with its update, about as long as that of a device that trains.
REPORT = (
    '{{"version": 1, "samples": 250, "steps": 16, "loss": 1.83, "seconds": 4.25, "saturated": 0, '
    '"metrics": {{"accuracy": 0.41}}, "parts": {{"download": 0.2, "train": 4.0, "upload": 0.1}}}}'
)
PROFILE = '{{"samples": 250, "engine": "native", "model": "Pixel", "peak_rss_bytes": 50000000, "torch_loaded": false}}'

# Of numbers from 1 to a last one; {n} is one. Staleness goes from 0 to 6. The metrics are those of version 0, which has
# the same weights; where it has none, they get better.
_DEVICES = (
    "INSERT INTO devices (id, secret, enrolled_at, tier, report, alias, profile, updates, last_seen) "
    f"SELECT 'earlier-' || {{n}}, {{secret}}, 1.0, (SELECT min(name) FROM tiers), '{REPORT}', 'alias-' || {{n}}, "
    f"'{PROFILE}', 200, 1.0 FROM {{numbers}}"
)
_METRICS = "'{{\"accuracy\": ' || (0.9 - 0.8 / {n}) || ', \"loss\": ' || (0.3 + 2.0 / {n}) || '}}'"
_VERSIONS = (
    "INSERT INTO versions (version, parent, weights, metrics, created_at, kind, private, pruned) "
    f"SELECT {{n}}, {{n}} - 1, weights, CASE WHEN metrics = '{{{{}}}}' THEN {_METRICS} ELSE metrics END, "
    "created_at + {n}, 'merge', private, {pruned} FROM versions, {numbers} WHERE version = 0"
)
_ASSIGNMENTS = (
    "INSERT INTO assignments (number, device, version, tier, issued_at, open) "
    "SELECT {n}, 'earlier-' || (1 + {n} % {devices}), ({n} - 1) / {per_version}, "
    "(SELECT min(name) FROM tiers), 1.0 * {n}, {closed} FROM {numbers}"
)
_UPDATES = (
    "INSERT INTO updates (arrival, assignment, device, version, tier, sha256, size, report, received_at, merged_into, "
    "staleness, weight) SELECT {n}, 'a' || {padded}, 'earlier-' || (1 + {n} % {devices}), "
    "CASE WHEN ({n} - 1) / {per_version} < 6 THEN 0 ELSE ({n} - 1) / {per_version} - {n} % 7 END, "
    f"(SELECT min(name) FROM tiers), {{sha}}, 10000, '{REPORT}', 1.0 * {{n}}, 1 + ({{n}} - 1) / {{per_version}}, "
    "CASE WHEN ({n} - 1) / {per_version} < 6 THEN ({n} - 1) / {per_version} ELSE {n} % 7 END, 0.5 FROM {numbers}"
)


def _statements(versions: int, words: dict[str, str], numbers: str) -> list[str]:
    """The statements, for so many versions; ``numbers`` gives those up to ``{last}``."""
    updates = versions * PER_VERSION
    each = [(_DEVICES, DEVICES), (_VERSIONS, versions), (_ASSIGNMENTS, updates), (_UPDATES, updates)]
    words = words | {"devices": str(DEVICES), "per_version": str(PER_VERSION)}
    words["pruned"] = words["pruned"].format(first=versions - KEPT)
    return [text.format(**words, numbers=numbers.format(last=last)) for text, last in each]


def lengthen_postgres(address: str, schema: str, versions: int) -> None:
    """Give the run in a schema, which has just begun, so many versions more. Blocks; nobody else uses it."""
    words = {
        "n": "n",
        "secret": "'\\x00'::bytea",
        "closed": "false",
        "pruned": "n < {first}",
        "padded": "lpad(n::text, 8, '0')",
        "sha": "encode(sha256(n::text::bytea), 'hex')",
    }

    async def lengthen() -> None:
        connection = await asyncpg.connect(address, server_settings={"search_path": f'"{schema}"'})
        try:
            for statement in _statements(versions, words, "generate_series(1, {last}) AS numbers (n)"):
                await connection.execute(statement)
            await connection.execute(
                f"SELECT setval('assignment_numbers', {versions * PER_VERSION}), "
                f"setval('arrivals', {versions * PER_VERSION})"
            )
            for table in ("devices", "versions", "assignments", "updates"):
                await connection.execute(f"VACUUM ANALYZE {table}")
        finally:
            await connection.close()

    asyncio.run(lengthen())


def lengthen_sqlite(state: Path, versions: int) -> None:
    """Give the run in a state directory, which has just begun, so many versions more; nobody else uses it."""
    words = {
        "n": "n",
        "secret": "x'00'",
        "closed": "0",
        "pruned": "n < {first}",
        "padded": "printf('%08d', n)",
        "sha": "lower(hex(randomblob(32)))",
    }
    numbers = (
        "(WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) "
        "SELECT n FROM numbers)"
    )
    connection = sqlite3.connect(state / "state.sqlite")
    try:
        with connection:
            for statement in _statements(versions, words, numbers):
                connection.execute(statement)
    finally:
        connection.close()
