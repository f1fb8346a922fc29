"""
After federated training: the common subset against random subsets of the same measured memory.

The scenario is that of the comparison with the paper (``scenarios/paper.toml``: CIFAR-10, 500 devices, 90 %
stragglers), all settings are those of ``ftte_common``; only the plan is another. A random plan draws a level for each
layer that the memory lets back-propagation reach, and takes levels back at random until its measured memory is at most
that of the common plan; draws that end more than a twentieth below are thrown away. No selector is used for it: a
search fills what is left of a budget, and ends at nearly the same plan from random scores here (``--plans`` prints what
each selector comes to).

    FTTE_CIFAR10=cifar-10-batches-py python -m benchmarks.subsets.federated [--random 3] [--seeds 1]

A simulation of 3,000 trips takes about five minutes on two cores. Each is kept in ``results/subset_federated.json``
and not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import paper_task
from benchmarks.paper.report import final_accuracy
from benchmarks.paper.run import _Runner, _tune
from benchmarks.paper.runs import SCENARIO, Paper, Run, grid, merged
from benchmarks.server.load import RESULTS, machine
from coordinator.simulation.simulate import simulate
from coordinator.simulation.world.scenario import parse_scenario
from exporters import Plan, Task
from exporters.memory.measure import measure
from exporters.program.build import build
from exporters.search import plans_for
from exporters.search.plan_files import SUMMARY_FILE, plan_file
from exporters.space import BIAS, FROZEN, LEVELS, Space
from mobile_sdk.sizes import parse_bytes

OUT = RESULTS / "subset_federated.json"
SELECTORS = (None, "fisher", "magnitude", "sensitivity", "random", "contribution")
LEAST = 0.95


def memory_of(task: Task, plan: Plan) -> int:
    """Bytes, measured in the native runtime."""
    return measure(build(task, plan, ("train_step",))).total_bytes


def reach(task: Task, space: Space, limit: int) -> int:
    """The first layer whose bias can be trained, with those of all layers after it, within ``limit`` bytes."""
    for first in range(len(space)):
        levels = [FROZEN] * first + [BIAS] * (len(space) - first)
        if memory_of(task, space.plan(levels, task.micro_batch)) <= limit:
            return first
    raise SystemExit(f"not even the last bias can be trained within {limit} bytes")


def random_plan(task: Task, space: Space, first: int, limit: int, seed: int) -> tuple[Plan, tuple[int, ...], int]:
    """A plan drawn without any search, whose measured memory is between 0.95 of ``limit`` and ``limit``."""
    rng = np.random.default_rng(seed)
    while True:
        levels = [FROZEN] * first + [int(rng.choice(layer.levels)) for layer in space.layers[first:]]
        while any(levels):
            plan = space.plan(levels, task.micro_batch)
            needs = memory_of(task, plan)
            if needs <= limit:
                break
            index = int(rng.choice([i for i, level in enumerate(levels) if level != FROZEN]))
            levels[index] = [level for level in space.layers[index].levels if level < levels[index]][-1]
        if any(levels) and needs >= LEAST * limit:
            return plan, tuple(levels), needs


def settings_of(paper: Paper, run: Run, plans: Path) -> dict[str, Any]:
    """Those of ``run``, with a folder of plans in place of the search."""
    return merged(paper.settings(run), {"planning": {"plans": str(plans)}})


def main() -> None:
    """Draw, simulate what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=3, help="random plans")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--plans", action="store_true", help="print the plans of all selectors, and simulate nothing")
    options = parser.parse_args()
    task = paper_task.from_pretrained()
    space = Space(task)
    paper = Paper()
    budget = parse_bytes(paper.algorithms["ftte_common"]["budgets"]["weak"])
    if options.plans:
        for selector in SELECTORS:
            given: dict[str, Any] = {"selector": selector} if selector else {}
            samples = paper_task.proxy() if selector not in (None, "magnitude", "random") else None
            (plan,) = plans_for(task, [budget], samples=samples, **given)
            print(
                selector or "default",
                shown(space.level_of(plan.subset)),
                f"{memory_of(task, plan):,} bytes",
                flush=True,
            )
        return
    done: list[dict[str, Any]] = json.loads(OUT.read_text())["runs"] if OUT.exists() else []
    (common,) = plans_for(task, [budget])
    limit = memory_of(task, common)
    print(f"{machine()}; common: {shown(space.level_of(common.subset))}, {limit:,} bytes")
    plans = [("common", common, space.level_of(common.subset), limit)]
    first = reach(task, space, limit)
    for seed in range(options.random):
        plans.append((f"random {seed}", *random_plan(task, space, first, limit, seed)))
        print(f"{plans[-1][0]}: {shown(plans[-1][2])}, {plans[-1][3]:,} bytes", flush=True)
    rates = _tune(paper, _Runner(paper, until=0, report=True, workers=None, older=True), False)
    headline = [
        r for r in grid(paper, quick=False, rates=rates) if (r.part, r.algorithm) == ("headline", "ftte_common")
    ]
    for run in headline:
        if run.seed not in options.seeds:
            continue
        for name, plan, levels, needs in plans:
            trained = [LEVELS[level] for level in levels]
            if any((row["plan"], row["seed"], row["levels"]) == (name, run.seed, trained) for row in done):
                continue
            done.append(
                {
                    "plan": name,
                    "levels": trained,
                    "memory_bytes": needs,
                    "update_bytes": 4 * plan.subset.size,
                    "seed": run.seed,
                    "final_accuracy": accuracy(paper, run, plan, budget),
                }
            )
            report = {"machine": machine(), "scenario_sha256": paper.sha256, "layers": [x.name for x in space.layers]}
            OUT.write_text(json.dumps(report | {"runs": done}, indent=1) + "\n")
            print(f"{name}, seed {run.seed}: {done[-1]['final_accuracy']:.4f}", flush=True)
    for name, *_ in plans:
        rows = [row for row in done if row["plan"] == name]
        mean = statistics.fmean(row["final_accuracy"] for row in rows)
        print(f"{name:10} {mean:.4f} at {rows[0]['memory_bytes'] / 1e6:.2f} MB, {len(rows)} seed(s)")


def accuracy(paper: Paper, run: Run, plan: Plan, budget: int) -> float:
    """After the run's trips."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = plan_file(budget)
        (folder / file).write_text(json.dumps(plan.to_json()))
        (folder / SUMMARY_FILE).write_text(json.dumps({"tiers": [{"plan": file, "budget_bytes": budget}]}))
        return final_accuracy(simulate(parse_scenario(settings_of(paper, run, folder), SCENARIO.parent)))


def shown(levels: tuple[int, ...]) -> str:
    """One word a layer, from the input on."""
    return " ".join("-" if level == FROZEN else LEVELS[level] for level in levels)


if __name__ == "__main__":
    main()
