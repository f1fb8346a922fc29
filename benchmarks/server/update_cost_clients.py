"""
The devices of ``update_cost.py``: many real clients in one process, without torch, as on a device.

    python update_cost_clients.py URL KEY SAMPLES.npz FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np

from mobile_sdk import Client


async def take_part(url: str, key: str, samples: Path, folder: Path) -> None:
    """All devices, until the run has ended; x has shape (devices, samples, ...), y (devices, samples)."""

    async def one(number: int, own: tuple[np.ndarray, np.ndarray]) -> None:
        async with Client(url, run="convnet", key=key, dataset=own, storage=folder / f"device-{number}") as client:
            async for _ in client.events():
                pass

    with np.load(samples) as file:
        x, y = file["x"], file["y"]
    await asyncio.gather(*(one(number, own) for number, own in enumerate(zip(x, y, strict=True))))


if __name__ == "__main__":
    asyncio.run(take_part(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
