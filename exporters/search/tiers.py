"""
Plans of all budgets, measured.

``nested``: one plan per budget. The largest comes first: what it freezes, no device trains, so it goes inside all
programs of the run. Then the others, smallest first, each inside the next. ``common``: one plan, that of the smallest
budget, for everybody. Either way a plan is built and measured before it is taken, and measured again when it is
exported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mobile_sdk.sizes import format_bytes

from ..errors import BudgetError, ExportError
from ..evidence import Evidence, Progress, silent
from ..finetune import FineTuning
from ..importance import SELECTORS, Scores
from ..journal import Journal
from ..plan import Plan
from ..space import FROZEN, Levels, Space
from ..task import Samples, Task
from ..workers import Workers
from .candidates import candidates
from .measured import Measurements

__all__ = ["DEFAULT_SELECTOR", "MODES", "Mode", "Tier", "Tiers", "plan_for", "plan_tiers", "plans_for"]

Mode = Literal["nested", "common"]
MODES: tuple[Mode, ...] = ("nested", "common")
DEFAULT_SELECTOR = "sensitivity"

# Plans that are measured per budget before the best that fitted is taken; and while none has fitted yet.
_ROUNDS = 6
_MOST_ROUNDS = 16
# A plan that takes this much of its budget is not improved further.
_FULL = 0.95
# Layers that are raised one at a time to use what is left, if they are predicted to fit so many times the budget: where
# there is much room, predictions are off.
_RAISES = 8
_HOPE = 1.25


@dataclasses.dataclass(frozen=True)
class Tier:
    """
    A budget and the plan that was found for it.

    Args:
        budget: bytes.
        plan: what is trained.
        levels: the same, one level per layer.
        needs: bytes that it was measured to take, with a margin for repetition.
        gain: what the selector expects of it, in the unit of its scores.

    """

    budget: int
    plan: Plan
    levels: Levels
    needs: int
    gain: float


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
        budgets: bytes that a training step may take, as :func:`~exporters.measure.measure` counts them.
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
    top = _Search(evidence, scores, alone, space.last(len(space)), shrink).settle(largest, floor)
    if mode == "common":
        tiers = [dataclasses.replace(top, budget=budget) for budget in ordered]
    else:
        tiers = _below(top, ordered[:-1], evidence, scores, shrink)
    return Tiers(space, scores, mode, tuple(tiers), alone.everything(space.task.micro_batch))


def _below(top: Tier, budgets: Sequence[int], evidence: Evidence, scores: Scores, shrink: bool) -> list[Tier]:
    """The tiers of smaller budgets, smallest first, each inside the next and all inside ``top``, which is the last."""
    measurements = Measurements(evidence, top.plan.baked)
    search = _Search(evidence, scores, measurements, top.levels, shrink)
    floor: Levels = (FROZEN,) * len(top.levels)
    tiers: list[Tier] = []
    for budget in budgets:
        evidence.progress(f"searching for {format_bytes(budget)}", 1 + len(tiers), 1 + len(budgets))
        tiers.append(search.settle(budget, floor))
        floor = tiers[-1].levels
    return [*tiers, top]


class _Search:
    """How a budget is settled, among plans of which ``top`` is the largest."""

    def __init__(
        self, evidence: Evidence, scores: Scores, measurements: Measurements, top: Levels, shrink: bool
    ) -> None:
        self.evidence = evidence
        self.space = evidence.space
        self.scores = scores
        self.measurements = measurements
        self.top = top
        self.shrink = shrink

    def settle(self, budget: int, floor: Levels) -> Tier:
        """The best tier of a budget that has ``floor`` inside it."""
        size = self.space.task.micro_batch
        if self.top == self._whole() and self.measurements.everything(size) <= budget:
            return self._everything(budget, size)
        found: Tier | None = None
        smallest: list[int] = []
        while size >= 1:
            least = floor if any(floor) else self._last()
            needs = self.measurements(least, size)
            smallest.append(needs)
            if needs <= budget:
                tier = self._at(budget, floor, size) or self._raised(self._tier(budget, least, size), budget, size)
                # Fewer samples per step cost time: only for a gain that is worth it.
                if found is None or tier.gain > found.gain + 0.02 * abs(found.gain):
                    found = tier
                if not self.shrink or found.levels == self.top:
                    break
            size //= 2
        if found is not None:
            return found
        least_bytes = math.ceil(min(smallest) * 1.02 / 10_000) * 10_000
        raise BudgetError(
            f"no plan of task {self.space.task.name!r} fits {format_bytes(budget)}: training its last layer, "
            f"one sample at a time, takes {format_bytes(least_bytes)}; set at least that",
            least_bytes,
        )

    def _at(self, budget: int, floor: Levels, size: int) -> Tier | None:
        """The best plan that was measured within the budget at this micro-batch."""
        if self.scores.chain:
            return self._chain(budget, size)
        measurements = self.measurements
        measurements.calibrate(size)
        best: Tier | None = None
        limit = float(budget)
        tried: set[Levels] = set()
        stretch = 1.0
        for round_ in range(_MOST_ROUNDS):
            if round_ >= _ROUNDS and best is not None:
                break
            levels = candidates(self.evidence, self.scores, measurements.model.costs(size), (floor, self.top), limit)
            if levels is None:
                break
            if levels in tried:
                # The prediction says that no more fits, and there is room: see what it would give for a little more.
                if best is None or best.levels != levels or stretch > 1:
                    break
                stretch = math.sqrt(budget / best.needs)
                limit = budget * stretch
                continue
            needs = measurements(levels, size)
            tried.add(levels)
            if needs <= budget:
                tier = self._tier(budget, levels, size)
                if best is None or tier.gain > best.gain:
                    best = tier
                if needs >= _FULL * budget or limit < budget:
                    break
            elif stretch > 1:
                break
            else:
                # The measurement is in the prediction now; where that did not move it enough, ask for less: in small
                # steps, so as not to pass by what fits, and in larger ones once those have led nowhere.
                predicted = measurements.model.predict(levels, size)
                limit *= 0.97 if round_ < _ROUNDS - 1 else 0.9
                if predicted <= budget:
                    limit = min(limit, predicted * budget / needs)
        return None if best is None else self._raised(best, budget, size)

    def _raised(self, tier: Tier, budget: int, size: int) -> Tier:
        """The plan with single layers at higher levels, those of the largest gain first, while there is room."""
        tried: set[Levels] = set()
        for _ in range(_RAISES):
            if tier.needs >= _FULL * budget:
                break
            more = [levels for levels in self._next(tier.levels) if levels not in tried]
            fitting = [m for m in more if self.measurements.model.predict(m, size) <= _HOPE * budget]
            if not fitting:
                break
            levels = max(fitting, key=self.scores.of)
            tried.add(levels)
            if self.measurements(levels, size) <= budget:
                tier = self._tier(budget, levels, size)
        return tier

    def _next(self, levels: Levels) -> list[Levels]:
        """The plans with one layer at a higher level, which adds to their gain."""
        return [
            raised
            for at, (layer, top) in enumerate(zip(self.space.layers, self.top, strict=True))
            for level in layer.levels
            if levels[at] < level <= top
            and self.scores.of(raised := (*levels[:at], level, *levels[at + 1 :])) > self.scores.of(levels)
        ]

    def _chain(self, budget: int, size: int) -> Tier:
        """The last layers, as many as fit: memory grows with them, so a bisection finds how many."""
        fits, fails = 1, sum(level != FROZEN for level in self.top) + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self.measurements(self.space.last(middle), size) <= budget:
                fits = middle
            else:
                fails = middle
        return self._tier(budget, self.space.last(fits), size)

    def _tier(self, budget: int, levels: Levels, size: int) -> Tier:
        plan = self.measurements.plan(levels, size)
        return Tier(budget, plan, levels, self.measurements(levels, size), self.scores.of(levels))

    def _last(self) -> Levels:
        """The last layer that may be trained, and nothing else."""
        index = max(i for i, level in enumerate(self.top) if level != FROZEN)
        return self.space.only(index, self.top[index])

    def _whole(self) -> Levels:
        return self.space.last(len(self.space))

    def _everything(self, budget: int, size: int) -> Tier:
        levels = self._whole()
        plan = Plan.everything(self.space.task, size)
        return Tier(budget, plan, levels, self.measurements.everything(size), self.scores.of(levels))


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
        mode: see :mod:`exporters.search.tiers`.
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
