"""Devices on this machine, each a process of its own that runs ``ftte-device``, for as long as a run lasts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..app import FAREWELL_SECONDS, App
from ..errors import CoordinatorError

__all__ = ["LOG_FILE", "LocalDevice", "failed_devices", "local_devices", "run_while_any_lives"]

# What a device prints, in its folder.
LOG_FILE = "log.txt"

# Devices that have imported torch take seconds to end, more where all end at once on a busy machine. One that has not
# ended after this long hangs.
ENDING_SECONDS = 60.0

Processes = Mapping[str, asyncio.subprocess.Process]


@dataclasses.dataclass(frozen=True)
class LocalDevice:
    """
    A device to be started.

    ``data`` is what ``ftte-device join --data`` takes, ``budget`` its memory for training in bytes. An optimiser step
    takes ``step_seconds`` at the least, which stand for the processor of a phone.
    """

    name: str
    data: str
    budget: int
    step_seconds: float = 0.0


@contextlib.asynccontextmanager
async def local_devices(
    server: App, devices: Sequence[LocalDevice], folder: Path, *, token: str = ""
) -> AsyncIterator[Processes]:
    """
    Start a process per device; whatever still runs at the end is stopped.

    Args:
        server: the coordinator that they join; it serves one run.
        devices: which.
        folder: of their storages.
        token: what they enrol with, if the coordinator wants one.

    """
    processes: dict[str, asyncio.subprocess.Process] = {}
    run, key = server.only.name, server.only.coordinator.state.key.public
    try:
        for device in devices:
            storage = folder / device.name
            storage.mkdir(parents=True, exist_ok=True)
            with (storage / LOG_FILE).open("wb") as log:
                processes[device.name] = await asyncio.create_subprocess_exec(
                    *(Path(sys.executable).with_name("ftte-device"), "join", server.url, "--run", run, "--key", key),
                    *("--name", device.name, "--data", device.data, "--storage", storage),
                    *("--budget", str(device.budget), "--step-time", str(device.step_seconds)),
                    *(("--token", token) if token else ()),
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                )
        yield processes
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def run_while_any_lives(server: App, processes: Processes) -> list[dict[str, Any]]:
    """
    Run until the end, or until the last device has died: then nothing would ever end it.

    Returns:
        The summary of each run.

    Raises:
        CoordinatorError: if every device has ended before.

    """
    running = asyncio.create_task(server.run())
    gone: asyncio.Future[Any] = asyncio.gather(*(process.wait() for process in processes.values()))
    either: list[asyncio.Future[Any]] = [running, gone]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            # They leave at the end, too: give the coordinator a moment to say that it was the end.
            await asyncio.wait({running}, timeout=FAREWELL_SECONDS)
        if not running.done():
            raise CoordinatorError("every device has ended before the run: see their logs beside the state directory")
        return running.result()
    finally:
        for each in either:
            each.cancel()
        await asyncio.gather(*either, return_exceptions=True)


async def failed_devices(processes: Processes) -> list[str]:
    """Names of devices that did not end well, once they had time to end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ENDING_SECONDS):
            await asyncio.gather(*(process.wait() for process in processes.values()))
    return [name for name, process in processes.items() if process.returncode != 0]
