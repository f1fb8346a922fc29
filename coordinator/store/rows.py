"""Records as what rows hold, alike in every database: texts of JSON, names and hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef

from .records import DeviceRecord, SetAside, TierRecord, UpdateRecord, VersionOutline, VersionRecord

__all__ = [
    "DEVICE_COLUMNS",
    "OUTLINE_COLUMNS",
    "TIER_COLUMNS",
    "UPDATE_COLUMNS",
    "VERSION_COLUMNS",
    "assignment_number",
    "audit_hash",
    "device_record",
    "is_text",
    "tier_record",
    "tier_row",
    "update_record",
    "version_files",
    "version_outline",
    "version_record",
    "version_row",
]

TIER_COLUMNS = "name, serial, budget_bytes, manifest, signature, program, graph"
VERSION_COLUMNS = "version, parent, weights, metrics, created_at, kind, private, pruned"
OUTLINE_COLUMNS = "version, parent, kind, metrics, pruned"
UPDATE_COLUMNS = "assignment, device, version, tier, sha256, size, report, received_at"
DEVICE_COLUMNS = (
    "id, tier, bytes_up, bytes_down, updates, report, alias, token, enrolled_at, last_seen, failures, "
    "revoked_at, profile, aside_until, aside_reason, aside_why"
)


def tier_row(tier: TierRecord) -> tuple[Any, ...]:
    """What ``TIER_COLUMNS`` hold of a tier."""
    graph = _dump(tier.graph) if tier.graph else None
    return (
        tier.name,
        tier.serial,
        tier.budget_bytes,
        _dump(tier.manifest),
        tier.signature,
        _dump(tier.program),
        graph,
    )


def tier_record(row: Sequence[Any]) -> TierRecord:
    """A tier from its ``TIER_COLUMNS``."""
    name, serial, budget, manifest, signature, program, graph = row
    return TierRecord(name, serial, budget, _ref(manifest), signature, _ref(program), _ref(graph) if graph else None)


def version_row(version: VersionRecord) -> tuple[Any, ...]:
    """What ``VERSION_COLUMNS`` hold of a version, but for the last, ``pruned``."""
    return (
        version.version,
        version.parent,
        json.dumps([dataclasses.asdict(ref) for ref in version.weights]),
        json.dumps(version.metrics),
        version.created_at,
        version.kind,
        json.dumps({name: dataclasses.asdict(ref) for name, ref in version.private.items()}),
    )


def version_record(row: Sequence[Any]) -> VersionRecord:
    """A version from its ``VERSION_COLUMNS``."""
    version, parent, weights, metrics, at, kind, private, pruned = row
    return VersionRecord(
        version,
        parent,
        tuple(ArtifactRef(**item) for item in json.loads(weights)),
        json.loads(metrics),
        at,
        kind,
        {name: ArtifactRef(**item) for name, item in json.loads(private).items()},
        bool(pruned),
    )


def version_outline(row: Sequence[Any]) -> VersionOutline:
    """A version's outline from its ``OUTLINE_COLUMNS``."""
    version, parent, kind, metrics, pruned = row
    return VersionOutline(version, parent, kind, json.loads(metrics), bool(pruned))


def version_files(version: VersionRecord) -> set[str]:
    """SHA-256 (hex) of every file that a version's row names."""
    return {ref.sha256 for ref in (*version.weights, *version.private.values())}


def update_record(row: Sequence[Any]) -> UpdateRecord:
    """An update from its ``UPDATE_COLUMNS``."""
    assignment, device, version, tier, sha256, size, report, at = row
    return UpdateRecord(assignment, device, version, tier, FileEntry(sha256, size), json.loads(report), at)


def device_record(row: Sequence[Any]) -> DeviceRecord:
    """A device from its ``DEVICE_COLUMNS``."""
    return DeviceRecord(
        row[0],
        tier=row[1],
        bytes_up=row[2],
        bytes_down=row[3],
        updates=row[4],
        report=json.loads(row[5]),
        alias=row[6],
        token=row[7],
        enrolled_at=row[8],
        last_seen=row[9],
        failures=row[10],
        revoked_at=row[11],
        profile=json.loads(row[12]),
        aside=None if row[13] is None else SetAside(row[13], row[14], row[15]),
    )


def is_text(text: str) -> bool:
    """Whether a database can hold a text in UTF-8, without zero characters: what is none is in no row."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def assignment_number(assignment: str) -> int | None:
    """The number in an assignment's name; none if it is no such name."""
    number = assignment.removeprefix("a")
    return min(int(number), 2**63 - 1) if number.isascii() and number.isdecimal() else None


def audit_hash(previous: str, at: float, actor: str, action: str, subject: str, details: str) -> str:
    """The hash (hex) of a line of the audit log, over the hash of the line before: empty for the first."""
    return hashlib.sha256(json.dumps([previous, at, actor, action, subject, details]).encode()).hexdigest()


def _dump(ref: ArtifactRef) -> str:
    return json.dumps(dataclasses.asdict(ref))


def _ref(text: str) -> ArtifactRef:
    return ArtifactRef(**json.loads(text))
