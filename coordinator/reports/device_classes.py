"""
How often each class of device contributes: if slow or small devices never do, the model fits their data badly.

A class is a tier together with a pace. A device is slow if a training step takes it more than ``SLOW`` times as long as
the median device of its tier.
"""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ..status import DeviceStatus

__all__ = ["device_classes"]

SLOW = 3.0


def device_classes(devices: Iterable[DeviceStatus]) -> list[dict[str, Any]]:
    """
    Participation and accuracy per class, as JSON values.

    Args:
        devices: the fleet; those that never got work belong to no class.

    Returns:
        One mapping per class. ``share_of_devices`` and ``share_of_updates`` are equal where all devices contribute
        alike. ``metrics`` are those that devices reported of their last training: means weighted by samples.

    """
    active = [device for device in devices if device.tier]
    paces = _paces(active)
    groups: dict[tuple[str, str], list[DeviceStatus]] = collections.defaultdict(list)
    for device in active:
        groups[device.tier, paces[device.id]].append(device)
    updates = sum(device.updates for device in active)
    return [
        {
            "tier": tier,
            "pace": pace,
            "devices": len(group),
            "share_of_devices": _share(len(group), len(active)),
            "updates": sum(device.updates for device in group),
            "share_of_updates": _share(sum(device.updates for device in group), updates),
            "failures": sum(device.failures for device in group),
            "metrics": _metrics(group),
        }
        for (tier, pace), group in sorted(groups.items())
    ]


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _paces(devices: Sequence[DeviceStatus]) -> dict[str, str]:
    seconds = {device.id: _step_seconds(device) for device in devices}
    medians = {
        tier: statistics.median([seconds[d.id] for d in devices if d.tier == tier and seconds[d.id] > 0] or [0.0])
        for tier in {device.tier for device in devices}
    }
    return {d.id: "slow" if seconds[d.id] > SLOW * medians[d.tier] > 0 else "usual" for d in devices}


def _step_seconds(device: DeviceStatus) -> float:
    steps, seconds = device.report.get("steps", 0), device.report.get("seconds", 0.0)
    return float(seconds) / steps if steps else 0.0


def _metrics(devices: Sequence[DeviceStatus]) -> dict[str, float]:
    totals: dict[str, float] = collections.defaultdict(float)
    samples: dict[str, float] = collections.defaultdict(float)
    for device in devices:
        count = device.report.get("samples", 0)
        metrics = dict(device.report.get("metrics", {}))
        if "loss" in device.report:
            metrics["loss"] = device.report["loss"]
        for name, value in metrics.items():
            totals[name] += count * value
            samples[name] += count
    return {name: round(total / samples[name], 4) for name, total in sorted(totals.items()) if samples[name]}
