"""
What packed updates and integer differences save, and what they cost.

Accuracy: federated training of the digits task on eight uneven devices, four a round, with the product's own
training, packing, merging and grid; one seed draws devices, samples' order and rounding. Every packing sees the same
draws, so that they are compared in pairs. The last five versions are averaged.

Bytes: a run of `ftte serve` and two `ftte-device` processes; the coordinator counts what passes its socket, handshakes,
framing, programs and all.

    python benchmarks/payload.py [--seeds N] [--rounds N] [--json FILE] [--figure FILE]

"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from coordinator.config import parse_config
from coordinator.merge.contribution import Contribution
from coordinator.merge.regions import WeightRegion
from coordinator.merge.rules import combine
from coordinator.merge.step_sizes import StepSizes, Vote, is_due, steps_of_ranges, wanted_ranges
from coordinator.merge.sums import Elements
from coordinator.programs.begin import begin_or_resume
from coordinator.programs.run_key import RunKey
from coordinator.store.sqlite import SqliteStore
from exporters import export, load_task
from exporters.quiet import quiet
from exporters.zoo.digits_data import held_out, part
from mobile_sdk import safetensors
from mobile_sdk.data import ArrayDataset
from mobile_sdk.engines import load_engine
from mobile_sdk.engines.base import Engine
from mobile_sdk.payload import Grid, Steps, UpdateFormat, decode_update, decode_vector, encode_update
from mobile_sdk.payload.feedback import carried_over, left_out
from mobile_sdk.payload.steps import BITS, OPEN
from mobile_sdk.training.evaluation import evaluate_dataset
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import train

DEVICES, BUFFER, LAST = 8, 4, 5
SETTINGS = TrainingSettings(epochs=1, batch_size=16, learning_rate=0.02, momentum=0.5)

# Name -> how updates are packed, whether versions lie on the grid, and the same as a run file says it.
PACKINGS: dict[str, tuple[UpdateFormat, bool, str]] = {
    "float32, no differences": (UpdateFormat(), False, "differences = false"),
    "float32": (UpdateFormat(), True, ""),
    "float16": (UpdateFormat("float16"), True, 'update = "float16"'),
    "int16": (UpdateFormat("int16"), True, 'update = "int16"'),
    "int8": (UpdateFormat("int8"), True, 'update = "int8"'),
    "int4": (UpdateFormat("int4"), True, 'update = "int4"'),
    "int8, top 10 %": (UpdateFormat("int8", 0.1), True, 'update = "int8"\ntop_k = 0.1'),
}
REFERENCE = "float32, no differences"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--rounds", type=int, default=80, metavar="N", help="versions of a training (default: 80)")
    parser.add_argument("--versions", type=int, default=20, metavar="N", help="versions of a run that is counted")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="PNG or SVG")
    options = parser.parse_args()
    console = Console(width=110)
    with Progress(console=console, transient=True) as progress, quiet(), tempfile.TemporaryDirectory() as folder:
        work = progress.add_task("exporting", total=len(PACKINGS) * (options.seeds + 1))
        program = export(load_task("exporters.zoo.digits:task"))
        program.save(folder)
        engine = load_engine(folder)
        accuracies: dict[str, list[float]] = {name: [] for name in PACKINGS}
        for name, (packing, on_grid, _) in PACKINGS.items():
            for seed in range(options.seeds):
                progress.update(work, description=f"{name}, seed {seed}")
                accuracies[name].append(accuracy(engine, program.weights, packing, on_grid, options.rounds, seed))
                progress.advance(work)
        engine.close()
        moved = {}
        progress.update(work, description="planning a run")
        planned = plan(Path(folder) / "planned")
        for name, (_, _, section) in PACKINGS.items():
            progress.update(work, description=f"{name}, counting bytes")
            moved[name] = count_bytes(planned, section, options.versions)
            progress.advance(work)
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "task": "digits",
        "parameters": program.manifest.layout.size,
        "devices": DEVICES,
        "rounds": options.rounds,
        "seeds": options.seeds,
        "packings": {name: summarise(name, accuracies, moved) for name in PACKINGS},
    }
    console.print(results["machine"], highlight=False)
    console.print(show(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.figure:
        draw(results, options.figure)


def accuracy(engine: Engine, initial: Any, packing: UpdateFormat, on_grid: bool, rounds: int, seed: int) -> float:
    """What a training reaches: the mean of its last versions on held-out digits."""
    manifest = engine.manifest
    layout, subset = manifest.layout, manifest.subset
    region = WeightRegion(subset.positions())
    data = [ArrayDataset(*part(i, of=DEVICES, seed=2)) for i in range(DEVICES)]
    test = ArrayDataset(*held_out())
    master = initial.copy()
    grid = Grid.of(layout.views(master)) if on_grid else None
    shapes = [subset.shape(name) for name in subset]
    sizes, ranges = StepSizes(), np.full(len(Steps.open(shapes).exponents), OPEN, np.int8)
    rng = np.random.default_rng(seed)
    residuals = [b""] * DEVICES
    reached = []
    for version in range(rounds):
        views = layout.views(master)
        weights = {n: grid.snap(n, a) for n, a in views.items()} if grid is not None else views
        contributions, votes = [], []
        if packing.dtype in BITS:
            packing = dataclasses.replace(packing, steps=steps_of_ranges(shapes, ranges, packing.dtype).to_text())
        for device in rng.choice(DEVICES, BUFFER, replace=False).tolist():
            number = version * DEVICES + device
            result = train(engine, weights, data[device], SETTINGS, 1000 * seed + number)
            update = carried_over(result.update, residuals[device]) if packing.top_k < 1 else result.update
            arrays, metadata = encode_update(update, packing, number)
            if packing.top_k < 1:
                residuals[device] = left_out(update, arrays, metadata)
            content = safetensors.dumps(arrays, metadata)
            stepped = decode_vector(*safetensors.loads(content), subset)
            delta: Elements
            if stepped is None:
                parts = [a.reshape(-1) for _, a in decode_update(*safetensors.loads(content), subset)]
                delta = np.concatenate(parts)
            else:
                delta = stepped
                votes.append(Vote("", str(device), wanted_ranges(stepped)))
            contributions.append(Contribution(f"{number:08d}", region, delta, result.samples))
        sizes.merged(votes)
        if votes and is_due(version + 1):
            ranges = sizes.next({"": ranges})[""]
        direction = combine(layout.size, contributions, [1.0] * len(contributions))
        master[direction.region.positions] += direction.values.astype(np.float32)
        if version >= rounds - LAST:
            reached.append(evaluate_dataset(engine, layout.views(master), test)[1]["accuracy"])
    return statistics.mean(reached)


RUN = {"run": {"name": "digits", "task": "exporters.zoo.digits:task"}, "budgets": {"all": "8MB"}}


def plan(folder: Path) -> Path:
    """A state directory in which a run of one tier has begun; every packing starts from a copy."""
    folder.mkdir()
    config = parse_config(copy.deepcopy(RUN), folder)
    store = SqliteStore(config.run.state)
    try:
        begin_or_resume(
            config, store, RunKey.load_or_create(config.run.state / "run.key"), time.time(), lambda text: None
        )
    finally:
        store.close()
    return config.run.state


def count_bytes(planned: Path, section: str, versions: int) -> dict[str, float]:
    """Bytes up and down per update, and of the same trips as float32 of the whole model, from a run's summary."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(planned, folder / "state")
        (folder / "run.toml").write_text(
            f'[run]\nname = "digits"\ntask = "{RUN["run"]["task"]}"\n[server]\nport = 0\n[budgets]\nall = "8MB"\n'
            f"[merge]\nbuffer = 2\n[stop]\nversions = {versions}\n[payload]\n{section}\n"
        )
        with started("ftte", "serve", folder / "run.toml", log=folder / "log.txt") as server:
            url, key = wait_for(server, folder / "log.txt")
            with contextlib.ExitStack() as stack:
                for i in range(2):
                    join = ("join", url, "--run", "digits", "--key", key, "--storage", folder / str(i), "--quiet")
                    data = ("--data", f"exporters.zoo.digits_data:part({i}, of={DEVICES}, seed=2)")
                    stack.enter_context(started("ftte-device", *join, *data, log=folder / f"{i}.txt"))
                if server.wait(600) != 0:
                    raise SystemExit((folder / "log.txt").read_text())
        summary = json.loads((folder / "state" / "summary.json").read_text())
    updates = sum(device["updates"] for device in summary["devices"])
    return {
        "up": summary["bytes_up"] / updates,
        "down": summary["bytes_down"] / updates,
        "dense": summary["dense_bytes"] / updates,
    }


@contextlib.contextmanager
def started(command: str, *arguments: Any, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, stopped at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen([Path(sys.executable).with_name(command), *arguments], stdout=output, stderr=output)
    try:
        yield process
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def wait_for(server: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    """Address and key, once the coordinator says them."""
    while True:
        found = re.search(r"(ws://[\d.:]+)[\s\\]+--run \S+[\s\\]+--key[\s\\]+([0-9a-f]{64})", log.read_text())
        if found:
            return found[1], found[2]
        try:
            server.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
        raise SystemExit(log.read_text())


def summarise(name: str, accuracies: dict[str, list[float]], moved: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Means over seeds, and the cost of a packing against the same seeds unpacked."""
    costs = [100 * (a - b) for a, b in zip(accuracies[REFERENCE], accuracies[name], strict=True)]
    bytes_ = moved[name]
    return {
        "accuracy": statistics.mean(accuracies[name]),
        "accuracies": accuracies[name],
        "cost_points": statistics.mean(costs),
        "cost_points_worst": max(costs),
        "bytes_up": bytes_["up"],
        "bytes_down": bytes_["down"],
        "ratio": bytes_["dense"] / (bytes_["up"] + bytes_["down"]),
    }


def show(results: dict[str, Any]) -> Table:
    """For a terminal."""
    table = Table(title=f"{results['task']}, {results['parameters']:,} parameters, {results['seeds']} seeds", box=None)
    for column in ("updates", "accuracy", "cost in points", "worst seed", "KB up", "KB down", "dense / moved"):
        table.add_column(column, justify="left" if column == "updates" else "right")
    for name, row in results["packings"].items():
        table.add_row(
            name,
            f"{row['accuracy']:.4f}",
            f"{row['cost_points']:+.2f}",
            f"{row['cost_points_worst']:+.2f}",
            f"{row['bytes_up'] / 1000:.1f}",
            f"{row['bytes_down'] / 1000:.1f}",
            f"{row['ratio']:.1f}x",
        )
    return table


def draw(results: dict[str, Any], path: Path) -> None:
    """Bytes per update as bars, accuracy beside them."""
    import matplotlib.pyplot as plt

    names = list(results["packings"])
    rows = list(results["packings"].values())
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    up = [row["bytes_up"] / 1000 for row in rows]
    axes.barh(names, up, label="up")
    axes.barh(names, [row["bytes_down"] / 1000 for row in rows], left=up, label="down")
    for name, row in zip(names, rows, strict=True):
        total = (row["bytes_up"] + row["bytes_down"]) / 1000
        axes.text(total, name, f"  {row['accuracy']:.3f}, {row['ratio']:.1f}x", va="center")
    axes.set_xlabel("KB per update, counted at the socket. Labels: accuracy, and dense float32 over what was moved")
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
