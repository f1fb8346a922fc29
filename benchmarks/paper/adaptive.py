"""
The comparison's grid with the defaults: a buffer and a concurrency that follow the updates' ages.

    FTTE_CIFAR10=cifar-10-batches-py python -m benchmarks.paper.adaptive [--minutes N] [--report] [--table FILE]

The common subset at the learning rate that it was tuned to with a fixed buffer, one rate for all cells and one seed.
Buffer, concurrency and staleness weights are those of a run file that sets none; the rest is that of
``scenarios/paper.toml``. Results are kept beside the others. A kept run is not run again, but with ``--anew`` if it
began with a backbone of another machine; a star marks accuracies with another one than that of the defaults.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.report import final_accuracy, replace_table, to_target
from benchmarks.paper.runs import Paper, Run

SEED = 1
RATE = 0.1
DEFAULTS = {
    "merge": {"buffer": "auto", "staleness": {"policy": "polynomial"}},
    "scheduling": {"concurrency": "auto"},
}
PART = "adaptive"


def cells(paper: Paper) -> Iterator[tuple[int, float, float, str]]:
    """Devices, share of stragglers, slowdown and law: the hardest for asynchrony first."""
    section = paper.section
    stragglers, slowdown, law = section["grid"]["stragglers"], section["slowdown"], section["law"]
    yield from ((500, share, slowdown, law) for share in stragglers)
    yield 500, section["stragglers"], 2.0, "pareto"
    yield from ((devices, share, slowdown, law) for share in stragglers for devices in (100, 50))


def pair(cell: tuple[int, float, float, str], trips: int, seed: int = SEED) -> dict[str, Run]:
    """The three runs of a cell: the defaults, synchronous FedAvg, and a fixed buffer of ten."""
    devices, stragglers, slowdown, law = cell
    rate = {"training": {"learning_rate": RATE}}
    common: dict[str, Any] = {
        "seed": seed,
        "devices": devices,
        "stragglers": stragglers,
        "slowdown": slowdown,
        "law": law,
        "trips": trips,
    }
    return {
        "after": Run(PART, "ftte_common", **common, changes=rate | DEFAULTS),
        "fedavg": Run("grid", "fedavg", **common, changes=rate),
        "before": Run("grid", "ftte_common", **common, changes=rate),
    }


def row(paper: Paper, cell: tuple[int, float, float, str], results: dict[str, dict[str, Any]]) -> str:
    """A row of the table: final accuracies, starred if they began with another backbone than the defaults' run."""
    target = paper.section["target"] * final_accuracy(results["fedavg"])
    texts = []
    for name in ("fedavg", "before", "after"):
        if (result := results.get(name)) is None:
            texts.append("")
            continue
        reached = to_target(result, target)
        seconds = f"{reached['seconds']:,.0f} s" if reached else "never"
        star = "" if begins_like(result, results["after"]) else "*"
        texts.append(f"{final_accuracy(result):.3f}{star}, {seconds}")
    devices, stragglers, slowdown, law = cell
    return f"| {devices}, {stragglers:.0%}, {law} times {slowdown:g} | {' | '.join(texts)} |"


def kept(paper: Paper, runs: dict[str, Run]) -> dict[str, dict[str, Any]]:
    """What is kept of a cell: with today's backbone as far as there is, so that as many as can be began alike."""
    results = {name: paper.result(run, only_done=True) for name, run in runs.items()}
    if (after := results["after"]) is not None:
        for name, run in runs.items():
            if (older := paper.older_result(run)) is not None and begins_like(older, after):
                results[name] = older
    return {name: result for name, result in results.items() if result is not None}


def spread(paper: Paper, seeds: Sequence[int], only_done: bool, workers: int | None) -> str:
    """The cell in which the fixed buffer is furthest ahead, with the same backbone and other seeds: is it the seed?"""
    share, slowdown, law = 0.6, paper.section["slowdown"], paper.section["law"]
    lines = ["| seed | buffer of 10 | defaults | |", "|---|---|---|---|"]
    differences = []
    for seed in seeds:
        runs = pair((500, share, slowdown, law), paper.section["trips"], seed)
        both = [
            paper.result(runs[name], older=False, only_done=only_done, workers=workers) for name in ("before", "after")
        ]
        if None not in both:
            before, after = (final_accuracy(result) for result in both if result is not None)
            differences.append(100 * (after - before))
            lines.append(f"| {seed} | {before:.3f} | {after:.3f} | {differences[-1]:+.1f} points |")
            print(lines[-1], flush=True)
    if differences:
        lines.append(f"| mean | | | {statistics.fmean(differences):+.1f} points |")
    return "\n".join(lines)


def begins_like(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both began with the same backbone: each had its own loss before training."""
    # What a subset leaves frozen is computed in another order, which shows in the last digits.
    first, second = (result["curve"][0]["metrics"]["loss"] for result in (one, other))
    return math.isclose(first, second, rel_tol=1e-6)


def main() -> None:
    """Run what is missing, as far as the time goes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so long")
    parser.add_argument("--anew", action="store_true", help="run what was kept with a backbone of another machine")
    parser.add_argument("--spread", type=int, nargs="+", metavar="SEED", help="one cell alone, with these seeds")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--workers", type=int, help="processes that train")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown whose table to replace")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    paper = Paper()
    if options.spread:
        table = spread(paper, options.spread, options.report, options.workers)
        print(table)
        if options.table:
            replace_table(options.table, "spread", table)
        return
    lines = ["| devices, stragglers | FedAvg | buffer of 10 | defaults |", "|---|---|---|---|"]
    for cell in cells(paper):
        runs = pair(cell, paper.section["trips"])
        for run in runs.values():
            if not options.report and time.monotonic() < until:
                paper.result(run, workers=options.workers, older=not options.anew)
        done = kept(paper, runs)
        if "fedavg" in done and "after" in done:
            lines.append(row(paper, cell, done))
            print(lines[-1], flush=True)
    if options.table:
        replace_table(options.table, "adaptive", "\n".join(lines))


if __name__ == "__main__":
    main()
