"""Old versions make room; what somebody may still need stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import RetentionSection
from coordinator.store.records import RunRecord, TierRecord, VersionRecord
from coordinator.store.sqlite import SqliteStore
from coordinator.versions.retention import prune
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from ..store.assigning import assign

DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """A run with versions 0 to 9, one a day."""
    store = SqliteStore(tmp_path / "state")

    def ref(text: str) -> ArtifactRef:
        (entry,) = store.artifacts.put(text.encode())
        return ArtifactRef(Sha256(entry.sha256), entry.size)

    tier = TierRecord("small", 1, 10, ref("manifest"), "00", ref("program"), None)
    first = VersionRecord(0, -1, (ref("weights 0"),), {}, 0.0, kind="initial")
    store.create(RunRecord("digits", {}, "", 0.0), [tier], first)
    for number in range(1, 10):
        record = VersionRecord(number, number - 1, (ref(f"weights {number}"),), {}, number * DAY)
        store.versions.commit(record, [])
    return store


def test_the_newest_the_best_and_what_devices_were_given_lately_are_kept(store: SqliteStore) -> None:
    for name, version in (("gone", 1), ("here", 5)):
        store.devices.enrol(name, b"s" * 32, 0.0)
        assign(store, name, version, "small", version * DAY)
    pruned = prune(store, RetentionSection(versions=2, held_days=5), best=3, now=9 * DAY)
    assert pruned == [0, 1, 2, 4, 6, 7]
    for kept in store.versions.all():
        assert kept.pruned == (kept.version in pruned)
        for ref in kept.weights:
            path = store.artifacts.verified(ref.sha256) if not kept.pruned else None
            assert path is None or path.read_text() == f"weights {kept.version}"
    assert {path.name for path in (store.artifacts.path(store.tiers()[0].program.sha256).parent).iterdir()} >= {
        store.tiers()[0].program.sha256,
        store.tiers()[0].manifest.sha256,
    }


def test_pruning_again_finds_nothing(store: SqliteStore) -> None:
    prune(store, RetentionSection(versions=3), best=None, now=9 * DAY)
    assert prune(store, RetentionSection(versions=3), best=None, now=9 * DAY) == []
    assert [version.version for version in store.versions.all() if not version.pruned] == [7, 8, 9]
