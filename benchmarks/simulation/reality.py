"""
A simulation against reality: the same scenario with real processes, sockets and waiting.

    FTTE_CIFAR10=cifar-10-batches-py python -m benchmarks.simulation.reality --quota
    python -m benchmarks.simulation.reality --devices 16 --versions 60

Every device is an ``ftte-device`` process behind a link of its own: a relay that delays and limits what passes, as the
scenario says. With ``--quota`` (root, two idle processors) it trains the CIFAR-10 net of the comparison with
the paper, as fast as its part of a processor lets it, which a control group limits; the simulation knows the part, the
step that it measured in the whole, and what a pilot run of a few minutes, made before, says of the seconds that a trip
takes beside its steps. Without, it trains digits with steps of a fixed length. The coordinator is the product's, on a
real socket, and devices and their samples are those that the simulator draws. Compared are time, bytes and accuracy.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import functools
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from rich.console import Console

from benchmarks import paper_task
from benchmarks.simulation.processor_quota import limited_group
from coordinator.app import App, open_app
from coordinator.simulation.simulate import draw_world, simulate
from coordinator.simulation.world.fleet import Profile
from coordinator.simulation.world.samples import load_simulation_samples
from coordinator.simulation.world.scenario import Scenario, parse_scenario
from exporters import Task

RESULTS = Path(__file__).parents[1] / "results"
STEP_SECONDS = {"small": 0.01, "large": 0.02}
READ_BYTES = 16 * 1024
START_SECONDS = 120.0


# Parts of a processor, all together 1.3 of 16 devices.
QUOTAS = {"phone": 0.12, "old-phone": 0.05, "watch": 0.06}
# The run has reached it when the mean of so many versions' accuracies has.
TARGET, OF_VERSIONS = 0.95, 20


def cifar10() -> Task:
    """The net of the comparison with the paper, evaluated on 300 images."""
    return paper_task.task_of(
        paper_task.pretrained(), lambda: tuple(array[:300] for array in paper_task.part("reported")), "cifar10-300"
    )


def quota_scenario(devices: int, versions: int, trip_seconds: Mapping[str, float]) -> Scenario:
    """Two kinds of phones that train all of the net, and watches that train its last layers."""
    link = {"up": "200KB", "down": "400KB", "latency": 0.03}
    memory = {"phone": "40MB", "old-phone": "40MB", "watch": "5MB"}
    return parse_scenario(
        {
            "simulation": {"devices": devices, "seed": 3, "hours": 24},
            "data": {"source": "benchmarks.paper_task:training", "split": "even", "samples": 160},
            "devices": {
                kind: {
                    "memory": memory[kind],
                    "slowdown": 1 / quota,
                    "trip_seconds": trip_seconds.get(kind, 0.0),
                    **link,
                }
                for kind, quota in QUOTAS.items()
            },
            "run": {"name": "reality", "task": "benchmarks.simulation.reality:cifar10"},
            "budgets": {"small": "5MB", "large": "40MB"},
            # So low that learning takes the half hour.
            "training": {"epochs": 1, "learning_rate": 0.0006},
            "merge": {"buffer": 4},
            "stop": {"versions": versions},
        },
        Path(),
    )


def paced_scenario(devices: int, versions: int, slowest: float) -> Scenario:
    """Phones, half of them slower by up to ``slowest``; what differs from run to run (loss, jitter) is left out."""
    link = {"up": "200KB", "down": "400KB", "latency": 0.03}
    return parse_scenario(
        {
            "simulation": {"devices": devices, "seed": 3, "hours": 24, "step_seconds": STEP_SECONDS},
            "data": {"source": "exporters.zoo.digits_data:training", "alpha": 0.5},
            "devices": {
                "phone": {"memory": "5MB", "slowdown": 5, **link},
                "old-phone": {"memory": "5MB", "slowdown": 5 * slowest, **link},
                "watch": {"memory": "1.2MB", "slowdown": 10, **link},
            },
            "run": {"name": "reality", "task": "exporters.zoo.digits:task"},
            "budgets": {"small": "1.2MB", "large": "5MB"},
            "training": {"epochs": 1, "momentum": 0.5},
            "merge": {"buffer": 4},
            "stop": {"versions": versions},
        },
        Path(),
    )


class Relay:
    """
    A link: what comes in goes out later, and no faster than the profile says.

    It opens when ``ready`` has been awaited, so that the start of an interpreter is no part of what is measured.
    """

    def __init__(self, profile: Profile, url: str, ready: Callable[[], Awaitable[None]]) -> None:
        parts = urlsplit(url)
        self._ready = ready
        self._link = profile.link
        self._target = str(parts.hostname), int(parts.port or 80)
        self._pumps: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side closes it."""
        await self._ready()
        await asyncio.sleep(2 * self._link.latency)  # TCP's own round trip
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(
                self._pump(reader, far_writer, self._link.up), self._pump(far_reader, writer, self._link.down)
            )

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, rate: float) -> None:
        loop, free = asyncio.get_running_loop(), 0.0
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await on_its_way.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    sink.close()
                    return
                sink.write(data)

        delivering = asyncio.create_task(deliver())
        while data := await source.read(READ_BYTES):
            free = max(free, loop.time()) + len(data) / rate
            on_its_way.put_nowait((free + self._link.latency, data))
            await asyncio.sleep(max(0.0, free - loop.time()))
        on_its_way.put_nowait((loop.time() + self._link.latency, b""))
        await delivering


async def reality(world: Scenario, folder: Path, quotas: Mapping[str, float]) -> dict[str, Any]:
    """Run it for real; seconds from when all devices are there."""
    config = world.config(folder)
    samples = load_simulation_samples(world.data.source, folder)
    fleet, parts, _ = draw_world(world, samples)
    for profile, indices in zip(fleet, parts, strict=True):
        np.savez(folder / f"{profile.name}.npz", x=samples.x[indices], y=samples.y[indices])
    async with open_app([config], Console(stderr=True), admin=False) as server:
        async with _processes(fleet, server, folder, quotas):
            began, started = time.monotonic(), time.time()
            (summary,) = await server.run()
            seconds = time.monotonic() - began
        versions = server.only.store.versions.all()
    kinds, updates = {profile.name: profile.kind for profile in fleet}, collections.defaultdict(list)
    for device in summary["devices"]:
        updates[kinds[device["id"]]].append(device["updates"])
    return {
        "seconds": seconds,
        "curve": [(record.created_at - started, record.metrics["accuracy"]) for record in versions],
        "bytes_up": summary["bytes_up"],
        "bytes_down": summary["bytes_down"],
        "trips": summary["updates_merged"],
        "updates_each": {kind: statistics.fmean(counts) for kind, counts in sorted(updates.items())},
        "accuracy": summary["accuracy"],
    }


@contextlib.asynccontextmanager
async def _processes(
    fleet: list[Profile], server: App, folder: Path, quotas: Mapping[str, float]
) -> AsyncIterator[None]:
    """A process for each device; all of them are there, and have their quotas, before one gets through."""
    processes: dict[str, asyncio.subprocess.Process] = {}
    waiting, everyone = {profile.name for profile in fleet}, asyncio.Event()

    async def ready(name: str) -> None:
        waiting.discard(name)
        if not waiting:
            everyone.set()
        await everyone.wait()

    async with contextlib.AsyncExitStack() as stack:
        groups = stack.enter_context(contextlib.ExitStack())
        try:
            for profile in fleet:
                relay = Relay(profile, server.url, functools.partial(ready, profile.name))
                listening = await asyncio.start_server(relay.connected, "127.0.0.1", 0)
                await stack.enter_async_context(listening)
                port = listening.sockets[0].getsockname()[1]
                paced = STEP_SECONDS["small" if profile.kind == "watch" else "large"] * profile.slowdown
                step = 0.0 if quotas else paced
                with (folder / f"{profile.name}.log").open("wb") as log:
                    processes[profile.name] = await asyncio.create_subprocess_exec(
                        *(Path(sys.executable).with_name("ftte-device"), "join", f"ws://127.0.0.1:{port}"),
                        *("--run", "reality", "--key", server.only.coordinator.state.key.public),
                        *("--name", profile.name, "--data", folder / f"{profile.name}.npz"),
                        *("--budget", str(profile.section.memory), "--step-time", str(step)),
                        *("--storage", folder / profile.name),
                        stdout=log,
                        stderr=asyncio.subprocess.STDOUT,
                    )
            async with asyncio.timeout(START_SECONDS):
                await everyone.wait()
            for profile in fleet if quotas else []:
                group = groups.enter_context(limited_group(f"ftte-{profile.name}", quotas[profile.kind]))
                group.write_text(str(processes[profile.name].pid))
            yield
        finally:
            for process in processes.values():
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()
            for process in processes.values():
                await process.wait()


def pilot(devices: int, versions: int) -> dict[str, float]:
    """
    Seconds that a trip of each kind takes beside what a simulation knows, from a short run of both.

    Raises:
        SystemExit: if it was too short for every kind to send an update.

    """
    world = quota_scenario(devices, versions, {})
    simulated = simulate(world)
    with tempfile.TemporaryDirectory() as folder:
        real = asyncio.run(reality(world, Path(folder), QUOTAS))
    beside = {}
    for kind, each in real["updates_each"].items():
        foreseen = simulated["classes"][kind]["updates_each"]
        if not each or not foreseen:
            raise SystemExit(
                f"within {versions} versions no {kind} sent an update: set a longer --pilot, or 0 for none"
            )
        took, expected = real["seconds"] / each, simulated["curve"][-1]["seconds"] / foreseen
        print(f"pilot: a trip of a {kind} takes {took:.2f} s, by simulation {expected:.2f}", flush=True)
        beside[kind] = max(0.0, took - expected)
    return beside


def main() -> None:
    """Simulate, then see."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=16)
    parser.add_argument("--quota", action="store_true", help="devices with parts of a processor")
    parser.add_argument("--versions", type=int, help="by default about half an hour's with 16 devices")
    parser.add_argument("--pilot", type=int, default=200, help="versions of the pilot with --quota; 0 for none")
    parser.add_argument("--slowest", type=float, default=4.0, help="how many times slower old phones are")
    options = parser.parse_args()
    quotas = QUOTAS if options.quota else {}
    trip_seconds: Mapping[str, float] = {}
    if options.quota:
        trip_seconds = pilot(options.devices, options.pilot) if options.pilot else {}
        world = quota_scenario(options.devices, options.versions or 1700, trip_seconds)
    else:
        world = paced_scenario(options.devices, options.versions or 3400, options.slowest)
    with tempfile.TemporaryDirectory() as folder:
        predicted = simulate(world)
        print(f"the simulation says {predicted['seconds']:.0f} s", flush=True)
        seen = asyncio.run(reality(world, Path(folder), quotas))
    curve = [(point["seconds"], point["metrics"]["accuracy"]) for point in predicted["curve"] if point["metrics"]]
    last = predicted["curve"][-1]
    target = TARGET * _smooth(curve)[-1][1]
    both = {
        "seconds": (last["seconds"], seen["seconds"]),
        "seconds_to_target": (_reached(curve, target), _reached(seen["curve"], target)),
        "bytes_up": (last["bytes_up"], seen["bytes_up"]),
        "bytes_down": (last["bytes_down"], seen["bytes_down"]),
        "bytes": (last["bytes_up"] + last["bytes_down"], seen["bytes_up"] + seen["bytes_down"]),
        "accuracy": (_smooth(curve)[-1][1], _smooth(seen["curve"])[-1][1]),
    }
    report = {
        "machine": {"processors": os.cpu_count(), "architecture": platform.machine(), "load": os.getloadavg()},
        "devices": options.devices,
        "quotas": dict(quotas),
        "trip_seconds": dict(trip_seconds),
        "step_seconds": predicted["step_seconds"],
        "versions": world.run["stop"]["versions"],
        "seed": world.simulation.seed,
        "trips": seen["trips"],
        "target": target,
        "updates_each": {
            kind: {"simulated": predicted["classes"][kind]["updates_each"], "real": each}
            for kind, each in seen["updates_each"].items()
        },
        "curves": {"simulated": _smooth(curve)[::OF_VERSIONS], "real": _smooth(seen["curve"])[::OF_VERSIONS]},
        "compared": {name: {"simulated": a, "real": b, "error": a / b - 1} for name, (a, b) in both.items()},
    }
    for name, (a, b) in both.items():
        print(f"{name:18} simulated {a:14.3f}  real {b:14.3f}  {100 * (a / b - 1):+.1f} %")
    print(json.dumps(report["updates_each"]))
    RESULTS.mkdir(exist_ok=True)
    name = "simulation_reality_quota" if options.quota else "simulation_reality"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


def _smooth(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each moment with the mean accuracy of the last versions."""
    values = [accuracy for _, accuracy in curve]
    return [
        (seconds, statistics.fmean(values[max(0, index + 1 - OF_VERSIONS) : index + 1]))
        for index, (seconds, _) in enumerate(curve)
    ]


def _reached(curve: Sequence[tuple[float, float]], target: float) -> float:
    """When the target was reached; not a number if it was not."""
    return next((seconds for seconds, accuracy in _smooth(curve) if accuracy >= target), math.nan)


if __name__ == "__main__":
    main()
