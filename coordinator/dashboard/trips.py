"""Where the time of a trip goes, and what became of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ..store.records import TripRecord

__all__ = ["rate_per_minute", "trip_times", "trip_values"]

MINUTE = 60.0


def trip_times(trips: Sequence[TripRecord]) -> dict[str, Any]:
    """
    Mean seconds of the parts of trips, as JSON values.

    ``transfer`` is what is left of the time between the assignment and the arrival of the update when the device's
    training time is taken off: download, upload, and whatever the device did besides. ``until_merged`` is the time
    that an accepted update waited in the buffer.

    Args:
        trips: of the last updates.

    """
    parts = [_parts(trip) for trip in trips]
    result: dict[str, Any] = {"trips": len(trips)}
    for name in ("training", "transfer", "until_merged"):
        known = [part[name] for part in parts if part[name] is not None]
        result[name] = round(statistics.fmean(known), 3) if known else None
    return result


def _parts(trip: TripRecord) -> dict[str, Any]:
    seconds = trip.report.get("seconds")
    training = float(seconds) if isinstance(seconds, int | float) else None
    away = None if trip.issued_at is None else max(trip.received_at - trip.issued_at, 0.0)
    merged = None if trip.merged_at is None else max(trip.merged_at - trip.received_at, 0.0)
    transfer = None if away is None or training is None else max(away - training, 0.0)
    return {"training": training, "transfer": transfer, "until_merged": merged}


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
