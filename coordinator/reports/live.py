"""The run on a terminal, live: version, buffer, accuracy, staleness, bytes, and every device."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mobile_sdk.metrics import format_metrics
from mobile_sdk.sizes import format_bytes

from ..status import RunStatus
from .sparks import BLOCKS, draw_spark

__all__ = ["live"]

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.25
# Without a terminal, what a run waits for is said once it has waited so long.
PATIENCE_SECONDS = 5.0
SHOWN_DEVICES = 20
_STYLES = {
    "offline": "dim",
    "idle": "default",
    "waiting": "yellow",
    "downloading": "cyan",
    "training": "green",
    "evaluating": "blue",
    "uploading": "magenta",
}


@contextlib.asynccontextmanager
async def live(console: Console, status: Callable[[], Sequence[RunStatus]]) -> AsyncIterator[None]:
    """
    Show the runs while the context lasts; where there is no terminal, print a line per version instead.

    Args:
        console: where to.
        status: gives the newest look at each run.

    """
    show = _animate(console, status) if console.is_terminal else _log(console, status)
    task = asyncio.create_task(_guarded(show))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _guarded(show: Coroutine[Any, Any, None]) -> None:
    """Nothing that happens to a terminal may end a run: rich, for one, exits when the output is closed."""
    try:
        await show
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        log.warning("the display has ended: %r", error)


async def _animate(console: Console, status: Callable[[], Sequence[RunStatus]]) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as screen:
        while True:
            screen.update(Group(*(render(each) for each in status())), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


async def _log(console: Console, status: Callable[[], Sequence[RunStatus]]) -> None:
    seen = {each.name: each.version for each in status()}
    waits = _Waits(asyncio.get_running_loop().time)
    try:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            _print_versions(console, status(), seen)
            for line in waits.look(status()):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
    finally:
        _print_versions(console, status(), seen)


class _Waits:
    """Says once what a run waits for, when it has done so for some seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since: dict[str, tuple[str, float]] = {}
        self._said: dict[str, str] = {}

    def look(self, runs: Sequence[RunStatus]) -> list[str]:
        """The sentences that are due."""
        lines = []
        for status in runs:
            why, since = self._since.get(status.name, ("", 0.0))
            if status.waits_for != why:
                self._since[status.name] = (status.waits_for, self._now())
            elif why and why != self._said.get(status.name) and self._now() - since >= PATIENCE_SECONDS:
                self._said[status.name] = why
                run = f"{status.name} " if len(runs) > 1 else ""
                lines.append(f"{run}version {status.version + 1} waits for {why}")
        return lines


def _print_versions(console: Console, runs: Sequence[RunStatus], seen: dict[str, int]) -> None:
    """Print the versions after those in ``seen``, which is brought up to date."""
    for status in runs:
        run = f"{status.name} " if len(runs) > 1 else ""
        for version, metrics in status.history:
            if version > seen.get(status.name, -1):
                numbers = format_metrics(metrics)
                console.print(f"{run}version {version}: {numbers}", highlight=False)
        seen[status.name] = status.version


def render(status: RunStatus) -> RenderableType:
    """One picture of the run."""
    history = [metrics[status.watched] for _, metrics in status.history if status.watched in metrics]
    facts = Table.grid(padding=(0, 2))
    facts.add_row(Text("version", style="dim"), Text(str(status.version), style="bold"))
    if status.phase != "running":
        facts.add_row(Text("phase", style="dim"), Text(f"{status.phase}: {status.reason}", style="yellow"))
    if history:
        facts.add_row(
            Text(status.watched, style="dim"),
            Text.assemble((f"{history[-1]:.4f}  ", "bold"), (draw_spark(history[-48:]), "green")),
        )
    buffer = Table.grid(padding=(0, 1))
    buffer.add_row(
        ProgressBar(status.capacity, min(status.buffered, status.capacity), width=20),
        f"{status.buffered} of {status.capacity}{' (auto)' if status.adaptive else ''}",
    )
    facts.add_row(Text("buffer", style="dim"), buffer)
    facts.add_row(Text("staleness", style="dim"), _staleness(status))
    if status.waits_for:
        facts.add_row(Text("waits for", style="dim"), Text(status.waits_for, style="yellow"))
    if status.notice:
        facts.add_row(Text("look at", style="dim"), Text(status.notice, style="yellow"))
    up, down = sum(d.bytes_up for d in status.devices), sum(d.bytes_down for d in status.devices)
    facts.add_row(Text("bytes", style="dim"), f"{format_bytes(up)} up, {format_bytes(down)} down")
    return Group(Text(f"FTTE  {status.name}", style="bold"), facts, _devices(status))


def _staleness(status: RunStatus) -> Text:
    if not status.staleness:
        return Text("none merged yet", style="dim")
    most = max(status.staleness.values())
    text = Text()
    for tau, count in list(status.staleness.items())[:16]:
        text.append(f"{tau}")
        text.append(BLOCKS[round((len(BLOCKS) - 1) * count / most)] + " ", style="yellow")
    mean = "" if status.mean_staleness is None else f", {status.mean_staleness:.1f} on average lately"
    return text.append(f" {status.merged} merged{mean}")


def _devices(status: RunStatus) -> Table:
    table = Table("device", "tier", "state", box=None, pad_edge=False)
    for name in ("updates", "staleness", "loss", "up", "down"):
        table.add_column(name, justify="right")
    for device in status.devices[:SHOWN_DEVICES]:
        loss = device.report.get("loss")
        table.add_row(
            device.id,
            device.tier or "-",
            Text(device.state, style=_STYLES[device.state]),
            str(device.updates),
            "-" if device.staleness is None else str(device.staleness),
            f"{loss:.3f}" if isinstance(loss, float) else "-",
            format_bytes(device.bytes_up),
            format_bytes(device.bytes_down),
        )
    if len(status.devices) > SHOWN_DEVICES:
        table.add_row(f"and {len(status.devices) - SHOWN_DEVICES} more")
    return table
