"""
What a simulation takes: memory of an idle fleet, trips per second, and where the time goes.

    python -m benchmarks.simulation.speed --idle 10000 --devices 500 --versions 50

``idle``: so many devices connected and waiting for their turn, one of them at work. ``busy``: all at work, on a net so
small that the simulator itself is what is measured; ``--profile`` says which functions take the time. ``frozen``: fifty
devices that train the last layer of a net for CIFAR-10, with the layers before it computed once for each sample, and
again and again: the result must be the same.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import multiprocessing
import os
import platform
import pstats
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.simulation.compute import frozen_prefix as prefix
from coordinator.simulation.simulate import simulate
from coordinator.simulation.world.scenario import Scenario, parse_scenario

RESULTS = Path(__file__).parents[1] / "results"
SAMPLES = 20_000


def samples() -> tuple[Any, Any]:
    """Noise that looks like digits, enough for large fleets."""
    rng = np.random.default_rng(0)
    return rng.random((SAMPLES, 1, 8, 8), np.float32), rng.integers(0, 10, SAMPLES)


def scenario(devices: int, versions: int, /, **sections: Any) -> Scenario:
    """A fleet with a sample or more each, trained in the smallest tier."""
    return parse_scenario(
        {
            "simulation": {
                "devices": devices,
                "hours": 24,
                "evaluate_every": 1_000_000,
                "step_seconds": {"small": 0.001},
            },
            "data": {"source": "benchmarks.simulation.speed:samples", "split": "even", "samples": 2},
            "devices": {"phone": {"memory": "1.2MB", "slowdown": 1000, "spread": 0.5}},
            "run": {"name": "speed", "task": "exporters.zoo.digits:task"},
            "budgets": {"small": "1.2MB"},
            "merge": {"buffer": 10},
            "stop": {"versions": versions},
            **sections,
        },
        Path(),
    )


def images() -> tuple[Any, Any]:
    """Noise of the size of CIFAR-10's images."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(2750, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, 2750)


def frozen_scenario() -> Scenario:
    """Fifty devices of 55 samples each, which train what fits into little memory."""
    return scenario(
        50,
        30,
        simulation={"devices": 50, "hours": 24, "evaluate_every": 1_000_000, "step_seconds": {"small": 0.01}},
        data={"source": "benchmarks.simulation.speed:images", "split": "even", "samples": 55},
        run={"name": "speed", "task": "exporters.zoo.convnets:group_norm"},
        devices={"phone": {"memory": "3MB", "slowdown": 20}},
        budgets={"small": "3MB"},
        planning={"selector": "last-layers"},
    )


def measured(world: Scenario, plans: Path, *, undivided: bool = False) -> dict[str, Any]:
    """In a fresh process: what one simulation took."""
    # An executor's processes may have children, which a pool's may not: the planner measures in one.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        if undivided:
            executor.submit(_leave_undivided).result()
        result = executor.submit(simulate, world, workers=0, plans=plans).result()
    kept = {name: result[name] for name in ("trips", "weights_sha256")}
    return {**kept, "virtual_seconds": result["seconds"], **result["machine"]}


def _leave_undivided() -> None:
    """Compute frozen layers in every step, as without :mod:`coordinator.simulation.compute.frozen_prefix`."""
    prefix.behind = lambda task, *_: (None, task)


def main() -> None:
    """Measure, print, write ``benchmarks/results/simulation_speed.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--versions", type=int, default=50)
    parser.add_argument("--profile", action="store_true", help="profile the busy fleet, and measure nothing")
    options = parser.parse_args()
    plans = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftte" / "benchmarks" / "plans" / "speed"
    busy = scenario(options.devices, options.versions)
    if options.profile:
        profiler = cProfile.Profile()
        profiler.runcall(simulate, busy, workers=0, plans=plans)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
        return
    # One at work, the others in the waiting room; the run's end sends them home.
    idle = scenario(options.idle, 1, scheduling={"concurrency": 1, "waiting": options.idle, "deadline_seconds": 1e6})
    least = measured(scenario(1, 1, merge={"buffer": 1}), plans)
    rows = {"one": least, "idle": measured(idle, plans), "busy": measured(busy, plans)}
    last, other_plans = frozen_scenario(), plans.with_name("speed-frozen")
    rows["frozen"], rows["undivided"] = measured(last, other_plans), measured(last, other_plans, undivided=True)
    each = (rows["idle"]["peak_rss_bytes"] - least["peak_rss_bytes"]) / options.idle
    report = {
        "machine": {"processors": os.cpu_count(), "architecture": platform.machine(), "load": os.getloadavg()},
        "devices": {"idle": options.idle, "busy": options.devices},
        "runs": rows,
        "bytes_per_idle_device": each,
        "devices_times_trips_per_second": options.devices * rows["busy"]["trips_per_second"],
    }
    print(
        f"idle: {options.idle} devices, {rows['idle']['peak_rss_bytes'] / 1e6:.0f} MB in all, {each / 1e3:.1f} KB each"
    )
    print(f"busy: {options.devices} devices, {rows['busy']['trips_per_second']:.1f} trips per second")
    speeds = [rows[name]["trips_per_second"] for name in ("frozen", "undivided")]
    same = rows["frozen"]["weights_sha256"] == rows["undivided"]["weights_sha256"]
    print(
        f"frozen: {speeds[0]:.1f} trips per second, {speeds[1]:.1f} with the whole net in every step "
        f"({speeds[0] / speeds[1]:.1f} times as many), {'the same weights' if same else 'OTHER WEIGHTS'}"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "simulation_speed.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
