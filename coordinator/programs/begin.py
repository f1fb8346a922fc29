"""
Begin a run: plan a program per memory budget, sign them, and write down version 0.

Exporting needs torch, which takes hundreds of megabytes and blocks for seconds. It happens once, in
worker processes that end when it is done, so that the coordinator itself stays small.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobile_sdk import safetensors
from mobile_sdk.layout import Vector
from mobile_sdk.manifest import Manifest
from mobile_sdk.payload import Grid, pack, pack_text
from mobile_sdk.protocol.messages import ArtifactRef, Sha256
from mobile_sdk.signing import ed25519, signed_bytes

from ..config import Config, PlanningSection
from ..errors import ConfigError, StoreError
from ..evaluation.central import Evaluator, engine_of
from ..evaluation.central_process import EvaluationProcess
from ..store.interface import RunRecord, Store, TierRecord, VersionRecord
from ..versions.history import put_weights, trained_part
from .run_key import RunKey
from .tiers import Tier, load_tiers, unpacked_manifest, unpacked_program

__all__ = ["begin_or_resume", "load_evaluator", "sign_tiers", "stop_planning"]

# Programs are numbered by the set they were exported in; a device never goes back.
FIRST_SERIAL = 1

Progress = Callable[[str], None]

# The processes that plan just now.
_pools: set[concurrent.futures.ProcessPoolExecutor] = set()


@dataclasses.dataclass(frozen=True)
class _Exported:
    """What comes back from a worker."""

    tier: str
    manifest: bytes
    program: bytes
    graph: bytes
    vector: Vector


def begin_or_resume(config: Config, store: Store, key: RunKey, now: float, progress: Progress) -> list[Tier]:
    """
    The tiers of the run: as stored, or newly planned where the state directory is empty.

    Args:
        config: the run file.
        store: the run's state.
        key: signs the programs.
        now: wall time, for the records.
        progress: called with a sentence as planning goes on.

    Raises:
        StoreError: if the state belongs to another run, or to the same with other plans.
        ConfigError: if the task or a budget cannot be used.

    """
    default = PlanningSection().model_dump(mode="json")
    plans: dict[str, Any] = {
        "task": config.run.task,
        "budgets": dict(config.budgets),
        "planning": config.planning.model_dump(mode="json"),
    }
    existing = store.run()
    if existing is None:
        _begin(config, store, key, now, progress, plans)
    elif existing.name != config.run.name:
        raise StoreError(
            f"the state directory {config.run.state} holds the run {existing.name!r}, not {config.run.name!r}"
        )
    elif {**existing.plans, "planning": default | existing.plans.get("planning", {})} != plans:
        raise StoreError(
            f"the run {existing.name!r} in {config.run.state} was planned for another task, other budgets or another "
            "[planning]: restore them in the run file, or give a new state directory"
        )
    sign_tiers(store, key)
    tiers = load_tiers(store, config.training.settings.state_copies)
    if config.stop.accuracy is not None and not _reports(store, tiers[0], "accuracy"):
        raise ConfigError("stop.accuracy needs a task with held-out data and a metric named accuracy")
    return tiers


def sign_tiers(store: Store, key: RunKey) -> None:
    """Sign the programs again that a key signed which ``key`` follows; whatever nobody signed stays so."""
    signatures = {}
    for record in store.tiers():
        manifest = unpacked_manifest(store, record)
        old = bytes.fromhex(record.signature)
        if any(ed25519.verify(bytes.fromhex(each), signed_bytes(manifest), old) for each in key.predecessors):
            signatures[record.name] = key.sign(manifest)
    if signatures:
        store.sign(signatures)


def _reports(store: Store, tier: Tier, metric: str) -> bool:
    """Whether central evaluation gives this metric."""
    run = store.run()
    return run is not None and bool(run.evaluation) and metric in tier.manifest.metrics


def _begin(config: Config, store: Store, key: RunKey, now: float, progress: Progress, plans: dict[str, Any]) -> None:
    exported, frozen, evaluation = _export_all(config, progress)
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
                manifest=_put_packed(store, pack_text(item.manifest)),
                signature=key.sign(item.manifest),
                program=_put_packed(store, pack(item.program)),
                graph=_put_packed(store, pack(item.graph)),
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
    put = put_weights(store, layout, subsets, vector, grid, inside, frozen_grid)
    run = RunRecord(config.run.name, plans, store.put(evaluation)[0].sha256 if evaluation else "", now)
    metrics = {}
    if evaluation:
        progress("evaluating version 0")
        engine = engine_of(exported[0].manifest, exported[0].program)
        metrics = Evaluator(engine, evaluation)(vector)
        engine.close()
    store.create(run, records, VersionRecord(0, -1, put.weights, metrics, now, kind="initial", private=put.private))


def _put_packed(store: Store, packed: tuple[bytes, str]) -> ArtifactRef:
    content, encoding = packed
    (entry,) = store.put(content)
    return ArtifactRef(Sha256(entry.sha256), entry.size, encoding)


def _export_all(config: Config, progress: Progress) -> tuple[list[_Exported], list[str], bytes]:
    """
    Plan and export every tier, as many at once as there are processors; and what may be rounded, and the held-out data.

    One plan for all devices is one program, of the smallest tier.
    """
    tiers = sorted(config.budgets, key=lambda tier: config.budgets[tier])
    if config.planning.mode == "common":
        tiers = tiers[:1]
    journal = config.run.state / "planning.json"
    workers = min(len(tiers), os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")  # torch and threads do not survive a fork
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ProcessPoolExecutor(workers, context, _end_with_workers))
        _pools.add(pool)
        stack.callback(_pools.discard, pool)
        evaluation = pool.submit(_held_out, config.run.task)
        progress("searching what to train within the budgets")
        budgets = [config.budgets[tier] for tier in tiers]
        plans, frozen = pool.submit(_plan, config.run.task, budgets, config.planning, journal).result()
        rounding = (frozen, config.planning.frozen_bits)
        progress(f"exporting and verifying {len(tiers)} programs")
        waiting = [
            pool.submit(_export, config.run.task, config.run.name, tier, config.budgets[tier], plan, rounding)
            for tier, plan in zip(tiers, plans, strict=True)
        ]
        for done, _ in enumerate(concurrent.futures.as_completed(waiting), 1):
            progress(f"exported and verified {done} of {len(tiers)} programs")
        exported = [future.result() for future in waiting]
        journal.unlink(missing_ok=True)
        return exported, frozen, evaluation.result()


def stop_planning() -> None:
    """End the processes that plan; a thread that waits for them gets ``BrokenProcessPool``, and ends too."""
    for pool in list(_pools):
        for process in list(pool._processes.values()):
            process.terminate()


def _end_with_workers() -> None:
    """In a worker: on SIGTERM, end with all processes that this one has started."""

    def end(signum: int, frame: object) -> None:
        workers = sys.modules.get("exporters.processes")
        if workers is not None:
            workers.stop_all()
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the coordinator decides


def _plan(task: str, budgets: list[int], planning: PlanningSection, journal: Path) -> tuple[list[Any], list[str]]:
    """
    In a worker: the plans of all budgets, as JSON values, and the names of the frozen weights that may be rounded.

    What it works out is kept in case it is stopped.
    """
    from exporters.quiet import quiet

    with quiet():
        from exporters.cache.journal import Journal
        from exporters.program.rounding import frozen_matrices
        from exporters.search import plans_for
        from exporters.search.baking import bake
        from exporters.search.plan_files import load
        from exporters.task import load_samples, load_task

        loaded = load_task(task)
        if planning.plans is not None:
            plans = load(planning.plans, loaded.layout, budgets)
        else:
            plans = plans_for(
                loaded,
                budgets,
                mode=planning.mode,
                selector=planning.selector,
                shrink=planning.shrink,
                samples=load_samples(planning.data) if planning.data else None,
                seed=planning.seed,
                journal=Journal(journal),
                processes=None,
            )
        if planning.bake:
            plans = bake(loaded, plans)
        return [plan.to_json() for plan in plans], frozen_matrices(loaded, plans)


def _export(
    task: str, run: str, tier: str, budget: int, plan: Any, rounding: tuple[list[str], int | None]
) -> _Exported:
    """In a worker: export and verify one program, with the frozen weights of these names on a grid of so many bits."""
    from exporters.quiet import quiet

    with quiet():
        from exporters import Plan, export
        from exporters.program.rounding import rounded
        from exporters.task import load_task

        loaded = load_task(task)
        names, bits = rounding
        if bits is not None:
            loaded = rounded(loaded, names, bits)
        program = export(loaded, budget=budget, plan=Plan.from_json(loaded.layout, plan)).for_run(
            run, FIRST_SERIAL, tier
        )
        return _Exported(tier, program.manifest.to_bytes(), program.pte, program.graph, program.weights)


def _held_out(task: str) -> bytes:
    """In a worker: the task's held-out data as a safetensors file, or nothing."""
    from exporters.task import load_task

    held_out = load_task(task).held_out
    if held_out is None:
        return b""
    x, y = held_out()
    return safetensors.dumps({"x": x, "y": y})


def load_evaluator(store: Store, tier: Tier) -> EvaluationProcess | None:
    """The run's central evaluation, in a program of ``tier``; none if the task has no held-out data."""
    run = store.run()
    if run is None or not run.evaluation:
        return None
    manifest = unpacked_manifest(store, tier.record)
    program = unpacked_program(store, tier.record)
    return EvaluationProcess(manifest, program, store.verified(run.evaluation).read_bytes())
