"""A run comes out the same, byte for byte, wherever its state is kept."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from coordinator.simulation.virtual_time import run
from mobile_sdk.layout import Vector
from mobile_sdk.protocol.messages import Accepted, MergedMessage

from ...postgres_server import PostgresServer
from ..small_run import Device, added, make_run, update_bytes
from .test_coordinator import merging

SETTINGS: dict[str, Any] = {
    "merge": {"buffer": 3, "optimiser": {"kind": "adam"}},
    "retention": {"versions": 2, "held_days": 0},
    "scheduling": {"concurrency": 0},
}


def metrics(vector: Vector) -> dict[str, float]:
    return {"accuracy": float(added(vector).sum())}


def play(folder: Path, **section: Any) -> dict[str, Any]:
    """Three devices of two tiers, some of them a version late; an operator pauses and rolls back. What came of it."""
    said: dict[str, Any] = {}

    async def main() -> None:
        small = make_run(folder, **SETTINGS, **({"store": section} if section else {}))
        coordinator = small.coordinator(metrics)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(merging(coordinator))
            devices = [
                await stack.enter_async_context(Device(small, f"phone-{number}").connected(coordinator.serve))
                for number in range(3)
            ]
            for device in devices:
                await device.join()
            for round_ in range(4):
                for number, device in enumerate(devices):
                    assign = await device.work(1_000 if number == 0 else 0)
                    tier = "small" if number == 0 else "large"
                    value = (number + 1) * 0.37 + round_ * 0.11
                    assert isinstance(await device.upload(assign, update_bytes(tier, value)), Accepted)
                for device in devices:
                    await device.expect(MergedMessage)
            await coordinator.version_maker.roll_back(3, "to see", by="anna")
        store = small.store
        said["versions"] = [
            (v.version, v.parent, v.kind, v.weights, v.private, v.metrics, v.pruned) for v in store.versions.all()
        ]
        said["merged"] = store.updates.merged()
        said["trips"] = [
            (t.arrival, t.assignment, t.device, t.merged_into, t.staleness) for t in store.updates.trips(99)
        ]
        said["audit"] = [(line.actor, line.action) for line in store.audit.entries()]
        said["newest"] = coordinator.state.versions.vector.tobytes()
        store.close()

    run(main())
    return said


def test_a_run_in_a_database_is_the_run_of_a_directory(tmp_path: Path, postgres_server: PostgresServer) -> None:
    directory = play(tmp_path / "directory")
    database = play(tmp_path / "database", postgres=postgres_server.database())
    assert len(directory["versions"]) == 6
    assert database == directory


def test_a_run_with_its_files_in_s3_is_the_run_of_a_directory(
    tmp_path: Path, postgres_server: PostgresServer, s3_bucket: str
) -> None:
    address = postgres_server.database()
    assert play(tmp_path / "s3", postgres=address, objects=s3_bucket) == play(tmp_path / "directory")


def test_a_run_goes_on_on_another_machine_that_has_nothing_of_it(
    tmp_path: Path, postgres_server: PostgresServer, s3_bucket: str
) -> None:
    store = {"postgres": postgres_server.database(), "objects": s3_bucket}
    first = play(tmp_path / "one", **store)

    async def main() -> None:
        small = make_run(tmp_path / "two", **SETTINGS, store=store)
        assert small.coordinator(metrics).state.versions.vector.tobytes() == first["newest"]

    run(main())
