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


def test_where_nobody_has_contributed_yet_every_share_is_zero() -> None:
    (row,) = device_classes([DeviceStatus("a", tier="small"), DeviceStatus("b", tier="small")])
    assert (row["devices"], row["share_of_devices"], row["updates"], row["share_of_updates"]) == (2, 1.0, 0, 0.0)


def test_shares_are_of_the_updates_that_there_are_however_few() -> None:
    rows = device_classes([device("a", "large", 1, 1.0), device("b", "small", 0, 1.0)])
    assert [row["share_of_updates"] for row in rows] == [1.0, 0.0]


def test_a_device_is_slow_beyond_three_times_the_median_and_not_at_it() -> None:
    paces = [1.0, 1.0, 3.0, 3.01]
    devices = [device(str(number), "large", 1, seconds) for number, seconds in enumerate([*paces, 1.0, 1.0])]
    assert {row["pace"]: row["devices"] for row in device_classes(devices)} == {"usual": 5, "slow": 1}


def test_metrics_are_weighted_by_samples() -> None:
    devices = [
        device("a", "large", 1, 1.0, metrics={"accuracy": 1.0}),
        device("b", "large", 1, 1.0, metrics={"accuracy": 0.5}),
    ]
    devices[1].report = {**devices[1].report, "samples": 30}
    (row,) = device_classes(devices)
    assert row["metrics"] == {"accuracy": 0.625}
