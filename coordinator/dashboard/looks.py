"""One look at a run as JSON values: what its page shows, small enough to be sent several times a second."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from ..programs.tiers import Tier
from ..reports.device_classes import device_classes
from ..reports.waiting import waiting_words
from ..runs.served_run import ServedRun
from ..status import DeviceStatus
from ..store.records import TripRecord
from .layers import layer_coverage, plans
from .trips import rate_per_minute, trip_times

__all__ = ["RECENT_TRIPS", "fleet_look", "run_card", "trips_look"]

# Means over trips are over so many of the newest.
RECENT_TRIPS = 200


def run_card(running: ServedRun) -> dict[str, Any]:
    """
    A run in a few numbers, for the list of runs and for the head of its own page.

    ``dense_bytes`` is what the same updates would have moved as float32 of the whole model, down and up.
    """
    run = running.coordinator.state
    status = run.status()
    accepted = sum(device.updates for device in status.devices)
    return {
        "name": status.name,
        "task": run.config.run.task,
        "phase": status.phase,
        "reason": status.reason,
        "waiting": waiting_words(status),
        "notice": status.notice,
        "version": status.version,
        "metrics": dict(status.metrics),
        "watched": {"metric": run.config.evaluation.metric, "minimise": run.config.evaluation.minimise},
        "best": running.coordinator.watch.best,
        "goal": run.config.goal,
        "buffered": status.buffered,
        "capacity": status.capacity,
        "adaptive": status.adaptive,
        "mean_staleness": status.mean_staleness,
        "merged": status.merged,
        "accepted": accepted,
        "devices": len(status.devices),
        "states": dict(collections.Counter(device.state for device in status.devices)),
        "bytes_up": sum(device.bytes_up for device in status.devices),
        "bytes_down": sum(device.bytes_down for device in status.devices),
        "dense_bytes": 2 * run.layout.nbytes * accepted,
        "staleness": {str(tau): count for tau, count in status.staleness.items()},
    }


def fleet_look(devices: Sequence[DeviceStatus], tiers: Sequence[Tier]) -> dict[str, Any]:
    """Who contributes, and which layers that reaches: means over the fleet, which change slowly."""
    planned = plans(tiers)
    shares = [(tier["name"], tier["shares"]) for tier in planned["tiers"]]
    return {
        "classes": device_classes(devices),
        "coverage": layer_coverage(shares, devices),
        "tier_devices": dict(collections.Counter(device.tier for device in devices if device.tier)),
    }


def trips_look(trips: Sequence[TripRecord], now: float) -> dict[str, Any]:
    """What the newest trips say: the rate, where their time goes, and the weights that they were merged with."""
    weights: collections.Counter[str] = collections.Counter()
    for trip in trips:
        if trip.weight is not None:
            weights[f"{trip.weight:.1f}"] += 1
    return {
        "rate": rate_per_minute(trips, RECENT_TRIPS, now),
        "times": trip_times(trips),
        "weights": dict(sorted(weights.items())),
    }
