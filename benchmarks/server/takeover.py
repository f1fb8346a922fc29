"""
How long a service is away when the conductor that leads is killed.

PostgreSQL, two conductors, three gateways and four devices run as processes, as ``scripts/storm.py`` starts them. The
leader is killed (SIGKILL) again and again while the other one stands by; what is written down are the seconds from each
kill to each stage of the takeover. With ``--versions`` the run has so long a history when it begins.

    python -m benchmarks.server.takeover [--kills N] [--planned STATE] [--versions N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.server.load import machine
from benchmarks.server.long_history import PER_VERSION, lengthen_postgres
from coordinator.store.postgres.address import schema_name
from scripts.chaos_parts.plan import plan_run
from scripts.chaos_parts.storm import STAGES, Storm
from tests.postgres_server import open_server

OUT = Path(__file__).resolve().parent.parent / "results" / "takeover.json"


def lengthen(address: str, versions: int) -> None:
    """Give the storm's run, which is in a database, so many versions."""
    if versions:
        lengthen_postgres(address, schema_name("digits"), versions)


def main() -> None:
    """Measure, print a table, and write the numbers down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many takeovers (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills (default: 1)")
    parser.add_argument("--planned", type=Path, metavar="STATE", help="state directory of a run that has begun")
    parser.add_argument("--versions", type=int, default=0, help="of ten updates each, made before (default: 0)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    options = parser.parse_args()
    load = [os.getloadavg()[0]]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftte-takeover-")))
        planned = options.planned or plan_run(folder / "planned")
        server = stack.enter_context(open_server())
        storm = Storm(folder, options.seed, planned, server)
        found = asyncio.run(storm.takeovers(options.kills, lambda address: lengthen(address, options.versions)))
    load.append(os.getloadavg()[0])
    seconds = {stage: [round(times[stage], 3) for times in found] for stage in STAGES}
    table = Table("seconds from SIGKILL until", "median", "worst", box=None)
    for stage, values in seconds.items():
        table.add_row(stage, f"{statistics.median(values):.2f}", f"{max(values):.2f}")
    console = Console()
    console.print(table)
    history = f"{options.versions:,} versions and {options.versions * PER_VERSION:,} updates before"
    console.print(
        f"{machine()}; {options.kills} kills; {history}; load average {load[0]:.0f} before, {load[1]:.0f} after"
    )
    report = {
        "machine": machine(),
        "kills": options.kills,
        "versions": options.versions,
        "load_average": load,
        "seconds": seconds,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
