"""Plan and export the programs of a run in worker processes, which end when it is done."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing.util
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mobile_sdk import safetensors
from mobile_sdk.fields import parts
from mobile_sdk.layout import Vector
from mobile_sdk.sizes import format_count
from mobile_sdk.system.spawning import SPAWN

from ..config import Config, PlanningSection
from .worker_progress import Sender, hear_workers, say_now_and_then, speak_through

__all__ = ["FIRST_SERIAL", "ExportedRun", "Progress", "check_budget", "export_all", "identify_task", "stop_planning"]

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


@dataclasses.dataclass(frozen=True)
class ExportedRun:
    """
    All that a run begins with.

    ``frozen`` names what may be rounded, ``evaluation`` is the held-out data as a safetensors file or empty,
    ``identity`` says which task it was; see :mod:`exporters.identity`. ``learning_rate`` was found for it, if one was
    wanted and could be.
    """

    programs: list[_Exported]
    frozen: list[str]
    evaluation: bytes
    identity: dict[str, Any]
    learning_rate: float | None = None


def identify_task(task: str) -> dict[str, Any]:
    """
    The identity of a task, found in a process of its own, since it needs torch.

    Raises:
        TaskError: if the task cannot be loaded.

    """
    with concurrent.futures.ProcessPoolExecutor(1, SPAWN, _end_with_workers) as pool:
        return pool.submit(_identify, task).result()


def check_budget(task: str, budget: int) -> None:
    """
    Whether any program of a task fits a budget in bytes; in a process of its own, within some seconds.

    Raises:
        BudgetError: if none does; it names the smallest budget that can be met.
        ExportError: if the task cannot be loaded, or its model not be lowered.

    """
    with concurrent.futures.ProcessPoolExecutor(1, SPAWN, _end_with_workers) as pool:
        pool.submit(_check_budget, task, budget).result()


def export_all(config: Config, progress: Progress) -> ExportedRun:
    """
    Plan and export every tier, as many at once as there are processors.

    One plan for all devices is one program, of the smallest tier.
    """
    tiers = sorted(config.budgets, key=lambda tier: config.budgets[tier])
    if config.planning.mode == "common":
        tiers = tiers[:1]
    journal = config.run.state / "planning.json"
    workers = min(len(tiers), os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(hear_workers(SPAWN, progress))
        executor = concurrent.futures.ProcessPoolExecutor(workers, SPAWN, _prepare_worker, (said,))
        pool = stack.enter_context(executor)
        _pools.add(pool)
        stack.callback(_pools.discard, pool)
        stack.push(_stop_if_interrupted)
        progress("importing torch, to check the task")
        for sentence in pool.submit(_check, config).result():
            progress(f"warning: {sentence}")
        evaluation = pool.submit(_held_out, config.run.task)
        identity = pool.submit(_identify, config.run.task)
        rate = pool.submit(_learning_rate, config) if config.training.learning_rate == "auto" else None
        progress("searching what to train within the budgets")
        budgets = [config.budgets[tier] for tier in tiers]
        plans, frozen = pool.submit(_plan, config.run.task, budgets, config.planning, journal).result()
        rounding = (frozen, config.planning.frozen_bits)
        progress(f"exporting and verifying {format_count(len(tiers), 'program')}")
        waiting = [
            pool.submit(_export, config.run.task, config.run.name, tier, config.budgets[tier], plan, rounding)
            for tier, plan in zip(tiers, plans, strict=True)
        ]
        for done, _ in enumerate(concurrent.futures.as_completed(waiting), 1):
            progress(f"exported and verified {done} of {format_count(len(tiers), 'program')}")
        exported = [future.result() for future in waiting]
        journal.unlink(missing_ok=True)
        found = None if rate is None else rate.result()
        return ExportedRun(exported, frozen, evaluation.result(), identity.result(), found)


def stop_planning() -> None:
    """End the processes that plan; a thread that waits for them gets ``BrokenProcessPool``, and ends too."""
    for pool in list(_pools):
        for process in list(pool._processes.values()):
            process.terminate()


def _stop_if_interrupted(kind: type[BaseException] | None, *_: object) -> None:
    """By Ctrl-C, which workers do not hear: nobody waits for what they do."""
    if kind is KeyboardInterrupt:
        stop_planning()


def _prepare_worker(said: Sender) -> None:
    """In a worker: its progress goes through ``said``."""
    speak_through(said)
    _end_with_workers()


def _end_with_workers() -> None:
    """In a worker: on SIGTERM, end with all processes that this one has started."""
    from exporters import processes

    def end(signum: int, frame: object) -> None:
        processes.stop_all()
        # Frees the pools' semaphores, of which Python would warn otherwise.
        multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
        os._exit(1)

    signal.signal(signal.SIGTERM, end)


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
                progress=say_now_and_then(),
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
        from exporters.program.rounding import round_weights
        from exporters.task import load_task

        loaded = load_task(task)
        names, bits = rounding
        if bits is not None:
            loaded = round_weights(loaded, names, bits)
        program = export(loaded, budget=budget, plan=Plan.from_json(loaded.layout, plan)).for_run(
            run, FIRST_SERIAL, tier
        )
        return _Exported(tier, program.manifest.to_bytes(), program.pte, program.graph, program.weights)


def _check(config: Config) -> list[str]:
    """In a worker: refuse what planning would run into, and give the warnings about the rest."""
    from exporters.quiet import quiet

    with quiet():
        from ..checks.findings import raise_first_error
        from ..checks.task import check_task

        return raise_first_error(check_task(config))


def _check_budget(task: str, budget: int) -> None:
    from exporters.quiet import quiet

    with quiet():
        from exporters.search import check_budgets
        from exporters.task import load_task

        check_budgets(load_task(task), [budget])


def _identify(task: str) -> dict[str, Any]:
    """In a worker: which task it is."""
    from exporters.quiet import quiet

    with quiet():
        from exporters.identity import identify_reference

        return identify_reference(task)


def _learning_rate(config: Config) -> float | None:
    """In a worker: a learning rate for the task, from the operator's samples, or else from the held-out ones."""
    from exporters.quiet import quiet

    with quiet():
        import torch

        from exporters.batches import as_batch
        from exporters.search.learning_rate import find_learning_rate
        from exporters.task import load_samples, load_task
        from exporters.user_code import call_users

        from ..checks.samples import fit_samples

        torch.set_num_threads(1)  # tiers are planned beside it
        task, data, settings = load_task(config.run.task), config.planning.data, config.training
        if data:
            own = load_samples(data)
        elif task.held_out is not None:
            own = call_users(task.held_out, "held_out")
        else:
            return None
        x, y = fit_samples(task, own, "the samples to find a learning rate with")
        return find_learning_rate(
            task,
            (as_batch(x, "x", []), as_batch(y, "y", [])),
            batch_size=settings.batch_size,
            optimiser=settings.optimiser,
            momentum=settings.momentum,
        )


def _held_out(task: str) -> bytes:
    """In a worker: the task's held-out data as a safetensors file, or nothing."""
    from exporters.task import load_task
    from exporters.user_code import call_users

    from ..checks.samples import fit_samples

    loaded = load_task(task)
    if loaded.held_out is None:
        return b""
    samples = fit_samples(loaded, call_users(loaded.held_out, "held_out"), "the held-out data")
    arrays = {
        f"{name}.{part}" if part else name: np.ascontiguousarray(array)
        for name, batch in zip("xy", samples, strict=True)
        for part, array in parts(batch).items()
    }
    return safetensors.dumps(arrays)
