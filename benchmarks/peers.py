"""
FTTE's simulator and Flower's, on the same work: synchronous FedAvg of the whole model.

The same net from the same weights, the same CIFAR-10 samples on the same devices, the same cohort, rounds, epochs,
batch size and learning rate; which devices train in which round, and the order of their samples, are drawn by each
framework. Both use all processors and evaluate every round on the same held-out images. Compared are accuracy after
every round and client trips per second from the end of the first round on, so neither pays for its start.

Flower is installed by this script, into an environment of its own.

    FTTE_CIFAR10=cifar-10-batches-py python -m benchmarks.peers [--devices N] [--cohort N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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
from coordinator.simulation.scenario import parse_scenario
from coordinator.simulation.simulate import drawn, simulate
from coordinator.simulation.sources import load_samples

FLOWER = "flwr[simulation]==1.42.0"
PROGRAM = Path(__file__).parent / "peer_programs" / "flower_simulation.py"
HELD_OUT = 1000


def main() -> None:
    """Run both, one after the other, and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--cohort", type=int, default=10, help="devices per round")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    frameworks = {"FTTE": ours(options), "Flower": flower(options)}
    trips = options.cohort * (options.rounds - 1)
    speeds = {name: trips / (curve[-1]["at"] - curve[1]["at"]) for name, curve in frameworks.items()}
    for name, curve in frameworks.items():
        accuracies = " ".join(f"{point['accuracy']:.3f}" for point in curve)
        print(f"{name:8} {speeds[name]:6.2f} trips/s; accuracy {accuracies}")
    ratio = speeds["FTTE"] / speeds["Flower"]
    print(f"FTTE simulates {ratio:.2f} times as many client trips per second")
    if options.json:
        given = {k: v for k, v in vars(options).items() if k != "json"}
        machine = {"processors": os.cpu_count(), "architecture": platform.machine(), "flower": FLOWER}
        report = {
            "settings": given,
            "machine": machine,
            "curves": frameworks,
            "trips_per_second": speeds,
            "speed_ratio": ratio,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def scenario(options: argparse.Namespace) -> Any:
    """As ``ftte simulate`` takes it: devices that are all alike, with time and links that cost nothing."""
    return parse_scenario(
        {
            "simulation": {
                "devices": options.devices,
                "seed": options.seed,
                "hours": 1000,
                "step_seconds": {"full": 0.05},
            },
            "data": {"source": "benchmarks.paper_task:training", "split": "dirichlet", "alpha": 0.3, "samples": 55},
            "devices": {"phone": {"memory": "40MB", "up": "100MB", "down": "100MB"}},
            "run": {"name": "peers", "task": "benchmarks.peers:task"},
            "budgets": {"full": "40MB"},
            "training": {"epochs": 1, "batch_size": 16, "learning_rate": options.learning_rate},
            "scheduling": {"cohort": options.cohort, "repeat": False, "concurrency": 0},
            "merge": {"buffer": options.cohort, "flush_seconds": 0, "staleness": {"policy": "constant"}},
            "payload": {"update": "float32", "differences": False},
            "stop": {"versions": options.rounds},
        },
        Path(__file__).parent,
    )


def task() -> Any:
    """The paper's task, held out on the first images of the reported part."""
    return task_of(pretrained(), lambda: tuple(array[:HELD_OUT] for array in part("reported")), "cifar10-peers")


def ours(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Accuracy and wall time of every round."""
    curve: list[dict[str, Any]] = []

    def note(point: Any) -> None:
        if point.metrics and (not curve or curve[-1]["round"] != point.version):
            curve.append({"round": point.version, "accuracy": point.metrics["accuracy"], "at": time.monotonic()})

    simulate(scenario(options), progress=note)
    return curve


def flower(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same in Flower."""
    python = environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = load_samples("benchmarks.paper_task:training", folder)
        _, parts, _ = drawn(scenario(options), samples)
        held_out = [np.array(array[:HELD_OUT]) for array in part("reported")]
        own = {f"device-{i}": np.arange(55) + 55 * i for i in range(len(parts))}
        chosen = np.concatenate(parts)
        np.savez(
            folder / "work.npz",
            x=np.array(samples.x)[chosen],
            y=np.array(samples.y)[chosen],
            x_test=held_out[0],
            y_test=held_out[1],
            **own,
        )
        torch.save(pretrained(), folder / "model.pt")
        (folder / "settings.json").write_text(
            json.dumps(
                {k: vars(options)[k] for k in ("devices", "cohort", "rounds", "learning_rate")} | {"batch_size": 16}
            )
        )
        files = [folder / each for each in ("work.npz", "model.pt", "settings.json", "result.json")]
        subprocess.run([python, PROGRAM, *files], check=True, stdout=sys.stderr)
        curve: list[dict[str, Any]] = json.loads(files[-1].read_text())
        return curve


def environment() -> Path:
    """The interpreter of Flower's environment, made if it is not there yet."""
    folder = cifar10.cache_folder() / "peers" / FLOWER.replace("[", "-").replace("]", "")
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", f"torch=={torch.__version__.split('+')[0]}", FLOWER], check=True
        )
        (folder / "installed").touch()
    return python


if __name__ == "__main__":
    main()
