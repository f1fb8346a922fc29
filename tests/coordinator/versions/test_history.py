"""A version is weights and optimiser state together, through restarts and rollbacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.errors import StoreError
from coordinator.store.records import RunRecord, TierRecord, VersionRecord
from coordinator.store.sqlite import SqliteStore
from coordinator.versions.files import put_weights
from coordinator.versions.history import Versions
from mobile_sdk.errors import PayloadError
from mobile_sdk.layout import Layout, Parameter, Slice, Subset, Vector
from mobile_sdk.payload import Grid
from mobile_sdk.protocol.messages import ArtifactRef, Sha256
from mobile_sdk.weights import map_weights

LAYOUT = Layout([Parameter("frozen", (3,)), Parameter("conv", (4, 2)), Parameter("head", (2, 2))])
SUBSETS = [Subset(LAYOUT, {"conv": Slice(0, (1, 3)), "head": None}), Subset(LAYOUT, {"head": None})]
START = np.arange(LAYOUT.size, dtype=np.float32)


@pytest.fixture(params=[True, False], ids=["grid", "exact"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state")
    views = LAYOUT.views(START)
    grid = Grid.of({name: views[name] for name in ("conv", "head")}) if request.param else None
    files = put_weights(store.artifacts, LAYOUT, SUBSETS, START, grid)
    ref = ArtifactRef(Sha256(store.artifacts.put(b"x")[0].sha256), 1)
    first = VersionRecord(0, -1, files.weights, {}, 0.0, kind="initial", private=files.private)
    store.create(RunRecord("digits", {}, "", 0.0), [TierRecord("all", 1, 1, ref, "00", ref, None)], first)
    yield store
    store.close()


def merged(versions: Versions, by: float) -> tuple[Vector, dict[str, Vector]]:
    """The next weights, and an optimiser's state."""
    trained = versions.trained.gather(versions.vector) + np.float32(by)
    return versions.with_trained(trained), {"mean": np.full(len(trained), by, np.float32)}


def test_what_is_merged_into_is_only_what_some_tier_trains(store: SqliteStore) -> None:
    versions = Versions(store.versions, store.artifacts, LAYOUT, SUBSETS)
    assert versions.trained.positions.tolist() == [5, 6, 9, 10, 11, 12, 13, 14]
    vector, _ = merged(versions, 0.5)
    assert np.flatnonzero(vector != START).tolist() == [5, 6, 9, 10, 11, 12, 13, 14]


def test_optimiser_state_survives_a_restart_bit_for_bit_with_its_version(store: SqliteStore, tmp_path: Path) -> None:
    versions = Versions(store.versions, store.artifacts, LAYOUT, SUBSETS)
    vector, state = merged(versions, 0.1)
    versions.commit(vector, state, {}, [], [], 1.0)
    store.close()
    again = SqliteStore(tmp_path / "state")
    found = Versions(again.versions, again.artifacts, LAYOUT, SUBSETS)
    assert found.vector.tobytes() == vector.tobytes(), "the exact weights, not those on the grid"
    assert found.state["mean"].tobytes() == state["mean"].tobytes()
    again.close()


def test_a_rollback_takes_the_optimiser_back_as_well(store: SqliteStore) -> None:
    versions = Versions(store.versions, store.artifacts, LAYOUT, SUBSETS)
    kept = merged(versions, 0.1)
    versions.commit(*kept, {}, [], [], 1.0)
    versions.commit(*merged(versions, 7.0), {}, [], [], 2.0)
    record = versions.roll_back(1, [], [], 3.0, by="anna", why="worse")
    assert (record.version, record.parent, record.kind) == (3, 1, "rollback")
    assert versions.vector.tobytes() == kept[0].tobytes()
    assert versions.state["mean"].tobytes() == kept[1]["mean"].tobytes()
    assert versions.merges == 2
    assert versions.is_ancestor(1)
    assert not versions.is_ancestor(2)
    assert versions.staleness(1) == 0, "nothing was merged since"
    assert versions.staleness(0) == 1
    assert store.collect() == 0, "nothing that a version needs is removed"


def test_damaged_weights_are_never_served(store: SqliteStore) -> None:
    path = store.artifacts.path(store.versions.latest().weights[-1].sha256)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged: restore"):
        Versions(store.versions, store.artifacts, LAYOUT, SUBSETS)


def test_the_weights_of_earlier_versions_are_at_hand(store: SqliteStore) -> None:
    versions = Versions(store.versions, store.artifacts, LAYOUT, SUBSETS)
    for number in range(1, 7):
        versions.commit(*merged(versions, 1.0), {}, [], [], float(number))
    for number in (6, 0, 3, 0):
        assert np.allclose(versions.at(number), versions.trained.gather(START) + number)


def test_what_all_programs_have_inside_is_kept_but_not_sent(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state")
    files = put_weights(store.artifacts, LAYOUT, SUBSETS[1:], START, None, inside=["frozen"])
    ref = ArtifactRef(Sha256(store.artifacts.put(b"x")[0].sha256), 1)
    first = VersionRecord(0, -1, files.weights, {}, 0.0, kind="initial", private=files.private)
    store.create(RunRecord("digits", {}, "", 0.0), [TierRecord("all", 1, 1, ref, "00", ref, None)], first)
    versions = Versions(store.versions, store.artifacts, LAYOUT, SUBSETS[1:], inside=["frozen"])
    sent = [store.artifacts.path(ref.sha256) for ref in versions.sent(versions.newest)]
    assert map_weights(LAYOUT, sent, ["frozen"])["conv"].tobytes() == LAYOUT.views(START)["conv"].tobytes()
    with pytest.raises(PayloadError, match="'frozen'"):
        map_weights(LAYOUT, sent)
    assert versions.load(versions.newest).tobytes() == START.tobytes()
    vector, _ = merged(versions, 0.5)
    versions.commit(vector, {}, {}, [], [], 1.0)
    assert versions.sent(versions.newest)[0] == files.weights[1], "the frozen rest did not change"
    assert versions.load(versions.newest).tobytes() == vector.tobytes()
    store.close()
