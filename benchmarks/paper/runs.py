"""The runs of the comparison with the paper: what each is, and those that were done before."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.paper.kept import KeptResult, KeptResults
from benchmarks.paper_task import BACKBONE
from coordinator.simulation.simulate import simulate
from coordinator.simulation.world.scenario import parse_scenario

__all__ = ["Paper", "Run", "grid"]

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "scenarios" / "paper.toml"
FULL = "40MB"
POINTS = 40
TUNING_POINTS = 8  # the final accuracy is all that a trial is for


@dataclasses.dataclass(frozen=True)
class Run:
    """One simulation: ``part`` says which figure it is for; ``changes`` are made last."""

    part: str
    algorithm: str
    seed: int
    devices: int
    stragglers: float
    slowdown: float
    law: str
    trips: int
    task: str = "from_pretrained"
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Paper:
    """The frozen scenario file. ``sha256`` is its hash, which every result names."""

    def __init__(self, path: Path = SCENARIO, kept: KeptResults | None = None) -> None:
        content = path.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.backbone = hashlib.sha256(BACKBONE.read_bytes()).hexdigest()
        self.kept = KeptResults() if kept is None else kept
        self.data = tomllib.loads(content.decode())
        self.section: dict[str, Any] = self.data["paper"]
        self.algorithms: dict[str, dict[str, Any]] = self.data["algorithms"]

    def settings(self, run: Run) -> dict[str, Any]:
        """The scenario of a run, as a scenario file's data."""
        data = merged(self.data["base"], self.algorithm(run.algorithm))
        data = merged(data, run.changes)
        buffer = data["merge"]["buffer"]
        adaptive = buffer == "auto"
        points = TUNING_POINTS if run.part == "tuning" else POINTS
        versions = 1 if adaptive else max(1, run.trips // buffer)
        data = merged(
            data,
            {
                "simulation": {
                    "devices": run.devices,
                    "seed": run.seed,
                    **(
                        {"evaluate_trips": max(1, run.trips // points)}
                        if adaptive
                        else {"evaluate_every": max(1, versions // points)}
                    ),
                },
                "stragglers": {"share": run.stragglers, "slowdown": run.slowdown, "law": run.law},
                "run": {"task": f"benchmarks.paper_task:{run.task}"},
                "stop": {"updates": run.trips} if adaptive else {"versions": versions},
            },
        )
        if data["scheduling"]["concurrency"] != "auto":
            data["scheduling"]["concurrency"] = min(data["scheduling"]["concurrency"], run.devices)
        if "full" in data["budgets"]:
            for section in data["devices"].values():
                section["memory"] = FULL
        return data

    def algorithm(self, name: str) -> dict[str, Any]:
        """What an algorithm changes, with what it is like."""
        own = dict(self.algorithms[name])
        base = own.pop("like", None)
        return own if base is None else merged(self.algorithm(base), own)

    def key(self, run: Run) -> str:
        """The name of a run's kept result: 20 hex digits of the hash of its settings and of the first weights."""
        if not run.task.startswith("from_pretrained"):
            return self.key_without_backbone(run)
        return _hash({**self.settings(run), "backbone": self.backbone})

    def key_without_backbone(self, run: Run) -> str:
        """As it was while every machine trained a backbone of its own, which moved FedAvg's end by 0.6 points."""
        return _hash(self.settings(run))

    def result(
        self, run: Run, *, workers: int | None = None, only_done: bool = False, older: bool = True
    ) -> dict[str, Any] | None:
        """
        What the run came to: as it was kept under the hash of its settings, or simulated now.

        ``older``: a result with a backbone of another machine will do.
        """
        settings = self.settings(run)
        key = self.key(run)
        if (same := self.kept.find(key)) is not None:  # perhaps made for another figure
            return same | {"run": dataclasses.asdict(run)}
        if older and (before := self.older_result(run)) is not None:
            return before
        if only_done:
            return None
        planned = [settings["run"], settings["budgets"], settings.get("planning")]
        plans = hashlib.sha256(json.dumps(planned).encode()).hexdigest()[:16]
        # The default when the first runs were made, which their keys do not name.
        unless_named = {"planning": {"shrink": False}}
        simulated = simulate(
            parse_scenario(merged(unless_named, settings), SCENARIO.parent),
            workers=workers,
            plans=Path.home() / ".cache" / "ftte" / "benchmarks" / "plans" / plans,
        )
        begins = {} if key == self.key_without_backbone(run) else {"backbone_sha256": self.backbone}
        result = {**simulated, **begins, "scenario_sha256": self.sha256, "run": dataclasses.asdict(run)}
        self.kept.add(KeptResult(key, run.part, run.algorithm, result))
        return result

    def older_result(self, run: Run) -> dict[str, Any] | None:
        """What is kept of the run from a machine that had trained its own backbone."""
        kept = self.kept.find(self.key_without_backbone(run))
        return None if kept is None else kept | {"run": dataclasses.asdict(run)}


def _hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:20]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, table by table; budgets are replaced as a whole."""
    result: dict[str, Any] = {k: merged(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and key != "budgets"
        result[key] = merged(result[key], value) if both else value
    return result


def grid(paper: Paper, *, quick: bool, rates: Mapping[str, float]) -> Iterator[Run]:
    """
    Every run, in the order of how much it tells.

    Args:
        paper: the frozen file.
        quick: the small fleet, and the headline alone.
        rates: learning rate of each algorithm, as tuned; the scenario's where it is missing.

    """
    section = paper.section
    size = section["quick"] if quick else section
    headline = ["fedavg", "ftte_common", "ours", "ftte_nested", "fedbuff"]
    others = [
        "fedavg_subset",
        "fedavg_int8",
        "fedbuff_int8",
        "ftte_common_int8",
        "ours_nested",
        "fedavg_over_selection",
        "fedasync",
    ]

    def run(part: str, algorithm: str, seed: int, **given: Any) -> Run:
        changes = merged({"training": {"learning_rate": rates[algorithm]}} if algorithm in rates else {}, {})
        changes = merged(changes, given.pop("changes", {}))
        plain = {
            "devices": size["devices"],
            "stragglers": section["stragglers"],
            "slowdown": section["slowdown"],
            "law": section["law"],
            "trips": size["trips"],
        }
        return Run(part, algorithm, seed, **(plain | given), changes=changes)

    seeds = size["seeds"]
    for seed in seeds:
        yield from (run("headline", algorithm, seed) for algorithm in headline)
    for seed in seeds:
        yield from (run("headline", algorithm, seed) for algorithm in others)
    for law in section["curve"]["laws"]:
        for slowdown in section["curve"]["slowdowns"]:
            for algorithm in ("fedavg", "ftte_common"):
                yield from (run("curve", algorithm, seed, law=law, slowdown=slowdown) for seed in seeds[:1])
    ablations = paper.data["ablations"]
    staleness = ablations["staleness"]
    for policy in staleness["policies"]:
        changes = {"data": staleness["data"], "merge": {"staleness": {"policy": policy}}}
        yield from (run("staleness", staleness["algorithm"], seed, changes=changes) for seed in seeds)
    changes = {"data": staleness["data"], "merge": {"staleness": staleness["variance_only"]}}
    yield from (run("staleness", staleness["algorithm"], seed, changes=changes) for seed in seeds)
    for buffer in ablations["buffer"]["buffers"]:
        changes = {"merge": {"buffer": buffer}}
        yield from (run("buffer", ablations["buffer"]["algorithm"], seed, changes=changes) for seed in seeds)
    for algorithm in ablations["split"]["algorithms"]:
        changes = {"data": ablations["split"]["data"]}
        yield from (run("split", algorithm, seed, changes=changes) for seed in seeds)
    nested = ablations["nested"]
    changes = {"merge": nested["merge"], "training": nested["training"]}
    yield from (run("nested", nested["algorithm"], seed, changes=changes) for seed in seeds)
    longer, of_nested = ablations["longer"], {nested["algorithm"]: changes}
    for algorithm in longer["algorithms"]:
        own = of_nested.get(algorithm, {})
        yield from (run("longer", algorithm, seed, trips=longer["trips"], changes=own) for seed in seeds[:1])
    for selector in ablations["selectors"]:
        changes = {"planning": selector["planning"]}
        yield from (run("selector", selector["algorithm"], seed, changes=changes) for seed in seeds)
    for rate in ablations["rate"]["learning_rates"]:
        changes = {"training": {"learning_rate": rate}}
        yield from (run("rate", ablations["rate"]["algorithm"], seed, changes=changes) for seed in seeds)
    for algorithm in ("fedavg", "ftte_common", "ftte_nested"):
        own = of_nested.get(algorithm, {})
        yield from (run("random", algorithm, seed, task="from_random", changes=own) for seed in seeds)
    if quick:
        return
    fewer = ablations["concurrency"]
    for algorithm in ("fedavg", "ftte_common"):
        own = {} if algorithm == "fedavg" else {"scheduling": {"concurrency": fewer["concurrency"]}}
        yield from (
            run("concurrency", algorithm, seed, stragglers=fewer["stragglers"], changes=own) for seed in seeds[:1]
        )
    for devices in section["grid"]["devices"]:
        for stragglers in section["grid"]["stragglers"]:
            for algorithm in ("fedavg", "ftte_common"):
                for seed in seeds:
                    yield run("grid", algorithm, seed, devices=devices, stragglers=stragglers)


def trials(paper: Paper, *, quick: bool) -> Iterator[tuple[str, float, Run]]:
    """(algorithm, learning rate, run): the same number for each; seeds and validation part are not those reported."""
    section = paper.section
    tuning = section["tuning"]
    size = section["quick"] if quick else section
    for algorithm in ("fedavg", "fedbuff", "ftte_common", "ftte_nested"):
        for rate in tuning["learning_rates"]:
            for seed in tuning["seeds"]:
                trips = min(tuning["trips"], size["trips"])
                yield (
                    algorithm,
                    rate,
                    Run(
                        "tuning",
                        algorithm,
                        seed,
                        size["devices"],
                        section["stragglers"],
                        section["slowdown"],
                        section["law"],
                        trips,
                        task="from_pretrained_tuning",
                        changes={"training": {"learning_rate": rate}},
                    ),
                )
