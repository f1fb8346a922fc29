"""What the runs of the comparison with the paper say: time, memory and payload to the target; JSON, CSV, figures."""

from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "algorithms",
    "baselines",
    "figures",
    "gains",
    "gains_figure",
    "grid_markdown",
    "markdown",
    "replace_table",
    "target_of",
    "to_target",
    "write_csv",
]

# The paper's reductions against synchronous full-model FedAvg (abstract and figure 1).
PAPER = {"time": 5.3, "memory": 5.0, "payload": 3.2}
LAST = 5


def final_accuracy(result: Mapping[str, Any]) -> float:
    """The mean of the last evaluations: one alone is noise."""
    accuracies = [point["metrics"]["accuracy"] for point in result["curve"] if point["metrics"]]
    return statistics.fmean(accuracies[-LAST:])


def target_of(baseline: Sequence[Mapping[str, Any]], share: float) -> float:
    """The accuracy to reach: ``share`` of the baseline's final one."""
    return share * statistics.fmean(final_accuracy(result) for result in baseline)


def to_target(result: Mapping[str, Any], target: float) -> dict[str, Any] | None:
    """The first moment at which the mean of two evaluations in a row has reached the target; none if it never did."""
    points = [point for point in result["curve"] if point["metrics"]]
    for before, point in itertools.pairwise(points):
        if (before["metrics"]["accuracy"] + point["metrics"]["accuracy"]) / 2 >= target:
            return {
                "seconds": point["seconds"],
                "trips": point["trips"],
                "bytes": point["bytes_up"] + point["bytes_down"],
            }
    return None


def algorithms(results: Mapping[str, Sequence[Mapping[str, Any]]], target: float) -> dict[str, Any]:
    """Per algorithm: means over seeds; time and payload are none unless every seed reached the target."""
    return {name: _algorithm(runs, target) for name, runs in results.items()}


def _algorithm(runs: Sequence[Mapping[str, Any]], target: float) -> dict[str, Any]:
    reached = [to_target(run, target) for run in runs]
    known = [r for r in reached if r is not None]
    every = len(known) == len(runs)
    moved = [(run["bytes_up"] + run["bytes_down"]) / run["trips"] for run in runs]
    return {
        "seeds": [run["run"]["seed"] for run in runs],
        "time_to_target": statistics.fmean(r["seconds"] for r in known) if every else None,
        "trips_to_target": statistics.fmean(r["trips"] for r in known) if every else None,
        "payload_bytes": statistics.fmean(r["bytes"] for r in known) if every else None,
        "bytes_per_trip": statistics.fmean(moved),
        "seconds_in_all": statistics.fmean(run["seconds"] for run in runs),
        "initial_accuracy": statistics.fmean(run["curve"][0]["metrics"]["accuracy"] for run in runs),
        "final_accuracy": statistics.fmean(final_accuracy(run) for run in runs),
        "final_accuracies": [final_accuracy(run) for run in runs],
        # Of the weakest tier: what every device must be able to spare.
        "memory_bytes": runs[0]["tiers"][0]["measured_bytes"],
        "memory_bytes_by_tier": {tier["name"]: tier["measured_bytes"] for tier in runs[0]["tiers"]},
        "trips": runs[0]["trips"],
        "trainings": statistics.fmean(run["trainings"] for run in runs),
        "staleness": runs[0]["staleness"],
        "classes": runs[0]["classes"],
        "step_seconds": runs[0]["step_seconds"],
    }


def gains(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How many times less than synchronous full-model FedAvg each needs; none where a target was not reached."""
    base = table["fedavg"]

    def ratio(name: str, key: str) -> float | None:
        ours, theirs = table[name][key], base[key]
        return theirs / ours if ours and theirs else None

    return {
        name: {
            "time": ratio(name, "time_to_target"),
            "memory": ratio(name, "memory_bytes"),
            "payload": ratio(name, "payload_bytes"),
            "bytes_per_trip": ratio(name, "bytes_per_trip"),
            "points_of_accuracy": 100 * (table[name]["final_accuracy"] - base["final_accuracy"]),
        }
        for name in table
    }


def write_csv(results: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Every evaluation of every run."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["algorithm", "seed", "seconds", "version", "trips", "bytes_up", "bytes_down", "accuracy"])
        for name, runs in results.items():
            for run in runs:
                for point in run["curve"]:
                    if point["metrics"]:
                        numbers = [point[key] for key in ("seconds", "version", "trips", "bytes_up", "bytes_down")]
                        writer.writerow([name, run["run"]["seed"], *numbers, point["metrics"]["accuracy"]])


def figures(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    table: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    target: float,
    path: Path,
    note: str,
) -> None:
    """Accuracy over virtual time and over bytes, the paper's three bars beside ours, the time gain over slowdowns."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (over_time, over_bytes, bars, slow) = plt.subplots(1, 4, figsize=(20, 4.6))
    colours: dict[str, str] = {}
    for name, runs in results.items():
        points = [p for p in runs[0]["curve"] if p["metrics"]]
        values = [p["metrics"]["accuracy"] for p in points]
        # As final accuracies are: the mean of the last five.
        accuracy = [statistics.fmean(values[max(0, i - 4) : i + 1]) for i in range(len(values))]
        plain = name.removesuffix("_int8")
        colours.setdefault(plain, f"C{len(colours)}")
        style = {"label": name, "color": colours[plain], "linestyle": "-" if name == plain else "--"}
        over_time.plot([p["seconds"] / 60 for p in points], accuracy, **style)
        over_bytes.plot([(p["bytes_up"] + p["bytes_down"]) / 1e6 for p in points], accuracy, **style)
    for axes, label in ((over_time, "virtual minutes"), (over_bytes, "MB, all devices, both directions")):
        axes.axhline(target, color="grey", linestyle=":", linewidth=1)
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy, mean of five evaluations")
        axes.set_xscale("log")
    over_time.legend(fontsize=7)
    gain = gains(table)
    shown = [("paper", PAPER)] + [(n, gain[n]) for n in ("ftte_common", "ours") if n in gain]
    width = 0.8 / len(shown)
    for index, (name, values) in enumerate(shown):
        heights = [values[key] or 0.0 for key in PAPER]
        places = [i + index * width for i in range(len(PAPER))]
        bars.bar(places, heights, width, label=name)
        for place, height, key in zip(places, heights, PAPER, strict=True):
            bars.text(place, height, f"{height:.1f}x" if values[key] else "not\nreached", ha="center", fontsize=7)
    bars.set_xticks([i + width for i in range(len(PAPER))], [f"less {key}" for key in PAPER])
    bars.set_ylabel("times less than full-model FedAvg")
    bars.legend(fontsize=7)
    for law in dict.fromkeys(row["law"] for row in curve):
        rows = sorted((r["slowdown"], r["time_gain"]) for r in curve if r["law"] == law and r["time_gain"])
        (line,) = slow.plot([x for x, _ in rows], [gain for _, gain in rows], marker="o", label=law)
        for row in curve:
            if row["law"] == law and not row["time_gain"]:
                slow.plot([row["slowdown"]], [0], marker="x", color=line.get_color(), linestyle="", clip_on=False)
                slow.annotate(" target not reached", (row["slowdown"], 0), fontsize=7, va="bottom")
    slow.axhline(PAPER["time"], color="grey", linestyle=":", linewidth=1, label="the paper's figure")
    slow.set_xlabel("stragglers are slower by")
    slow.set_ylabel("ftte_common: times less time than FedAvg")
    slow.set_ylim(bottom=0)
    slow.set_xlim(left=0)
    slow.legend(fontsize=7)
    figure.suptitle(note, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def gains_figure(gain: Mapping[str, Mapping[str, float | None]], path: Path, note: str) -> None:
    """Three groups of bars for whoever sees the project for the first time: the paper's gains, and ours beside them."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown: list[tuple[str, str, Mapping[str, float | None]]] = [
        ("the FTTE paper", "#b0b7c3", PAPER),
        ("here, as in the paper: one subset, float32", "#5c7cfa", gain["ftte_common"]),
        ("here, with 4-bit updates, one sample at a time", "#1b3fa8", gain["ours"]),
    ]
    words = {
        "time": "less time\nto the accuracy",
        "memory": "less memory\non the device",
        "payload": "fewer bytes\nsent",
    }
    figure, axes = plt.subplots(figsize=(9, 3.9), layout="constrained")
    height = 0.8 / len(shown)
    for index, (name, colour, values) in enumerate(shown):
        places = [row + index * height for row in range(len(words))]
        lengths = [values[key] or 0.0 for key in words]
        axes.barh(places, lengths, height * 0.92, label=name, color=colour)
        for place, length in zip(places, lengths, strict=True):
            axes.text(length + 0.3, place, f"{length:.1f}x" if length else "not reached", va="center", fontsize=10)
    axes.set_yticks([row + height for row in range(len(words))], list(words.values()), fontsize=11)
    axes.invert_yaxis()
    axes.set_xlabel("times less than synchronous federated averaging of the whole model")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center right", frameon=False, fontsize=10)
    axes.set_title(note, fontsize=9, color="#555555", loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def markdown(table: Mapping[str, Any], target: float) -> str:
    """The gains as a Markdown table."""
    lines = [
        f"| target accuracy {target:.3f} | accuracy | points | time | memory | payload | bytes per trip |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, gain in gains(table).items():
        cells = [f"{gain[key]:.1f}x" if gain[key] else "not reached" for key in (*PAPER, "bytes_per_trip")]
        accuracy = f"{table[name]['final_accuracy']:.3f} | {gain['points_of_accuracy']:+.1f}"
        lines.append(f"| {name} | {accuracy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def grid_markdown(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Time and payload gains of the common subset, and both final accuracies, by devices and share of stragglers."""
    shares = sorted({pair["stragglers"] for pair in pairs})
    lines = [
        "| devices | " + " | ".join(f"{share:.0%} stragglers" for share in shares) + " |",
        "|---|" + "---|" * len(shares),
    ]
    for devices in sorted({pair["devices"] for pair in pairs}):
        cells = []
        for share in shares:
            there = [pair for pair in pairs if pair["devices"] == devices and pair["stragglers"] == share]
            cells.append(_cell(there) if there else "")
        lines.append(f"| {devices} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def baselines(
    headline: Mapping[str, Sequence[Mapping[str, Any]]],
    by_rate: Mapping[float, Sequence[Mapping[str, Any]]],
    share: float,
) -> list[dict[str, Any]]:
    """What the gains would be against the baseline at other learning rates, each over the seeds that it has."""
    rows = []
    for rate, runs in sorted(by_rate.items()):
        seeds = [run["run"]["seed"] for run in runs]
        target = target_of(runs, share)
        same = {
            name: [run for run in headline[name] if run["run"]["seed"] in seeds]
            for name in ("ftte_common", "ours")
            if name in headline
        }
        table = algorithms({"fedavg": runs, **{name: own for name, own in same.items() if own}}, target)
        rows.append(
            {
                "learning_rate": rate,
                "seeds": seeds,
                "final_accuracies": table["fedavg"]["final_accuracies"],
                "target": target,
                "gain": {name: gain for name, gain in gains(table).items() if name != "fedavg"},
            }
        )
    return rows


def replace_table(file: Path, name: str, table: str) -> None:
    """Put a table in the place of the one between the marks of its name, ``<!-- name -->`` and ``<!-- /name -->``."""
    before, _, rest = file.read_text().partition(f"<!-- {name} -->")
    after = rest.partition(f"<!-- /{name} -->")[2]
    file.write_text(f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}")


def _cell(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds, of which there may be but one."""
    gains = []
    for name, what in (("time_gain", "time"), ("payload_gain", "payload")):
        values = [pair[name] for pair in pairs]
        gains.append("not reached" if None in values else f"{what} {statistics.fmean(values):.1f}x")
    ours, base = (statistics.fmean(pair["accuracy"][a] for pair in pairs) for a in ("ftte_common", "fedavg"))
    return f"{', '.join(dict.fromkeys(gains))}; {ours:.3f} of {base:.3f} ({len(pairs)})"
