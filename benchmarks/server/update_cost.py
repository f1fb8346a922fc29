"""
Bytes on the wire and the coordinator's CPU time per update, on the work of NVIDIA FLARE's edge example.

A net of as many parameters as that example's (the convnet of PyTorch's CIFAR-10 tutorial, 62,006), all trained, 32
devices, a buffer of 16. A real ``ftte serve``; the devices are real clients in one other process, each with its own
connection, storage and 50 images, which train one epoch with the native engine. CPU time is that of the coordinator and
all its processes: once from its start to its end, with imports and the export of the program, and once from the moment
on when it listens. Nobody evaluates.

FLARE's own edge path comes first (:mod:`benchmarks.server.flare_edge`), with as many devices and updates and as large a
buffer; its phones do not train. It has an environment of its own, which is installed if it is not there yet.

    FTTE_CIFAR10=cifar-10-batches-py python -m benchmarks.server.update_cost [--versions 60]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.paper_task import part
from benchmarks.payload import started, wait_for
from benchmarks.server import flare_edge
from benchmarks.server.load import RESULTS, machine
from exporters import Task
from exporters.zoo.examples import cross_entropy

DEVICES, BUFFER, SAMPLES = 32, 16, 50
CLIENTS = Path(__file__).parent / "update_cost_clients.py"
PACKINGS = {
    "float32": 'update = "float32"',
    "int8": 'update = "int8"',
    "int4": 'update = "int4"\ngrid_bits = 6',
}


def task() -> Task:
    """The example's net from random weights, on CIFAR-10."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    x, y = (np.array(array[:16]) for array in part("devices"))
    return Task(model, cross_entropy, x, y, name="convnet")


def measured(packing: str, versions: int) -> dict[str, float]:
    """One run, from its start to its end."""
    with tempfile.TemporaryDirectory() as name:
        folder, log, samples = Path(name), Path(name) / "log.txt", Path(name) / "samples.npz"
        x, y = (array[: DEVICES * SAMPLES].reshape(DEVICES, SAMPLES, *array.shape[1:]) for array in part("devices"))
        np.savez(samples, x=x, y=y)
        (folder / "run.toml").write_text(
            '[run]\nname = "convnet"\ntask = "benchmarks.server.update_cost:task"\n[server]\nport = 0\n'
            '[budgets]\nall = "40MB"\n'
            "[training]\nepochs = 1\nbatch_size = 16\nlearning_rate = 0.05\n"
            f"[merge]\nbuffer = {BUFFER}\n[stop]\nversions = {versions}\n[payload]\n{PACKINGS[packing]}\n"
        )
        with started("ftte", "serve", folder / "run.toml", log=log) as server:
            url, key = wait_for(server, log)
            start = cpu_seconds(server.pid)
            with log.open("ab") as output:
                devices = subprocess.run(
                    [sys.executable, CLIENTS, url, key, samples, folder / "devices"],
                    stdout=output,
                    stderr=output,
                    check=False,
                ).returncode
            _, status, usage = os.wait4(server.pid, 0)
            server.returncode = os.waitstatus_to_exitcode(status)
        if devices or server.returncode:
            raise RuntimeError(f"the run failed:\n{log.read_text()[-2000:]}")
        summary = json.loads((folder / "state" / "summary.json").read_text())
    updates = sum(device["updates"] for device in summary["devices"])
    used = usage.ru_utime + usage.ru_stime
    return {
        "updates": updates,
        "bytes_down": summary["bytes_down"] / updates,
        "bytes_up": summary["bytes_up"] / updates,
        "cpu_seconds": used / updates,
        "cpu_seconds_serving": (used - start) / updates,
    }


def cpu_seconds(root: int) -> float:
    """CPU time so far of a process and of all that descend from it."""
    parents, used = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rsplit(")", 1)[1].split()
            pid = int(entry.parent.name)
            parents[pid], used[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(used.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure every packing, print, write ``benchmarks/results/update_cost.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=60)
    options = parser.parse_args()
    console = Console()
    console.print(f"{machine()}; {DEVICES} devices, buffer {BUFFER}, {options.versions} versions")
    with console.status("FLARE"):
        flare = flare_edge.measured(DEVICES, BUFFER, BUFFER * options.versions)
    console.print(f"FLARE: {flare['updates']:.0f} updates")
    rows: dict[str, dict[str, float]] = {}
    for packing in PACKINGS:
        with console.status(packing):
            began = time.monotonic()
            rows[packing] = measured(packing, options.versions)
        console.print(f"{packing}: {rows[packing]['updates']:.0f} updates in {time.monotonic() - began:.0f} s")
    table = Table("", "bytes down", "bytes up", "server CPU", "once it listens", box=None)
    cpu = (f"{1e3 * flare[name]:,.0f} ms" for name in ("cpu_seconds", "cpu_seconds_serving"))
    table.add_row(flare_edge.FLARE, f"{flare['bytes_down']:,.0f}", f"{flare['bytes_up']:,.0f}", *cpu)
    for packing, row in rows.items():
        cells = []
        for name, scale, unit in (("bytes_down", 1, ""), ("bytes_up", 1, ""), ("cpu_seconds", 1e3, " ms")):
            cells.append(f"{scale * row[name]:,.0f}{unit} ({flare[name] / row[name]:.0f}x less)")
        serving = row["cpu_seconds_serving"]
        cells.append(f"{1e3 * serving:.1f} ms ({flare['cpu_seconds_serving'] / serving:.0f}x less)")
        table.add_row(f"FTTE, {packing}", *cells)
    console.print(table)
    report: dict[str, Any] = {"machine": machine(), "flare": flare, "packings": rows}
    (RESULTS / "update_cost.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
