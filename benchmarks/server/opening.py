"""
How long a process takes to open a run with a long history, after it has begun to lead.

    python -m benchmarks.server.opening [--versions N ...] [--rounds N] [--out FILE]

A run of nine parameters gets so many versions of ten updates each, in SQLite and in PostgreSQL (a server of its own).
Timed is what a leader does with its store: everything that it reads, and the state in memory that it makes of it.
Programs, evaluation and the run's key are not in it. Each time is that of a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.server.load import machine
from benchmarks.server.long_history import PER_VERSION, lengthen_postgres, lengthen_sqlite
from coordinator.run_state import HISTORY
from coordinator.store.postgres.address import schema_name
from coordinator.updates.buffer_size import LOOKED_BACK_ON
from tests.coordinator.small_run import make_run
from tests.postgres_server import open_server

OUT = Path(__file__).resolve().parent.parent / "results" / "opening.json"


def lengthen(folder: Path, store: dict[str, Any], versions: int) -> None:
    """Begin a run and give it a history."""
    small = make_run(folder, store=store)
    small.store.close()
    if store:
        lengthen_postgres(store["postgres"], schema_name(small.config.run.name), versions)
    else:
        lengthen_sqlite(small.config.run.state, versions)


async def open_once(folder: Path, store: dict[str, Any]) -> tuple[float, float]:
    """Seconds, and those of this process's processor, to open the run; its store is open by then."""
    small = make_run(folder, store=store)
    gc.collect()
    began, used = time.perf_counter(), time.process_time()
    with small.store.read_ahead(versions=HISTORY, updates=LOOKED_BACK_ON):
        coordinator = small.coordinator()
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    newest, merged = coordinator.state.versions.newest.version, coordinator.state.updates_merged
    assert merged == PER_VERSION * newest, f"{newest} versions, {merged} updates"
    small.store.close()
    return seconds, processor


def open_run(folder: Path, store: dict[str, Any]) -> tuple[float, float]:
    """:func:`open_once`, in a process of its own."""
    return asyncio.run(open_once(folder, store))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, nargs="+", default=[100, 2_000, 20_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    load, found = os.getloadavg()[0], []
    table = Table("store", "versions", "updates", "seconds", "worst", "of its processor", box=None)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftte-opening-")))
        server = stack.enter_context(open_server())
        for versions in options.versions:
            stores: dict[str, dict[str, Any]] = {"sqlite": {}, "postgres": {"postgres": server.database()}}
            for name, store in stores.items():
                place = folder / f"{name}-{versions}"
                place.mkdir()
                lengthen(place, store, versions)
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as other:
                    times = [other.submit(open_run, place, store).result() for _ in range(options.rounds)]
                wall, processor = ([round(each[which], 4) for each in times] for which in (0, 1))
                found.append({"store": name, "versions": versions, "seconds": wall, "processor_seconds": processor})
                table.add_row(
                    name,
                    f"{versions:,}",
                    f"{versions * PER_VERSION:,}",
                    f"{statistics.median(wall):.2f}",
                    f"{max(wall):.2f}",
                    f"{statistics.median(processor):.2f}",
                )
    console = Console()
    console.print(table)
    console.print(f"{machine()}; load average {load:.0f} before, {os.getloadavg()[0]:.0f} after")
    report = {"machine": machine(), "load_average": [load, os.getloadavg()[0]], "openings": found}
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
