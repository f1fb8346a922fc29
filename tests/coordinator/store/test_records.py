"""What is written down is a fact: nobody changes it in memory."""

from __future__ import annotations

import dataclasses
import inspect

from coordinator.store import records
from coordinator.store.records import DeviceRecord, MergedUpdate, TokenRecord


def test_no_record_can_be_changed() -> None:
    classes = [
        value for _, value in inspect.getmembers(records, inspect.isclass) if value.__module__ == records.__name__
    ]
    assert classes
    for cls in classes:
        assert dataclasses.is_dataclass(cls), cls
        assert cls.__dataclass_params__.frozen, cls  # type: ignore[attr-defined]


def test_what_is_not_known_of_a_record_says_nothing() -> None:
    device = DeviceRecord("phone-1", "small", 0, 0, 0, {})
    assert (device.enrolled_at, device.last_seen, device.failures, device.revoked_at) == (0.0, None, 0, None)
    assert (device.alias, device.token, device.profile, device.aside) == ("", "", {}, None)
    token = TokenRecord("t", "d" * 64, None, None, 1.0)
    assert (token.revoked_at, token.note) == (None, "")
    assert MergedUpdate("a00000001", 0, 1.0).into == -1, "no version has that number"
