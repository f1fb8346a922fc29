"""
``ftte demo``: a coordinator and eight devices on this machine, as `serve` and `join` would start them.

Every device is a process of its own that runs ``ftte-device``, with its own part of the data (uneven
over the classes), memory budget and speed; two of them are ten times slower than the fastest.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rich.console import Console

from ..app import FAREWELL_SECONDS, App, open_app
from ..config import Config, parse_config
from ..errors import CoordinatorError
from ..reports.summary_table import show
from .demo_folder import clear_demo_folder

__all__ = ["demo"]

# What an optimiser step takes on a device, at the least: it stands for the processor of a phone.
FAST_STEP_SECONDS = 0.03
SLOW_STEP_SECONDS = 10 * FAST_STEP_SECONDS

# Decides which device has which classes.
DATA_SEED = 2


@dataclasses.dataclass(frozen=True)
class _Device:
    name: str
    tier: str
    step_seconds: float


DEVICES = (
    _Device("phone-1", "large", FAST_STEP_SECONDS),
    _Device("phone-2", "large", FAST_STEP_SECONDS),
    _Device("phone-3", "large", FAST_STEP_SECONDS),
    _Device("budget-phone-1", "medium", FAST_STEP_SECONDS),
    _Device("budget-phone-2", "medium", FAST_STEP_SECONDS),
    _Device("watch-1", "small", FAST_STEP_SECONDS),
    _Device("old-phone-1", "large", SLOW_STEP_SECONDS),
    _Device("old-phone-2", "medium", SLOW_STEP_SECONDS),
)


async def demo(folder: Path, console: Console, *, stay: bool = False) -> dict[str, Any]:
    """
    Run the demo and write ``summary.json`` and ``weights.safetensors`` into ``folder``.

    Args:
        folder: made if missing.
        console: where it is shown.
        stay: keep the dashboard open after the end, until the process is told to end.

    Raises:
        CoordinatorError: if devices failed, or the run ended without reaching its accuracy.

    """
    clear_demo_folder(
        folder,
        folders=("state", "devices"),
        files=("summary.json", "weights.safetensors"),
        remedy="name another folder with --out",
    )
    text = Path(__file__).with_name("demo.toml").read_text()
    config = parse_config(tomllib.loads(text), folder, "demo.toml")
    async with open_app([config], console, admin=False) as server, _devices(server, config, folder) as processes:
        if server.dashboard is not None:
            address = server.dashboard.address(by="demo")
            console.print(f"Watch it in a browser: {address}", highlight=False, soft_wrap=True)
        summary = await _while_any_lives(server, processes)
        for name in ("summary.json", "weights.safetensors"):
            shutil.copyfile(config.run.state / name, folder / name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await asyncio.gather(*(process.wait() for process in processes))
        codes = [process.returncode for process in processes]
        if stay:
            console.print(show(summary))
            console.print("The dashboard stays open until Ctrl-C.", highlight=False)
            await asyncio.Event().wait()
    console.print(show(summary))
    console.print(f"summary and weights are in {folder}", highlight=False)
    failed = [device.name for device, code in zip(DEVICES, codes, strict=True) if code != 0]
    if failed:
        raise CoordinatorError(f"{', '.join(failed)} failed: see {folder / 'devices' / failed[0] / 'log.txt'}")
    if summary["accuracy"] < (config.stop.accuracy or 0):
        raise CoordinatorError(f"the run ended at the accuracy {summary['accuracy']:.4f}, before it reached its goal")
    return summary


async def _while_any_lives(server: App, processes: list[asyncio.subprocess.Process]) -> dict[str, Any]:
    """Run until the end, or until the last device has died: then nothing would ever end it."""
    running = asyncio.create_task(server.run())
    gone: asyncio.Future[Any] = asyncio.gather(*(process.wait() for process in processes))
    either: list[asyncio.Future[Any]] = [running, gone]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        # They leave at the end, too: give the coordinator a moment to say that it was the end.
        await asyncio.wait({running}, timeout=FAREWELL_SECONDS)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    if not running.done():
        running.cancel()
        raise CoordinatorError("every device process has ended before the run: see the logs beside the state directory")
    (summary,) = running.result()
    return summary


@contextlib.asynccontextmanager
async def _devices(server: App, config: Config, folder: Path) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Start a process per device; whatever still runs at the end is stopped."""
    processes = []
    try:
        for index, device in enumerate(DEVICES):
            storage = folder / "devices" / device.name
            storage.mkdir(parents=True)
            with (storage / "log.txt").open("wb") as log:
                processes.append(
                    await asyncio.create_subprocess_exec(
                        *(Path(sys.executable).with_name("ftte-device"), "join", server.url),
                        *(
                            "--run",
                            config.run.name,
                            "--key",
                            server.only.coordinator.state.key.public,
                            "--name",
                            device.name,
                        ),
                        *(
                            "--data",
                            f"exporters.zoo.digits_data:part({index}, of={len(DEVICES)}, alpha=0.3, seed={DATA_SEED})",
                        ),
                        *("--budget", str(config.budgets[device.tier]), "--step-time", str(device.step_seconds)),
                        *("--storage", storage),
                        stdout=log,
                        stderr=asyncio.subprocess.STDOUT,
                    )
                )
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
                await process.wait()
