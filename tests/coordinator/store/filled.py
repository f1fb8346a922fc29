"""A run of one tier and one device, as stores are tested with."""

from __future__ import annotations

from coordinator.store.interface import Store
from coordinator.store.records import RunRecord, TierRecord, UpdateRecord, VersionRecord
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from .assigning import assign

__all__ = ["REF", "RUN", "TIER", "fill", "update", "version"]

REF = ArtifactRef(Sha256("ab" * 32), 10)
RUN = RunRecord("digits", {"task": "t"}, "", 1.0)
TIER = TierRecord("small", 1, 1000, REF, "00", REF, REF)


def version(number: int) -> VersionRecord:
    return VersionRecord(number, number - 1, (REF,), {"accuracy": number / 10}, 2.0)


def fill(store: Store) -> None:
    """Begin the run, and let the device in."""
    store.create(RUN, [TIER], version(0))
    store.devices.enrol("phone-1", b"s" * 32, 1.0)


def update(store: Store, content: bytes = b"content") -> tuple[UpdateRecord, bytes]:
    """An update for new work of the device, and its bytes."""
    assignment = assign(store, "phone-1", 0, "small", 3.0)
    return (
        UpdateRecord(assignment.id, "phone-1", 0, "small", FileEntry.of(content), {"samples": 4}, 5.0),
        content,
    )
