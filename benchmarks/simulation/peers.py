"""
FTTE's simulator, Flower's and APPFL's, on the same work: FedAvg, FedAsync and FedBuff of the whole model.

The same net from the same weights, the same CIFAR-10 samples on the same devices, the same cohort (asynchronous: as
many devices at work at a time, and in a buffer), epochs, batch size and learning rate; which devices train when, and
the order of their samples, are drawn by each framework. FTTE and Flower use all processors, APPFL trains one client
after another. All evaluate on the same held-out images, as often. Compared are accuracy after every so many client
trips, and client trips per second from the first such point on, so nobody pays for its start.

Of the three, Flower has FedAvg alone. APPFL's FedCompass keeps real time, which its virtual clock does not drive, so it
is not here. Both are installed by this script, into environments of their own.

    FTTE_CIFAR10=cifar-10-batches-py python -m benchmarks.simulation.peers \\
        [--devices N] [--cohort N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import cifar10
from benchmarks.paper_task import part, pretrained, task_of
from coordinator.simulation.simulate import draw_world, simulate
from coordinator.simulation.world.samples import load_simulation_samples
from coordinator.simulation.world.scenario import parse_scenario

PROGRAMS = Path(__file__).parents[1] / "peer_programs"
FLOWER = "flwr[simulation]==1.42.0"
APPFL = "appfl==1.12.0"
ALGORITHMS = {"fedavg": ("FTTE", "Flower", "APPFL"), "fedasync": ("FTTE", "APPFL"), "fedbuff": ("FTTE", "APPFL")}
HELD_OUT = 1000
LINK = 100_000_000  # bytes per second
SAMPLES = 55
BATCH_SIZE = 16
FEDASYNC_RATE = 0.1  # ten updates move as far as one buffer of FedBuff's; with 0.6 nothing is learned here

Curve = list[dict[str, Any]]


def main() -> None:
    """Run all, one after the other, and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--cohort", type=int, default=10, help="devices per round, or at work at a time")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--algorithms", nargs="+", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    run = {"FTTE": ours, "Flower": flower, "APPFL": appfl}
    report: dict[str, Any] = {}
    for algorithm in options.algorithms:
        curves = {name: run[name](options, algorithm) for name in ALGORITHMS[algorithm]}
        report[algorithm] = compared(curves)
        for name, row in report[algorithm].items():
            accuracies = " ".join(f"{point['accuracy']:.3f}" for point in row["curve"])
            print(f"{algorithm:8} {name:6} {row['trips_per_second']:6.2f} trips/s; accuracy {accuracies}", flush=True)
        for name in curves.keys() - {"FTTE"}:
            ratio = report[algorithm]["FTTE"]["trips_per_second"] / report[algorithm][name]["trips_per_second"]
            print(
                f"{algorithm:8} FTTE simulates {ratio:.2f} times as many client trips per second as {name}", flush=True
            )
    if options.json:
        given = {k: v for k, v in vars(options).items() if k != "json"}
        machine = {"processors": os.cpu_count(), "architecture": platform.machine(), "peers": [FLOWER, APPFL]}
        options.json.write_text(json.dumps({"settings": given, "machine": machine, **report}, indent=1) + "\n")


def compared(curves: dict[str, Curve]) -> dict[str, dict[str, Any]]:
    """Trips per second after the first point, and the mean accuracy of the last five, for each framework."""
    rows = {}
    for name, curve in curves.items():
        first, last = curve[1], curve[-1]
        rows[name] = {
            "trips_per_second": (last["trips"] - first["trips"]) / (last["at"] - first["at"]),
            "final_accuracy": statistics.fmean(point["accuracy"] for point in curve[-5:]),
            "curve": curve,
        }
    return rows


def scenario(options: argparse.Namespace, algorithm: str) -> Any:
    """As ``ftte simulate`` takes it: devices of nearly the same speed, and links that cost next to nothing."""
    cohort, trips = options.cohort, options.cohort * options.rounds
    synchronous = {
        "scheduling": {"cohort": cohort, "repeat": False, "concurrency": 0},
        "merge": {"buffer": cohort, "flush_seconds": 0, "staleness": {"policy": "constant"}},
    }
    polynomial = {"policy": "polynomial", "exponent": 0.5}
    settings = {
        "fedavg": synchronous,
        "fedasync": {
            "scheduling": {"concurrency": cohort},
            "merge": {"buffer": 1, "learning_rate": FEDASYNC_RATE, "staleness": {"policy": "constant"}},
        },
        "fedbuff": {"scheduling": {"concurrency": cohort}, "merge": {"buffer": cohort, "staleness": polynomial}},
    }[algorithm]
    versions = trips // settings["merge"]["buffer"]
    return parse_scenario(
        {
            "simulation": {
                "devices": options.devices,
                "seed": options.seed,
                "hours": 1000,
                "evaluate_every": max(1, versions // options.rounds),
                "step_seconds": {"full": 0.05},
            },
            "data": {
                "source": "benchmarks.paper_task:training",
                "split": "dirichlet",
                "alpha": 0.3,
                "samples": SAMPLES,
            },
            "devices": {"phone": {"memory": "40MB", "up": LINK, "down": LINK, "spread": 0.3}},
            "run": {"name": "peers", "task": "benchmarks.simulation.peers:task"},
            "budgets": {"full": "40MB"},
            "training": {"epochs": 1, "batch_size": BATCH_SIZE, "learning_rate": options.learning_rate},
            "payload": {"update": "float32", "differences": False},
            "stop": {"versions": versions},
            **settings,
        },
        Path(__file__).parent,
    )


def task() -> Any:
    """The paper's task, held out on the first images of the reported part."""
    return task_of(pretrained(), lambda: tuple(array[:HELD_OUT] for array in part("reported")), "cifar10-peers")


def ours(options: argparse.Namespace, algorithm: str) -> Curve:
    """Accuracy and wall time after every so many client trips."""
    curve: Curve = []

    def note(point: Any) -> None:
        if point.metrics and (not curve or curve[-1]["trips"] != point.trips):
            curve.append({"trips": point.trips, "accuracy": point.metrics["accuracy"], "at": time.monotonic()})

    simulate(scenario(options, algorithm), progress=note)
    return curve


def flower(options: argparse.Namespace, algorithm: str) -> Curve:
    """The same in Flower."""
    return elsewhere(FLOWER, "flower_simulation.py", options, algorithm)


def appfl(options: argparse.Namespace, algorithm: str) -> Curve:
    """The same in APPFL."""
    return elsewhere(APPFL, "appfl_simulation.py", options, algorithm)


def elsewhere(requirement: str, program: str, options: argparse.Namespace, algorithm: str) -> Curve:
    """Run a peer's program in the peer's environment, on files that say what the work is."""
    python = environment(requirement)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = load_simulation_samples("benchmarks.paper_task:training", folder)
        fleet, parts, _ = draw_world(scenario(options, algorithm), samples)
        held_out = [np.array(array[:HELD_OUT]) for array in part("reported")]
        own = {f"device-{i}": np.arange(SAMPLES) + SAMPLES * i for i in range(len(parts))}
        chosen = np.concatenate(parts)
        np.savez(
            folder / "work.npz",
            x=np.array(samples.x)[chosen],
            y=np.array(samples.y)[chosen],
            x_test=held_out[0],
            y_test=held_out[1],
            allow_pickle=False,
            **own,
        )
        torch.save(pretrained(), folder / "model.pt")
        settings = {k: vars(options)[k] for k in ("devices", "cohort", "rounds", "learning_rate", "seed")} | {
            "algorithm": algorithm,
            "batch_size": BATCH_SIZE,
            "fedasync_rate": FEDASYNC_RATE,
            "link": LINK,
            "slowdowns": [profile.slowdown for profile in fleet],
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        files = [folder / each for each in ("work.npz", "model.pt", "settings.json", "result.json")]
        subprocess.run([python, PROGRAMS / program, *files], check=True, stdout=sys.stderr)
        curve: Curve = json.loads(files[-1].read_text())
        return curve


def environment(requirement: str, *others: str) -> Path:
    """The interpreter of a peer's environment, made if it is not there yet, with ``others`` beside it."""
    folder = cifar10.cache_folder() / "peers" / requirement.replace("[", "-").replace("]", "")
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {requirement} into {folder}, which takes minutes and some GB", file=sys.stderr)
        venv.create(folder, with_pip=True)
        pinned = f"torch=={torch.__version__.split('+')[0]}"
        subprocess.run([python, "-m", "pip", "install", "-q", pinned, requirement, *others], check=True)
        (folder / "installed").touch()
    return python


if __name__ == "__main__":
    main()
