"""
The coordinator on uvloop and on asyncio's own event loop: updates per second, processor time, how late the loop is.

    python -m benchmarks.server.event_loops [--update-bytes N] [--devices N] [--rounds N] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.server.load import measure, percentiles

RESULTS = Path(__file__).parents[1] / "results" / "event_loops.json"
LOOPS: dict[str, list[str]] = {"uvloop": [], "asyncio": ["--asyncio"]}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs."""
    rates = [run["updates_per_second"] for run in runs]
    return {
        "updates_per_second": round(statistics.median(rates), 1),
        "least_and_most": [round(min(rates), 1), round(max(rates), 1)],
        "cpu_ms_per_update": round(
            statistics.median(1e3 * run["server_cpu"] / run["updates_per_second"] for run in runs), 3
        ),
        "loop_delay_ms": percentiles(np.array([delay for run in runs for delay in run["delays"]])),
    }


def main() -> None:
    """Both loops in turn, several times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update-bytes", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in LOOPS}
    for number in range(options.rounds):
        for name, flags in LOOPS.items():
            runs[name].append(measure("coordinator", options.devices, options.update_bytes, options.seconds, *flags))
            print(f"round {number + 1}, {name}: {runs[name][-1]['updates_per_second']:.0f} updates/s", flush=True)
    loops = {name: summary(those) for name, those in runs.items()}
    ratio = loops["uvloop"]["updates_per_second"] / loops["asyncio"]["updates_per_second"]
    print(json.dumps(loops, indent=1))
    print(f"uvloop takes {ratio:.2f} times as many")
    given = {key: value for key, value in vars(options).items() if key != "out"}
    report = {"machine": platform.platform(), "settings": given, "loops": loops, "ratio": round(ratio, 3)}
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
