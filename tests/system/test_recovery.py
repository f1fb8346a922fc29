"""What a coordinator finds when it starts, and makes of it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from coordinator.config import Config, parse_config
from coordinator.programs.run_key import RunKey
from coordinator.programs.tiers import Tier, load_tiers
from coordinator.reports.summary import summarise
from coordinator.run_state import RunState
from coordinator.store.records import UpdateRecord
from coordinator.store.sqlite import SqliteStore
from mobile_sdk import safetensors
from mobile_sdk.clock import SystemClock, offload
from mobile_sdk.manifest import FileEntry
from tests.coordinator.store.assigning import assign

from .conftest import PLANS, Site


def config(site: Site) -> Config:
    return parse_config(PLANS | {"run": PLANS["run"] | {"state": str(site.state)}, "merge": {"buffer": 100}}, Path())


def begin(site: Site, store: SqliteStore, settings: Config) -> RunState:
    key = RunKey.load_or_create(site.state / "run.key")
    return RunState(settings, store, key, load_tiers(store), clock=SystemClock(), offload=offload)


def accept(store: SqliteStore, tier: Tier, number: int) -> str:
    subset = tier.manifest.subset
    content = safetensors.dumps({name: np.full(subset.shape(name), number, np.float32) for name in subset})
    device = f"phone-{number}"
    store.devices.enrol(device, hashlib.sha256(device.encode()).digest(), time.time())
    assignment = assign(store, device, 0, tier.name, time.time())
    report = {"version": 0, "samples": 10}
    record = UpdateRecord(assignment.id, device, 0, tier.name, FileEntry.of(content), report, time.time())
    store.updates.accept([(record, content)])
    return assignment.id


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_last_record_costs_that_update_alone_and_is_written_down(site: Site, damage: str) -> None:
    settings = config(site)
    store = SqliteStore(site.state)
    names = [accept(store, load_tiers(store)[0], number) for number in range(3)]
    store.close()
    segment = max((site.state / "updates").iterdir())
    content = bytearray(segment.read_bytes())
    if damage == "cut":
        del content[-10:]
    else:
        content[-10] ^= 1
    segment.write_bytes(content)

    store = SqliteStore(site.state)
    run = begin(site, store, settings)
    assert [update.record.assignment for update in run.buffer.all()] == names[:2]
    assert all(float(np.asarray(update.delta)[0]) == number for number, update in enumerate(run.buffer.all()))
    line = store.audit.entries()[-1]
    assert (line.action, line.details["assignment"]) == ("damaged", names[2])
    assert not store.updates.is_accepted(names[2]), "a device that still has it hands it in again"
    store.close()


def test_a_summary_is_of_the_whole_run_whatever_process_writes_it(site: Site) -> None:
    settings = config(site)
    store = SqliteStore(site.state)
    accept(store, load_tiers(store)[0], 1)
    store.devices.seen("phone-1", 150.0, {"samples": 40, "peak_rss_bytes": 44_000_000, "torch_loaded": False})
    store.set_phase("running", "started", 100.0, by="coordinator")
    store.close()
    for _ in range(2):  # in each process, after the run has ended
        store = SqliteStore(site.state)
        store.set_phase("finished", "finished by hand", 400.0, by="operator")
        summary = summarise(begin(site, store, settings))
        store.close()
        assert summary["wall_seconds"] == 300.0
        (device,) = summary["devices"]
        assert (device["samples"], device["peak_rss_bytes"], device["torch_loaded"]) == (40, 44_000_000, False)
