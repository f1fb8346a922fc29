"""What happens in a run, as lines of its event stream; all of them are in the store, so nothing is missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

from mobile_sdk.metrics import format_metrics

from ..store.interface import Store
from ..store.records import AuditEntry, Phase, TripRecord, VersionPoint

__all__ = ["Cursor", "Happenings", "point_values", "read_happenings"]

# Lines that a page gets when it opens, or comes back after a long time.
MOST_LINES = 100


# What the audit log says, as sentences; devices are called there by their aliases.
_SENTENCES = {
    "created": "{actor} created the run {subject}",
    **{phase: "the run is {action}, by {actor}" for phase in get_args(Phase) if phase != "created"},
    "enrolled": "a device enrolled with {actor}: {subject}",
    "set aside": "the device {subject} is set aside",
    "revoked": "{actor} revoked the device {subject}",
    "withdrawn": "{actor} withdrew the device {subject}",
    "token created": "{actor} made the invitation {subject}",
    "token revoked": "{actor} revoked the invitation {subject}",
    "rolled back": "{actor} rolled back: {subject}",
    "restored": "{actor} restored the run from a backup",
    "rotated": "{actor} replaced the run's key",
    "migrated": "{actor} migrated the run",
    "exported": "{actor} took weights home",
    "damaged": "an update was found damaged",
}


@dataclasses.dataclass(frozen=True)
class Cursor:
    """How far somebody has read: the last version, arrival of an update, and line of the audit log."""

    version: int = -1
    arrival: int = 0
    line: int = 0

    def __str__(self) -> str:
        return f"{self.version}.{self.arrival}.{self.line}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """What ``str`` wrote; none if it is something else."""
        parts = text.split(".")
        if len(parts) != 3 or not all(part.removeprefix("-").isdecimal() and len(part) < 19 for part in parts):
            return None
        return cls(*map(int, parts))


@dataclasses.dataclass(frozen=True)
class Happenings:
    """What came after a cursor: versions as points of curves, lines for people, and the next cursor."""

    versions: tuple[VersionPoint, ...]
    lines: tuple[dict[str, Any], ...]
    cursor: Cursor


def read_happenings(store: Store, after: Cursor) -> Happenings:
    """What has happened after ``after``; of many lines the newest. Blocks."""
    versions = store.versions.points(after.version)
    trips = store.updates.trips(MOST_LINES, after=after.arrival)
    audit = store.audit.newest(MOST_LINES, after.line)
    lines = [_version(point) for point in versions[-MOST_LINES:]] + [_trip(trip) for trip in trips]
    lines += [_audit(entry) for entry in audit if entry.action not in ("signed",)]
    lines.sort(key=lambda line: line["at"])
    cursor = Cursor(
        versions[-1].version if versions else after.version,
        trips[-1].arrival if trips else after.arrival,
        audit[-1].number if audit else after.line,
    )
    return Happenings(tuple(versions), tuple(lines[-MOST_LINES:]), cursor)


def point_values(points: Sequence[VersionPoint]) -> list[dict[str, Any]]:
    """Points as JSON values."""
    return [dataclasses.asdict(point) for point in points]


def _version(point: VersionPoint) -> dict[str, Any]:
    if point.kind == "rollback":
        words = f"version {point.version} repeats version {point.parent}"
    elif point.kind == "initial":
        words = f"version {point.version} begins"
    else:
        words = f"version {point.version} merges {point.updates} update{'' if point.updates == 1 else 's'}"
    metrics = format_metrics(point.metrics)
    return {"at": point.created_at, "kind": "version", "words": f"{words}: {metrics}" if metrics else words}


def _trip(trip: TripRecord) -> dict[str, Any]:
    who = trip.device or "a withdrawn device"
    loss = trip.report.get("loss")
    said = f", loss {loss:.3f}" if isinstance(loss, float) else ""
    return {
        "at": trip.received_at,
        "kind": "update",
        "device": trip.device,
        "words": f"{who} sent an update of version {trip.version} ({trip.tier}{said})",
    }


def _audit(entry: AuditEntry) -> dict[str, Any]:
    words = _SENTENCES.get(entry.action, "{actor}: {action} {subject}").format(
        actor=entry.actor, action=entry.action, subject=entry.subject
    )
    why = entry.details.get("reason") or entry.details.get("why")
    return {"at": entry.at, "kind": "audit", "words": f"{words} ({why})" if why else words}
