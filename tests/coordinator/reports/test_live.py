"""The display where there is no terminal."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from pathlib import Path

from rich.console import Console

from coordinator.reports.live import live
from coordinator.simulation.virtual_time import run
from coordinator.status import RunStatus

from ..small_run import make_run


def test_what_a_run_waits_for_is_said_once_when_it_has_waited(tmp_path: Path) -> None:
    async def main() -> None:
        written = io.StringIO()
        look = make_run(tmp_path).state().status()
        waits = ""

        def status() -> list[RunStatus]:
            return [dataclasses.replace(look, waits_for=waits)]

        async with live(Console(file=written, width=40), status):
            for waits, seconds in (("a", 1), ("", 10), ("b", 100), ("c", 3), ("b", 100), ("c", 10)):  # noqa: B007
                await asyncio.sleep(seconds)
        assert written.getvalue().splitlines() == ["version 1 waits for b", "version 1 waits for c"]

    run(main())
