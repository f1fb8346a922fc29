"""
A simulation against reality: the same scenario with real processes, sockets and waiting.

    python -m benchmarks.simulation_reality --devices 16 --versions 60

Every device is an ``ftte-device`` process with a step of fixed length behind a link of its own: a relay that delays and
limits what passes, as the scenario says. The coordinator is the product's, on a real socket, and devices and their
samples are those that the simulator draws. Compared are the time and the bytes until the run has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from rich.console import Console

from coordinator.serve import Serving, serving
from coordinator.simulation.fleet import Profile
from coordinator.simulation.scenario import Scenario, parse_scenario
from coordinator.simulation.simulate import drawn, simulate
from coordinator.simulation.sources import load_samples

RESULTS = Path(__file__).parent / "results"
STEP_SECONDS = {"small": 0.01, "large": 0.02}
READ_BYTES = 16 * 1024


def scenario(devices: int, versions: int, slowest: float) -> Scenario:
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
    """A link: what comes in goes out later, and no faster than the profile says."""

    def __init__(self, profile: Profile, url: str) -> None:
        parts = urlsplit(url)
        self._link = profile.link
        self._target = str(parts.hostname), int(parts.port or 80)
        self._pumps: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side closes it."""
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


async def reality(world: Scenario, folder: Path) -> dict[str, Any]:
    """Run it for real; seconds from the first device's start to the end of the run."""
    config = world.config(folder)
    samples = load_samples(world.data.source, folder)
    fleet, parts, _ = drawn(world, samples)
    for profile, indices in zip(fleet, parts, strict=True):
        np.savez(folder / f"{profile.name}.npz", x=samples.x[indices], y=samples.y[indices])
    async with serving([config], Console(stderr=True), admin=False) as server:
        began = time.monotonic()
        async with _processes(fleet, server, folder):
            (summary,) = await server.run()
            seconds = time.monotonic() - began
    return {
        "seconds": seconds,
        "bytes_up": summary["bytes_up"],
        "bytes_down": summary["bytes_down"],
        "trips": summary["updates_merged"],
        "accuracy": summary["accuracy"],
    }


@contextlib.asynccontextmanager
async def _processes(fleet: list[Profile], server: Serving, folder: Path) -> AsyncIterator[None]:
    processes = []
    async with contextlib.AsyncExitStack() as stack:
        try:
            for profile in fleet:
                relay = await asyncio.start_server(Relay(profile, server.url).connected, "127.0.0.1", 0)
                await stack.enter_async_context(relay)
                port = relay.sockets[0].getsockname()[1]
                step = STEP_SECONDS["small" if profile.kind == "watch" else "large"] * profile.slowdown
                with (folder / f"{profile.name}.log").open("wb") as log:
                    processes.append(
                        await asyncio.create_subprocess_exec(
                            *(Path(sys.executable).with_name("ftte-device"), "join", f"ws://127.0.0.1:{port}"),
                            *("--run", "reality", "--key", server.only.coordinator.state.key.public),
                            *("--name", profile.name, "--data", folder / f"{profile.name}.npz"),
                            *("--budget", str(profile.section.memory), "--step-time", str(step)),
                            *("--storage", folder / profile.name),
                            stdout=log,
                            stderr=asyncio.subprocess.STDOUT,
                        )
                    )
            yield
        finally:
            for process in processes:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()
                await process.wait()


def main() -> None:
    """Simulate, then see."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=16)
    parser.add_argument("--versions", type=int, default=3400, help="about half an hour with 16 devices")
    parser.add_argument("--slowest", type=float, default=4.0, help="how many times slower old phones are")
    options = parser.parse_args()
    world = scenario(options.devices, options.versions, options.slowest)
    predicted = simulate(world, workers=1)
    print(f"the simulation says {predicted['seconds']:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        seen = asyncio.run(reality(world, Path(folder)))
    last = predicted["curve"][-1]
    both = {
        "seconds": (last["seconds"], seen["seconds"]),
        "bytes_up": (last["bytes_up"], seen["bytes_up"]),
        "bytes_down": (last["bytes_down"], seen["bytes_down"]),
        "accuracy": (last["metrics"]["accuracy"], seen["accuracy"]),
    }
    report = {
        "machine": {"processors": os.cpu_count(), "architecture": platform.machine(), "load": os.getloadavg()},
        "devices": options.devices,
        "versions": options.versions,
        "seed": world.simulation.seed,
        "trips": seen["trips"],
        "compared": {name: {"simulated": a, "real": b, "error": a / b - 1} for name, (a, b) in both.items()},
    }
    for name, (a, b) in both.items():
        print(f"{name:12} simulated {a:14.3f}  real {b:14.3f}  {100 * (a / b - 1):+.1f} %")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "simulation_reality.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
