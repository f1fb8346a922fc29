"""
A coordinator's writes without its network: accept, merge, prune, again and again, until killed.

Run as a process of its own: ``python -m tests.coordinator.store.crash_worker STATE ROUNDS``. Prints what it
acknowledges. The weights of a version are the sum of all updates that were merged, so a lost or doubled one shows.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from coordinator.config import RetentionSection
from coordinator.store.interface import Store
from coordinator.store.records import MergedUpdate, RunRecord, TierRecord, UpdateRecord, VersionRecord
from coordinator.store.sqlite import SqliteStore
from coordinator.versions.retention import prune
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from .assigning import assign

SIZE = 500
GROUP = 3
BUFFER = 4


def content(assignment: str) -> bytes:
    """The update of an assignment: a power of two where no other has one, as long as there are fewer than ``SIZE``."""
    values = np.zeros(SIZE, np.float64)
    values[int(assignment[1:]) % SIZE] = 1.0
    return assignment.encode() + b"|" + values.tobytes()


def values(update: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.frombuffer(update.split(b"|", 1)[1])


def put(store: Store, what: bytes) -> ArtifactRef:
    (entry,) = store.artifacts.put(what)
    return ArtifactRef(Sha256(entry.sha256), entry.size)


def begin(store: Store) -> None:
    if store.run() is None:
        tier = TierRecord("small", 1, 10, put(store, b"manifest"), "00", put(store, b"program"), None)
        first = VersionRecord(0, -1, (put(store, np.zeros(SIZE).tobytes()),), {}, 0.0, kind="initial")
        store.create(RunRecord("digits", {}, "", 0.0), [tier], first)
    for number in range(GROUP):
        store.devices.enrol(f"phone-{number}", b"s" * 32, 0.0)


def accept(store: Store) -> None:
    version = store.versions.latest().version
    group = []
    for number in range(GROUP):
        assignment = assign(store, f"phone-{number}", version, "small", float(version)).id
        bytes_ = content(assignment)
        record = UpdateRecord(assignment, f"phone-{number}", version, "small", FileEntry.of(bytes_), {}, 0.0)
        group.append((record, bytes_))
    store.updates.accept(group)
    for record, _ in group:
        print("accepted", record.assignment, flush=True)


def merge(store: Store) -> None:
    waiting = store.updates.buffered()[:BUFFER]
    if len(waiting) < BUFFER:
        return
    newest = store.versions.latest()
    weights = np.frombuffer(store.artifacts.verified(newest.weights[0].sha256).read_bytes())
    weights = weights + sum(values(store.updates.content(update.assignment)) for update in waiting)
    number = store.versions.next_number()
    record = VersionRecord(number, newest.version, (put(store, weights.tobytes()),), {}, float(number))
    store.versions.commit(record, [MergedUpdate(update.assignment, 0, 1.0) for update in waiting])
    print("merged", number, flush=True)
    prune(store, RetentionSection(versions=2, held_days=0), None, float(number))


def open_worker(state: Path) -> Store:
    """The store of ``state``: in the database whose address is in the environment, or else in the directory."""
    address = os.environ.get("FTTE_TEST_POSTGRES", "")
    if not address:
        return SqliteStore(state)
    from coordinator.store.postgres import Address, PostgresStore

    return PostgresStore(Address(address), state.parent.name, state)


def main() -> None:
    store = open_worker(Path(sys.argv[1]))
    begin(store)
    for _ in range(int(sys.argv[2])):
        accept(store)
        merge(store)
    store.close()


if __name__ == "__main__":
    main()
