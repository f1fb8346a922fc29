"""A run with a long history opens as if every row of it had been read."""

from __future__ import annotations

import collections
import itertools
import random
from pathlib import Path

import pytest

from coordinator.evaluation.metric_watch import MetricWatch
from coordinator.merge.from_config import safe_gain, staleness_policy
from coordinator.run_state import HISTORY
from coordinator.simulation.virtual_time import run
from coordinator.store.interface import Store
from coordinator.store.records import AssignmentRequest, DiscardedUpdate, MergedUpdate, UpdateRecord, VersionRecord
from coordinator.updates.buffer_size import LOOKED_BACK_ON, AdaptiveSize
from coordinator.versions.lineage import Lineage
from mobile_sdk.manifest import FileEntry

from ...postgres_server import PostgresServer
from ..small_run import make_run, update_bytes

DEVICES = [f"phone-{number}" for number in range(12)]
CONTENT = update_bytes("small")


def live(store: Store, rng: random.Random, versions: int) -> None:
    """So many versions: merges of some updates each, in another order than they came, and rollbacks."""
    first, line, waiting = store.versions.get(0), [0], list[str]()
    for device in DEVICES:
        store.devices.enrol(device, b"s" * 32, 1.0)
    for number in range(1, versions + 1):
        metrics = {"accuracy": rng.random(), "loss": rng.random()}
        if rng.random() < 0.1:
            line = line[: rng.randint(1, len(line))]
            back = VersionRecord(number, line[-1], first.weights, metrics, 2.0, "rollback", first.private)
            store.versions.rollback(back, [], [], by="anna", why="to see")
        else:
            work = store.assignments.assign(
                [AssignmentRequest(device, rng.choice(line[-9:]), "small", 2.0) for device in DEVICES]
            )
            entry = FileEntry.of(CONTENT)
            records = [UpdateRecord(one.id, one.device, one.version, "small", entry, {}, 3.0) for one in work]
            store.updates.accept([(record, CONTENT) for record in records])
            waiting += [one.id for one in work]
            rng.shuffle(waiting)
            merged = [MergedUpdate(waiting.pop(), rng.randrange(7), rng.random()) for _ in range(rng.randint(9, 12))]
            gone = [DiscardedUpdate(waiting.pop(), "stale") for _ in waiting[:1]]
            version = VersionRecord(number, line[-1], first.weights, metrics, 2.0, private=first.private)
            store.versions.commit(version, merged, gone)
        line.append(number)
    store.versions.prune(lambda kept: [version.version for version in kept[-9:]], since=1e9)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_run_opens_from_a_part_of_its_history_as_from_the_whole(
    tmp_path: Path, postgres_server: PostgresServer, kind: str
) -> None:
    section = {"store": {"postgres": postgres_server.database()}} if kind == "postgres" else {}
    small = make_run(tmp_path, merge={"buffer": "auto"}, evaluation={"guard": 0.9}, **section)
    store, merge = small.store, small.config.merge
    live(store, random.Random(1), 40)
    versions, merged = store.versions.all(), store.updates.merged()
    assert len(merged) > LOOKED_BACK_ON
    assert {version.kind for version in versions} == {"initial", "merge", "rollback"}

    watch = MetricWatch(small.config.evaluation, versions)
    lineage = Lineage()
    for version in versions:
        lineage.place(version.version, version.parent, is_rollback=version.kind == "rollback")
    size = AdaptiveSize(staleness_policy(merge.staleness).by_age, safe_gain(merge), merge.smallest)
    for _, group in itertools.groupby(merged, lambda update: update.into):
        size.merged([update.staleness for update in group])

    async def main() -> None:
        with store.read_ahead(versions=HISTORY, updates=LOOKED_BACK_ON):
            opened = small.coordinator()
        state = opened.state
        assert vars(opened.watch) == vars(watch)
        assert state.versions.newest == versions[-1]
        assert state.versions.merges == sum(version.kind == "merge" for version in versions)
        assert state.versions.merged() == [version.version for version in versions if version.kind == "merge"]
        assert state.versions.placed() == lineage.placed()
        for version in versions:
            assert state.recent(version.version) == version
            assert state.versions.has_weights(version.version) is not version.pruned
            assert state.versions.is_ancestor(version.version) is lineage.is_ancestor(version.version)
            assert state.versions.staleness(version.version) == lineage.staleness(version.version)
        status = state.status()
        assert status.history == tuple((version.version, version.metrics) for version in versions)
        assert status.staleness == dict(sorted(collections.Counter(update.staleness for update in merged).items()))
        assert (status.mean_staleness, status.margin) == (size.mean_staleness, size.margin)
        assert (state.buffer_size.size, state.buffer_size.concurrency) == (size.size, size.concurrency)
        assert [update.record for update in state.buffer.all()] == store.updates.buffered()

    run(main())
