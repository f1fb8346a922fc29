"""A summary as a table for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mobile_sdk.sizes import format_bytes

__all__ = ["show"]


def show(summary: dict[str, Any]) -> RenderableType:
    """A summary for a terminal."""
    moved = summary["bytes_up"] + summary["bytes_down"]
    lines = [
        f"The run has ended: {summary['ended']}.",
        f"{summary['versions']} versions from {summary['updates_merged']} updates in {summary['wall_seconds']:.1f} s",
    ]
    if summary["accuracy"] is not None:
        lines.append(f"accuracy {summary['initial_accuracy']:.4f} at version 0, {summary['accuracy']:.4f} at the end")
    for name, both in summary.get("on_devices", {}).items():
        lines.append(
            f"{name} on the devices' own samples: {both['global']:.4f} global, {both['personal']:.4f} personal"
        )
    if summary["dense_bytes"]:
        lines.append(
            f"{format_bytes(summary['bytes_up'])} up and {format_bytes(summary['bytes_down'])} down; "
            f"a dense float32 exchange: {format_bytes(summary['dense_bytes'])} ({moved / summary['dense_bytes']:.0%})"
        )
    staleness = ", ".join(f"{tau}: {count}" for tau, count in summary["staleness"].items())
    lines.append(f"merged updates by staleness  {staleness or 'none'}")
    buffer = summary["buffer"]
    if buffer["mean_staleness"] is not None:
        size = f"{buffer['size']} updates a merge{' (auto)' if buffer['adaptive'] else ''}"
        lines.append(f"{size}; the last ones merged were {buffer['mean_staleness']:.1f} versions old on average")
    return Group(*(Text(line) for line in lines), _tiers(summary), _devices(summary))


def _tiers(summary: dict[str, Any]) -> Table:
    table = Table("tier", title="Tiers", title_justify="left", box=None, pad_edge=False)
    for name in ("budget", "planned", "measured", "trains", "program"):
        table.add_column(name, justify="right")
    for tier in summary["tiers"]:
        table.add_row(
            tier["name"],
            format_bytes(tier["budget_bytes"]),
            format_bytes(tier["planned_bytes"]),
            format_bytes(tier["measured_bytes"]),
            f"{tier['trained_parameters'] / summary['parameters']:.0%}",
            format_bytes(tier["program_bytes"]),
        )
    return table


def _devices(summary: dict[str, Any]) -> Table:
    table = Table("device", "tier", title="Devices", title_justify="left", box=None, pad_edge=False)
    for name in ("samples", "updates", "up", "down", "dense", "peak RSS"):
        table.add_column(name, justify="right")
    for device in summary["devices"]:
        peak = device["peak_rss_bytes"]
        table.add_row(
            device["id"],
            device["tier"],
            str(device["samples"] or "-"),
            str(device["updates"]),
            format_bytes(device["bytes_up"]),
            format_bytes(device["bytes_down"]),
            format_bytes(device["dense_bytes"]),
            format_bytes(peak) + (" (torch!)" if device["torch_loaded"] else "") if peak else "-",
        )
    return table
