"""Where the time of a trip goes, and what became of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ..store.records import TripRecord

__all__ = ["PARTS", "rate_per_minute", "trip_times", "trip_values"]

MINUTE = 60.0


# In the order in which they happen.
PARTS = ("waiting", "download", "training", "elsewhere", "upload", "until_merged")


def trip_times(trips: Sequence[TripRecord]) -> dict[str, Any]:
    """
    Mean seconds of the parts of trips, as JSON values.

    ``waiting`` is the time until the device was given the work that it wanted. ``download`` and ``upload`` are measured
    here, by what the device acknowledged and offered; ``training`` is what the device says. ``elsewhere`` is what is
    left of the time between the assignment and the arrival of the update: a device that waits for its charger, or is
    out of reach. ``until_merged`` is the time that an accepted update waited in the buffer.

    Args:
        trips: of the last updates.

    Returns:
        ``trips``, how many there are; and for each of :data:`PARTS` its mean, none where it is not known of any.

    """
    parts = [_parts(trip) for trip in trips]
    result: dict[str, Any] = {"trips": len(trips)}
    for name in PARTS:
        known = [seconds for part in parts if (seconds := part[name]) is not None]
        result[name] = round(statistics.fmean(known), 3) if known else None
    return result


def _parts(trip: TripRecord) -> dict[str, float | None]:
    seen, seconds = trip.report.get("trip", {}), trip.report.get("seconds")
    parts = {name: seen.get(name) for name in PARTS}
    parts["training"] = float(seconds) if isinstance(seconds, int | float) else None
    parts["until_merged"] = None if trip.merged_at is None else max(trip.merged_at - trip.received_at, 0.0)
    known = [parts[name] for name in ("download", "training", "upload")]
    if "away" in seen and None not in known:
        parts["elsewhere"] = max(seen["away"] - sum(part for part in known if part is not None), 0.0)
    return parts


def rate_per_minute(trips: Sequence[TripRecord], most: int, now: float) -> float:
    """
    Accepted updates per minute, over the last minute.

    Args:
        trips: the newest, oldest first.
        most: how many trips were asked for: where so many have come within the minute, the rate is theirs.
        now: wall time.

    """
    recent = [trip for trip in trips if trip.received_at > now - MINUTE]
    if len(recent) < most:
        return float(len(recent))
    return round(len(recent) * MINUTE / max(now - recent[0].received_at, 0.001), 1)


def trip_values(trip: TripRecord) -> dict[str, Any]:
    """One trip as JSON values, without its device's name."""
    report = trip.report
    return {
        "arrival": trip.arrival,
        "assignment": trip.assignment,
        "version": trip.version,
        "tier": trip.tier,
        "bytes_up": trip.bytes_up,
        "issued_at": trip.issued_at,
        "received_at": trip.received_at,
        "samples": report.get("samples"),
        "loss": report.get("loss"),
        "merged_into": trip.merged_into,
        "merged_at": trip.merged_at,
        "staleness": trip.staleness,
        "weight": trip.weight,
        "discarded": trip.discarded,
        **{f"{name}_seconds": value for name, value in _parts(trip).items()},
    }
