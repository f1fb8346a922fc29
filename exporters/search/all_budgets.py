"""
Plans of all budgets, measured.

``nested``: one plan per budget. The largest comes first: what it freezes, no device trains, so it goes inside all
programs of the run. Then the others, smallest first, each inside the next. ``common``: one plan, that of the smallest
budget, for everybody. Either way a plan is built and measured before it is taken, and measured again when it is
exported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from mobile_sdk.sizes import format_bytes

from ..errors import ExportError
from ..importance import Scores
from ..importance.evidence import Evidence
from ..space import FROZEN, Levels, Space
from .measurements import Measurements
from .one_budget import PlannedTier, Search

__all__ = ["MODES", "Mode", "Tiers", "plan_tiers"]

Mode = Literal["nested", "common"]
MODES: tuple[Mode, ...] = ("nested", "common")


@dataclasses.dataclass(frozen=True)
class Tiers:
    """All tiers of a run, smallest budget first, and what the choice was made on."""

    space: Space
    scores: Scores
    mode: Mode
    tiers: tuple[PlannedTier, ...]
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
    shrink: bool = True,
    measurements: Measurements | None = None,
) -> Tiers:
    """
    The plans of ``budgets``.

    Args:
        evidence: space, seed, processors, journal.
        scores: what layers are expected to add.
        budgets: bytes that a training step may take, as :func:`~exporters.memory.measure.measure` counts them.
        mode: a plan for each, nested, or the smallest one's for all.
        shrink: whether a smaller micro-batch is taken where it trains more, or only where nothing fits otherwise.
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


def _below(
    top: PlannedTier, budgets: Sequence[int], evidence: Evidence, scores: Scores, shrink: bool
) -> list[PlannedTier]:
    """The tiers of smaller budgets, smallest first, each inside the next and all inside ``top``, which is the last."""
    measurements = Measurements(evidence, top.plan.baked)
    search = Search(evidence, scores, measurements, top.levels, shrink)
    floor: Levels = (FROZEN,) * len(top.levels)
    tiers: list[PlannedTier] = []
    for budget in budgets:
        evidence.progress(f"searching for {format_bytes(budget)}", 1 + len(tiers), 1 + len(budgets))
        tiers.append(search.settle(budget, floor))
        floor = tiers[-1].levels
    return [*tiers, top]
