"""How classes of devices take part."""

from __future__ import annotations

from typing import Any

from coordinator.reports.device_classes import device_classes
from coordinator.status import DeviceStatus


def device(name: str, tier: str, updates: int, seconds: float, **report: Any) -> DeviceStatus:
    return DeviceStatus(
        name, tier=tier, updates=updates, report={"steps": 10, "seconds": seconds, "samples": 10, **report}
    )


def test_participation_and_accuracy_are_told_per_tier_and_pace() -> None:
    devices = [
        device("a", "large", 10, 1.0, metrics={"accuracy": 0.9}, loss=0.1),
        device("b", "large", 8, 1.1, metrics={"accuracy": 0.8}, loss=0.3),
        device("c", "large", 2, 10.0, metrics={"accuracy": 0.5}, loss=1.0),
        device("d", "small", 4, 50.0, metrics={}),  # slow, but so is its whole tier
        DeviceStatus("never-worked"),
    ]
    rows = {(row["tier"], row["pace"]): row for row in device_classes(devices)}
    assert set(rows) == {("large", "usual"), ("large", "slow"), ("small", "usual")}
    assert rows["large", "usual"]["metrics"] == {"accuracy": 0.85, "loss": 0.2}
    assert rows["large", "slow"] | {"metrics": {}} == {
        "tier": "large",
        "pace": "slow",
        "devices": 1,
        "share_of_devices": 0.25,
        "updates": 2,
        "share_of_updates": round(2 / 24, 4),
        "failures": 0,
        "metrics": {},
    }
    assert rows["small", "usual"]["metrics"] == {}


def test_an_empty_fleet_has_no_classes() -> None:
    assert device_classes([]) == []
