"""
How many updates a coordinator takes, writes down and merges per second.

A coordinator in one process, devices in another, on loopback; beside it, in the same run and with as many
connections, a bare ``websockets`` loop that only receives and adds, and one that also hashes what comes and syncs it to
disk, all that waits at once: the ceiling of whatever is durable. Every update is durable before it is counted. Also:
how late the event loop is meanwhile, with merges and evaluations going on; memory of an idle connection; how long a
restart after SIGKILL takes with 1,000 updates that were not merged yet; and a merge of 32 updates of 10 MB
against the time that numpy needs to add the arrays.

    python -m benchmarks.server.load             # about twenty minutes
    python -m benchmarks.server.load --quick     # one minute

Writes benchmarks/results/server_load.json and docs/results/server_load.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
RESULTS = HERE.parent / "results"
FIGURE = HERE.parents[1] / "docs" / "results" / "server_load.png"

SIZES = (10_000, 1_000_000, 10_000_000)
DEVICES = (1, 100, 2000)

# Devices at work at once where 2,000 are connected: the others wait for their turn, as with any such fleet.
CONCURRENCY = 100


def start(script: str, *arguments: object, checkout: Path) -> subprocess.Popen[str]:
    """A Python process of a script beside this one, with the code of this checkout or of another one."""
    return subprocess.Popen(
        [sys.executable, checkout / "benchmarks" / "server" / script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
    )


class Server:
    """A process of ``load_server.py``."""

    def __init__(self, kind: str, folder: Path, *options: object, checkout: Path = CHECKOUT) -> None:
        self._process = start("load_server.py", kind, folder, *options, checkout=checkout)
        self.process_id = self._process.pid
        self.hello = self._read()

    def look(self) -> dict[str, Any]:
        """What it counts now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server has ended: see its error above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        if self._process.poll() is None:
            self.kill()


class Devices:
    """A process of ``load_devices.py``; returns when all are connected."""

    def __init__(
        self, kind: str, server: Server, devices: int, update_bytes: int, *, checkout: Path = CHECKOUT
    ) -> None:
        given = ["--key", server.hello["key"], "--devices", devices, "--update-bytes", update_bytes]
        given += ["--at-once", CONCURRENCY]
        self._process = start("load_devices.py", kind, server.hello["url"], *given, checkout=checkout)
        assert self._process.stdout is not None
        self.process_id = self._process.pid
        if self._process.stdout.readline().strip() != "connected":
            raise RuntimeError("the devices could not connect: see the error above")

    def work(self) -> None:
        """Begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End them."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def load(
    kind: str, devices: int, update_bytes: int, *options: object, checkout: Path = CHECKOUT, disk: Path = HERE
) -> Iterator[tuple[Server, Devices]]:
    """A server with so many devices connected to it, both of ``checkout``; its state is in a new folder on ``disk``."""
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        server = Server(kind, Path(folder), "--update-bytes", update_bytes, *options, checkout=checkout)
        try:
            fleet = Devices(kind, server, devices, update_bytes, checkout=checkout)
            try:
                yield server, fleet
            finally:
                fleet.close()
        finally:
            server.kill()  # its state is thrown away, and updates that wait for a merge would hold it up


def measure(
    kind: str,
    devices: int,
    update_bytes: int,
    seconds: float,
    *options: object,
    checkout: Path = CHECKOUT,
    disk: Path = HERE,
) -> dict[str, Any]:
    """Updates per second, after a warm-up; for a coordinator only those that were merged by the end count."""
    with load(kind, devices, update_bytes, *options, checkout=checkout, disk=disk) as (server, fleet):
        fleet.work()
        # Until each device that works at once has handed in twice: 2,000 that ask at the same time take a moment.
        give_up = time.monotonic() + 60
        while (before := server.look())["accepted"] < 2 * min(devices, CONCURRENCY) and time.monotonic() < give_up:
            time.sleep(0.1)
        time.sleep(seconds)
        after = server.look()
    counted = "merged" if kind == "coordinator" else "accepted"
    elapsed = after["at"] - before["at"]
    return {
        "updates_per_second": (after[counted] - before[counted]) / elapsed,
        "server_cpu": (after["cpu"] - before["cpu"]) / elapsed,
        "delays": after.get("delays", []),
        "versions": after.get("version", 0),
    }


def case(update_bytes: int, devices: int, seconds: float, rounds: int) -> dict[str, Any]:
    """All sides, interleaved; medians."""
    # As large a buffer as a fleet of that size has use for, so that merges are neither rare nor all there is.
    options = ["--buffer", min(32, max(4, devices // 4)) if devices > 1 else 4]
    if devices > CONCURRENCY:
        options += ["--concurrency", CONCURRENCY]
    ours, theirs, durable = [], [], []
    for _ in range(rounds):
        theirs.append(measure("ceiling", devices, update_bytes, seconds))
        durable.append(measure("durable", devices, update_bytes, seconds))
        ours.append(measure("coordinator", devices, update_bytes, seconds, *options))
    rate, ceiling, synced = (
        statistics.median(one["updates_per_second"] for one in side) for side in (ours, theirs, durable)
    )
    delays = np.array([delay for one in ours for delay in one["delays"]])
    return {
        "update_bytes": update_bytes,
        "devices": devices,
        "updates_per_second": round(rate, 1),
        "ceiling_updates_per_second": round(ceiling, 1),
        "durable_ceiling_updates_per_second": round(synced, 1),
        "ratio": round(rate / ceiling, 3) if ceiling else None,
        "ratio_durable": round(rate / synced, 3) if synced else None,
        "loop_delay_ms": percentiles(delays),
    }


def percentiles(delays: np.ndarray[Any, Any]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(delays, [50, 99]) * 1e3 if len(delays) else (float("nan"), float("nan"))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}


def loop_delay(seconds: float) -> dict[str, float]:
    """While 100 devices send updates of 1 MB that are merged and evaluated."""
    result = measure("coordinator", 100, 1_000_000, seconds, "--buffer", 32, "--evaluate")
    return percentiles(np.array(result["delays"]))


def idle_connection_bytes(devices: int) -> float:
    """Growth of the server's resident memory per connected device that is silent."""
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        server = Server("coordinator", Path(folder), "--update-bytes", 10_000)
        try:
            first = Devices("coordinator", server, 1, 10_000)
            before = server.look()["rss"]
            fleet = Devices("coordinator", server, devices, 10_000)
            grown = server.look()["rss"] - before
            first.close()
            fleet.close()
        finally:
            server.close()
    return round(grown / devices)


def recovery_seconds(update_bytes: int, updates: int) -> float:
    """From the start of a process to the moment it listens again, with so many updates in its state."""
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        options = ["--update-bytes", update_bytes, "--buffer", 100_000, "--limit", 100_000]
        server = Server("coordinator", Path(folder), *options)
        fleet = Devices("coordinator", server, 100, update_bytes)
        fleet.work()
        while server.look()["accepted"] < updates:
            time.sleep(0.05)
        fleet.close()
        server.kill()
        again = Server("coordinator", Path(folder), *options)
        try:
            assert again.hello["buffered"] >= updates
            return round(float(again.hello["seconds"]), 3)
        finally:
            again.kill()


def merge_time(rounds: int) -> dict[str, float]:
    """32 updates of 10 MB: a whole merge against adding the arrays, both in this process, interleaved."""
    from coordinator.merge.contribution import Contribution
    from coordinator.merge.merger import Merger
    from coordinator.merge.regions import WeightRegion

    size, count = 2_500_000, 32
    random = np.random.default_rng(0)
    deltas = [random.standard_normal(size).astype(np.float32) for _ in range(count)]
    region = WeightRegion(np.arange(size))
    region.key, region.pieces  # noqa: B018 - once per run, not per merge
    weights = np.zeros(size, np.float32)
    given = [Contribution(f"a{n:08d}", region, delta, 10.0, n % 5, 0, f"phone-{n}") for n, delta in enumerate(deltas)]
    merger = Merger()

    def merge() -> None:
        merger(weights, {}, given, lambda version: weights)

    def add() -> None:
        total = deltas[0].copy()
        for delta in deltas[1:]:
            total += delta

    def timed(work: Callable[[], None]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    pairs = [(timed(merge), timed(add)) for _ in range(rounds)][1:]
    merging, adding = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return {"merge_seconds": merging, "numpy_add_seconds": adding, "ratio": round(ratio, 3)}


def figure(result: dict[str, Any], path: Path) -> None:
    """Updates per second of all sides, and our part of what is durable."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sizes = sorted({case["update_bytes"] for case in result["cases"]})
    axes = plt.subplots(1, len(sizes), figsize=(4 * len(sizes), 3.4))[1]
    for axis, size in zip(np.atleast_1d(axes), sizes, strict=True):
        cases = [case for case in result["cases"] if case["update_bytes"] == size]
        at = np.arange(len(cases))
        bars = [
            ("ceiling_updates_per_second", "#dde3e8", "bare loop"),
            ("durable_ceiling_updates_per_second", "#9fb3c4", "bare loop that hashes and syncs"),
            ("updates_per_second", "#2a6f97", "coordinator, durable"),
        ]
        for i, (name, colour, label) in enumerate(bars):
            axis.bar(at + 0.27 * (i - 1), [c[name] for c in cases], 0.27, color=colour, label=label)
        for x, one in zip(at, cases, strict=True):
            place = (x + 0.27, one["updates_per_second"])
            axis.annotate(f"{one['ratio_durable']:.2f}", place, ha="center", va="bottom", fontsize=8)
        axis.set_xticks(at, [f"{c['devices']:,}" for c in cases])
        axis.set_xlabel("connected devices")
        axis.set_title(f"updates of {size // 1000:,} KB" if size < 1e6 else f"updates of {size // 1_000_000} MB")
        axis.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].set_ylabel("updates per second")
    whole = np.atleast_1d(axes)[0].figure
    whole.legend(*np.atleast_1d(axes)[0].get_legend_handles_labels(), frameon=False, ncols=3, loc="lower center")
    plt.tight_layout(rect=(0, 0.07, 1, 1))
    plt.savefig(path, dpi=150)


def machine() -> str:
    """What this ran on."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return f"{os.cpu_count()} x {model or platform.processor()}, Python {platform.python_version()}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Updates per second that a coordinator takes and merges.")
    parser.add_argument("--quick", action="store_true", help="few cases, for a first look")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE, metavar="FILE", help="PNG or SVG")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console()
    sizes, devices, seconds, rounds = options.sizes, options.devices, options.seconds, options.rounds
    if options.quick:
        sizes, devices, seconds, rounds = SIZES[:2], (1, 100), 3.0, 1
    console.print(f"{machine()}; {rounds} rounds of {seconds:g} s a case, all sides interleaved, medians; seed 0")
    cases = []
    for size in sizes:
        for count in devices:
            with console.status(f"{count} devices, updates of {size:,} bytes"):
                cases.append(case(size, count, seconds, rounds))
            console.print_json(json.dumps(cases[-1]), indent=None)
    with console.status("loop delay, idle connections, recovery, merge"):
        result = {
            "machine": machine(),
            "seconds": seconds,
            "rounds": rounds,
            "cases": cases,
            "loop_delay_ms": loop_delay(2 * seconds),
            "idle_connection_bytes": idle_connection_bytes(200 if options.quick else 2000),
            "recovery_seconds": recovery_seconds(10_000, 1000),
            "recovery_seconds_1mb": None if options.quick else recovery_seconds(1_000_000, 1000),
            "merge": merge_time(4 if options.quick else 10),
        }
    columns = ("update", "devices", "updates/s", "bare loop", "ratio", "hash and sync", "ratio", "loop delay p99")
    table = Table(*columns, box=None)
    for one in cases:
        cells = [f"{one['update_bytes']:,} B", f"{one['devices']:,}", f"{one['updates_per_second']:,.0f}"]
        cells += [
            f"{one['ceiling_updates_per_second']:,.0f}",
            f"{one['ratio']:.2f}",
            f"{one['durable_ceiling_updates_per_second']:,.0f}",
            f"{one['ratio_durable']:.2f}",
            f"{one['loop_delay_ms']['p99']} ms",
        ]
        table.add_row(*cells)
    console.print(table)
    console.print({key: value for key, value in result.items() if key not in ("cases",)})
    options.out.mkdir(exist_ok=True)
    (options.out / "server_load.json").write_text(json.dumps(result, indent=1) + "\n")
    figure(result, options.figure)


if __name__ == "__main__":
    main()
