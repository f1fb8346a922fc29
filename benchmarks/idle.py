"""
Processor time of a phone's trainer that has nothing to do, per hour.

``python -m benchmarks.idle [CHECKOUT ...]`` starts the demo's trainer of each checkout (by default this one) beside a
coordinator that never has work, and reads what its process takes: once while it is connected, and once after it left,
if it does. The hour is extrapolated from these two windows and the times between visits; nothing else of the machine is
in it. Linux only.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve

ROOT = Path(__file__).resolve().parents[1]
WINDOW_SECONDS = 120.0
# Longer than the demo's patience: a trainer that is still connected then stays so.
STAYS_SECONDS = 90.0
# What ftte_demo.trainer.when asks for: how long a trainer waits for work, and how long it is away.
PATIENCE_SECONDS, AWAY_SECONDS = 60.0, 900.0
JOIN = """
import sys
from pathlib import Path
from ftte_demo.trainer.joined import Joined, save
from mobile_sdk.invite import Invite
save(Path(sys.argv[1]) / "joined.json", Joined(Invite(sys.argv[2], "idle", "0" * 64)))
"""


class Coordinator:
    """Accepts a device and never has work for it."""

    def __init__(self) -> None:
        self.joined, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, connection: ServerConnection) -> None:
        self.joined.set()
        await connection.wait_closed()
        self.left.set()


def cpu_seconds(pid: int) -> float:
    """Processor time so far of the threads that a process has now, to the nanosecond."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


async def measure(checkout: Path) -> str:
    """A line of the table for the trainer of ``checkout``."""
    coordinator = Coordinator()
    environment = os.environ | {
        "PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'android_demo'}",
        "FTTE_DEMO_ENGINE": "interpreted",
    }
    with tempfile.TemporaryDirectory() as folder:
        async with serve(coordinator, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            subprocess.run([sys.executable, "-c", JOIN, folder, url], cwd=checkout, env=environment, check=True)
            command = [sys.executable, "-m", "ftte_demo.trainer", folder]
            process = subprocess.Popen(command, cwd=checkout, env=environment)
            try:
                await asyncio.wait_for(coordinator.joined.wait(), 60)
                await asyncio.sleep(5)  # imports and the first greeting are no part of waiting
                begun = cpu_seconds(process.pid)
                try:
                    await asyncio.wait_for(coordinator.left.wait(), STAYS_SECONDS)
                except TimeoutError:
                    connected = await _rate(process.pid)
                    return f"| {checkout.name} | stays connected | {connected * 3600:.2f} |"
                visit = cpu_seconds(process.pid) - begun
                away = await _rate(process.pid)
                hour = 3600 / (PATIENCE_SECONDS + AWAY_SECONDS) * (visit + away * AWAY_SECONDS)
                return f"| {checkout.name} | leaves, and comes back after 15 minutes | {hour:.2f} |"
            finally:
                process.terminate()
                process.wait()


async def _rate(pid: int) -> float:
    begun = cpu_seconds(pid)
    await asyncio.sleep(WINDOW_SECONDS)
    return (cpu_seconds(pid) - begun) / WINDOW_SECONDS


def main() -> None:
    """The command line."""
    print("| checkout | without work | CPU seconds per hour |\n|---|---|---|")
    for checkout in [Path(word).resolve() for word in sys.argv[1:]] or [ROOT]:
        print(asyncio.run(measure(checkout)), flush=True)


if __name__ == "__main__":
    main()
