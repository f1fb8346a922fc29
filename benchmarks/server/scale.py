"""
What gateways add: updates per second and processor time per update, with one process and with 1, 2 and 4 gateways.

Real processes: a coordinator over SQLite, ``ftte gateway`` N times on one port, and devices in one other process, which
train nothing and send 10 KB. Every update is durable before it is counted, and only those that were merged count. A
machine with two processors cannot show what four more would do, so each gateway is held to a part of a processor by a
control group of Linux (``cpu.cfs_quota_us``): the rate then says how the work divides, and the processor time says what
it costs. All sides are interleaved; medians.

The processor time per update of every process also bounds the rate, twice: by what the gateways' shares allow, and by
what the machine's processors allow. Conductor and devices get processor time before other work does. Where both bounds
are far above the rate, something else limits it: the disk, for instance, without which ``--disk /dev/shm`` measures.

    python -m benchmarks.server.scale                  # about six minutes; needs root for control groups
    python -m benchmarks.server.scale --share 0.05     # on a machine that has other work

Writes benchmarks/results/scale.json and docs/results/scale.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.server.load import HERE, RESULTS, Devices, Server, machine

FIGURE = HERE.parents[1] / "docs" / "results" / "scale.png"
GROUPS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))
PERIOD_MICROSECONDS = 50_000
UPDATE_BYTES, BUFFER = 10_000, 32

RUN = """
[run]
name = "load"
task = "load:task"
[budgets]
all = 1
[server]
port = {port}
handshakes = 10000
handshakes_per_address = 10000
"""


class ControlGroup:
    """
    Holds a process to ``share`` of a processor, which it also gets, whatever else the machine does.

    Without a share it gets what it wants, before other work does.
    """

    def __init__(self, name: str, share: float | None) -> None:
        root = next(group for group in GROUPS if group.exists())
        self._folder = root / name
        self._folder.mkdir()
        old = (self._folder / "cpu.cfs_quota_us").exists()
        if share is not None:
            quota = int(PERIOD_MICROSECONDS * share)
            if old:
                (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
                (self._folder / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (self._folder / "cpu.max").write_text(f"{quota} {PERIOD_MICROSECONDS}")
        (self._folder / ("cpu.shares" if old else "cpu.weight")).write_text(str(16 * 1024 if old else 1600))

    def take(self, process: int) -> None:
        """From now on."""
        (self._folder / "cgroup.procs").write_text(str(process))

    def close(self) -> None:
        """After its process has ended."""
        self._folder.rmdir()


def cpu_seconds(process: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> tuple[float, float]:
    """Processor time of everything on the machine, and what was idle, since its start."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / tick, idle / tick


@contextlib.contextmanager
def gateways(folder: Path, count: int, run: str, control: Path, share: float | None = None) -> Iterator[list[int]]:
    """So many gateways of the run file ``run``, by their process numbers, each held to ``share`` once they serve."""
    run_file = folder / "run.toml"
    run_file.write_text(run)
    ftte = "import sys; from coordinator.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", ftte, "--verbose", "gateway", str(run_file), "--socket", str(control)]
    processes, groups = [], []
    try:
        for number in range(count):
            log = folder / f"gateway-{number}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(command, stdout=output, stderr=output, cwd=HERE.parents[1])
            processes.append((process, log))
        for process, log in processes:
            while "gateway on" not in log.read_text():
                if process.poll() is not None:
                    raise RuntimeError(f"a gateway has ended: {log.read_text()}")
                time.sleep(0.05)
            if share is not None:
                groups.append(ControlGroup(f"ftte-scale-{process.pid}", share))
                groups[-1].take(process.pid)
        yield [process.pid for process, _ in processes]
    finally:
        for process, _ in processes:
            process.kill()
            process.wait()
        for group in groups:
            group.close()


def measure(count: int, devices: int, seconds: float, share: float, disk: Path = HERE) -> dict[str, float]:
    """One side; ``count`` gateways, 0 for one process that does all, and so many ``devices`` for each."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=disk)))
        control = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "conductor.sock"
        held = stack.enter_context(socket.socket())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        options: list[object] = ["--update-bytes", UPDATE_BYTES, "--buffer", BUFFER]
        server = Server("coordinator", folder, *options, *(["--socket", control] if count else []))
        processes: Sequence[int] = []
        if count:
            processes = stack.enter_context(gateways(folder, count, RUN.format(port=port), control, share))
            server.hello["url"] = f"ws://127.0.0.1:{port}"
        devices *= max(count, 1)
        fleet = Devices("coordinator", server, devices, UPDATE_BYTES)
        for process in (server.process_id, fleet.process_id):
            group = ControlGroup(f"ftte-scale-{process}", None)
            stack.callback(group.close)
            group.take(process)
        stack.callback(server.kill)
        stack.callback(fleet.close)
        fleet.work()
        while server.look()["accepted"] < 2 * devices:
            time.sleep(0.2)
        before, machine_before = server.look(), machine_seconds()
        used, sent = sum(map(cpu_seconds, processes)), cpu_seconds(fleet.process_id)
        time.sleep(seconds)
        used, sent = sum(map(cpu_seconds, processes)) - used, cpu_seconds(fleet.process_id) - sent
        after, (busy, idle) = server.look(), (b - a for a, b in zip(machine_before, machine_seconds(), strict=True))
    updates = max(after["merged"] - before["merged"], 1)
    conductor, elapsed = after["cpu"] - before["cpu"], after["at"] - before["at"]
    each = (conductor + used + sent) / updates
    processors = os.cpu_count() or 1
    return {
        "updates_per_second": updates / elapsed,
        "conductor_ms": 1e3 * conductor / updates,
        "gateways_ms": 1e3 * used / updates,
        "devices_ms": 1e3 * sent / updates,
        "processors_of_others": max(busy - conductor - used - sent, 0.0) / (busy + idle) * processors,
        "most_by_shares": count * share * updates / used if used else 0.0,
        "most_by_processors": processors / each,
    }


def figure(result: dict[str, Any], path: Path) -> None:
    """The rate beside what would be proportional, and where the processor time goes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in result["sides"] if row["gateways"]]
    counts = [row["gateways"] for row in rows]
    rates = [row["updates_per_second"] for row in rows]
    left, right = plt.subplots(1, 2, figsize=(9, 3.4))[1]
    left.plot(
        counts, [rates[0] * count / counts[0] for count in counts], color="#9fb3c4", ls="--", label="proportional"
    )
    left.plot(counts, rates, color="#2a6f97", marker="o", label="measured")
    left.set_xticks(counts)
    left.set_ylim(0)
    left.set_xlabel(f"gateways, each held to {result['share']:g} of a processor")
    left.set_ylabel("updates per second")
    left.legend(frameon=False)
    names = ["one process" if not row["gateways"] else f"{row['gateways']}" for row in result["sides"]]
    conductor = [row["conductor_ms"] for row in result["sides"]]
    right.bar(names, conductor, 0.5, color="#2a6f97", label="conductor (or all of it)")
    held = [row["gateways_ms"] for row in result["sides"]]
    right.bar(names, held, 0.5, bottom=conductor, color="#9fb3c4", label="gateways together")
    right.set_ylim(0, 1.4 * max(a + b for a, b in zip(conductor, held, strict=True)))  # room for the legend
    right.set_xlabel("gateways")
    right.set_ylabel("processor time per update (ms)")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    plt.tight_layout()
    plt.savefig(path, dpi=150)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Updates per second and processor time, with and without gateways.")
    parser.add_argument("--gateways", type=int, nargs="+", default=(0, 1, 2, 4))
    parser.add_argument("--share", type=float, default=0.2, help="of a processor, for each gateway")
    parser.add_argument("--devices", type=int, default=100, help="for each gateway: as much work for each of them")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--disk", type=Path, default=HERE, metavar="FOLDER", help="where the state is kept meanwhile")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE, metavar="FILE", help="PNG or SVG")
    options = parser.parse_args()
    console = Console()
    console.print(f"{machine()}; {options.rounds} rounds of {options.seconds:g} s, interleaved, medians")
    found: dict[int, list[dict[str, float]]] = {count: [] for count in options.gateways}
    for _ in range(options.rounds):
        for count, rows in found.items():
            rows.append(measure(count, options.devices, options.seconds, options.share, options.disk))
            console.print(f"{count} gateways: {json.dumps({name: round(v, 3) for name, v in rows[-1].items()})}")
    sides = [
        {"gateways": count, **{name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}}
        for count, rows in found.items()
    ]
    bounds = ("most by shares", "by processors")
    table = Table("gateways", "updates/s", "conductor", "gateways together", "devices", "others", *bounds, box=None)
    for side in sides:
        cells = [f"{side['updates_per_second']:,.0f}"]
        cells += [f"{side[name]:.2f} ms" for name in ("conductor_ms", "gateways_ms", "devices_ms")]
        cells.append(f"{side['processors_of_others']:.2f} processors")
        cells.append(f"{side['most_by_shares']:,.0f}/s" if side["gateways"] else "")
        cells.append(f"{side['most_by_processors']:,.0f}/s")
        table.add_row("one process" if not side["gateways"] else str(side["gateways"]), *cells)
    console.print(table)
    result = {
        "machine": machine(),
        "share": options.share,
        "disk": str(options.disk),
        "devices": options.devices,
        "update_bytes": UPDATE_BYTES,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "sides": sides,
    }
    options.out.mkdir(exist_ok=True)
    (options.out / "scale.json").write_text(json.dumps(result, indent=1) + "\n")
    if sum(1 for side in sides if side["gateways"]) > 1:
        figure(result, options.figure)


if __name__ == "__main__":
    main()
