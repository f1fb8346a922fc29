"""Work for one device, as tests give it."""

from __future__ import annotations

from coordinator.store.interface import Store
from coordinator.store.records import AssignmentRecord, AssignmentRequest

__all__ = ["assign", "open_assignment"]


def assign(store: Store, device: str, version: int, tier: str, at: float) -> AssignmentRecord:
    """Give ``device`` work without a deadline."""
    (record,) = store.assignments.assign([AssignmentRequest(device, version, tier, at)])
    return record


def open_assignment(store: Store, device: str) -> AssignmentRecord | None:
    """What ``device`` is working on."""
    return next((record for record in store.assignments.open() if record.device == device), None)
