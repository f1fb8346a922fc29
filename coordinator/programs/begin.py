"""
Begin a run: plan a program per memory budget, sign them, and write down version 0.

Exporting needs torch, which takes hundreds of megabytes and blocks for seconds. It happens once, in
worker processes that end when it is done, so that the coordinator itself stays small.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mobile_sdk.manifest import Manifest
from mobile_sdk.payload import Grid, pack, pack_text
from mobile_sdk.protocol.messages import ArtifactRef, Sha256
from mobile_sdk.training.settings import TrainingSettings

from ..config import Config, PlanningSection
from ..errors import ConfigError, StoreError
from ..evaluation.central import Evaluator, engine_of
from ..store.interface import ArtifactStore, Store
from ..store.records import RunRecord, TierRecord, VersionRecord
from ..versions.files import put_weights, trained_part
from .export_workers import Progress, export_all
from .plan_checks import check_tiers
from .run_key import RunKey
from .same_task import TaskComparison, check_same_task
from .signing import sign_tiers
from .tiers import Tier, load_tiers

__all__ = ["begin_or_resume", "with_found"]

# What was found when the run began, among its plans; not compared with the run file.
RATE = "learning_rate"
_FOUND = ("identity", RATE)


def begin_or_resume(
    config: Config,
    store: Store,
    key: RunKey,
    now: float,
    progress: Progress,
    comparison: TaskComparison | None = None,
) -> list[Tier]:
    """
    The tiers of the run: as stored, or newly planned where the state directory is empty.

    Args:
        config: the run file.
        store: the run's state.
        key: signs the programs.
        now: wall time, for the records.
        progress: called with a sentence as planning goes on.
        comparison: knows already, perhaps, whether the task is that of the run's beginning.

    Raises:
        StoreError: if the state belongs to another run, or to the same with other plans or another task.
        ConfigError: if the task or a budget cannot be used.

    """
    default = PlanningSection().model_dump(mode="json")
    plans: dict[str, Any] = {
        "task": config.run.task,
        "budgets": dict(config.budgets),
        "planning": config.planning.model_dump(mode="json"),
    }
    existing = store.run()
    recorded = {} if existing is None else {k: v for k, v in existing.plans.items() if k not in _FOUND}
    if existing is None:
        _begin(config, store, key, now, progress, plans)
    elif existing.name != config.run.name:
        raise StoreError(
            f"the state directory {config.run.state} holds the run {existing.name!r}, not {config.run.name!r}"
        )
    elif {**recorded, "planning": default | recorded.get("planning", {})} != plans:
        raise StoreError(
            f"the run {existing.name!r} in {config.run.state} was planned for another task, other budgets or another "
            "[planning]: restore them in the run file, or give a new state directory"
        )
    else:
        check_same_task(config, existing.plans.get("identity", {}), progress, comparison)
    sign_tiers(store, key)
    tiers = load_tiers(store, config.training.settings.state_copies)
    for finding in check_tiers(tiers):
        progress(f"{finding.level}: {finding.sentence}")
    _check_goals(config, store, tiers[0].manifest.metrics)
    return tiers


def with_found(config: Config, store: Store, metrics: Collection[str]) -> Config:
    """
    The run file with what was found where it sets nothing; to be called when the run has begun.

    Args:
        config: the run file.
        store: the run's state.
        metrics: of the task, beside the loss.

    """
    run = store.run()
    rate = None if run is None else run.plans.get(RATE)
    changes: dict[str, Any] = {"evaluation": config.evaluation.for_task(metrics)}
    if config.training.learning_rate == "auto" and rate is not None:
        changes["training"] = config.training.model_copy(update={"learning_rate": float(rate)})
    return config.model_copy(update=changes)


def _check_goals(config: Config, store: Store, metrics: Collection[str]) -> None:
    """
    Whether central evaluation gives what ends the run.

    Raises:
        ConfigError: if it does not: the run would never end.

    """
    run, stop = store.run(), config.stop
    evaluates = run is not None and bool(run.evaluation)
    if stop.accuracy is not None and not (evaluates and "accuracy" in metrics):
        raise ConfigError("stop.accuracy needs a task with held-out data and a metric named accuracy")
    if stop.goal is None:
        return
    if not evaluates:
        raise ConfigError("stop.goal needs a task with held-out data: give Task(..., held_out=...)")
    metric, reported = config.evaluation.for_task(metrics).metric, {"loss", *metrics}
    if metric not in reported:
        raise ConfigError(
            f"stop.goal is a value of evaluation.metric {metric!r}, which is none of the task's metrics "
            f"({', '.join(sorted(reported))}): set evaluation.metric to one of them"
        )


def _begin(config: Config, store: Store, key: RunKey, now: float, progress: Progress, plans: dict[str, Any]) -> None:
    begun = export_all(config, progress)
    exported, frozen, evaluation = begun.programs, begun.frozen, begun.evaluation
    plans = {**plans, "identity": begun.identity, RATE: begun.learning_rate}
    if config.training.learning_rate == "auto":
        progress(
            "warning: no training.learning_rate was found: the task has too few held-out samples (planning.data can "
            "give more), fits them at no rate, or has a model too large for a short look; devices train with "
            f"{TrainingSettings().learning_rate:g}: set another in the run file"
            if begun.learning_rate is None
            else f"training.learning_rate is {begun.learning_rate:g}: the task fits its samples with twice that"
        )
    records = []
    subsets = []
    for item in exported:
        manifest = Manifest.from_bytes(item.manifest)
        subsets.append(manifest.subset)
        records.append(
            TierRecord(
                name=item.tier,
                serial=manifest.serial,
                budget_bytes=manifest.memory.budget_bytes,
                manifest=_put_packed(store.artifacts, pack_text(item.manifest)),
                signature=key.sign(item.manifest),
                program=_put_packed(store.artifacts, pack(item.program)),
                graph=_put_packed(store.artifacts, pack(item.graph)),
            )
        )
    layout = manifest.layout
    vector = exported[0].vector
    grid = None
    if config.payload.differences:
        grid = Grid.of(trained_part(subsets, layout.views(vector)), config.payload.grid_bits)
    inside = frozenset.intersection(*(frozenset(Manifest.from_bytes(item.manifest).baked) for item in exported))
    frozen_grid = None
    coarse = {name: view for name, view in layout.views(vector).items() if name in frozen and name not in inside}
    if coarse and config.payload.differences and config.planning.frozen_bits is not None:
        frozen_grid = Grid.of(coarse, config.planning.frozen_bits)
    put = put_weights(store.artifacts, layout, subsets, vector, grid, inside, frozen_grid)
    run = RunRecord(config.run.name, plans, store.artifacts.put(evaluation)[0].sha256 if evaluation else "", now)
    metrics = {}
    if evaluation:
        progress("evaluating version 0")
        engine = engine_of(exported[0].manifest, exported[0].program)
        metrics = Evaluator(engine, evaluation)(vector)
        engine.close()
    store.create(run, records, VersionRecord(0, -1, put.weights, metrics, now, kind="initial", private=put.private))


def _put_packed(artifacts: ArtifactStore, packed: tuple[bytes, str]) -> ArtifactRef:
    content, encoding = packed
    (entry,) = artifacts.put(content)
    return ArtifactRef(Sha256(entry.sha256), entry.size, encoding)
