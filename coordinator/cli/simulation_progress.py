"""How far a simulation has come, on a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mobile_sdk.metrics import format_metrics

from ..simulation.result import Point
from ..simulation.world.scenario import Scenario

__all__ = ["Display"]

REFRESH_SECONDS = 0.25
LINE_SECONDS = 10.0


class Display:
    """
    A bar of virtual time, with version, trips and metrics; without a terminal, a line now and then.

    Args:
        console: where to.
        scenario: says how long it can take.
        as_json: say nothing but warnings, and those on standard error.

    """

    def __init__(self, console: Console, scenario: Scenario, *, as_json: bool = False) -> None:
        self._console = Console(quiet=True) if as_json else console
        self._warnings = Console(stderr=True) if as_json else console
        self._total = 3600 * scenario.simulation.hours
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} % of {task.fields[hours]:g} h"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=as_json or not console.is_terminal,
        )
        self._task = self._bar.add_task("preparing", total=self._total, hours=scenario.simulation.hours)
        self._shown = 0.0
        self._metrics = ""

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """What is being prepared."""
        if text.startswith("warning: "):
            self._warnings.print(text, highlight=False, soft_wrap=True)
        elif self._console.is_terminal:
            self._bar.update(self._task, description=text)
        else:
            self._console.print(text, highlight=False, soft_wrap=True)

    def progress(self, point: Point) -> None:
        """Show a moment of the run, if the last one is old enough."""
        if point.metrics:
            self._metrics = format_metrics(point.metrics)
        now = time.monotonic()
        if now - self._shown < (REFRESH_SECONDS if self._console.is_terminal else LINE_SECONDS):
            return
        self._shown = now
        text = f"version {point.version}, {point.trips} trips, {self._metrics}"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=min(point.seconds, self._total), description=text)
        else:
            self._console.print(f"{point.seconds:.0f} s: {text}", highlight=False)
