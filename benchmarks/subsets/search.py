"""
Which parameters to train under a memory budget: six selectors compared on CIFAR-10, by accuracy against measured
memory.

Backbones are pre-trained by this script on clean images and fine-tuned on images of another camera (see
``subsets/domains.py`` for why), with the plan of each selector at each share of full training's memory, at the same
micro-batch. Memory is measured in the SDK's native runtime, in a fresh process per plan. ``shuffled`` is the control:
the scores of contribution analysis, given to other layers. Whatever was worked out is kept, so a stopped benchmark
goes on where it was.

    python -m benchmarks.subsets.search --data cifar-10-batches-py [--quick] [--minutes N] [--json FILE] [--figure FILE]

"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import cifar10
from benchmarks.subsets import backbones, domains, figure
from exporters import BudgetError, Plan, Task
from exporters.cache.journal import Journal
from exporters.cli.picture import draw
from exporters.importance import SELECTORS, Scores, shuffled
from exporters.importance.evidence import Evidence
from exporters.importance.finetune import FineTuning, assess, fine_tune
from exporters.processes import Workers
from exporters.quiet import quiet
from exporters.search import Measurements, Tiers, plan_tiers
from exporters.space import Space
from mobile_sdk.layout import Subset
from mobile_sdk.manifest import EXECUTORCH_VERSION

FRACTIONS = (0.05, 0.1, 0.2, 0.4)
ALL = (*SELECTORS, "shuffled")
BY_SEED = ("random", "shuffled")  # a plan of its own for each seed
MICRO_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a cell depends on, besides its plan and seed."""

    sizes: domains.Sizes = dataclasses.field(default_factory=domains.Sizes)
    pretraining: backbones.Pretraining = dataclasses.field(default_factory=backbones.Pretraining)
    fine_tuning: FineTuning = dataclasses.field(default_factory=lambda: FineTuning(400, 32, 0.01))
    short: FineTuning = dataclasses.field(default_factory=lambda: FineTuning(40, 32, 0.01))


@dataclasses.dataclass
class Sitting:
    """One run of the script: what is kept between runs, and when it has to end."""

    journal: Journal
    workers: Workers
    bars: Progress
    ends: float

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.ends


class TimeUp(Exception):
    """What is left is for another sitting."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10: see benchmarks/cifar10.py")
    parser.add_argument("--quick", action="store_true", help="one backbone, one seed, half the steps")
    parser.add_argument("--backbones", nargs="+", choices=backbones.BACKBONES, default=list(backbones.BACKBONES))
    parser.add_argument("--selectors", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--fractions", nargs="+", type=float, default=list(FRACTIONS), help="of full training's memory")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many; go on in another run")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--plans", type=Path, help="draw the first backbone's nested plans, by the first selector")
    options = parser.parse_args()
    settings = Settings()
    names, seeds = options.backbones, options.seeds
    if options.quick:
        settings = dataclasses.replace(settings, fine_tuning=FineTuning(200, 32, 0.01))
        names, seeds = names[:1], 1
    torch.set_num_threads(1)
    console = Console(width=120)
    cells = len(names) * (len(options.selectors) * len(options.fractions) + 1) * seeds
    console.print(_estimate(cells, len(names), settings), highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: dict[str, Any] = {}
    with Progress(*columns, console=console, transient=True) as bars, quiet():
        journal = Journal(cifar10.cache_folder() / "subset_search.json")
        sitting = Sitting(journal, Workers(options.processes), bars, time.monotonic() + 60 * options.minutes)
        parts = domains.load(options.data, settings.sizes)
        for name in names:
            results[name] = {}
            try:
                run(name, parts, settings, options.selectors, options.fractions, seeds, sitting, results[name])
            except TimeUp:
                console.print(f"{name}: the time is up; run again to go on", highlight=False)
            if options.plans and name == names[0] and results[name].get("complete"):
                draw(_nested(name, parts, settings, options.selectors[0], options.fractions, sitting), options.plans)
            if not results[name].get("cells"):
                del results[name]
    report = {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"torch": torch.__version__, "executorch": EXECUTORCH_VERSION, "python": platform.python_version()},
        "settings": dataclasses.asdict(settings),
        "micro_batch": MICRO_BATCH,
        "seeds": list(range(seeds)),
        "fractions": options.fractions,
        "complete": all(result.get("complete") for result in results.values()) and len(results) == len(names),
        "backbones": results,
    }
    for name, result in results.items():
        console.print(_table(name, result, options.fractions))
        for statement, holds in result["checks"].items():
            console.print(f"  {'yes' if holds else 'NO ' if holds is not None else '?  '} {statement}", highlight=False)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.figure and results:
        figure.draw(report, options.figure)


def run(
    name: str,
    parts: domains.Domains,
    settings: Settings,
    selectors: Sequence[str],
    fractions: Sequence[float],
    seeds: int,
    sitting: Sitting,
    result: dict[str, Any],
) -> None:
    """Fill in ``result`` as far as the time allows."""
    evidence, measurements = _evidence(name, parts, settings, sitting)
    task = evidence.space.task
    everything = measurements.everything(MICRO_BATCH)
    result |= {
        "flops": backbones.flops(task.model),
        "parameters": task.layout.size,
        "clean": assess(task, task.model, parts.clean_test).metrics["accuracy"],
        "untouched": assess(task, task.model, parts.test).metrics["accuracy"],
        "full": {
            "memory_bytes": everything,
            "memory_bytes_at_1": measurements.everything(1),
            "accuracy": [],
        },
        "smallest_bytes": measurements(evidence.space.last(1), MICRO_BATCH),
        "reach": [],
        "cells": [],
        "checks": {},
    }
    measurements.calibrate(MICRO_BATCH)
    whole = Plan.everything(task, MICRO_BATCH).subset
    result["full"]["accuracy"] = _accuracies(evidence, settings, parts, [(whole, seed) for seed in range(seeds)])
    for fraction in fractions:
        result["reach"] += _reach(fraction, seeds, evidence, measurements, everything, settings, parts)
        for selector in selectors:
            cell = _cell(selector, fraction, seeds, evidence, measurements, everything)
            result["cells"].append(cell)
            trained = cell.pop("subsets")
            cell["accuracy"] = _accuracies(evidence, settings, parts, trained)
            result["checks"] = _checks(result, fractions)
    result["complete"] = True


def _evidence(name: str, parts: domains.Domains, settings: Settings, sitting: Sitting) -> tuple[Evidence, Measurements]:
    """The pre-trained backbone and its proxy data, and what is measured of it."""
    bar = sitting.bars.add_task(f"{name}: backbone", total=None)

    def progress(stage: str, done: int, total: int) -> None:
        sitting.bars.update(bar, description=f"{name}: {stage}", completed=done, total=total or None)
        if sitting.over:
            raise TimeUp

    def say(text: str) -> None:
        sitting.bars.console.print(text, highlight=False)
        if sitting.over:
            raise TimeUp

    task = backbones.pretrained(name, parts, settings.sizes, settings.pretraining, say)
    evidence = Evidence(
        Space(task),
        parts.proxy,
        fine_tuning=settings.short,
        workers=sitting.workers,
        journal=sitting.journal,
        progress=progress,
    )
    return evidence, Measurements(evidence)


def _nested(
    name: str, parts: domains.Domains, settings: Settings, selector: str, fractions: Sequence[float], sitting: Sitting
) -> Tiers:
    """A tier per share of full training's memory at which something fits."""
    evidence, measurements = _evidence(name, parts, settings, sitting)
    everything = measurements.everything(MICRO_BATCH)
    least = measurements(evidence.space.last(1), MICRO_BATCH)
    budgets = [int(f * everything) for f in fractions if f * everything > least]
    return plan_tiers(evidence, _scores(selector, 0, evidence), budgets, measurements=measurements)


def _cell(
    selector: str, fraction: float, seeds: int, evidence: Evidence, measurements: Measurements, everything: int
) -> dict[str, Any]:
    """The plans of a selector within a share of full training's memory: one, or one per seed."""
    plans = []
    for seed in range(seeds) if selector in BY_SEED else [0]:
        try:
            if measurements(evidence.space.last(1), MICRO_BATCH) > fraction * everything:
                break  # not at this micro-batch
            tiers = plan_tiers(
                evidence, _scores(selector, seed, evidence), [int(fraction * everything)], measurements=measurements
            )
        except BudgetError:
            break
        plans.append(tiers.tiers[0])
    each = plans if selector in BY_SEED else plans * seeds
    return {
        "selector": selector,
        "fraction": fraction,
        "memory_bytes": [tier.needs for tier in plans],
        "trained": [tier.plan.subset.size for tier in plans],
        "levels": ["".join(map(str, tier.levels)) for tier in plans],
        "accuracy": [],
        "subsets": [(tier.plan.subset, seed) for seed, tier in enumerate(each)],
    }


def _reach(
    fraction: float,
    seeds: int,
    evidence: Evidence,
    measurements: Measurements,
    everything: int,
    settings: Settings,
    parts: domains.Domains,
) -> list[dict[str, Any]]:
    """
    What no plan within a share of the memory can pass, whatever its selector; empty where nothing fits.

    The first layer that back-propagation can reach, if it trains the least that it can and all others are frozen; and
    the accuracy with everything trained from there on, whatever that takes. A plan that fits starts there at the
    earliest, and trains a part of it.
    """
    space = evidence.space
    for first, layer in enumerate(space.layers):
        least = measurements(space.only(first, layer.levels[1]), MICRO_BATCH)
        if least <= fraction * everything:
            whole = space.last(len(space) - first)
            return [
                {
                    "fraction": fraction,
                    "layer": layer.name,
                    "layers": len(space) - first,
                    "least_bytes": least,
                    "whole_bytes": measurements(whole, MICRO_BATCH),
                    "accuracy": _accuracies(
                        evidence, settings, parts, [(space.subset(whole), seed) for seed in range(seeds)]
                    ),
                }
            ]
    return []


def _scores(selector: str, seed: int, evidence: Evidence) -> Scores:
    if selector == "shuffled":
        return shuffled(SELECTORS["contribution"](evidence), seed)
    if selector == "random":
        return SELECTORS["random"](dataclasses.replace(evidence, seed=seed))
    return SELECTORS[selector](evidence)


def _accuracies(
    evidence: Evidence, settings: Settings, parts: domains.Domains, trained: list[tuple[Subset, int]]
) -> list[float]:
    """Accuracy in the shifted domain after fine-tuning each subset with its seed."""
    context = (evidence.space.task, parts.finetune, parts.test, settings.fine_tuning)
    items = [(json.dumps(subset.to_json()), seed) for subset, seed in trained]
    keys = [f"{dataclasses.astuple(settings.fine_tuning)} {seed} {subset}" for subset, seed in items]
    found: list[float] = evidence.each("fine-tuning", _accuracy, context, items, keys)
    return found


def _accuracy(context: tuple[Task, Any, Any, FineTuning], item: tuple[str, int]) -> float:
    task, train, test, fine_tuning = context
    subset = Subset.from_json(task.layout, json.loads(item[0]))
    return fine_tune(task, subset, train, test, dataclasses.replace(fine_tuning, seed=item[1])).metrics["accuracy"]


def _checks(result: dict[str, Any], fractions: Sequence[float]) -> dict[str, bool | None]:
    """What the search has to show, and whether it does; :obj:`None` where a cell is missing."""
    means = {(c["selector"], c["fraction"]): fmean(c["accuracy"]) for c in result["cells"] if c["accuracy"]}
    noise = [np.std(c["accuracy"], ddof=1) for c in result["cells"] if len(c["accuracy"]) > 1]
    seed_noise = float(np.mean(noise)) if noise else 0.0
    full = fmean(result["full"]["accuracy"])

    def gap(fraction: float, points: float) -> bool | None:
        value = means.get(("contribution", fraction))
        return None if value is None else value >= full - points / 100

    def every(other: str, margin: float, selector: str = "contribution") -> bool | None:
        pairs = [(means.get((selector, f)), means.get((other, f))) for f in fractions]
        known = [a >= b - margin for a, b in pairs if a is not None and b is not None]
        return all(known) if known else None

    others = [s for s in SELECTORS if s not in ("contribution", "random")]
    below = [every("random", 0.0, other) for other in others]
    return {
        "fine-tuning everything gains at least 10 points": full - result["untouched"] >= 0.10,
        "contribution at 20 % of full memory is within 1 point of everything": gap(0.2, 1),
        "contribution at 10 % of full memory is within 3 points of everything": gap(0.1, 3),
        "contribution is above last-layers at every budget": every("last-layers", 0.0),
        **{
            f"contribution is not below {other} by more than seed noise ({100 * seed_noise:.1f} points)": every(
                other, seed_noise
            )
            for other in (*others, "random")
            if other != "last-layers"
        },
        "random is below every other selector": None if None in below else all(below),
        "shuffled scores fall to random, within seed noise": every("shuffled", seed_noise, "random"),
    }


def _estimate(cells: int, nets: int, settings: Settings) -> str:
    """Core-hours before anything starts, from what a step took on one core of an AMD EPYC: 45 ms at 32 images."""
    steps = cells * settings.fine_tuning.steps + nets * 130 * settings.short.steps
    pretraining = nets * settings.pretraining.epochs * settings.sizes.pretrain / settings.pretraining.batch * 0.09
    hours = (steps * 0.045 + pretraining + cells * 8) / 3600
    return f"{cells} cells, about {hours:.1f} core-hours if nothing is kept from before; {_processor()}, seeds from 0"


def _table(name: str, result: dict[str, Any], fractions: Sequence[float]) -> Table:
    full = result["full"]
    share = result["smallest_bytes"] / full["memory_bytes"]
    table = Table(
        title=f"{name}: untouched {result['untouched']:.1%}, everything "
        + (f"{fmean(full['accuracy']):.1%}" if full["accuracy"] else "?")
        + f" with {full['memory_bytes'] / 1e6:.1f} MB ({full['memory_bytes_at_1'] / 1e6:.1f} MB one sample at a time)"
        + f"; the last layer alone takes {share:.0%}",
        title_justify="left",
    )
    table.add_column("selector")
    for fraction in fractions:
        table.add_column(f"{fraction:.0%}", justify="right")
    for selector in ALL:
        row = []
        for fraction in fractions:
            found = [c for c in result["cells"] if c["selector"] == selector and c["fraction"] == fraction]
            if not found or not found[0]["accuracy"]:
                row.append("nothing fits" if found and not found[0]["memory_bytes"] else "")
            else:
                accuracy, memory = found[0]["accuracy"], fmean(found[0]["memory_bytes"])
                row.append(f"{fmean(accuracy):.1%} ± {np.std(accuracy):.1%}, {memory / 1e6:.1f} MB")
        table.add_row(selector, *row)
    row = []
    for fraction in fractions:
        found = [one for one in result["reach"] if one["fraction"] == fraction]
        for one in found:
            accuracy = one["accuracy"]
            row.append(f"{fmean(accuracy):.1%} ± {np.std(accuracy):.1%}, {one['whole_bytes'] / 1e6:.1f} MB")
        row += [""] * (not found)
    table.add_row("all that back-propagation reaches", *row)
    return table


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
