"""
The comparison's headline, with every learning rate tuned alike and at the reported length.

    FTTE_CIFAR10=cifar-10-batches-py python -m benchmarks.paper.headline [--minutes N] [--report] [--table FILE]

Each of FedAvg, the common subset and ``ours`` has one trial of full length per learning rate, on the tuning seed and
the validation part. The best rate is taken; while it lies at the edge of what was tried, the next one is tried, too.
Then come the reported seeds, on the test part. All runs begin with the same backbone. Results are kept beside the
others, and a kept run is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.report import algorithms, final_accuracy, gains, gains_figure, replace_table, target_of
from benchmarks.paper.runs import Paper, Run

RESULT = Path(__file__).parents[1] / "results" / "headline.json"
FIGURE = Path(__file__).parents[2] / "docs" / "results" / "gains.png"
ALGORITHMS = ("fedavg", "ftte_common", "ours")
RATES = (0.05, 0.1, 0.2)
# The scenario's 2.1 MB were the need of this subset before the count of memory began with a trimmed heap. What is
# counted today is 2.2 MB; 2.1 have room for the last layer alone.
CHANGES: dict[str, dict[str, Any]] = {"ours": {"budgets": {"weak": "2.3MB"}}}


class _Runs:
    """Runs of the headline's cell, while there is time."""

    def __init__(self, paper: Paper, until: float, workers: int | None) -> None:
        self._paper = paper
        self._until = until
        self._workers = workers

    def __call__(self, algorithm: str, rate: float, seed: int, task: str) -> dict[str, Any] | None:
        section = self._paper.section
        part = "trial" if task == "from_pretrained_tuning" else "fair"
        fleet = (section["devices"], section["stragglers"], section["slowdown"], section["law"], section["trips"])
        changes = {"training": {"learning_rate": rate}} | CHANGES.get(algorithm, {})
        run = Run(part, algorithm, seed, *fleet, task=task, changes=changes)
        kept = self._paper.result(run, only_done=True, older=False)
        if kept is not None or time.monotonic() > self._until:
            return kept
        began = time.monotonic()
        result = self._paper.result(run, workers=self._workers, older=False)
        assert result is not None
        took = time.monotonic() - began
        print(
            f"{part} {algorithm:11} rate {rate:g} seed {seed}: {final_accuracy(result):.4f} in {took:.0f} s", flush=True
        )
        return result


def main() -> None:
    """Tune, run the reported seeds, and report what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so long")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown file whose tables to replace")
    parser.add_argument("--only", nargs="+", choices=ALGORITHMS, default=ALGORITHMS, help="run these alone")
    parser.add_argument("--workers", type=int, help="processes that train")
    options = parser.parse_args()
    paper = Paper()
    until = time.monotonic() + (-1 if options.report else 60 * options.minutes)
    runs = _Runs(paper, until, options.workers)
    tuning_seed = paper.section["tuning"]["seeds"][0]
    scores = {algorithm: trials(runs, algorithm, tuning_seed) for algorithm in options.only}
    rates = {algorithm: max(by_rate, key=by_rate.__getitem__) for algorithm, by_rate in scores.items() if by_rate}
    done: dict[str, list[dict[str, Any]]] = {}
    for seed in paper.section["seeds"]:
        for algorithm, rate in rates.items():
            if (result := runs(algorithm, rate, seed, "from_pretrained")) is not None:
                done.setdefault(algorithm, []).append(result)
    _report(paper, scores, rates, done, options.table)


def trials(
    runs: Callable[[str, float, int, str], dict[str, Any] | None], algorithm: str, seed: int
) -> dict[float, float]:
    """Final accuracy by learning rate; wider than ``RATES`` until the best is not at the edge."""
    wanted = list(RATES)
    scores: dict[float, float] = {}
    while wanted:
        rate = wanted.pop(0)
        result = runs(algorithm, rate, seed, "from_pretrained_tuning")
        if result is None:
            break
        scores[rate] = final_accuracy(result)
        if not wanted:
            best = max(scores, key=scores.__getitem__)
            if best == max(scores):
                wanted.append(2 * best)
            elif best == min(scores):
                wanted.append(best / 2)
    return scores


def _report(
    paper: Paper,
    scores: dict[str, dict[float, float]],
    rates: dict[str, float],
    done: dict[str, list[dict[str, Any]]],
    markdown_file: Path | None,
) -> None:
    tuning = trials_markdown(scores)
    print(tuning)
    seeds = set.intersection(*({run["run"]["seed"] for run in done.get(name, [])} for name in ALGORITHMS))
    if not seeds:
        print("there is no seed yet that all three have run: nothing to compare")
        return
    done = {name: [run for run in runs if run["run"]["seed"] in seeds] for name, runs in done.items()}
    target = target_of(done["fedavg"], paper.section["target"])
    table = algorithms(done, target)
    gain = gains(table)
    result = headline_markdown(table, gain, rates, target)
    print(result)
    report = {
        "scenario_sha256": paper.sha256,
        "backbone_sha256": paper.backbone,
        "target_accuracy": target,
        "learning_rates": rates,
        "trials": scores,
        "algorithms": table,
        "gain": gain,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    section = paper.section
    note = (
        f"CIFAR-10, {section['devices']} simulated devices, {section['stragglers']:.0%} stragglers, "
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    )
    gains_figure(gain, FIGURE, note)
    if markdown_file is not None:
        replace_table(markdown_file, "trials", tuning)
        replace_table(markdown_file, "headline", result)


def trials_markdown(scores: dict[str, dict[float, float]]) -> str:
    """Final accuracy of every trial, by algorithm and learning rate; the best in bold."""
    rates = sorted({rate for by_rate in scores.values() for rate in by_rate})
    lines = ["| rate | " + " | ".join(f"{rate:g}" for rate in rates) + " |", "|---|" + "---|" * len(rates)]
    for algorithm, by_rate in scores.items():
        best = max(by_rate.values(), default=0.0)
        texts = {rate: f"**{score:.3f}**" if score == best else f"{score:.3f}" for rate, score in by_rate.items()}
        lines.append(f"| {algorithm} | {' | '.join(texts.get(rate, '') for rate in rates)} |")
    return "\n".join(lines)


def headline_markdown(table: dict[str, Any], gain: dict[str, Any], rates: dict[str, float], target: float) -> str:
    """Rate, accuracies of each seed, and how many times less of everything."""
    lines = [
        f"| target accuracy {target:.3f} | rate | accuracy (each seed) | points | time | memory | payload |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        each = _each(row["final_accuracies"])
        cells = [f"{gain[name][k]:.1f}x" if gain[name][k] else "not reached" for k in ("time", "memory", "payload")]
        points = f"{gain[name]['points_of_accuracy']:+.1f}"
        lines.append(f"| {name} | {rates[name]:g} | {each} | {points} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _each(accuracies: Sequence[float]) -> str:
    return f"{statistics.fmean(accuracies):.3f} ({', '.join(f'{accuracy:.3f}' for accuracy in accuracies)})"


if __name__ == "__main__":
    main()
