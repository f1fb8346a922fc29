"""
``ftte demo``: a coordinator and eight devices on this machine, as `serve` and `join` would start them.

Every device is a process of its own that runs ``ftte-device``, with its own part of the data (uneven
over the classes), memory budget and speed; two of them are ten times slower than the fastest.
"""

from __future__ import annotations

import asyncio
import shutil
import tomllib
from pathlib import Path
from typing import Any

from rich.console import Console

from ..app import open_app
from ..config import Config, parse_config
from ..errors import CoordinatorError
from .demo_folder import clear_demo_folder
from .local_devices import LocalDevice, failed_devices, local_devices, run_while_any_lives
from .summary_table import show_summary

__all__ = ["demo"]

# What an optimiser step takes on a device, at the least: it stands for the processor of a phone.
FAST_STEP_SECONDS = 0.03
SLOW_STEP_SECONDS = 10 * FAST_STEP_SECONDS

# Decides which device has which classes.
DATA_SEED = 2


# Name, tier, and what a step takes.
FLEET = (
    ("phone-1", "large", FAST_STEP_SECONDS),
    ("phone-2", "large", FAST_STEP_SECONDS),
    ("phone-3", "large", FAST_STEP_SECONDS),
    ("budget-phone-1", "medium", FAST_STEP_SECONDS),
    ("budget-phone-2", "medium", FAST_STEP_SECONDS),
    ("watch-1", "small", FAST_STEP_SECONDS),
    ("old-phone-1", "large", SLOW_STEP_SECONDS),
    ("old-phone-2", "medium", SLOW_STEP_SECONDS),
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
    async with (
        open_app([config], console, admin=False) as server,
        local_devices(server, _devices(config), folder / "devices") as processes,
    ):
        if server.dashboard is not None:
            address = server.dashboard.address(by="demo")
            console.print(f"Watch it in a browser: {address}", highlight=False, soft_wrap=True)
        (summary,) = await run_while_any_lives(server, processes)
        for name in ("summary.json", "weights.safetensors"):
            shutil.copyfile(config.run.state / name, folder / name)
        failed = await failed_devices(processes)
        if stay:
            show_summary(console, summary)
            console.print("The dashboard stays open until Ctrl-C.", highlight=False)
            await asyncio.Event().wait()
    show_summary(console, summary)
    console.print(f"summary and weights are in {folder}", highlight=False)
    if failed:
        raise CoordinatorError(f"{', '.join(failed)} failed: see {folder / 'devices' / failed[0] / 'log.txt'}")
    if summary["accuracy"] < (config.stop.accuracy or 0):
        raise CoordinatorError(f"the run ended at the accuracy {summary['accuracy']:.4f}, before it reached its goal")
    return summary


def _devices(config: Config) -> list[LocalDevice]:
    """The fleet: each with its own part of the digits."""
    return [
        LocalDevice(
            name,
            f"exporters.zoo.digits_data:part({index}, of={len(FLEET)}, alpha=0.3, seed={DATA_SEED})",
            config.budgets[tier],
            seconds,
        )
        for index, (name, tier, seconds) in enumerate(FLEET)
    ]
