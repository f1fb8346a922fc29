"""The tables of a run that every database has, and their columns: what a copy of a run is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .rows import DEVICE_COLUMNS, TIER_COLUMNS, UPDATE_COLUMNS, VERSION_COLUMNS

__all__ = ["FLAGS", "TABLES", "named_files"]

# In an order in which rows refer to earlier ones only. The first column is unique.
TABLES = {
    "run": "name, plans, evaluation, created_at, phase, reason, started_at, first_number",
    "tiers": TIER_COLUMNS,
    "versions": VERSION_COLUMNS,
    "tokens": "id, digest, uses_left, expires_at, created_at, revoked_at, note",
    "devices": f"{DEVICE_COLUMNS}, secret, version, given_at",
    "assignments": "number, device, version, tier, issued_at, open, deadline",
    "updates": f"arrival, {UPDATE_COLUMNS}, merged_into, staleness, weight, discarded",
    "audit": "number, at, actor, action, subject, details, hash",
}

# Columns that are 0 or 1 in SQLite.
FLAGS = frozenset({"open", "pruned"})


def named_files(rows: Mapping[str, Sequence[Sequence[Any]]]) -> list[str]:
    """The hashes of all artifacts that the rows of ``TABLES`` name."""
    named = {row[2] for row in rows["run"] if row[2]}
    for row in rows["tiers"]:
        named |= {json.loads(ref)["sha256"] for ref in (row[3], row[5], row[6]) if ref}
    for row in rows["versions"]:
        weights, private, pruned = row[2], row[6], row[7]
        if not pruned:
            named |= {ref["sha256"] for ref in (*json.loads(weights), *json.loads(private).values())}
    return sorted(named)
