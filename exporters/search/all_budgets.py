"""
Plans of all budgets, measured.

``nested``: one plan per budget. The largest comes first: what it freezes, no device trains, so it goes inside all
programs of the run. Then the others, smallest first, each inside the next. ``common``: one plan, that of the smallest
budget, for everybody. Either way a plan is built and measured before it is taken, and measured again when it is
exported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mobile_sdk.sizes import format_bytes

from ..errors import ExportError
from ..importance.evidence import Evidence, Progress, silent
from ..importance.finetune import FineTuning
from ..importance import SELECTORS, Scores
from ..cache.journal import Journal
from ..plan import Plan
from ..space import FROZEN, Levels, Space
from ..task import Samples, Task
from ..processes import Workers
from .measurements import Measurements
from .one_budget import Search, Tier

__all__ = ["DEFAULT_SELECTOR", "MODES", "Mode", "Tier", "Tiers", "plan_for", "plan_tiers", "plans_for"]

Mode = Literal["nested", "common"]
MODES: tuple[Mode, ...] = ("nested", "common")
DEFAULT_SELECTOR = "sensitivity"


@dataclasses.dataclass(frozen=True)
class Tiers:
    """All tiers of a run, smallest budget first, and what the choice was made on."""

    space: Space
    scores: Scores
    mode: Mode
    tiers: tuple[Tier, ...]
    everything: int

    def coverage(self) -> list[int]:
        """Per layer, how many tiers train at least a part of it."""
        levels = [tier.levels for tier in self.tiers]
        return [sum(row[i] != FROZEN for row in levels) for i in range(len(self.space))]


def plan_tiers(
    evidence: Evidence,
    scores: Scores,
    budgets: Sequence[int],
    *,
    mode: Mode = "nested",
    shrink: bool = False,
    measurements: Measurements | None = None,
) -> Tiers:
    """
    The plans of ``budgets``.

    Args:
        evidence: space, seed, processors, journal.
        scores: what layers are expected to add.
        budgets: bytes that a training step may take, as :func:`~exporters.memory.measure.measure` counts them.
        mode: a plan for each, nested, or the smallest one's for all.
        shrink: whether a smaller micro-batch may be taken to train more; otherwise only where nothing fits.
        measurements: what other searches in this space have measured, and learned to predict.

    Raises:
        BudgetError: if no plan fits one of them; it names the smallest budget that can be met.
        ExportError: if the model cannot be lowered.

    """
    if mode not in MODES:
        raise ExportError(f"there is no mode {mode!r}; use {' or '.join(MODES)}")
    space = evidence.space
    ordered = sorted(budgets)
    largest = ordered[0] if mode == "common" else ordered[-1]
    alone = measurements or Measurements(evidence)
    evidence.progress(f"searching for {format_bytes(largest)}", 0, len(ordered))
    # Smaller tiers lie inside the largest: it trains the last layer, which takes least, so that there is one for them.
    floor = space.last(1) if largest > ordered[0] else (FROZEN,) * len(space)
    top = Search(evidence, scores, alone, space.last(len(space)), shrink).settle(largest, floor)
    if mode == "common":
        tiers = [dataclasses.replace(top, budget=budget) for budget in ordered]
    else:
        tiers = _below(top, ordered[:-1], evidence, scores, shrink)
    return Tiers(space, scores, mode, tuple(tiers), alone.everything(space.task.micro_batch))


def _below(top: Tier, budgets: Sequence[int], evidence: Evidence, scores: Scores, shrink: bool) -> list[Tier]:
    """The tiers of smaller budgets, smallest first, each inside the next and all inside ``top``, which is the last."""
    measurements = Measurements(evidence, top.plan.baked)
    search = Search(evidence, scores, measurements, top.levels, shrink)
    floor: Levels = (FROZEN,) * len(top.levels)
    tiers: list[Tier] = []
    for budget in budgets:
        evidence.progress(f"searching for {format_bytes(budget)}", 1 + len(tiers), 1 + len(budgets))
        tiers.append(search.settle(budget, floor))
        floor = tiers[-1].levels
    return [*tiers, top]


def plans_for(
    task: Task,
    budgets: Sequence[int],
    *,
    mode: Mode = "nested",
    selector: str | None = None,
    shrink: bool = False,
    samples: Samples | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    processes: int | None = 1,
    progress: Callable[[str], None] | None = None,
) -> list[Plan]:
    """
    The plans of ``budgets``, in their order.

    Args:
        task: what to learn.
        budgets: bytes that a training step may take.
        mode: see :mod:`exporters.search.all_budgets`.
        selector: a name in :data:`~exporters.importance.SELECTORS`; :data:`DEFAULT_SELECTOR` where :obj:`None`.
        shrink: see :func:`plan_tiers`.
        samples: what selectors look at; the task's proxy data where :obj:`None`.
        seed: fixes every draw.
        journal: what earlier searches worked out.
        processes: to work on; as many as there are processors for :obj:`None`.
        progress: called with a line of text as the search goes on.

    Raises:
        BudgetError: if no plan fits one of them; it names the smallest budget that can be met.
        ExportError: if the model cannot be lowered, or the selector needs data that the task does not give.

    """
    say = progress
    report: Progress = silent if say is None else lambda stage, done, total: say(f"{stage}: {done} of {total}")
    evidence = evidence_of(task, samples=samples, seed=seed, journal=journal, processes=processes, progress=report)
    scores = select(evidence, selector)
    tiers = plan_tiers(evidence, scores, budgets, mode=mode, shrink=shrink)
    by_budget = {tier.budget: tier.plan for tier in tiers.tiers}
    return [by_budget[budget] for budget in budgets]


def plan_for(task: Task, budget: int, *, progress: Callable[[str], None] | None = None) -> Plan:
    """The plan of a single budget; see :func:`plans_for`."""
    return plans_for(task, [budget], progress=progress)[0]


def evidence_of(
    task: Task,
    *,
    samples: Samples | None = None,
    seed: int = 0,
    fine_tuning: FineTuning | None = None,
    journal: Journal | None = None,
    processes: int | None = None,
    progress: Progress = silent,
) -> Evidence:
    """
    What selectors look at: the task's space, and ``samples`` or the task's proxy data.

    Raises:
        ExportError: if the samples do not fit the task's contract.

    """
    if samples is None and task.proxy is not None:
        samples = task.proxy()
    return Evidence(
        Space(task),
        None if samples is None else _checked(task, samples),
        seed=seed,
        fine_tuning=fine_tuning or FineTuning(),
        workers=Workers(processes),
        journal=Journal() if journal is None else journal,
        progress=progress,
    )


def _checked(task: Task, samples: Samples) -> tuple[Tensor, Tensor]:
    x, y = (torch.as_tensor(part) for part in samples)
    contract = task.contract
    for name, part, shape, dtype in (
        ("x", x, contract.x_shape, contract.x_dtype),
        ("y", y, contract.y_shape, contract.y_dtype),
    ):
        found = str(part.dtype).removeprefix("torch.")
        if tuple(part.shape[1:]) != shape or found != dtype or len(part) != len(x):
            raise ExportError(
                f"the proxy data's {name} is {found} of shape {tuple(part.shape)}; task {task.name!r} takes {dtype} of "
                f"shape (n, {', '.join(map(str, shape))})"
            )
    return x, y


def select(evidence: Evidence, selector: str | None) -> Scores:
    """
    The scores of a selector by its name.

    Raises:
        ExportError: if there is none of this name, or it needs data that are not there.

    """
    name = selector or DEFAULT_SELECTOR
    if name not in SELECTORS:
        raise ExportError(f"there is no selector {name!r}; use one of {', '.join(SELECTORS)}")
    return SELECTORS[name](evidence)
