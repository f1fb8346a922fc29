"""A summary as a table for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from exporters.cli.tables import Columns, print_rows
from mobile_sdk.sizes import format_bytes, format_count

__all__ = ["show_summary"]


def show_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print a run's summary."""
    moved = summary["bytes_up"] + summary["bytes_down"]
    lines = [
        f"The run has ended: {summary['ended']}.",
        f"{format_count(summary['versions'], 'version')} from {format_count(summary['updates_merged'], 'update')} "
        f"in {summary['wall_seconds']:.1f} s",
    ]
    before, now = summary["initial_metrics"], summary["metrics"]
    # The task's own metrics; where it has none, the loss.
    for name in [each for each in now if each != "loss"] or list(now):
        if name in before:
            lines.append(f"{name} {before[name]:.4f} at version 0, {now[name]:.4f} at the end")
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
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    size = summary["parameters"]
    tiers: Columns = {
        "tier": lambda t: t["name"],
        "budget": lambda t: format_bytes(t["budget_bytes"]),
        "planned": lambda t: format_bytes(t["planned_bytes"]),
        "measured": lambda t: format_bytes(t["measured_bytes"]),
        "trains": lambda t: f"{t['trained_parameters'] / size:.0%}",
        "program": lambda t: format_bytes(t["program_bytes"]),
    }
    print_rows(console, summary["tiers"], tiers, title="Tiers")
    print_rows(console, summary["devices"], _DEVICES, title="Devices")
    if any(device["torch_loaded"] for device in summary["devices"]):
        console.print(_TORCH, highlight=False, markup=False, soft_wrap=True)


_TORCH = (
    "torch!: the data of these devices import torch, which phones do not have and which takes hundreds of MB. Keep the "
    "data in a module without it."
)
_DEVICES: Columns = {
    "device": lambda d: d["id"],
    "tier": lambda d: d["tier"] or "-",
    "samples": lambda d: str(d["samples"] or "-"),
    "updates": lambda d: str(d["updates"]),
    "up": lambda d: format_bytes(d["bytes_up"]),
    "down": lambda d: format_bytes(d["bytes_down"]),
    "dense": lambda d: format_bytes(d["dense_bytes"]),
    "peak RSS": lambda d: _peak(d["peak_rss_bytes"], d["torch_loaded"]),
}


def _peak(peak: int | None, torch_loaded: bool | None) -> str:
    return format_bytes(peak) + (" (torch!)" if torch_loaded else "") if peak else "-"
