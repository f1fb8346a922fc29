"""
Does a newcomer's task learn where nothing is set? Against a plain synchronous FedAvg that was tuned.

Three small tasks whose data are not the comparison's: people's motion and text (:mod:`benchmarks.small_tasks`), and
handwritten digits. 30 devices with uneven data, a fifth of them ten times slower; three tiers of memory: all of what
the full model takes, three quarters, and half of the way down to what the last layer takes. FTTE's run file names the
task and the tiers, and nothing else: rate, buffer, concurrency, weights and defence are the defaults.

The peer is 60 lines of torch: rounds of ten devices, everybody trains the full model in as many passes as ours, the
mean weighted by samples. It has a rate tuned on another seed with as many trips; the best one is not at the edge of
what was tried. Both run the same trips; accuracies are the mean of the last ten evaluations on held-out data. A second
run of ours gives every device room for the full model: what is left of the difference then is merging's, the rest is
memory's.

    python -m benchmarks.defaults [--seeds 1 2 3] [--trips 900] [--tasks motion text digits] [--rules | --one-class]

``--rules`` runs the three tiers alone, once with each ``merge.rule``. ``--one-class`` is another world: ten devices
with room for the full model and one class of digits each, none or two of them ten times slower. Writes
``benchmarks/results/defaults.json``. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.server.load import RESULTS, machine
from coordinator.config import TrainingSection
from coordinator.simulation.simulate import draw_world, simulate
from coordinator.simulation.world.samples import load_simulation_samples
from coordinator.simulation.world.scenario import parse_scenario
from exporters import Task, load_task
from exporters.memory.measure import measure
from exporters.program.build import build
from exporters.space import Space

OUT = RESULTS / "defaults.json"

# Task, and the training samples of its devices with whose they are.
TASKS = {
    "motion": ("benchmarks.small_tasks:motion", "benchmarks.small_tasks:motion_training", "by-writer"),
    "text": ("benchmarks.small_tasks:text", "benchmarks.small_tasks:text_training", "by-writer"),
    "digits": ("exporters.zoo.digits:task", "exporters.zoo.digits_data:training", "dirichlet"),
}
DEVICES, COHORT, LAST, TUNING_SEED = 30, 10, 10, 101
RATES = [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8]

Parts = list[tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]


def scenario(name: str, budgets: dict[str, int], seed: int, trips: int, **merge: str) -> dict[str, Any]:
    """The simulated world, and a run file that sets nothing, or ``merge`` alone."""
    task, source, split = TASKS[name]
    return {
        "simulation": {"devices": DEVICES, "seed": seed, "hours": 10_000},
        "data": {"source": source, "split": split, "alpha": 0.3},
        "devices": {
            tier: {"memory": memory, "slowdown": 4, "spread": 0.3, "trip_seconds": 1.0}
            for tier, memory in budgets.items()
        },
        "stragglers": {"share": 0.2, "slowdown": 10.0},
        "run": {"name": name, "task": task},
        "budgets": budgets,
        "stop": {"updates": trips},
        "merge": dict(merge),
    }


def tiers(task: Task) -> dict[str, int]:
    """Budgets in bytes, from measured programs: of everything, and of less."""
    space = Space(task)
    whole, last = (
        measure(build(task, space.plan(levels, task.micro_batch), ("train_step",))).total_bytes
        for levels in ([layer.levels[-1] for layer in space.layers], space.last(1))
    )
    # A measured run needs a little more than its training step.
    return {"large": 2 * whole, "middle": whole, "small": (whole + last) // 2}


def parts_of(world: dict[str, Any]) -> Parts:
    """The samples of each device of a simulated world."""
    parsed = parse_scenario(world, Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        samples = load_simulation_samples(parsed.data.source, Path(folder))
    return [(np.asarray(samples.x)[own], np.asarray(samples.y)[own]) for own in draw_world(parsed, samples)[1]]


def fedavg(task: Task, parts: Parts, rate: float, seed: int, trips: int) -> list[float]:
    """Synchronous FedAvg (McMahan et al. 2017): held-out accuracy after each round."""
    rng = np.random.default_rng([seed, 7])
    model = copy.deepcopy(task.model).train()
    training = TrainingSection()
    assert task.held_out is not None
    held_x, held_y = (torch.from_numpy(np.asarray(array)) for array in task.held_out())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    curve = []
    for _ in range(trips // COHORT):
        total = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        cohort = rng.choice(len(parts), COHORT, replace=False)
        everything = sum(len(parts[device][1]) for device in cohort)
        for device in cohort.tolist():
            x, y = (torch.from_numpy(array) for array in parts[device])
            model.load_state_dict(state)
            optimiser = torch.optim.SGD(model.parameters(), rate)
            for _ in range(training.epochs_for(len(y))):
                order = torch.from_numpy(rng.permutation(len(y)))
                for batch in order.split(training.batch_size):
                    optimiser.zero_grad()
                    torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                    optimiser.step()
            for name, tensor in model.state_dict().items():
                total[name] += tensor * (len(y) / everything)
        state = total
        model.load_state_dict(state)
        with torch.no_grad():
            curve.append(float((model(held_x).argmax(1) == held_y).float().mean()))
    return curve


def final(curve: list[float]) -> float:
    """The mean of the last evaluations."""
    return statistics.fmean(curve[-LAST:])


def tuned(task: Task, parts: Callable[[int], Parts], trips: int) -> tuple[float, dict[float, float]]:
    """The best rate, which is not the first or the last that was tried, and what each came to."""
    came = {rate: final(fedavg(task, parts(TUNING_SEED), rate, TUNING_SEED, trips)) for rate in RATES}
    while (best := max(came, key=lambda rate: came[rate])) in (min(came), max(came)):
        rate = best / 2 if best == min(came) else best * 2
        came[rate] = final(fedavg(task, parts(TUNING_SEED), rate, TUNING_SEED, trips))
    return best, dict(sorted(came.items()))


def ftte(name: str, budgets: dict[str, int], seed: int, trips: int, **merge: str) -> float:
    """What a run comes to that sets nothing, or ``merge`` alone."""
    return simulated(scenario(name, budgets, seed, trips, **merge))


def simulated(world: dict[str, Any]) -> float:
    """What a run comes to; planned programs are kept from seed to seed."""
    key = "-".join(map(str, world["budgets"].values()))
    plans = Path(tempfile.gettempdir()) / f"ftte-defaults-{world['run']['name']}-{key}"
    result = simulate(parse_scenario(world, Path.cwd()), plans=plans)
    return final([point["metrics"]["accuracy"] for point in result["curve"] if point["metrics"]])


def shown(row: Mapping[str, float]) -> str:
    """Accuracies, and differences to the peer."""
    peer = row["fedavg"]
    ours = ", ".join(f"{side} {row[side]:.3f} ({row[side] - peer:+.3f})" for side in ("ours", "roomy"))
    return f"FedAvg {peer:.3f}, {ours}"


def compare(name: str, seeds: list[int], trips: int) -> dict[str, Any]:
    """One task: both sides, seed by seed."""
    task = load_task(TASKS[name][0])
    budgets = tiers(task)

    def parts(seed: int) -> Parts:
        return parts_of(scenario(name, budgets, seed, trips))

    rate, trials = tuned(task, parts, trips)
    print(f"{name}: FedAvg's rate {rate:g} of {', '.join(f'{r:g}: {a:.3f}' for r, a in trials.items())}", flush=True)
    rows = []
    for seed in seeds:
        torch.manual_seed(seed)
        peer = final(fedavg(task, parts(seed), rate, seed, trips))
        ours = ftte(name, budgets, seed, trips)
        roomy = ftte(name, {"all": budgets["large"]}, seed, trips)
        rows.append({"seed": seed, "ours": ours, "roomy": roomy, "fedavg": peer})
        print(f"{name} seed {seed}: {shown(rows[-1])}", flush=True)
    mean = {side: statistics.fmean(row[side] for row in rows) for side in ("ours", "roomy", "fedavg")}
    print(f"{name}: {shown(mean)}", flush=True)
    return {"budgets": budgets, "rate": rate, "trials": {f"{r:g}": a for r, a in trials.items()}, "runs": rows, **mean}


def rules(name: str, seeds: list[int], trips: int) -> dict[str, dict[str, float]]:
    """The three tiers with each rule, seed by seed."""
    budgets = tiers(load_task(TASKS[name][0]))
    found: dict[str, dict[str, float]] = {}
    for seed in seeds:
        found[str(seed)] = {rule: ftte(name, budgets, seed, trips, rule=rule) for rule in ("holders", "fixed-K")}
        print(f"{name} seed {seed}: {', '.join(f'{rule} {a:.3f}' for rule, a in found[str(seed)].items())}", flush=True)
    return found


def one_class(seeds: list[int], trips: int) -> list[dict[str, Any]]:
    """Digits on ten devices, one class each: what becomes of a class that only a straggler has."""
    task = load_task(TASKS["digits"][0])

    def world(seed: int, stragglers: float, **scheduling: int) -> dict[str, Any]:
        changed = scenario("digits", {"all": tiers(task)["large"]}, seed, trips)
        changed["simulation"]["devices"] = 10
        changed["data"] |= {"split": "by-class", "classes": 1}
        changed["stragglers"]["share"] = stragglers
        return changed | {"scheduling": scheduling}

    rate, _ = tuned(task, lambda seed: parts_of(world(seed, 0.0)), trips)
    rows = []
    for seed in seeds:
        row = {
            "fedavg": final(fedavg(task, parts_of(world(seed, 0.0)), rate, seed, trips)),
            "alike": simulated(world(seed, 0.0)),
            "two late": simulated(world(seed, 0.2)),
            "two late, four at a time": simulated(world(seed, 0.2, concurrency=4)),
        }
        rows.append({"seed": seed, "rate": rate, **row})
        print(f"seed {seed}: {', '.join(f'{name} {a:.3f}' for name, a in row.items())}", flush=True)
    return rows


def keep(known: Mapping[str, Any]) -> None:
    """Write down what there is, after each task: a run that is ended loses no more than one."""
    OUT.write_text(json.dumps({**known, "machine": machine()}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--trips", type=int, default=900)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--one-class", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(OUT.read_text()) if OUT.exists() else {"tasks": {}}
    if options.one_class:
        known["one class"] = {"trips": options.trips, "runs": one_class(options.seeds, options.trips)}
        keep(known)
        options.tasks = []
    for name in options.tasks if options.rules else ():
        known["tasks"][name].setdefault("rules", {}).update(rules(name, options.seeds, options.trips))
        keep(known)
    for name in options.tasks if not options.rules else ():
        known["tasks"][name] = {"trips": options.trips, **compare(name, options.seeds, options.trips)}
        keep(known)


if __name__ == "__main__":
    main()
