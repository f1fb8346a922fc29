"""
The coordinator's processor time per trip, beside that of an earlier one.

Two checkouts serve the same devices in turn, each in a process of its own: a trip is from the device's wish for work to
the version that its update became part of. Ratios of medians hold on a machine that others use as well.

    git worktree add --detach /tmp/before 'a6a3b8f^'
    python -m benchmarks.server.trip_cost --before /tmp/before [--rounds N] [--sizes BYTES ...] [--devices N]
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.server.load import CHECKOUT, HERE, RESULTS, SIZES, machine, measure


def main() -> None:
    """Both checkouts in turn, several times; prints a table and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="a checkout to compare with")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="BYTES")
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--disk", type=Path, default=HERE, metavar="FOLDER", help="where the state is kept meanwhile")
    parser.add_argument("--out", type=Path, default=RESULTS / "trip_cost.json", metavar="FILE")
    options = parser.parse_args()
    console = Console()
    sides = {"before": options.before.resolve(), "now": CHECKOUT}
    buffer = min(32, max(4, options.devices // 4))
    table = Table("update", "", "CPU per trip", "updates/s", "ratio of CPU", "of updates/s", box=None)
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        cost: dict[str, list[float]] = {name: [] for name in sides}
        rate: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(options.rounds):
            for name, checkout in sides.items():
                place = {"checkout": checkout, "disk": options.disk}
                one = measure("coordinator", options.devices, size, options.seconds, "--buffer", buffer, **place)
                if not one["updates_per_second"]:
                    raise SystemExit("no update was merged in time: the machine is too busy, or --seconds too short")
                rate[name].append(one["updates_per_second"])
                cost[name].append(1e3 * one["server_cpu"] / one["updates_per_second"])
                console.print(
                    f"{size:,} B, round {number + 1}, {name}: {cost[name][-1]:.3f} ms, {rate[name][-1]:.0f}/s"
                )
        middle = {name: (statistics.median(cost[name]), statistics.median(rate[name])) for name in sides}
        ratios = [middle["now"][i] / middle["before"][i] for i in (0, 1)]
        for name, (milliseconds, per_second) in middle.items():
            shown = [f"{ratio:.2f}" for ratio in ratios] if name == "now" else []
            table.add_row(f"{size:,} B", name, f"{milliseconds:.3f} ms", f"{per_second:,.0f}", *shown)
        rows.append({"update_bytes": size, "cpu_ms": cost, "updates_per_second": rate, "ratios": ratios})
    console.print(table)
    given = {key: str(value) for key, value in vars(options).items() if key != "out"}
    report = {"machine": machine(), "settings": given, "cases": rows}
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
