"""
FTTE against synchronous full-model FedAvg on CIFAR-10, with the product's own code: time, device memory and payload.

    FTTE_CIFAR10=cifar-10-batches-py python -m benchmarks.paper.run --quick

Everything that could be bent is fixed in ``scenarios/paper.toml``, whose hash every result names. Results are kept
under the hash of their settings in ``benchmarks/results/paper.jsonl.gz``, which ``paper.csv`` lists. A kept run is not
run again, so the grid can be finished over several sittings: ``--minutes`` starts no further run after that time,
``--report`` runs nothing.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.paper.memory import memory
from benchmarks.paper.report import (
    algorithms,
    baselines,
    figures,
    final_accuracy,
    gains,
    grid_markdown,
    markdown,
    replace_table,
    target_of,
    to_target,
    write_csv,
)
from benchmarks.paper.runs import Paper, Run, grid, trials

RESULTS = Path(__file__).parents[1] / "results"
FIGURES = Path(__file__).parents[2] / "docs" / "results"
# What a run takes if none was timed yet.
TRIPS_PER_SECOND = 15.0


def main() -> None:
    """Run what is missing, as far as the time goes, and report what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fleet of 100 and one seed: minutes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so long")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--anew", action="store_true", help="run what was kept with a backbone of another machine")
    parser.add_argument("--no-tuning", action="store_true", help="every algorithm with the scenario's learning rate")
    parser.add_argument("--only", default="", help="parts to run, with commas: headline,curve,...")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown file whose table to replace")
    parser.add_argument("--workers", type=int, help="processes that train")
    options = parser.parse_args()
    began = time.monotonic()
    paper = Paper()
    name = "ftte_paper_quick" if options.quick else "ftte_paper"
    print(f"scenario {paper.sha256[:16]}, {platform.processor() or platform.machine()}, {os.cpu_count()} processors")
    runner = _Runner(paper, began + 60 * options.minutes, options.report, options.workers, not options.anew)
    rates = {} if options.no_tuning else _tune(paper, runner, options.quick)
    runs = list(grid(paper, quick=options.quick, rates=rates))
    parts = set(options.only.split(",")) if options.only else {run.part for run in runs}
    chosen = [run for run in runs if run.part in parts]
    runner.estimate(chosen)
    done = [(run, result) for run in chosen if (result := runner(run)) is not None]
    others = [(run, result) for run in runs if run.part not in parts and (result := runner(run, only_done=True))]
    _report(paper, [*done, *others], len(runs), rates, name, options.quick, options.table)


class _Runner:
    """Runs, while there is time."""

    def __init__(self, paper: Paper, until: float, report: bool, workers: int | None, older: bool) -> None:
        self._paper = paper
        self._until = until
        self._report = report
        self._workers = workers
        self._older = older

    def __call__(self, run: Run, only_done: bool = False) -> dict[str, Any] | None:
        kept = self._paper.result(run, only_done=True, older=self._older)
        if kept is not None or only_done or self._report or time.monotonic() > self._until:
            return kept
        began = time.monotonic()
        result = self._paper.result(run, workers=self._workers, older=self._older)
        if result is not None:
            took = time.monotonic() - began
            what = f"{run.part:9} {run.algorithm:21} seed {run.seed}, {run.law} x {run.slowdown:g}"
            print(f"{what}: accuracy {final_accuracy(result):.4f} in {took:.0f} s", flush=True)
        return result

    def estimate(self, runs: list[Run]) -> None:
        """Say how long it will take before it begins."""
        missing = [run for run in runs if self._paper.result(run, only_done=True, older=self._older) is None]
        speeds = [kept.result["machine"]["trips_per_second"] for kept in self._paper.kept]
        speed = statistics.median(speeds) if speeds else TRIPS_PER_SECOND
        hours = sum(run.trips for run in missing) / speed / 3600
        print(f"{len(missing)} of {len(runs)} runs are missing: {hours:.1f} hours at {speed:.1f} trips per second")


def _tune(paper: Paper, runner: _Runner, quick: bool) -> dict[str, float]:
    """The best learning rate of each algorithm, of as many trials for each; those that follow from it take the same."""
    scores: dict[str, dict[float, list[float]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for algorithm, rate, run in trials(paper, quick=quick):
        result = runner(run)
        if result is not None:
            scores[algorithm][rate].append(final_accuracy(result))
    best = {a: max(by, key=lambda rate: statistics.fmean(by[rate])) for a, by in scores.items() if len(by) > 1}
    for name, section in paper.algorithms.items():
        root = section.get("like", name)
        root = paper.algorithms.get(root, {}).get("like", root)
        alike = {"fedavg_over_selection": "fedavg", "fedavg_subset": "ftte_common", "fedasync": "fedbuff"}
        if name not in best and (follows := alike.get(root, root)) in best:
            best[name] = best[follows]
    return best


def _report(
    paper: Paper,
    done: list[tuple[Run, dict[str, Any]]],
    wanted: int,
    rates: dict[str, float],
    name: str,
    quick: bool,
    markdown_file: Path | None,
) -> None:
    headline: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for run, result in done:
        if run.part == "headline":
            headline[run.algorithm].append(result)
    if "fedavg" not in headline:
        print("there is no run of FedAvg yet: nothing to compare with")
        return
    target = target_of(headline["fedavg"], paper.section["target"])
    table = algorithms(headline, target)
    gain = gains(table)
    size = paper.section["quick"] if quick else paper.section
    report = {
        "scenario_sha256": paper.sha256,
        "machine": {
            "processors": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        },
        "scale": {"quick": quick, **{k: size[k] for k in ("devices", "trips", "seeds")}},
        "complete": {"runs_done": len(done), "runs_wanted": wanted},
        "learning_rates": rates,
        "target_accuracy": target,
        "counts": table["fedavg"]["final_accuracy"] - table["fedavg"]["initial_accuracy"]
        >= paper.section["least_gain"],
        "algorithms": table,
        "gain": {**gain, "ours": gain.get("ours")},
        "each": _each(gain),
        "memory": memory(),
        "curve": _pairs(done, "curve", paper.section["target"]),
        "grid": _pairs(done, "grid", paper.section["target"]),
        "concurrency": _pairs(done, "concurrency", paper.section["target"]),
        "rate": baselines(headline, _by_rate(done, rates.get("fedavg")), paper.section["target"]),
        "staleness": _final(done, "staleness"),
        "buffer": _final(done, "buffer"),
        "split": _final(done, "split"),
        "nested": _final(done, "nested"),
        "longer": _final(done, "longer"),
        "selector": _final(done, "selector"),
        "random": _final(done, "random"),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    write_csv(headline, RESULTS / f"{name}.csv")
    note = (
        f"CIFAR-10, {size['devices']} devices, {paper.section['stragglers']:.0%} stragglers, "
        f"{paper.section['law']} x {paper.section['slowdown']:g}, {len(headline['fedavg'])} seed(s)"
    )
    figures(headline, table, report["curve"], target, FIGURES / f"{name}.png", note)
    if markdown_file is not None:
        replace_table(markdown_file, "paper", markdown(table, target))
        replace_table(markdown_file, "grid", grid_markdown(report["grid"]))
    print(f"target accuracy {target:.4f}")
    for algorithm, row in table.items():
        g = {k: "   -" if v is None else f"{v:6.2f}" for k, v in gain[algorithm].items()}
        print(
            f"{algorithm:22} accuracy {row['final_accuracy']:.4f} ({g['points_of_accuracy']} points)  time {g['time']}x"
            f"  memory {g['memory']}x  payload {g['payload']}x  bytes per trip {g['bytes_per_trip']}x"
        )


def _by_rate(done: list[tuple[Run, dict[str, Any]]], tuned: float | None) -> dict[float, list[dict[str, Any]]]:
    """Runs of the baseline by its learning rate: those at other rates, and of the same seeds those of the headline."""
    by: dict[float, list[dict[str, Any]]] = collections.defaultdict(list)
    others = [(run, result) for run, result in done if run.part == "rate"]
    for run, result in done:
        if run.part == "headline" and run.algorithm == "fedavg" and run.seed in {other.seed for other, _ in others}:
            by[tuned or 0.0].append(result)
    for run, result in others:
        by[run.changes["training"]["learning_rate"]].append(result)
    return by


def _each(gain: dict[str, Any]) -> dict[str, Any]:
    """What each idea brings by itself: one algorithm over the one that lacks only that."""
    pairs = {
        "subset (sync)": ("fedavg_subset", "fedavg"),
        "subset (async)": ("ftte_common", "fedbuff"),
        "asynchrony": ("fedbuff", "fedavg"),
        "nesting": ("ftte_nested", "ftte_common"),
        "int8": ("ftte_common_int8", "ftte_common"),
    }
    keys = ("time", "memory", "payload", "bytes_per_trip")
    return {
        what: {k: gain[a][k] / gain[b][k] if gain[a][k] and gain[b][k] else None for k in keys}
        for what, (a, b) in pairs.items()
        if a in gain and b in gain
    }


def _pairs(done: list[tuple[Run, dict[str, Any]]], part: str, share: float) -> list[dict[str, Any]]:
    """FedAvg and FTTE common under the same conditions: the time gain of each pair."""
    by: dict[Any, dict[str, dict[str, Any]]] = collections.defaultdict(dict)
    for run, result in done:
        if run.part == part:
            by[(run.law, run.slowdown, run.devices, run.stragglers, run.seed)][run.algorithm] = result
    rows = []
    for (law, slowdown, devices, stragglers, seed), both in by.items():
        if len(both) < 2:
            continue
        target = target_of([both["fedavg"]], share)
        base, ours = (to_target(both[name], target) for name in ("fedavg", "ftte_common"))
        conditions = {"law": law, "slowdown": slowdown, "devices": devices, "stragglers": stragglers, "seed": seed}
        rows.append(
            conditions
            | {
                "time_gain": base["seconds"] / ours["seconds"] if base and ours else None,
                "payload_gain": base["bytes"] / ours["bytes"] if base and ours else None,
                "accuracy": {name: final_accuracy(result) for name, result in both.items()},
            }
        )
    return rows


def _final(done: list[tuple[Run, dict[str, Any]]], part: str) -> list[dict[str, Any]]:
    return [
        {
            "algorithm": run.algorithm,
            "seed": run.seed,
            "changes": run.changes,
            "final_accuracy": final_accuracy(result),
            "initial_accuracy": result["curve"][0]["metrics"]["accuracy"],
            "final_metrics": result["curve"][-1]["metrics"],
            "straggler_classes": result.get("straggler_classes"),
            "seconds": result["seconds"],
            "staleness": result["staleness"],
        }
        for run, result in done
        if run.part == part
    ]


if __name__ == "__main__":
    main()
