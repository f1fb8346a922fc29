"""``ftte top``: the runs of a coordinator at a glance, in a terminal."""

from __future__ import annotations

import argparse
import collections
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mobile_sdk.metrics import format_metrics
from mobile_sdk.sizes import format_bytes

from ..admin.client import AdminClient
from ..reports.sparks import draw_spark
from .operate import add_client_command

__all__ = ["Glance", "add_top_command"]

REFRESH_SECONDS = 2.0

# Devices that are shown of each run: those that have sent the most.
SHOWN_DEVICES = 12

SPARKS = 40


def add_top_command(commands: Any) -> None:
    """Register it."""
    command = add_client_command(commands, "top", "the runs at a glance, until Ctrl-C", _top)
    command.add_argument("--once", action="store_true", help="print them once; so it is where there is no terminal")


def _top(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    glance = Glance(client)
    if options.json:
        print(json.dumps(glance.look(), indent=2))
        return 0
    if options.once or not console.is_terminal:
        console.print(glance.picture(glance.look()))
        return 0
    with Live(console=console, screen=True, auto_refresh=False) as screen:
        while True:
            screen.update(glance.picture(glance.look()), refresh=True)
            time.sleep(REFRESH_SECONDS)


class Glance:
    """
    Looks at a coordinator, and remembers the watched metric from one to the next.

    Args:
        client: how it is asked.

    """

    def __init__(self, client: AdminClient) -> None:
        self._client = client
        self._seen: dict[str, dict[int, float]] = collections.defaultdict(dict)

    def look(self) -> list[dict[str, Any]]:
        """Every run with its devices, those first that have sent the most updates."""
        runs: list[dict[str, Any]] = self._client.get("runs")["runs"]
        for run in runs:
            devices = self._client.get("runs", run["name"], "devices")
            run["devices"] = sorted(devices, key=lambda device: (-device["updates"], device["id"]))
            if run["watched"] in run["metrics"]:
                self._seen[run["name"]][run["version"]] = run["metrics"][run["watched"]]
        return runs

    def picture(self, runs: Sequence[Mapping[str, Any]]) -> RenderableType:
        """What :meth:`look` has found, for a terminal."""
        return Group(*(self._run(run) for run in runs)) if runs else Text("No run is served.")

    def _run(self, run: Mapping[str, Any]) -> RenderableType:
        facts = Table.grid(padding=(0, 2))
        seen = list(self._seen[run["name"]].values())[-SPARKS:]
        best = "" if run["best"] is None else f", the best is {run['best']}"
        facts.add_row(Text("version", "dim"), Text(f"{run['version']}{best}"))
        facts.add_row(
            Text("metrics", "dim"), Text.assemble(format_metrics(run["metrics"]), "  ", (draw_spark(seen), "green"))
        )
        buffer = Table.grid(padding=(0, 1))
        size = f"{run['buffered']} of {run['capacity']}{' (auto)' if run['adaptive'] else ''}"
        buffer.add_row(ProgressBar(run["capacity"], min(run["buffered"], run["capacity"]), width=20), size)
        facts.add_row(Text("buffer", "dim"), buffer)
        facts.add_row(
            Text("devices", "dim"), f"{run['connected']} of {len(run['devices'])} connected, {run['working']} at work"
        )
        facts.add_row(Text("now", "dim"), Text(run["words"]))
        if run["notice"]:
            facts.add_row(Text("look at", "dim"), Text(run["notice"], "yellow"))
        head = Text.assemble(
            (run["name"], "bold"), "  ", (run["phase"], "green" if run["phase"] == "running" else "yellow")
        )
        return Group(head, facts, _devices(run["devices"]), Text())


def _devices(devices: Sequence[Mapping[str, Any]]) -> RenderableType:
    if not devices:
        return Text("no device has joined yet", "dim")
    table = Table("device", "state", "tier", box=None, pad_edge=False)
    for name in ("updates", "failures", "up", "down"):
        table.add_column(name, justify="right")
    for device in devices[:SHOWN_DEVICES]:
        table.add_row(
            device["id"],
            "set aside" if device["set_aside"] else device["state"],
            device["tier"] or "-",
            str(device["updates"]),
            str(device["failures"]),
            format_bytes(device["bytes_up"]),
            format_bytes(device["bytes_down"]),
        )
    more = len(devices) - SHOWN_DEVICES
    return Group(table, Text(f"and {more} more: `ftte devices`", "dim")) if more > 0 else table
