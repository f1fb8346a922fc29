"""
Durable updates per second of both stores: SQLite with segments, and PostgreSQL, side by side on this machine.

    python -m benchmarks.server.store [--update-bytes N] [--group N] [--seconds S] [--rounds N] [--out FILE]

Each store writes groups of updates down, one group after the other, each durable before the next; every so many updates
are merged into a version, which erases them. The server is one of its own, made by ``initdb`` in a temporary folder,
with ``fsync`` and ``synchronous_commit`` on. Work is given out beforehand and is not in the figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from coordinator.store.interface import Store
from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.records import (
    AssignmentRequest,
    MergedUpdate,
    RunRecord,
    TierRecord,
    UpdateRecord,
    VersionRecord,
)
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import FileEntry
from mobile_sdk.protocol.messages import ArtifactRef, Sha256
from tests.postgres_server import open_server

RESULTS = Path(__file__).parents[1] / "results" / "store.json"


# As for a server of two cores and a few gigabytes.
SERVER = "shared_buffers = 512MB\nmax_wal_size = 4GB\nmin_wal_size = 1GB\n"


def begin(store: Store, devices: int) -> ArtifactRef:
    """A run of one tier, and its devices; the file that all of its versions have."""
    (entry,) = store.artifacts.put(b"weights")
    ref = ArtifactRef(Sha256(entry.sha256), entry.size)
    first = VersionRecord(0, -1, (ref,), {}, 0.0, kind="initial")
    store.create(RunRecord("bench", {}, "", 0.0), [TierRecord("small", 1, 10, ref, "00", ref, None)], first)
    for number in range(devices):
        store.devices.enrol(f"phone-{number}", b"s" * 32, 0.0)
    return ref


def measure(
    store: Store, ref: ArtifactRef, content: bytes, *, group: int, buffer: int, devices: int, seconds: float
) -> dict[str, Any]:
    """Updates per second, and the milliseconds of a group and of a merge."""
    entry = FileEntry.of(content)
    waiting: list[str] = []
    groups: list[float] = []
    merges: list[float] = []
    first = 0
    while sum(groups) + sum(merges) < seconds:
        given = store.assignments.assign(
            [AssignmentRequest(f"phone-{number % devices}", 0, "small", 0.0) for number in range(first, first + group)]
        )
        first += group
        batch = [
            (UpdateRecord(work.id, work.device, 0, "small", entry, {"samples": 10}, 0.0), memoryview(content))
            for work in given
        ]
        started = time.perf_counter()
        store.updates.accept(batch)
        groups.append(time.perf_counter() - started)
        waiting += [work.id for work in given]
        if len(waiting) >= buffer:
            number = store.versions.next_number()
            version = VersionRecord(number, number - 1, (ref,), {}, 0.0)
            started = time.perf_counter()
            store.versions.commit(version, [MergedUpdate(name, 0, 1.0) for name in waiting])
            merges.append(time.perf_counter() - started)
            waiting = []
    return {
        "updates_per_second": len(groups) * group / sum(groups),
        "with_merges_per_second": len(groups) * group / (sum(groups) + sum(merges)),
        "group_ms": 1e3 * statistics.median(groups),
        "merge_ms": 1e3 * statistics.median(merges) if merges else None,
    }


def main() -> None:
    """Both stores in turn, several times; medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update-bytes", type=int, default=10_000)
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--buffer", type=int, default=320)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    content = random.Random(1).randbytes(options.update_bytes)
    runs: dict[str, list[dict[str, Any]]] = {"sqlite": [], "postgres": []}
    with tempfile.TemporaryDirectory(dir=".") as folder, open_server(SERVER) as server:
        stores: dict[str, Store] = {
            "sqlite": SqliteStore(Path(folder) / "sqlite"),
            "postgres": PostgresStore(Address(server.database()), "bench", Path(folder) / "postgres"),
        }
        refs = {name: begin(store, options.devices) for name, store in stores.items()}
        for _ in range(options.rounds):
            for name, store in stores.items():
                found = measure(
                    store,
                    refs[name],
                    content,
                    group=options.group,
                    buffer=options.buffer,
                    devices=options.devices,
                    seconds=options.seconds,
                )
                runs[name].append(found)
                print(name, json.dumps(found))
        for store in stores.values():
            store.close()
    result = {
        "machine": platform.machine(),
        "update_bytes": options.update_bytes,
        "group": options.group,
        "buffer": options.buffer,
        "devices": options.devices,
        "rounds": options.rounds,
        "medians": {
            name: {key: round(statistics.median(run[key] for run in found), 2) for key in found[0]}
            for name, found in runs.items()
        },
    }
    print(json.dumps(result["medians"], indent=2))
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
