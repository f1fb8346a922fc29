"""``ftte simulate``: what a run would be like, before there is one."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from exporters.cli.tables import Columns, print_rows
from mobile_sdk.durable_files import write_durably
from mobile_sdk.metrics import format_metrics
from mobile_sdk.sizes import format_bytes, format_count

from ..errors import ConfigError
from .parsing import add_set_option

__all__ = ["add_simulate_command"]


def add_simulate_command(commands: Any) -> None:
    """Add the command to ``ftte``'s."""
    parser = commands.add_parser("simulate", help="predict how a run will go: real training, virtual time")
    parser.add_argument("file", type=Path, metavar="SCENARIO.toml", help="the scenario: a run file and its fleet")
    add_set_option(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON (default: print it only)")
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the scenario's")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that train (default: one per processor)")
    parser.add_argument("--ray", metavar="ADDRESS", help="train on a Ray cluster instead (needs ftte[ray])")
    parser.add_argument(
        "--programs",
        type=Path,
        metavar="DIR",
        help="keep planned programs here for the next simulation",
    )
    parser.add_argument("--history", type=Path, metavar="DIR", help="write versions.csv and events.jsonl there")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(handler=_simulate)


def _simulate(options: argparse.Namespace, console: Console) -> int:
    if not options.json:
        console.print(f"preparing the simulation of {options.file}", highlight=False, markup=False, soft_wrap=True)
    # Here, so that no other command has to wait for it; the last needs torch.
    from ..sessions.update_upload import log as refusals
    from ..simulation.simulate import simulate
    from ..simulation.world.scenario import load_scenario
    from .simulation_progress import Display

    if options.workers is not None and options.workers < 0:
        raise ConfigError(f"--workers is {options.workers}; it must be at least 0")
    scenario = load_scenario(options.file, options.set)
    if options.seed is not None:
        if options.seed < 0:
            raise ConfigError(f"--seed is {options.seed}; it must be at least 0")
        scenario = scenario.with_seed(options.seed)
    if not options.verbose:  # updates in flight when a run stops are always too late: hide their refusals
        refusals.setLevel(logging.ERROR)
    if options.out is not None:
        _check_can_be_written(options.out)
    with Display(console, scenario, as_json=options.json) as display:
        result = simulate(
            scenario,
            workers=options.workers,
            ray=options.ray,
            plans=options.programs,
            history=options.history,
            say=display.say,
            progress=display.progress,
        )
    if options.out is not None:
        write_durably(options.out, json.dumps(result, indent=1).encode() + b"\n")
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        _show(result, console)
    return 0


def _check_can_be_written(file: Path) -> None:
    """Before anything is simulated, for it would be lost."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {file}: {file.parent} cannot be made: {error.strerror}") from error
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise ConfigError(f"--out {file} cannot be written: name a file in a folder that can")


def _show(result: dict[str, Any], console: Console) -> None:
    """The result for people: how long, how good, and what it costs each device."""
    last, machine = result["curve"][-1], result["machine"]
    metrics = format_metrics(last["metrics"])
    console.print(
        f"The run would end after {duration(result['seconds'])}: {result['ended']}.", highlight=False, soft_wrap=True
    )
    versions, updates = format_count(result["versions"], "version"), format_count(result["trips"], "update")
    console.print(f"{versions} from {updates}; {metrics}", highlight=False, soft_wrap=True)
    console.print(
        f"{format_bytes(result['bytes_up'])} up and {format_bytes(result['bytes_down'])} down over all devices; "
        f"{format_bytes(result['repeated_bytes'])} were lost on the way and sent again",
        highlight=False,
        soft_wrap=True,
    )
    columns: Columns = {
        "class": lambda c: c["name"],
        "devices": lambda c: str(c["devices"]),
        "took part": lambda c: str(c["took_part"]),
        "updates": lambda c: f"{c['updates_each']:.1f}",
        "up": lambda c: format_bytes(round(c["bytes_up_each"])),
        "down": lambda c: format_bytes(round(c["bytes_down_each"])),
        "computing": lambda c: duration(c["compute_seconds_each"]),
    }
    classes = [{"name": name, **group} for name, group in result["classes"].items()]
    print_rows(console, classes, columns, title="What it costs each device, on average")
    console.print(
        f"Simulated in {machine['seconds']:.1f} s: {machine['trips_per_second']:.1f} trips per second, "
        f"peak memory {format_bytes(machine['peak_rss_bytes'])} and the workers'.",
        highlight=False,
        soft_wrap=True,
    )


def duration(seconds: float) -> str:
    """Virtual time for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return time.strftime("%H:%M h", time.gmtime(seconds)) if seconds < 86400 else f"{seconds / 86400:.2f} days"
