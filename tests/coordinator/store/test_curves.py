"""What the store says of a run's past: points of curves, trips, and the newest lines of the audit log."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from coordinator.store.interface import Store
from coordinator.store.records import (
    DiscardedUpdate,
    MergedUpdate,
    MergeHistory,
    RunRecord,
    TierRecord,
    UpdateRecord,
    VersionOutline,
    VersionRecord,
)
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from .assigning import assign
from .places import Place

REF = ArtifactRef(Sha256("ab" * 32), 10)


@pytest.fixture
def store(place: Place) -> Store:
    store = place.open()
    tier = TierRecord("small", 1, 1000, REF, "00", REF, REF)
    store.create(RunRecord("digits", {"task": "t"}, "", 1.0), [tier], version(0))
    for name in ("phone-1", "phone-2"):
        store.devices.enrol(name, b"s" * 32, 1.0)
    return store


def version(number: int) -> VersionRecord:
    return VersionRecord(number, number - 1, (REF,), {"accuracy": number / 10}, 10.0 * number)


def hand_in(store: Store, device: str, at: float, content: bytes = b"content") -> str:
    assignment = assign(store, device, 0, "small", at - 3.0)
    record = UpdateRecord(assignment.id, device, 0, "small", FileEntry.of(content), {"samples": 4}, at)
    store.updates.accept([(record, content)])
    return assignment.id


def test_a_point_has_the_means_of_what_was_merged_into_its_version(store: Store) -> None:
    first, second = hand_in(store, "phone-1", 4.0), hand_in(store, "phone-2", 5.0, b"longer content")
    store.versions.commit(version(1), [MergedUpdate(first, 0, 1.0), MergedUpdate(second, 3, 0.5)])
    store.versions.commit(version(2), [])
    zero, one, two = store.versions.points()
    assert (zero.version, zero.updates, zero.staleness) == (0, 0, None)
    assert (one.updates, one.staleness, one.weight, one.bytes_up) == (2, 1.5, 0.75, 7 + 14)
    assert (two.updates, two.weight, two.metrics) == (0, None, {"accuracy": 0.2})
    assert store.versions.points(after=0) == [one, two]
    assert store.versions.points(after=2) == []


@pytest.mark.parametrize("looked_at", [1, 2, 3, 4, 9])
def test_a_point_has_all_of_its_updates_however_few_of_the_newest_are_looked_at_first(
    store: Store, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(sys.modules[type(store.versions).__module__], "NEWEST_UPDATES", looked_at)
    for number, count in ((1, 2), (2, 3)):
        names = [hand_in(store, "phone-1", 4.0) for _ in range(count)]
        store.versions.commit(version(number), [MergedUpdate(name, 0, 1.0) for name in names])
    assert [[point.updates for point in store.versions.points(after)] for after in (-1, 0, 1)] == [
        [0, 2, 3],
        [2, 3],
        [3],
    ]


def test_of_many_versions_every_nth_is_a_point_and_the_newest_always(store: Store) -> None:
    for number in range(1, 30):
        store.versions.commit(version(number), [])
    assert [point.version for point in store.versions.points(most=10)] == [*range(0, 30, 3), 29]
    assert [point.version for point in store.versions.points(after=19, most=5)] == [20, 22, 24, 26, 28, 29]


def test_a_trip_says_when_it_began_and_what_became_of_it(store: Store) -> None:
    merged, waits, gone = hand_in(store, "phone-1", 4.0), hand_in(store, "phone-2", 5.0), hand_in(store, "phone-1", 6.0)
    store.versions.commit(version(1), [MergedUpdate(merged, 1, 0.7)], [DiscardedUpdate(gone, "outlier")])
    trips = store.updates.trips(10)
    assert [(trip.assignment, trip.device) for trip in trips] == [
        (merged, "phone-1"),
        (waits, "phone-2"),
        (gone, "phone-1"),
    ]
    one, two, three = trips
    assert (one.issued_at, one.received_at, one.merged_into, one.merged_at) == (1.0, 4.0, 1, 10.0)
    assert (one.staleness, one.weight, one.discarded) == (1, 0.7, None)
    assert (two.merged_into, two.discarded) == (None, None)
    assert (three.merged_into, three.discarded) == (None, "outlier")
    assert store.updates.trips(2) == [two, three]
    assert store.updates.trips(10, after=one.arrival) == [two, three]
    assert store.updates.trips(10, device="phone-1") == [one, three]
    store.devices.withdraw("phone-1", 20.0, by="anna")
    assert [trip.device for trip in store.updates.trips(10)] == [None, "phone-2", None]


def test_the_newest_lines_of_the_audit_log_are_those_of_the_whole(store: Store) -> None:
    for number in range(5):
        store.audit.write(float(number), "anna", "tested", f"thing {number}", {"why": number})
    lines = store.audit.entries()
    assert store.audit.newest(3) == lines[-3:]
    assert store.audit.newest(100) == lines
    assert store.audit.newest(100, lines[-2].number) == lines[-1:]


def test_what_a_run_goes_on_from_is_a_part_of_the_whole(store: Store) -> None:
    first, late, third, gone = (hand_in(store, "phone-1", float(at)) for at in range(4, 8))
    assert store.updates.merge_history(9) == MergeHistory([], {}, [])
    store.versions.commit(version(1), [MergedUpdate(third, 0, 0.7), MergedUpdate(first, 2, 0.7)])
    store.versions.commit(version(2), [MergedUpdate(late, 1, 0.7)], [DiscardedUpdate(gone, "outlier")])
    store.versions.rollback(dataclasses.replace(version(3), parent=1, kind="rollback"), [], [], by="anna", why="")
    store.versions.commit(version(4), [MergedUpdate(hand_in(store, "phone-2", 9.0), 0, 0.7)])
    store.versions.prune(lambda versions: [2, 3, 4], since=100.0)
    every = store.versions.all()
    assert store.versions.newest(3) == every[-3:]
    assert store.versions.newest(9) == every
    assert store.versions.outlines() == [
        VersionOutline(v.version, v.parent, v.kind, v.metrics, v.pruned) for v in every
    ]
    assert [outline.pruned for outline in store.versions.outlines()] == [True, True, False, False, False]
    assert [update.staleness for update in store.updates.merged()] == [2, 0, 1, 0]
    assert store.updates.merge_history(9) == MergeHistory([2, 1, 1], {0: 2, 1: 1, 2: 1}, [2, 0, 1, 0])
    assert store.updates.merge_history(3).newest == [0, 1, 0]
    store.devices.withdraw("phone-1", 20.0, by="anna")
    assert store.updates.merge_history(3) == MergeHistory([2, 1, 1], {0: 2, 1: 1, 2: 1}, [0, 1, 0])
