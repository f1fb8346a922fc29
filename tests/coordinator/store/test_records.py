"""What is written down is a fact: nobody changes it in memory."""

from __future__ import annotations

import dataclasses
import inspect

from coordinator.store import records


def test_no_record_can_be_changed() -> None:
    classes = [
        value for _, value in inspect.getmembers(records, inspect.isclass) if value.__module__ == records.__name__
    ]
    assert classes
    for cls in classes:
        assert dataclasses.is_dataclass(cls), cls
        assert cls.__dataclass_params__.frozen, cls  # type: ignore[attr-defined]
