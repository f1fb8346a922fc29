"""
What the parts of an update cost a conductor that could be a gateway's: asking for work, parsing, adding.

Processor time of one thread per update of 10 KB, in groups of 32, all parts in turn; medians. The store is in memory
where there is /dev/shm, so that no sync is counted.

    python -m benchmarks.server.conductor_parts        # about five seconds
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.server.load_server import begin
from coordinator.config import parse_config
from coordinator.gateway.messages import GATEWAY
from coordinator.merge.contribution import Contribution
from coordinator.merge.from_config import merger
from coordinator.merge.regions import WeightRegion
from coordinator.merge.sums import exact_sum, largest_magnitude
from coordinator.programs.run_key import RunKey
from coordinator.programs.tiers import load_tiers
from coordinator.store.records import AssignmentRequest, UpdateRecord
from coordinator.store.sqlite import SqliteStore
from coordinator.updates.validation import parse_elements
from mobile_sdk import safetensors
from mobile_sdk.manifest import FileEntry

ELEMENTS, GROUP, ROUNDS, WARM_UP = 2_500, 32, 15, 3

READY = {
    **{"budget": 0, "samples": 10, "engine": "native", "executorch": "1.5.1", "serial": 0, "peak_rss_bytes": 1},
    **{"torch_loaded": False, "model": "", "holds": []},
}
ASK = {"m": "ask", "r": "load", "device": "phone-1", "ready": READY, "moved": [1, 2]}
ASSIGN = {
    **{"m": "assign", "r": "load", "device": "phone-1", "n": 1, "number": 1, "payload": {"dtype": "float32"}},
    **{"version": 1, "tier": "all", "graph": False},
}


def parts(folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name; each does it for a group of updates."""
    data = {"run": {"name": "load", "task": "load:task", "state": "state"}, "budgets": {"all": 1}}
    config = parse_config({**data, "merge": {"buffer": GROUP}}, folder)
    store = SqliteStore(config.run.state)
    begin(config, store, RunKey.load_or_create(config.run.state / "run.key"), ELEMENTS)
    (tier,) = load_tiers(store)
    (name,) = tier.manifest.subset
    shape, random = tier.manifest.subset.shape(name), np.random.default_rng(1)
    contents = [safetensors.dumps({name: random.standard_normal(shape).astype(np.float32) / 100}) for _ in range(GROUP)]
    deltas = [parse_elements(content, tier) for content in contents]
    devices = [f"phone-{number}" for number in range(GROUP)]
    for device in devices:
        store.devices.enrol(device, b"s" * 32, 1.0)
    region, merge, weights = WeightRegion(tier.positions), merger(config.merge), np.zeros(ELEMENTS, np.float32)
    given = [Contribution(f"a{number}", region, delta, 10.0) for number, delta in enumerate(deltas)]
    requests = [AssignmentRequest(device, 0, "all", 1.0, 2.0) for device in devices]
    records = store.assignments.assign(requests)

    def talk() -> None:
        for _ in range(GROUP):
            GATEWAY.read(json.dumps(ASK).encode(), 0)
            json.dumps(ASSIGN)

    def assign() -> None:
        records[:] = store.assignments.assign(requests)

    def accept() -> None:
        store.updates.accept(
            [
                (UpdateRecord(each.id, each.device, 0, "all", FileEntry.of(content), {"loss": 1.0}, 1.0), content)
                for each, content in zip(records, contents, strict=True)
            ]
        )

    return {
        "messages of asking for work": talk,
        "assignments written down": assign,
        "updates written down": accept,
        "updates parsed": lambda: [parse_elements(content, tier) for content in contents],
        "updates added": lambda: exact_sum(deltas, [100] * GROUP, [largest_magnitude(delta) for delta in deltas]),
        "the whole merge, the addition included": lambda: merge(weights, {}, given, lambda version: weights),
    }


def main() -> None:
    """Measure, and print."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        timed = parts(Path(folder))
        seen: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(ROUNDS):
            for name, work in timed.items():
                began = time.process_time()
                work()
                seen[name].append((time.process_time() - began) / GROUP * 1e6)
    for name, microseconds in seen.items():
        print(f"{name}: {statistics.median(microseconds[WARM_UP:]):.0f} microseconds per update")


if __name__ == "__main__":
    main()
