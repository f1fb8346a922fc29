"""
The largest plan that fits a budget.

Candidates are nested subsets, so their memory grows with them and a bisection finds the last that fits. A candidate is
built and measured, but not verified; what the search settles on is verified when it is exported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mobile_sdk.layout import Subset
from mobile_sdk.sizes import format_bytes

from .errors import BudgetError
from .importance import last_layers
from .measure import measure
from .plan import Plan
from .program import build
from .task import Task

__all__ = ["plan_for", "plans_for"]

# Measurements repeat within about one percent and some pages; a plan must fit whenever it is measured.
_MARGIN = 1.02
_PAGES = 16_384


def plan_for(task: Task, budget: int, *, progress: Callable[[str], None] | None = None) -> Plan:
    """The plan of a single budget; see :func:`plans_for`."""
    return plans_for(task, [budget], progress=progress)[0]


def plans_for(task: Task, budgets: Sequence[int], *, progress: Callable[[str], None] | None = None) -> list[Plan]:
    """
    For each budget the last layers of the model, as many as fit; candidates are measured once for all budgets.

    Where not even the last one fits at the task's micro-batch, it alone is trained at a smaller one; so the
    plan of a smaller budget always lies inside that of a larger one.

    Args:
        task: what to learn.
        budgets: bytes that a training step may take, as :func:`~exporters.measure.measure` counts them.
        progress: called with a line of text per candidate.

    Raises:
        BudgetError: if no plan fits one of them; it names the smallest budget that can be met.
        ExportError: if the model cannot be lowered.

    """
    subsets = last_layers.subsets(task)

    measured: dict[tuple[int, int], int] = {}

    def needs(count: int, micro_batch: int) -> int:
        known = measured.get((count, micro_batch))
        if known is None:
            plan = Plan(subsets[count - 1], micro_batch)
            known = int(measure(build(task, plan, ("train_step",))).total_bytes * _MARGIN) + _PAGES
            measured[count, micro_batch] = known
            if progress is not None:
                progress(f"last {count} of {len(subsets)} layers, micro-batch {micro_batch}: {format_bytes(known)}")
        return known

    return [_largest(task, subsets, budget, needs) for budget in budgets]


def _largest(task: Task, subsets: Sequence[Subset], budget: int, needs: Callable[[int, int], int]) -> Plan:
    """The largest candidate that fits, given what the last ``count`` layers need at a micro-batch."""
    size = task.micro_batch
    if needs(len(subsets), size) <= budget:
        return Plan(subsets[-1], size)
    smallest = needs(1, size)
    if smallest <= budget:
        fits, fails = 1, len(subsets)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if needs(middle, size) <= budget:
                fits = middle
            else:
                fails = middle
        return Plan(subsets[fits - 1], size)
    while size > 1:
        size //= 2
        smallest = min(smallest, needs(1, size))
        if smallest <= budget:
            return Plan(subsets[0], size)
    smallest = math.ceil(smallest * _MARGIN / 10_000) * 10_000
    raise BudgetError(
        f"no plan of task {task.name!r} fits {format_bytes(budget)}: training its last layer, one sample at a time, "
        f"takes {format_bytes(smallest)}; set at least that",
        smallest,
    )
