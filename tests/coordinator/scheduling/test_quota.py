"""Bytes per device and day."""

from __future__ import annotations

import pytest

from coordinator.net.traffic import Traffic
from coordinator.scheduling.quota import OverQuota, Quota
from coordinator.status import DeviceStatus

DAY_SECONDS = 24 * 60 * 60


def test_a_device_beyond_its_bytes_stays_away_until_its_day_is_over() -> None:
    quota, status = Quota(100), DeviceStatus("d", earlier=Traffic(1000, 1000))
    assert quota.seconds("d", status, 50.0) == 0  # what it moved before does not count
    status.current = Traffic(60, 39)
    assert quota.seconds("d", status, 100.0) == 0
    status.current = Traffic(60, 40)
    assert quota.seconds("d", status, 100.0) == DAY_SECONDS - 50
    assert quota.seconds("e", DeviceStatus("e"), 100.0) == 0
    assert quota.seconds("d", status, 50.0 + DAY_SECONDS) == 0
    status.current = Traffic(110, 40)
    assert quota.seconds("d", status, 60.0 + DAY_SECONDS) == 0
    status.current = Traffic(200, 40)
    assert quota.seconds("d", status, 60.0 + DAY_SECONDS) == DAY_SECONDS - 10


def test_without_a_limit_nobody_stays_away() -> None:
    assert Quota(None).seconds("d", DeviceStatus("d", earlier=Traffic(10**15, 0)), 0.0) == 0


def test_whoever_is_over_the_limit_is_told_for_how_long_and_why() -> None:
    quota, status = Quota(100), DeviceStatus("d")
    quota.check("d", status, 50.0)
    status.current = Traffic(100, 0)
    with pytest.raises(OverQuota, match="the device has moved as many bytes as it may in a day") as over:
        quota.check("d", status, 60.0)
    assert over.value.seconds == DAY_SECONDS - 10
