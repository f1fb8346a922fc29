"""A small run with a past: devices, versions, updates that were merged and one that waits."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from mobile_sdk.protocol.messages import Accepted, MergedMessage

from ..small_run import Device, update_bytes
from .served import Served

__all__ = ["add_devices", "train"]


async def train(served: Served, device: str, times: int = 1, *, merged: bool = True) -> None:
    """A device of the protocol joins and hands so many updates in, each when the last one was merged."""
    async with Device(served.small, device).connected(served.app.service.serve) as phone:
        await phone.join()
        for _ in range(times):
            said = {"loss": 0.5, "steps": 10, "seconds": 0.25}
            answer = await phone.upload(await phone.work(), update_bytes("large", 0.1), **said)
            assert isinstance(answer, Accepted)
            if merged:
                await phone.expect(MergedMessage)


def add_devices(state: Path, count: int) -> None:
    """Enrol many devices at once in a state directory that nobody uses."""
    with sqlite3.connect(state / "state.sqlite") as database:
        database.executemany(
            "INSERT INTO devices (id, secret, enrolled_at, alias, tier, updates, last_seen, profile) "
            "VALUES (?, x'00', 0, ?, ?, ?, ?, ?)",
            [
                (
                    f"phone-{n:05}",
                    f"alias-{n}",
                    "large" if n % 2 else "small",
                    n % 97,
                    1e9 + n,
                    json.dumps({"model": f"Pixel {n % 9}"}),
                )
                for n in range(count)
            ],
        )
    database.close()
