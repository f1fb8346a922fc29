"""Budgets that nothing fits are refused before anything else is worked out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mobile_sdk.sizes import format_bytes

from ..errors import BudgetError
from ..importance.evidence import Evidence
from ..space import Space
from ..task import Task
from .measurements import Measurements

__all__ = ["check_budgets", "check_least", "too_small"]

# A plan inside another may take a little less than the same plan alone: what is near the limit is left to the search.
_NEAR = 1.2


def check_budgets(task: Task, budgets: Sequence[int]) -> int:
    """
    Refuse budgets that are too small for any plan: one program is exported and measured.

    Returns:
        Bytes that are enough for some plan; a budget that is a little smaller may be, too.

    Raises:
        BudgetError: if one is; it names the smallest budget that can be met.
        ExportError: if the model cannot be lowered.

    """
    return check_least(Evidence(Space(task)), budgets)


def check_least(evidence: Evidence, budgets: Sequence[int]) -> int:
    """
    The same check with a task's evidence at hand: its smallest plan is measured, or was.

    Args:
        evidence: what is known of the task.
        budgets: bytes.

    Returns:
        Bytes that are enough for some plan.

    Raises:
        BudgetError: if the smallest plan does not fit the smallest budget.

    """
    least = Measurements(evidence)(evidence.space.last(1), evidence.space.task.least_micro_batch)
    if min(budgets) * _NEAR < least:
        raise too_small(evidence.space.task, min(budgets), least)
    return _enough(least)


def _enough(least: int) -> int:
    return math.ceil(least * 1.02 / 10_000) * 10_000


def too_small(task: Task, budget: int, least: int) -> BudgetError:
    """
    The error of a budget; ``least`` bytes are what the smallest plan was measured to take.

    Args:
        task: for the message.
        budget: bytes that were asked for.
        least: bytes of the smallest plan, as measured.

    """
    least_bytes = _enough(least)
    samples = "one sample" if task.least_micro_batch == 1 else f"{task.least_micro_batch} samples"
    return BudgetError(
        f"no plan of task {task.name!r} fits {format_bytes(budget)}: training its last layer, "
        f"{samples} at a time, takes {format_bytes(least_bytes)}; set at least that",
        least_bytes,
    )
