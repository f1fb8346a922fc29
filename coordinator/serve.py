"""A run from its file to its summary: what ``ftte serve`` and ``ftte demo`` have in common."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rich.console import Console

from mobile_sdk import safetensors
from mobile_sdk.clock import SystemClock
from mobile_sdk.files import write_durably

from .config import Config
from .coordinator import Coordinator
from .display import live
from .keys import RunKey
from .planning import begin_or_resume, load_evaluator
from .server import listen
from .store.sqlite import SqliteStore
from .summary import summarise

__all__ = ["Serving", "serving"]

# How long devices have to hear of the end before the server closes.
FAREWELL_SECONDS = 10.0


class Serving:
    """
    A coordinator that listens.

    ``url`` and ``key`` are what a device needs to join.
    """

    def __init__(self, coordinator: Coordinator, url: str, key: str, console: Console) -> None:
        self.url = url
        self.key = key
        self.coordinator = coordinator
        self._console = console
        self._clock = SystemClock()

    async def run(self) -> dict[str, Any]:
        """Show the run until it has ended; its summary, as in ``summary.json``."""
        began = self._clock.monotonic()
        async with live(self._console, self.coordinator.status):
            finished = await self.coordinator.run()
            seconds = self._clock.monotonic() - began
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self.coordinator.drained()
        return {"ended": finished.reason, **summarise(self.coordinator.state, wall_seconds=seconds)}

    def save(self, summary: dict[str, Any], folder: Path) -> None:
        """Write ``summary.json`` and the newest weights, ``weights.safetensors``; to be done before printing."""
        run = self.coordinator.state
        weights = safetensors.dumps(
            run.layout.views(run.versions.vector), {"version": str(run.versions.newest.version)}
        )
        write_durably(folder / "weights.safetensors", weights)
        write_durably(folder / "summary.json", json.dumps(summary, indent=2).encode() + b"\n")


@contextlib.asynccontextmanager
async def serving(config: Config, console: Console) -> AsyncIterator[Serving]:
    """
    Open the state directory, plan if that was not done yet, and listen.

    Raises:
        CoordinatorError: if the run file or the state directory cannot be used.
        ExportError: if a program cannot be made.

    """
    clock = SystemClock()
    store = SqliteStore(config.run.state)
    try:
        key = RunKey.load_or_create(config.run.state / "run.key")
        with console.status("planning programs ...") as status:
            tiers = await asyncio.to_thread(
                begin_or_resume,
                config,
                store,
                key,
                clock.wall(),
                lambda text: status.update(text) if console.is_terminal else console.print(text, highlight=False),
            )
        # The largest tier was planned for the least memory pressure; every tier evaluates alike.
        evaluate = await asyncio.to_thread(load_evaluator, store, tiers[-1])
        coordinator = Coordinator(config, store, key, tiers, evaluate)
        async with listen(coordinator, config.server) as url:
            yield Serving(coordinator, url, key.public, console)
    finally:
        store.close()
